/*
 * survey-guests.c: what guests need, of the pools and besides.
 */
#include "pool/survey.h"

#include "pool/xml.h"

#include <string.h>

/* The guest that is looked at. */
struct guest {
    struct pool_look *look;
    const struct pool_domain *domain;
    struct pool_told told;
    size_t *users; /* per document; SIZE_MAX while nothing was found to need */
    struct pool_need *needs;
    size_t need_count;
};

static void guest_clear(struct guest *g)
{
    free(g->users);
    free(g->needs);
}

/* "guest web1", "guest web1 (snapshot s1)" */
static char *title(const struct pool_domain *d, size_t document)
{
    const char *label = document < d->document_count ? d->documents[document].label : "";
    return *label ? uvm_format("guest %s (%s)", d->name, label) : uvm_format("guest %s", d->name);
}

static void doubt(struct guest *g, size_t document, const char *reason)
{
    uvm_auto_free char *who = title(g->domain, document);
    uvm_auto_free char *text = uvm_format("%s: %s", who, reason);
    uvm_strings_add(g->told.ignored ? g->told.overlooked : g->told.doubts, text);
}

/* ---- references ------------------------------------------------------------------------------ */

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
    if (s && pool_store_is_folder(s)) {
        *ret_path = uvm_format("%s/%s", s->path, ref->volume);
        return true;
    }
    if (!s || !s->active)
        return uvm_fail(err, UVM_LIBVIRT, "pool %s is not active", shown);
    if (!pool_volume_find(s, ref->volume, &found, &volume, err))
        return false;
    if (!found)
        return uvm_fail(err, UVM_LIBVIRT, "pool %s holds no such volume", shown);
    if (!volume.path && !ref->raw)
        return uvm_fail(err, UVM_LIBVIRT,
                        "is on the network and not raw: it may have a backing file here");
    *ret_path = UVM_STEAL(volume.path);
    return true;
}

/* The path that a reference names; NULL when it names none of this host. */
static char *path_of(struct guest *g, const struct pool_ref *ref)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    char *path = uvm_strdup(ref->path);
    if (path || volume_path(g->look, ref, &path, &err))
        return path;
    uvm_auto_free char *shown = uvm_printable(ref->volume);
    uvm_auto_free char *text = uvm_format("volume %s: %s", shown, err.message);
    doubt(g, ref->document, text);
    return NULL;
}

static size_t user_of(struct guest *g, size_t document)
{
    if (g->users[document] == SIZE_MAX) {
        uvm_auto_free char *who = title(g->domain, document);
        g->users[document] = pool_chains_user(&g->look->chains, who);
    }
    return g->users[document];
}

static void look_at_ref(struct guest *g, const struct pool_ref *ref)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *path = path_of(g, ref);
    size_t node = 0;
    if (!path)
        return;
    if (!pool_chains_add(&g->look->chains, path, &node, &err)) {
        doubt(g, ref->document, err.message);
        return;
    }
    g->needs[g->need_count++] = (struct pool_need){.node = node,
                                                   .user = user_of(g, ref->document),
                                                   .belief = ref->raw ? POOL_RAW : POOL_TRUSTED,
                                                   .may_miss = ref->may_miss};
}

/* ---- guests ---------------------------------------------------------------------------------- */

static void read_documents(struct guest *g, struct pool_refs *refs)
{
    for (size_t i = 0; i < g->domain->document_count; i++) {
        uvm_auto_strings odd = {0};
        uvm_auto_error err = UVM_ERROR_INIT;
        refs->document = i;
        if (!pool_refs_read(g->domain->documents[i].xml, refs, &odd, &err))
            doubt(g, i, err.message);
        for (size_t n = 0; n < odd.count; n++)
            doubt(g, i, odd.items[n]);
    }
}

static void scan_domain(void *opaque, const struct pool_domain *d)
{
    struct pool_look *l = opaque;
    bool ignored = uvm_strings_has(&l->ignored, d->name);
    __attribute__((cleanup(guest_clear))) struct guest g = {
        .look = l,
        .domain = d,
        .told = {&l->survey.doubts, &l->survey.overlooked, ignored},
        .users = uvm_alloc((d->document_count + 1) * sizeof(*g.users)),
    };
    pool_auto_refs refs = {0};
    for (size_t i = 0; i < d->document_count; i++)
        g.users[i] = SIZE_MAX;
    if (ignored)
        uvm_strings_add(&l->met, d->name);

    for (size_t i = 0; i < d->doubts.count; i++)
        doubt(&g, d->document_count, d->doubts.items[i]);
    read_documents(&g, &refs);
    g.needs = uvm_alloc((refs.count + 1) * sizeof(*g.needs));
    for (size_t i = 0; i < refs.count; i++)
        look_at_ref(&g, &refs.items[i]);
    pool_chains_use_guest(&l->chains, g.needs, g.need_count, &g.told);
}

bool pool_look_guests(struct pool_look *l, struct uvm_error *err)
{
    if (!pool_domains_each(l->pool->virt, scan_domain, l, err))
        return false;
    for (size_t i = 0; i < l->ignored.count; i++) {
        uvm_auto_free char *text =
            uvm_format("there is no guest '%s' to ignore", l->ignored.items[i]);
        if (!uvm_strings_has(&l->met, l->ignored.items[i]))
            uvm_strings_add(&l->survey.overlooked, text);
    }
    return true;
}
