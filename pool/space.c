/*
 * space.c: whether an import will fit, said before it begins.
 *
 *     pool          a volume for each new image, as large as its content where that is known, else no
 *                   smaller than the image
 *     state folder  what waits there for one image at a time
 *
 * Once an image is verified, what its volume takes is known for sure, and is looked at again.
 */
#include "pool/import.h"

#include <sys/stat.h>

static bool check(const char *dir, uint64_t need, uint64_t available, struct uvm_error *err)
{
    if (available >= need)
        return true;
    uvm_auto_free char *needed = uvm_size_text(need);
    uvm_auto_free char *there = uvm_size_text(available);
    return uvm_fail(err, UVM_SPACE, "folder %s: at least %s are needed, %s are free", dir, needed,
                    there);
}

bool pool_free_bytes(const struct pool *p, uint64_t *ret_bytes, struct uvm_error *err)
{
    /* libvirt knows what was free at the last refresh. */
    return pool_store_settle(p->store, p->observer, err) &&
           pool_store_available(p->store, ret_bytes, err);
}

bool pool_space_in_pool(const struct pool *p, uint64_t need, struct uvm_error *err)
{
    uint64_t available = 0;
    return pool_free_bytes(p, &available, err) && check(p->store->path, need, available, err);
}

bool pool_space_in_state(const struct pool *p, uint64_t need, struct uvm_error *err)
{
    uint64_t available = 0;
    return uvm_free_space(p->state_dir, &available, err) &&
           check(p->state_dir, need, available, err);
}

/* ---- a plan ---------------------------------------------------------------------------------- */

/* Bytes. */
struct need {
    uint64_t pool;  /* of all volumes */
    uint64_t state; /* of what waits, at its most */
    uint64_t
        both; /* at the worst moment, where they share a disk; images come in the plan's order */
};

/* A volume that is to be compared waits beside nothing else. */
static bool fetched_bytes(const struct pool_import *i, const struct pool_step *step,
                          uint64_t *ret_bytes, struct uvm_error *err)
{
    pool_auto_volume volume = {0};
    bool found = false;
    if (step->action == POOL_RELINK &&
        !pool_volume_find(i->pool->store, step->name, &found, &volume, err))
        return false;
    *ret_bytes = volume.allocation;
    return true;
}

static bool add_step(const struct pool_import *i, const struct pool_import_options *options,
                     const struct pool_step *step, struct need *need, struct uvm_error *err)
{
    uint64_t content = 0, spool = step->image->size, fetched = 0;
    if (options->forecast)
        options->forecast(options->opaque, step->image, &content, &spool);
    if (content == 0 || i->flags & POOL_IMPORT_KEEP_COMPRESSED)
        content = step->image->size;
    if (!fetched_bytes(i, step, &fetched, err))
        return false;
    if (fetched > spool)
        spool = fetched;
    if (pool_step_is_new(step))
        need->pool += content;
    if (spool > need->state)
        need->state = spool;
    if (need->pool + spool > need->both)
        need->both = need->pool + spool;
    return true;
}

/* What cannot be looked at is taken for the same. */
static bool on_same_disk(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) != 0 || stat(b, &y) != 0 || x.st_dev == y.st_dev;
}

bool pool_space_check_plan(struct pool_import *i, const struct pool_import_options *options,
                           struct uvm_error *err)
{
    const struct pool *p = i->pool;
    struct need need = {0};
    for (size_t k = 0; k < i->plan.count; k++) {
        const struct pool_step *step = &i->plan.steps[k];
        if (pool_step_wants_bytes(step) && !add_step(i, options, step, &need, err))
            return false;
    }
    if (need.both == 0)
        return true;
    if (on_same_disk(p->store->path, p->state_dir))
        need.pool = need.both;
    return pool_space_in_state(p, need.state, err) && pool_space_in_pool(p, need.pool, err);
}
