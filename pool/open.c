/*
 * open.c: opening the pool.
 */
#include "pool/internal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void pool_free(struct pool *p)
{
    /* What hangs still uses it. */
    if (!p || (p->virt && pool_virt_is_stuck(p->virt)))
        return;
    pool_store_free(p->store);
    pool_virt_free(p->virt);
    free(p->metadata_dir);
    free(p->state_dir);
    if (p->lock_fd >= 0)
        close(p->lock_fd);
    free(p);
}

static bool check_store(const struct pool_store *s, const char *name, struct uvm_error *err)
{
    if (!s)
        return uvm_fail(err, UVM_LIBVIRT, "pool %s does not exist (see 'uvmirror init')", name);
    if (!pool_store_is_folder(s))
        return uvm_fail(err, UVM_LIBVIRT,
                        "pool %s is of type %s: uvtool keeps images in pools of type dir only",
                        name, s->type);
    if (!s->active)
        return uvm_fail(err, UVM_LIBVIRT, "pool %s is not active (see 'virsh pool-start %s')", name,
                        name);
    return true;
}

struct finding {
    struct pool *pool;
    char *name;
};

static bool find_store(void *arg, struct uvm_error *err)
{
    struct finding *f = arg;
    return pool_store_find(f->pool->virt, f->name, &f->pool->store, err);
}

static bool open_store(struct pool *p, const char *name, struct uvm_error *err)
{
    struct finding *f = uvm_alloc(sizeof(*f));
    *f = (struct finding){p, uvm_strdup(name)};
    bool ok = pool_virt_call(p->virt, find_store, f, err);
    if (pool_virt_is_stuck(p->virt))
        return uvm_prefix(err, "pool %s", name);
    free(f->name);
    free(f);
    return ok && check_store(p->store, name, err);
}

bool pool_open_again(const struct pool *p, struct pool **ret_pool, struct uvm_error *err)
{
    UVM_AUTO(pool_free) struct pool *again = uvm_alloc(sizeof(*again));
    again->lock_fd = -1;
    again->observer = p->observer;
    again->metadata_dir = uvm_strdup(p->metadata_dir);
    again->state_dir = uvm_strdup(p->state_dir);
    if (!pool_virt_open_again(p->virt, &again->virt, err) ||
        !open_store(again, p->store->name, err))
        return false;
    if (strcmp(again->store->uuid, p->store->uuid) != 0)
        return uvm_fail(err, UVM_LIBVIRT, "pool %s is another one now", p->store->name);
    *ret_pool = UVM_STEAL(again);
    return true;
}

bool pool_open(const struct pool_options *options, struct pool **ret_pool, struct uvm_error *err)
{
    UVM_AUTO(pool_free) struct pool *p = uvm_alloc(sizeof(*p));
    p->lock_fd = -1;
    p->observer = options->observer;
    /* The journal and the binding know the folder by this name: one spelling from everywhere. */
    p->metadata_dir = realpath(options->metadata_dir, NULL);
    if (!p->metadata_dir)
        p->metadata_dir = uvm_strdup(options->metadata_dir);
    p->state_dir = uvm_strdup(options->state_dir);
    if (!pool_virt_open(options->connect, options->observer, &p->virt, err) ||
        !open_store(p, options->name, err))
        return false;
    *ret_pool = UVM_STEAL(p);
    return true;
}
