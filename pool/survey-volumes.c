/*
 * survey-volumes.c: what stands in the pools, ours and all others, and on what.
 */
#include "pool/survey.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>

static bool is_own(const struct pool_look *l, const struct pool_store *s)
{
    return strcmp(s->uuid, l->pool->store->uuid) == 0;
}

/* libvirt knows only what it saw at the last refresh. A refresh that is refused (it is while a
 * clone runs) leaves open what else is there. A transient pool may have ended since the list. */
static bool refresh_stores(struct pool_look *l, struct uvm_error *err)
{
    for (size_t i = 0; i < l->stores.count; i++) {
        struct pool_store *s = l->stores.items[i];
        uvm_auto_error failed = UVM_ERROR_INIT;
        if (!s->active || !pool_store_is_folder(s))
            continue;
        if (pool_store_refresh(s, &failed))
            l->survey.listed = l->survey.listed || is_own(l, s);
        else if (!pool_virt_alive(l->pool->virt))
            return uvm_fail(err, failed.code, "%s", failed.message);
        else if (failed.sys_errno == ENOENT && !is_own(l, s))
            s->active = false; /* and its folder is looked at as that of any other such pool */
        else
            uvm_strings_add(&l->survey.doubts, failed.message);
        pool_virt_beat(l->pool->virt);
    }
    return true;
}

static void scan_volume(struct pool_look *l, const struct pool_store *s,
                        const struct pool_volume *v, struct pool_entry *entry)
{
    uvm_auto_free char *shown = uvm_printable(v->name);
    uvm_auto_free char *who = uvm_format("volume %s in pool %s", shown, s->name);
    uvm_auto_error err = UVM_ERROR_INIT;
    size_t node = 0;
    if (!v->path)
        return;
    if (!pool_chains_add(&l->chains, v->path, &node, &err)) {
        pool_look_doubt(l, who, err.message);
        return;
    }
    l->chains.nodes[node].volume = true;
    l->scanned = uvm_grow(l->scanned, l->scanned_count + 1, sizeof(*l->scanned));
    l->scanned[l->scanned_count++] = (struct pool_scanned){node, UVM_STEAL(who)};
    if (entry)
        l->nodes[entry - l->survey.entries] = node;
}

static bool scan_store(struct pool_look *l, struct pool_store *s, struct uvm_error *err)
{
    pool_auto_volumes volumes = {0};
    bool own = is_own(l, s);
    if (!pool_volumes_list(s, own ? POOL_SIZES : POOL_BRIEF, &volumes, err))
        return false;
    pool_virt_beat(l->pool->virt);
    for (size_t i = 0; i < volumes.count; i++) {
        struct pool_volume *v = &volumes.items[i];
        struct pool_entry *entry = own ? pool_look_add_entry(l, v->name) : NULL;
        if (entry) {
            entry->allocation = v->allocation;
            entry->capacity = v->capacity;
        }
        scan_volume(l, s, v, entry);
    }
    return true;
}

static bool may_be_volume(const struct dirent *e)
{
    return e->d_type == DT_REG || e->d_type == DT_LNK || e->d_type == DT_UNKNOWN;
}

/* libvirt lists nothing of a pool that is not active, but its overlays still need their bases. A
 * folder that is not there holds none. */
static void scan_folder(struct pool_look *l, const struct pool_store *s)
{
    DIR *dir = opendir(s->path);
    int reason = dir || errno == ENOENT ? 0 : errno;
    errno = 0;
    for (struct dirent *e; dir && (e = readdir(dir)); errno = 0) {
        uvm_auto_free char *path = uvm_format("%s/%s", s->path, e->d_name);
        const struct pool_volume v = {.name = e->d_name, .path = path};
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && may_be_volume(e))
            scan_volume(l, s, &v, NULL);
    }
    if (dir) {
        reason = errno;
        closedir(dir);
    }
    if (pool_chains_denied(&l->chains, reason) || !reason)
        return;
    uvm_auto_free char *text = uvm_format("pool %s: %s: %s", s->name, s->path, strerror(reason));
    uvm_strings_add(&l->survey.doubts, text);
}

/* *ret_gone: the pool has ended since the list. */
static bool scan_active(struct pool_look *l, struct pool_store *s, bool *ret_gone,
                        struct uvm_error *err)
{
    uvm_auto_error failed = UVM_ERROR_INIT;
    if (scan_store(l, s, &failed))
        return true;
    if (is_own(l, s) || !pool_virt_alive(l->pool->virt))
        return uvm_fail(err, failed.code, "%s", failed.message);
    *ret_gone = failed.sys_errno == ENOENT;
    if (!*ret_gone)
        uvm_strings_add(&l->survey.doubts, failed.message);
    return true;
}

bool pool_look_volumes(struct pool_look *l, struct uvm_error *err)
{
    if (!pool_stores_list(l->pool->virt, &l->stores, err))
        return false;
    if (!refresh_stores(l, err))
        return false;
    for (size_t i = 0; i < l->stores.count; i++) {
        struct pool_store *s = l->stores.items[i];
        bool gone = !s->active;
        if (pool_store_is_folder(s))
            uvm_strings_add(&l->survey.folders, s->path);
        if (s->active && !scan_active(l, s, &gone, err))
            return false;
        pool_virt_beat(l->pool->virt);
        if (gone && pool_store_is_folder(s))
            scan_folder(l, s);
    }
    return true;
}

/* What an overlay keeps that no guest names: it may belong to a guest that is being made. A guest's
 * walk has told already what can be told of its files, and what does not count. */
void pool_look_overlays(struct pool_look *l)
{
    const struct pool_told told = {.doubts = &l->survey.doubts, &l->survey.overlooked, false};
    for (size_t i = 0; i < l->scanned_count; i++) {
        const struct pool_scanned *v = &l->scanned[i];
        if (!l->chains.nodes[v->node].guest)
            pool_chains_use_volume(&l->chains, v->node, v->user, &told);
    }
}
