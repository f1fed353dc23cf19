/*
 * survey-guests.c: what guests need, of the pools and besides.
 */
#include "pool/survey.h"

#include "pool/xml.h"

#include <string.h>

static struct pool_store *store_named(struct pool_look *l, const char *name)
{
    for (size_t i = 0; i < l->stores.count; i++) {
        if (strcmp(l->stores.items[i]->name, name) == 0)
            return l->stores.items[i];
    }
    return NULL;
}

/* The path of a volume that a guest names by pool and volume. *ret_path is NULL when it is no local
 * file. */
static bool volume_path(struct pool_look *l, const struct pool_ref *ref, char **ret_path,
                        struct uvm_error *err)
{
    struct pool_store *s = store_named(l, ref->pool);
    pool_auto_volume volume = {0};
    bool found = false;
    uvm_auto_free char *shown = uvm_printable(ref->pool);
    if (!s || !s->active)
        return uvm_fail(err, UVM_LIBVIRT, "pool %s is not active", shown);
    if (pool_store_is_folder(s)) {
        *ret_path = uvm_format("%s/%s", s->path, ref->volume);
        return true;
    }
    if (!pool_volume_find(s, ref->volume, &found, &volume, err))
        return false;
    if (!found)
        return uvm_fail(err, UVM_LIBVIRT, "pool %s holds no such volume", shown);
    *ret_path = UVM_STEAL(volume.path);
    return true;
}

/* The file that a guest names; false when there is none of this host's. */
static bool look_at_ref(struct pool_look *l, const struct pool_ref *ref, const char *who,
                        size_t *ret_node)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *path = uvm_strdup(ref->path);
    if (!ref->path && !volume_path(l, ref, &path, &err)) {
        uvm_auto_free char *shown = uvm_printable(ref->volume);
        uvm_auto_free char *text = uvm_format("volume %s: %s", shown, err.message);
        pool_look_doubt(l, who, text);
        return false;
    }
    enum pool_missing missing = ref->may_miss ? POOL_MISSING_IS_FINE : POOL_MISSING_IS_DOUBT;
    return path && pool_chains_add(&l->chains, path, missing, who, &l->survey.doubts, ret_node);
}

/* All are looked at before the first is marked: the second may show that the first stands on
 * another file, too (a relative name, met on two ways). */
static void use_refs(struct pool_look *l, const struct pool_refs *refs, const char *guest,
                     const char *who)
{
    uvm_auto_free size_t *nodes = uvm_alloc((refs->count + 1) * sizeof(*nodes));
    size_t count = 0;
    for (size_t i = 0; i < refs->count; i++)
        count += look_at_ref(l, &refs->items[i], who, &nodes[count]);
    for (size_t i = 0; i < count; i++)
        pool_chains_mark_guest(&l->chains, nodes[i], guest, l->stamp);
}

static void scan_domain(void *opaque, const struct pool_domain *d)
{
    struct pool_look *l = opaque;
    uvm_auto_free char *who = uvm_format("guest %s", d->name);
    uvm_auto_strings odd = {0};
    pool_auto_refs refs = {0};

    l->stamp++;
    for (size_t i = 0; i < d->doubts.count; i++)
        uvm_strings_add(&l->survey.doubts, d->doubts.items[i]);
    for (size_t i = 0; i < d->xml.count; i++) {
        uvm_auto_error err = UVM_ERROR_INIT;
        if (!pool_refs_read(d->xml.items[i], &refs, &odd, &err))
            pool_look_doubt(l, who, err.message);
    }
    for (size_t i = 0; i < odd.count; i++) {
        if (i == 0 || strcmp(odd.items[i], odd.items[i - 1]) != 0)
            pool_look_doubt(l, who, odd.items[i]);
    }
    use_refs(l, &refs, d->name, who);
}

bool pool_look_guests(struct pool_look *l, struct uvm_error *err)
{
    return pool_domains_each(l->pool->virt, scan_domain, l, err);
}
