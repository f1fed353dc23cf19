/*
 * payload.c: an image's bytes on their way into the pool.
 *
 *     staged   reader -> volume of the staging pool -> (verified) -> uncompressed clone in the pool
 *     direct   reader -> volume in the pool, all but its head -> (verified) -> the head
 *
 * A volume without its first cluster is no qcow2, and nothing can use it.
 */
#include "pool/import.h"

#include <inttypes.h>
#include <string.h>

/* One payload and those of the import's steps that want it. */
struct payload {
    struct pool_import *import;
    struct uvm_reader data;
    const struct mirror_image *image; /* one of them; they share size and content */
    struct pool_step **steps;
    size_t count;
    char *head; /* the first bytes, MIRROR_QCOW2_HEAD at most */
    size_t head_len;
    const char *rest; /* of the reader's present block, behind the head */
    size_t rest_len;
    struct mirror_qcow2 info;
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
    free(y->uploads);
    free(y->steps);
    free(y->head);
}
#define auto_payload __attribute__((cleanup(payload_clear))) struct payload

/* ---- reading --------------------------------------------------------------------------------- */

/* Fills the head, and keeps what the block that completed it holds beyond. */
static bool read_head(struct payload *y, struct uvm_error *err)
{
    y->head = uvm_alloc(MIRROR_QCOW2_HEAD);
    while (y->head_len < MIRROR_QCOW2_HEAD) {
        const void *block = NULL;
        size_t len = 0;
        if (!y->data.read(y->data.opaque, &block, &len, err))
            return false;
        if (len == 0)
            break;
        size_t part = MIRROR_QCOW2_HEAD - y->head_len;
        if (part > len)
            part = len;
        memcpy(y->head + y->head_len, block, part);
        y->head_len += part;
        y->rest = (const char *)block + part;
        y->rest_len = len - part;
    }
    return mirror_qcow2_check(y->head, y->head_len, y->image->size, y->import->max_virtual,
                              &y->info, err);
}

static bool send(struct payload *y, const void *data, size_t len, struct uvm_error *err)
{
    for (size_t k = 0; k < y->upload_count; k++) {
        if (!pool_upload_send(y->uploads[k], data, len, err))
            return false;
    }
    return true;
}

