/*
 * put.c: a file that becomes a volume of the pool, or several at once:
 *
 *     | head, 64 KiB | front | body ............................. |
 *         sent last    sent first, in one upload
 *
 * Each name is journaled before its volume is made, raw and as large as the file. The head comes when
 * the body has ended, which means that it was verified. Before that the volume has no qcow2 header, and
 * nothing takes it for an image.
 */
#include "pool/import.h"

#include <inttypes.h>

struct put {
    struct pool_import *import;
    struct pool_step *const *steps;
    size_t count;
    const struct pool_file *file;
    size_t head;                  /* bytes of it */
    struct pool_upload **uploads; /* one for each step, or NULL */
    uint64_t sent;                /* bytes of the file, not counted for each step */
};

static void close_uploads(struct put *p)
{
    for (size_t k = 0; k < p->count; k++)
        pool_upload_free(UVM_STEAL(p->uploads[k]));
}

static void put_clear(struct put *p)
{
    close_uploads(p);
    free(p->uploads);
}
#define auto_put __attribute__((cleanup(put_clear))) struct put

/* ---- all of them at once --------------------------------------------------------------------- */

static bool make_volume(struct put *p, const char *name, struct uvm_error *err)
{
    struct pool_import *i = p->import;
    bool exists = false;
    if (!pool_import_claim(i, name, err))
        return false;
    if (!pool_volume_create(i->pool->store, name, p->file->size, &exists, err)) {
        if (exists)
            pool_import_disown_last(i);
        return false;
    }
    pool_import_remember(i, name);
    return true;
}

static bool make_volumes(struct put *p, struct uvm_error *err)
{
    for (size_t k = 0; k < p->count; k++) {
        if (!make_volume(p, p->steps[k]->name, err))
            return false;
    }
    return true;
}

static bool begin(struct put *p, uint64_t offset, uint64_t length, struct uvm_error *err)
{
    struct pool_store *store = p->import->pool->store;
    for (size_t k = 0; k < p->count; k++) {
        if (!pool_upload_begin(store, p->steps[k]->name, offset, length, &p->uploads[k], err))
            return false;
    }
    return true;
}

static bool send(struct put *p, const void *data, size_t len, struct uvm_error *err)
{
    const struct uvm_observer *observer = p->import->pool->observer;
    for (size_t k = 0; k < p->count; k++) {
        if (!pool_upload_send(p->uploads[k], data, len, err))
            return false;
    }
    p->sent += len;
    uvm_progress(observer, "upload", p->steps[0]->title, p->sent, p->file->size);
    return true;
}

static bool finish(struct put *p, struct uvm_error *err)
{
    for (size_t k = 0; k < p->count; k++) {
        if (!pool_upload_finish(p->uploads[k], err))
            return false;
    }
    close_uploads(p);
    return true;
}

/* ---- the file -------------------------------------------------------------------------------- */

static bool send_body(struct put *p, struct uvm_error *err)
{
    const struct uvm_reader *body = &p->file->body;
    uint64_t size = p->file->front_len;
    for (;;) {
        const void *block = NULL;
        size_t len = 0;
        if (!uvm_go_on(p->import->pool->observer, err) ||
            !body->read(body->opaque, &block, &len, err))
            return false;
        if (len == 0)
            break;
        size += len;
        if (!send(p, block, len, err))
            return false;
    }
    return size == p->file->size ||
           uvm_fail(err, UVM_CONTENT, "%" PRIu64 " bytes came instead of %" PRIu64, size,
                    p->file->size);
}

static bool send_behind_head(struct put *p, struct uvm_error *err)
{
    const char *front = p->file->front;
    uint64_t length = p->file->size - p->head;
    if (length == 0)
        return true;
    return begin(p, p->head, length, err) &&
           send(p, front + p->head, p->file->front_len - p->head, err) && send_body(p, err) &&
           finish(p, err);
}

/* What somebody else made under that name meanwhile gets no head of ours. */
static bool have_volumes(struct put *p, struct uvm_error *err)
{
    for (size_t k = 0; k < p->count; k++) {
        if (!pool_import_has(p->import, p->steps[k]->name, err))
            return false;
    }
    return true;
}

static bool send_head(struct put *p, struct uvm_error *err)
{
    return have_volumes(p, err) && begin(p, 0, p->head, err) &&
           send(p, p->file->front, p->head, err) && finish(p, err);
}

bool pool_put(struct pool_import *i, struct pool_step *const *steps, size_t count,
              const struct pool_file *file, struct uvm_error *err)
{
    auto_put p = {.import = i, .steps = steps, .count = count, .file = file};
    p.head = file->front_len < MIRROR_QCOW2_HEAD ? file->front_len : MIRROR_QCOW2_HEAD;
    p.uploads = uvm_alloc((count + 1) * sizeof(struct pool_upload *));
    return pool_space_in_pool(i->pool, file->size * count, err) && make_volumes(&p, err) &&
           send_behind_head(&p, err) && send_head(&p, err);
}
