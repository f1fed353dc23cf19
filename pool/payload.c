/*
 * payload.c: an image's bytes on their way into the pool.
 *
 *     staged   reader -> volume of the staging pool -> (verified) -> uncompressed clone in the pool
 *     direct   reader -> volume in the pool, all but its front -> (verified) -> the front
 *
 * The front holds the head and the L1 table, and is checked before a byte is sent; the other tables
 * are looked at as they pass. Verified means: size and checksum are right, and the structure is
 * sound. A volume without its first cluster is no qcow2, and nothing can use it.
 *
 * An image whose volume is there already, unproven and in use, is staged, too, and compared.
 */
#include "pool/import.h"

#include <inttypes.h>
#include <string.h>

/* Where QEMU puts the L1 table, it ends ahead of this, even with the largest clusters. One that is
 * further behind is looked at as it passes, as the others are. */
#define FRONT_MAX ((uint64_t)8 << 20)

/* One payload and those of the import's steps that want it. */
struct payload {
    struct pool_import *import;
    struct uvm_reader data;
    const struct mirror_image *image; /* one of them; they share size and content */
    struct pool_step **steps;
    size_t count;
    struct uvm_buf front;
    const char *rest; /* of the reader's present block, behind the front */
    size_t rest_len;
    struct mirror_qcow2 info;
    struct mirror_qcow2_tables *tables;
    uint64_t inflated;            /* bytes that its compressed clusters become */
    struct pool_upload **uploads; /* the same bytes go into each */
    size_t upload_count;
};

static void close_uploads(struct payload *y)
{
    for (size_t k = 0; k < y->upload_count; k++)
        pool_upload_free(y->uploads[k]);
    y->upload_count = 0;
}

static void payload_clear(struct payload *y)
{
    close_uploads(y);
    mirror_qcow2_tables_free(y->tables);
    uvm_buf_clear(&y->front);
    free(y->uploads);
    free(y->steps);
}
#define auto_payload __attribute__((cleanup(payload_clear))) struct payload

/* A volume gets the image's own bytes, without a stay in the staging pool. */
static bool is_direct(const struct payload *y, const struct pool_step *step)
{
    return step->action != POOL_RELINK && y->import->flags & POOL_IMPORT_KEEP_COMPRESSED;
}

static bool needs_stage(const struct payload *y)
{
    for (size_t k = 0; k < y->count; k++) {
        if (!is_direct(y, y->steps[k]))
            return true;
    }
    return false;
}

/* ---- reading --------------------------------------------------------------------------------- */

/* Fills the front, and keeps what the block that completed it holds beyond. */
static bool fill_front(struct payload *y, uint64_t wanted, struct uvm_error *err)
{
    if (wanted > y->image->size)
        wanted = y->image->size;
    while (y->front.len < wanted) {
        const void *block = y->rest;
        size_t len = y->rest_len;
        if (len == 0 && !y->data.read(y->data.opaque, &block, &len, err))
            return false;
        if (len == 0)
            return uvm_fail(err, UVM_CONTENT, "%zu bytes came instead of %" PRIu64, y->front.len,
                            y->image->size);
        size_t part = wanted - y->front.len < len ? (size_t)(wanted - y->front.len) : len;
        if (!uvm_buf_add(&y->front, block, part, err))
            return false;
        y->rest = (const char *)block + part;
        y->rest_len = len - part;
    }
    return true;
}

static bool read_front(struct payload *y, struct uvm_error *err)
{
    if (!fill_front(y, MIRROR_QCOW2_HEAD, err) ||
        !mirror_qcow2_check(y->front.data, y->front.len, y->image->size, y->import->max_virtual,
                            &y->info, err))
        return false;
    uint64_t l1_end = y->info.l1_offset + (uint64_t)y->info.l1_entries * 8;
    return (l1_end > FRONT_MAX || fill_front(y, l1_end, err)) &&
           mirror_qcow2_tables_new(&y->info, y->image->size, &y->tables, err) &&
           mirror_qcow2_tables_feed(y->tables, y->front.data, y->front.len, err);
}

static bool send(struct payload *y, const void *data, size_t len, struct uvm_error *err)
{
    for (size_t k = 0; k < y->upload_count; k++) {
        if (!pool_upload_send(y->uploads[k], data, len, err))
            return false;
    }
    return true;
}