/* Sends everything behind the head, up to the reader's verified end. */
static bool send_rest(struct payload *y, struct uvm_error *err)
{
    const struct uvm_observer *observer = y->import->pool->observer;
    const void *block = y->rest;
    size_t len = y->rest_len;
    uint64_t sent = y->head_len;

    /* A head that is not full was the end already: reading on is not allowed then. */
    bool more = y->head_len == MIRROR_QCOW2_HEAD;
    if (more && len == 0 && !y->data.read(y->data.opaque, &block, &len, err))
        return false;
    while (more && len > 0) {
        sent += len;
        if (sent > y->image->size)
            return uvm_fail(err, UVM_CONTENT, "is longer than its %" PRIu64 " bytes",
                            y->image->size);
        if (!uvm_go_on(observer, err) || !send(y, block, len, err))
            return false;
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

/* ---- names in the pool ----------------------------------------------------------------------- */

static bool journal(struct pool_import *i, struct uvm_error *err)
{
    /* Also when writing fails: it may have failed after its effect. */
    i->journaled = true;
    const struct uvm_strings none = {0};
    return pool_journal_write_import(i->pool, &i->volumes, &none, err);
}

/* Takes the newest name out again: the volume that bears it is another program's. */
static void disown_last(struct pool_import *i)
{
    uvm_auto_error failed = UVM_ERROR_INIT;
    size_t last = i->volumes.count - 1;
    free(i->volumes.items[last]);
    i->volumes.items[last] = NULL;
    i->volumes.count = last;
    if (!journal(i, &failed))
        uvm_warning(i->pool->observer, "%s", failed.message);
}

/* Removes a volume that stands in the way without (sound) metadata. Since the plan was made a guest
 * may have come to use it. */
static bool remove_unproven(struct pool_import *i, const char *name, struct uvm_error *err)
{
    pool_auto_survey survey = {0};
    if (!pool_survey_take(i->pool, &survey, err))
        return false;
    const struct pool_entry *e = pool_survey_entry(&survey, name);
    if (e && (e->users.count > 0 || survey.doubts.count > 0))
        return uvm_fail(err, UVM_LIBVIRT, "its volume is here without metadata and in use: %s",
                        e->users.count > 0 ? e->users.items[0] : survey.doubts.items[0]);
    if (e && e->state == POOL_READY && e->metadata)
        return uvm_fail(err, UVM_LIBVIRT, "another program made this image in the meantime");
    uvm_auto_free char *path = uvm_format("%s/%s", i->pool->store->path, name);
    uvm_auto_error why = UVM_ERROR_INIT;
    if (e && !pool_file_idle(path, &why))
        return uvm_fail(err, UVM_LIBVIRT, "its volume is here without metadata, and %s",
                        why.message);
    return pool_metadata_unlink(i->pool, name, err) &&
           pool_volume_delete(i->pool->store, name, POOL_AT_ONCE, i->pool->observer, err);
}

/* Makes the name free, and journals it. The volume is to be made right after. */
static bool claim_name(struct pool_import *i, const char *name, struct uvm_error *err)
{
    bool taken = false, offered = false;
    if (!pool_volume_find(i->pool->store, name, &taken, NULL, err) ||
        !pool_metadata_exists(i->pool, name, &offered, err))
        return false;
    if ((taken || offered) && !remove_unproven(i, name, err))
        return false;
    /* A folder of that name would stop the commit when it is too late. */
    if (!pool_metadata_unlink(i->pool, name, err))
        return false;
    uvm_strings_add(&i->volumes, name);
    return journal(i, err);
}

/* From here on only this file is the volume that is verified, whatever bears its name. */
static void remember_file(struct pool_import *i, const char *name)
{
    uvm_auto_free char *path = uvm_format("%s/%s", i->pool->store->path, name);
    uvm_auto_free char *identity = pool_file_identity(path);
    if (identity)
        json_object_set_new(i->files, name, json_string(identity));
}

/* ---- the staged road ------------------------------------------------------------------------- */

static bool fill_stage(struct payload *y, const char *name, struct uvm_error *err)
{
    struct pool_store *stage = y->import->stage;
    const struct pool_volume_spec spec = {name, "raw", y->image->size};
    bool exists = false;
    return pool_volume_create(stage, &spec, &exists, err) &&
           open_upload(y, stage, name, 0, y->image->size, err) &&
           send(y, y->head, y->head_len, err) && send_rest(y, err) && finish_uploads(y, err) &&
           /* Now libvirt sees that it is a qcow2. */
           pool_store_refresh(stage, err);
}

static bool clone(struct payload *y, const char *staged, struct pool_step *step,
                  struct uvm_error *err)
{
    struct pool_import *i = y->import;
    const struct pool_volume_spec spec = {step->name, "qcow2", y->info.virtual_size};
    bool exists = false;
    if (!claim_name(i, step->name, err))
        return false;
    if (!pool_volume_clone(i->stage, staged, i->pool->store, &spec, i->pool->observer, step->title,
                           &exists, err)) {
        if (exists)
            disown_last(i);
        return false;
    }
    remember_file(i, step->name);
    uvm_done(i->pool->observer, "convert", step->title, NULL);
    return uvm_go_on(i->pool->observer, err);
}

static bool import_staged(struct payload *y, struct uvm_error *err)
{
    struct pool_import *i = y->import;
    const char *name = y->steps[0]->name;
    if (!i->stage && !pool_stage_open(i->pool, &i->stage, err))
        return false;
    if (!fill_stage(y, name, err))
        return false;
    uvm_done(i->pool->observer, "upload", y->steps[0]->title, NULL);
    for (size_t k = 0; k < y->count; k++) {
        if (!clone(y, name, y->steps[k], err))
            return false;
    }
    return pool_volume_delete(i->stage, name, POOL_WAIT, i->pool->observer, err);
}

/* ---- the direct road ------------------------------------------------------------------------- */

static bool create_direct(struct payload *y, const char *name, struct uvm_error *err)
{
    struct pool_import *i = y->import;
    const struct pool_volume_spec spec = {name, "raw", y->image->size};
    bool exists = false;
    if (!claim_name(i, name, err))
        return false;
    if (!pool_volume_create(i->pool->store, &spec, &exists, err)) {
        if (exists)
            disown_last(i);
        return false;
    }
    remember_file(i, name);
    return true;
}

static bool send_body(struct payload *y, struct uvm_error *err)
{
    uint64_t body = y->image->size > y->head_len ? y->image->size - y->head_len : 0;
    for (size_t k = 0; body && k < y->count; k++) {
        if (!open_upload(y, y->import->pool->store, y->steps[k]->name, y->head_len, body, err))
            return false;
    }
    return send_rest(y, err) && finish_uploads(y, err);
}

static bool send_head(struct payload *y, struct uvm_error *err)
{
    for (size_t k = 0; k < y->count; k++) {
        if (!open_upload(y, y->import->pool->store, y->steps[k]->name, 0, y->head_len, err))
            return false;
    }
    return send(y, y->head, y->head_len, err) && finish_uploads(y, err);
}

static bool import_direct(struct payload *y, struct uvm_error *err)
{
    struct pool *p = y->import->pool;
    for (size_t k = 0; k < y->count; k++) {
        if (!create_direct(y, y->steps[k]->name, err))
            return false;
    }
    /* After the refresh libvirt sees that they are qcow2. */
    if (!send_body(y, err) || !send_head(y, err) || !pool_store_refresh(p->store, err))
        return false;
    for (size_t k = 0; k < y->count; k++)
        uvm_done(p->observer, "upload", y->steps[k]->title, NULL);
    return true;
}

/* ---- an image -------------------------------------------------------------------------------- */

static bool import_payload(struct payload *y, struct uvm_error *err)
{
    struct pool_import *i = y->import;
    bool ok =
        read_head(y, err) && journal(i, err) &&
        (i->flags & POOL_IMPORT_KEEP_COMPRESSED ? import_direct(y, err) : import_staged(y, err));
    if (!ok)
        return uvm_prefix(err, "%s", y->steps[0]->title);
    for (size_t k = 0; k < y->count; k++)
        y->steps[k]->done = true;
    return true;
}

bool pool_import_image(struct pool_import *i, const struct mirror_image *const *images,
                       size_t count, struct uvm_reader data, struct uvm_error *err)
{
    auto_payload y = {.import = i, .data = data};
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
