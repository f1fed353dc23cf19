/*
 * payload.c: an image on its way into the pool.
 *
 *     its own bytes -> unlinked file (verified, all of its structure checked) -> content
 *                                                                             -> a volume of its own bytes
 *     content       -> the file that 'qemu-img convert' would have made of it -> a volume
 *                   -> what a guest sees, to be compared with a volume that is there and in use
 */
#include "pool/import.h"

#include <unistd.h>

#define READ_SIZE ((size_t)1 << 20)

/* One payload and those of the import's steps that want it. */
struct payload {
    struct pool_import *import;
    struct pool_step **steps; /* those to be made first, those to be compared behind them */
    size_t count, made;
    struct pool_known known;
};

static void payload_clear(struct payload *y)
{
    free(y->steps);
}
#define auto_payload __attribute__((cleanup(payload_clear))) struct payload

static void find_steps(struct payload *y, const struct mirror_image *const *images, size_t count)
{
    y->steps = uvm_alloc((count + 1) * sizeof(struct pool_step *));
    for (size_t k = 0; k < count; k++) {
        struct pool_step *step =
            pool_import_wants(y->import, images[k]) ? pool_import_step(y->import, images[k]) : NULL;
        if (!step)
            continue;
        y->steps[y->count++] = step;
        if (pool_step_is_new(step)) {
            y->steps[y->count - 1] = y->steps[y->made];
            y->steps[y->made++] = step;
        }
    }
}

static bool compares(const struct payload *y)
{
    return y->made < y->count;
}

/* ---- volumes from a content ------------------------------------------------------------------ */

static bool put_layout(struct payload *y, const struct mirror_content *content,
                       struct uvm_error *err)
{
    UVM_AUTO(mirror_layout_free) struct mirror_layout *layout = NULL;
    struct pool_file file = {0};
    if (!mirror_layout_new(content, &layout, err))
        return false;
    file.size = mirror_layout_file_size(layout);
    file.front = mirror_layout_front(layout, &file.front_len);
    file.body = mirror_layout_body(layout);
    return pool_put(y->import, y->steps, y->made, &file, err);
}

static bool put_content(struct payload *y, const struct mirror_content *content,
                        struct uvm_error *err)
{
    y->known.virtual_size = content->virtual_size;
    if (!compares(y))
        return put_layout(y, content, err);
    if (y->made == 0)
        return pool_sight_read(content, y->steps[0]->title, y->import->pool->observer,
                               y->known.sight, err);
    UVM_AUTO(pool_sight_free) struct pool_sight *sight = pool_sight_new(content);
    if (!put_layout(y, pool_sight_content(sight), err))
        return false;
    pool_sight_finish(sight, y->known.sight);
    return true;
}

/* ---- volumes from an image's own bytes ------------------------------------------------------- */

struct own_bytes {
    int fd;
    char front[READ_SIZE];
    char block[READ_SIZE];
};

static bool read_own_bytes(void *opaque, const void **ret_data, size_t *ret_len,
                           struct uvm_error *err)
{
    struct own_bytes *o = opaque;
    *ret_data = o->block;
    return uvm_read_some(o->fd, o->block, READ_SIZE, ret_len, err);
}

static bool put_own_bytes(struct payload *y, int fd, struct uvm_error *err)
{
    uvm_auto_free struct own_bytes *o = uvm_alloc(sizeof(*o));
    struct pool_file file = {.size = y->steps[0]->image->size, .front = o->front};
    file.body = (struct uvm_reader){read_own_bytes, o};
    o->fd = fd;
    if (lseek(fd, 0, SEEK_SET) < 0)
        return uvm_fail_errno(err, UVM_FAILED, "image");
    return uvm_read_some(fd, o->front, READ_SIZE, &file.front_len, err) &&
           pool_put(y->import, y->steps, y->made, &file, err);
}

/* ---- a verified image ------------------------------------------------------------------------ */

static bool put_disk_content(struct payload *y, struct mirror_disk *disk, struct uvm_error *err)
{
    UVM_AUTO(mirror_disk_reader_free) struct mirror_disk_reader *reader = NULL;
    return mirror_disk_reader_new(disk, y->import->pool->observer, &reader, err) &&
           put_content(y, mirror_disk_reader_content(reader), err);
}

static bool put_image(struct payload *y, int fd, struct uvm_error *err)
{
    struct pool_import *i = y->import;
    const struct uvm_observer *observer = i->pool->observer;
    const struct pool_step *step = y->steps[0];
    UVM_AUTO(mirror_disk_free) struct mirror_disk *disk = NULL;
    if (!mirror_disk_open(fd, step->image->size, i->max_virtual, observer, &disk, err))
        return false;
    if (!(i->flags & POOL_IMPORT_KEEP_COMPRESSED))
        return put_disk_content(y, disk, err);
    y->known.virtual_size = mirror_disk_info(disk)->virtual_size;
    return (y->made == 0 || put_own_bytes(y, fd, err)) &&
           (!compares(y) || pool_sight_disk(disk, step->title, observer, y->known.sight, err));
}

/* Where it waits is free again when this returns. */
static bool spool_and_put(struct payload *y, struct uvm_reader data, struct uvm_error *err)
{
    uvm_auto_fd fd = -1;
    return pool_spool_image(y->import->pool, data, y->steps[0]->image->size, &fd, err) &&
           put_image(y, fd, err);
}

/* ---- the end --------------------------------------------------------------------------------- */

static bool prove(struct payload *y, struct pool_step *step, struct uvm_error *err)
{
    struct pool_import *i = y->import;
    const struct uvm_observer *observer = i->pool->observer;
    uvm_auto_free char *why = NULL;
    if (!pool_prove(i, step, &y->known, &why, err)) {
        uvm_step_failed(observer, "compare", step->title);
        return false;
    }
    if (why) {
        uvm_step_failed(observer, "compare", step->title);
        pool_plan_leave(&i->plan, step, why, observer);
    } else {
        uvm_done(observer, "compare", step->title, "its volume is this image");
    }
    return true;
}

static bool end(struct payload *y, struct uvm_error *err)
{
    struct pool_import *i = y->import;
    for (size_t k = 0; k < y->count; k++) {
        struct pool_step *step = y->steps[k];
        if (pool_step_is_new(step))
            uvm_done(i->pool->observer, "upload", step->title, NULL);
        else if (!prove(y, step, err))
            return false;
        step->done = step->action != POOL_SKIP;
    }
    return true;
}

bool pool_import_content(struct pool_import *i, const struct mirror_image *const *images,
                         size_t count, const struct mirror_content *content, struct uvm_error *err)
{
    auto_payload y = {.import = i};
    find_steps(&y, images, count);
    if (y.count == 0 || (put_content(&y, content, err) && end(&y, err)))
        return true;
    return uvm_prefix(err, "%s", y.steps[0]->title);
}

bool pool_import_image(struct pool_import *i, const struct mirror_image *const *images,
                       size_t count, struct uvm_reader data, struct uvm_error *err)
{
    auto_payload y = {.import = i};
    find_steps(&y, images, count);
    if (y.count == 0 || (spool_and_put(&y, data, err) && end(&y, err)))
        return true;
    return uvm_prefix(err, "%s", y.steps[0]->title);
}