/* Sends everything behind the front, up to the reader's verified end. */
static bool send_rest(struct payload *y, struct uvm_error *err)
{
    const struct uvm_observer *observer = y->import->pool->observer;
    const void *block = y->rest;
    size_t len = y->rest_len;
    uint64_t sent = y->front.len;

    if (len == 0 && !y->data.read(y->data.opaque, &block, &len, err))
        return false;
    while (len > 0) {
        if (!uvm_go_on(observer, err) || !mirror_qcow2_tables_feed(y->tables, block, len, err) ||
            !send(y, block, len, err))
            return false;
        sent += len;
        uvm_progress(observer, "upload", y->steps[0]->title, sent, y->image->size);
        if (!y->data.read(y->data.opaque, &block, &len, err))
            return false;
    }
    if (sent != y->image->size)
        return uvm_fail(err, UVM_CONTENT, "%" PRIu64 " bytes came instead of %" PRIu64, sent,
                        y->image->size);
    return true;
}

/* ---- uploads --------------------------------------------------------------------------------- */

static bool open_upload(struct payload *y, struct pool_store *store, const char *name,
                        uint64_t offset, uint64_t length, struct uvm_error *err)
{
    struct pool_upload *upload = NULL;
    if (!pool_upload_begin(store, name, offset, length, &upload, err))
        return false;
    y->uploads[y->upload_count++] = upload;
    return true;
}

static bool finish_uploads(struct payload *y, struct uvm_error *err)
{
    for (size_t k = 0; k < y->upload_count; k++) {
        if (!pool_upload_finish(y->uploads[k], err))
            return false;
    }
    close_uploads(y);
    return true;
}

/* The staging pool's volume gets everything; it bears the name of the first step's. */
static bool open_stage(struct payload *y, struct uvm_error *err)
{
    struct pool_import *i = y->import;
    const struct pool_volume_spec spec = {y->steps[0]->name, "raw", y->image->size};
    bool exists = false;
    return (i->stage || pool_stage_open(i->pool, &i->stage, err)) &&
           pool_volume_create(i->stage, &spec, &exists, err) &&
           open_upload(y, i->stage, spec.name, 0, y->image->size, err) &&
           send(y, y->front.data, y->front.len, err);
}

static bool open_direct(struct payload *y, const char *name, struct uvm_error *err)
{
    struct pool_import *i = y->import;
    const struct pool_volume_spec spec = {name, "raw", y->image->size};
    uint64_t body = y->image->size - y->front.len;
    bool exists = false;
    if (!pool_import_claim(i, name, err))
        return false;
    if (!pool_volume_create(i->pool->store, &spec, &exists, err)) {
        if (exists)
            pool_import_disown_last(i);
        return false;
    }
    pool_import_remember(i, name);
    return body == 0 || open_upload(y, i->pool->store, name, y->front.len, body, err);
}

static bool open_all(struct payload *y, struct uvm_error *err)
{
    if (needs_stage(y) && !open_stage(y, err))
        return false;
    for (size_t k = 0; k < y->count; k++) {
        if (is_direct(y, y->steps[k]) && !open_direct(y, y->steps[k]->name, err))
            return false;
    }
    return true;
}

/* ---- tables that stood ahead of what leads to them ------------------------------------------- */

static bool feed(void *opaque, const void *data, size_t len, struct uvm_error *err)
{
    struct payload *y = opaque;
    return mirror_qcow2_tables_feed(y->tables, data, len, err);
}

/* The front is here; everything else is read back from where it was sent to. */
static bool see_again(struct payload *y, uint64_t offset, uint64_t len, struct uvm_error *err)
{
    struct pool_import *i = y->import;
    struct pool_store *store = needs_stage(y) ? i->stage : i->pool->store;
    const struct pool_sink sink = {.data = feed, .opaque = y};
    if (offset < y->front.len) {
        uint64_t part = y->front.len - offset < len ? y->front.len - offset : len;
        if (!feed(y, y->front.data + offset, (size_t)part, err))
            return false;
        offset += part;
        len -= part;
    }
    return len == 0 || pool_volume_read(store, y->steps[0]->name, offset, len, &sink, err);
}

static bool check_structure(struct payload *y, struct uvm_error *err)
{
    uint64_t offset = 0, len = 0;
    while (mirror_qcow2_tables_missing(y->tables, &offset, &len)) {
        if (!uvm_go_on(y->import->pool->observer, err) || !see_again(y, offset, len, err))
            return false;
    }
    return mirror_qcow2_tables_finish(y->tables, &y->inflated, err);
}

/* ---- a volume of each step ------------------------------------------------------------------- */

