/*
 * stage.c: the staging pool: a folder beside the pool's own, on the same file system, where an
 * image waits until it is verified. uvtool never looks there.
 */
#include "pool/internal.h"

#include <string.h>

static char *stage_path(const struct pool *p)
{
    uvm_auto_free char *dir = uvm_dirname(p->store->path);
    return uvm_format("%s/%s", strcmp(dir, "/") == 0 ? "" : dir, POOL_STAGE_NAME);
}

/* Only names of ours: should the folder hold anything else, it is not touched. */
static bool empty_stage(struct pool *p, struct pool_store *stage, struct uvm_error *err)
{
    pool_auto_volumes volumes = {0};
    if (!pool_store_settle(stage, p->observer, err) ||
        !pool_volumes_list(stage, POOL_BRIEF, &volumes, err))
        return false;
    for (size_t i = 0; i < volumes.count; i++) {
        uvm_auto_free char *product = NULL;
        uvm_auto_free char *version = NULL;
        if (pool_volume_parse(volumes.items[i].name, &product, &version) &&
            !pool_volume_delete(stage, volumes.items[i].name, POOL_WAIT, p->observer, err))
            return false;
    }
    return true;
}

static bool find_or_make(struct pool *p, struct pool_store **ret_stage, struct uvm_error *err)
{
    uvm_auto_free char *path = stage_path(p);
    UVM_AUTO(pool_store_free) struct pool_store *stage = NULL;
    if (!pool_store_find(p->virt, POOL_STAGE_NAME, &stage, err))
        return false;
    if (!stage)
        return pool_store_make_transient(p->virt, POOL_STAGE_NAME, path, ret_stage, err);
    if (!stage->path || strcmp(stage->path, path) != 0)
        return uvm_fail(err, UVM_LIBVIRT, "pool %s is somewhere else than in %s", POOL_STAGE_NAME,
                        path);
    /* A crash in the moment of its end leaves it defined, with or without its folder. */
    if (!stage->active && !pool_store_start(stage, POOL_BUILD, err))
        return false;
    *ret_stage = UVM_STEAL(stage);
    return true;
}

bool pool_stage_open(struct pool *p, struct pool_store **ret_stage, struct uvm_error *err)
{
    UVM_AUTO(pool_store_free) struct pool_store *stage = NULL;
    if (!find_or_make(p, &stage, err) || !empty_stage(p, stage, err))
        return uvm_prefix(err, "staging pool");
    *ret_stage = UVM_STEAL(stage);
    return true;
}

void pool_stage_remove(struct pool *p)
{
    UVM_AUTO(pool_store_free) struct pool_store *stage = NULL;
    uvm_auto_error err = UVM_ERROR_INIT;
    if (!pool_stage_open(p, &stage, &err) || !pool_store_remove(stage, &err))
        uvm_warning(p->observer, "staging pool is left behind: %s", err.message);
}