static bool check_clone_room(struct payload *y, struct uvm_error *err)
{
    struct pool_store *store = y->import->pool->store;
    uint64_t available = 0;
    return pool_store_refresh(store, err) && pool_store_available(store, &available, err) &&
           pool_check_room(store->path, y->inflated, POOL_NEED_AT_LEAST, available, err);
}

static bool clone(struct payload *y, const char *staged, struct pool_step *step,
                  struct uvm_error *err)
{
    struct pool_import *i = y->import;
    const struct pool_volume_spec spec = {step->name, "qcow2", y->info.virtual_size};
    bool exists = false;
    if (!check_clone_room(y, err) || !pool_import_claim(i, step->name, err))
        return false;
    if (!pool_volume_clone(i->stage, staged, i->pool->store, &spec, i->pool->observer, step->title,
                           &exists, err)) {
        if (exists)
            pool_import_disown_last(i);
        return false;
    }
    pool_import_remember(i, step->name);
    uvm_done(i->pool->observer, "convert", step->title, NULL);
    return true;
}

static bool prove(struct payload *y, const char *name, struct pool_step *step,
                  struct uvm_error *err)
{
    struct pool_import *i = y->import;
    const struct pool_staged staged = {name, step->image, y->info.virtual_size,
                                       y->inflated + y->image->size};
    uvm_auto_free char *why = NULL;
    if (!pool_prove(i, step->name, &staged, &why, err))
        return false;
    if (why)
        pool_plan_leave(&i->plan, step, why, i->pool->observer);
    else
        uvm_done(i->pool->observer, "verify", step->title, "its volume is this image");
    return true;
}

static bool finish_staged(struct payload *y, struct uvm_error *err)
{
    struct pool_import *i = y->import;
    const char *name = y->steps[0]->name;
    /* After the refresh libvirt sees that it is a qcow2. */
    if (!pool_store_refresh(i->stage, err))
        return false;
    for (size_t k = 0; k < y->count; k++) {
        struct pool_step *step = y->steps[k];
        if (is_direct(y, step))
            continue;
        if (!(step->action == POOL_RELINK ? prove(y, name, step, err)
                                          : clone(y, name, step, err)) ||
            !uvm_go_on(i->pool->observer, err))
            return false;
    }
    return pool_volume_delete(i->stage, name, POOL_WAIT, i->pool->observer, err);
}

static bool finish_direct(struct payload *y, struct uvm_error *err)
{
    struct pool *p = y->import->pool;
    for (size_t k = 0; k < y->count; k++) {
        if (is_direct(y, y->steps[k]) &&
            !open_upload(y, p->store, y->steps[k]->name, 0, y->front.len, err))
            return false;
    }
    return y->upload_count == 0 || (send(y, y->front.data, y->front.len, err) &&
                                    finish_uploads(y, err) && pool_store_refresh(p->store, err));
}

/* ---- an image -------------------------------------------------------------------------------- */

static bool import_payload(struct payload *y, struct uvm_error *err)
{
    struct pool_import *i = y->import;
    if (!read_front(y, err) || !pool_import_journal(i, err) || !open_all(y, err) ||
        !send_rest(y, err) || !finish_uploads(y, err) || !check_structure(y, err))
        return uvm_prefix(err, "%s", y->steps[0]->title);
    for (size_t k = 0; k < y->count; k++)
        uvm_done(i->pool->observer, "upload", y->steps[k]->title, NULL);
    if ((needs_stage(y) && !finish_staged(y, err)) || !finish_direct(y, err))
        return uvm_prefix(err, "%s", y->steps[0]->title);
    for (size_t k = 0; k < y->count; k++)
        y->steps[k]->done = y->steps[k]->action != POOL_SKIP;
    return true;
}

bool pool_import_image(struct pool_import *i, const struct mirror_image *const *images,
                       size_t count, struct uvm_reader data, struct uvm_error *err)
{
    auto_payload y = {.import = i, .data = data, .front = {.max = FRONT_MAX}};
    y.steps = uvm_alloc((count + 1) * sizeof(struct pool_step *));
    y.uploads = uvm_alloc((count + 1) * sizeof(struct pool_upload *));
    for (size_t k = 0; k < count; k++) {
        struct pool_step *step =
            pool_import_wants(i, images[k]) ? pool_import_step(i, images[k]) : NULL;
        if (!step)
            continue;
        y.steps[y.count++] = step;
        y.image = step->image;
    }
    return y.count == 0 || import_payload(&y, err);
}
