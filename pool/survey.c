/*
 * survey.c: what is in the pool, in which state, and who needs it.
 *
 * One pass over the pools' volumes, one over the domains, each file's header read once: the cost
 * grows with their number, not with its square.
 */
#include "pool/internal.h"

#include "pool/xml.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

static void entry_clear(struct pool_entry *e)
{
    free(e->name);
    free(e->product);
    free(e->version);
    json_decref(e->metadata);
    json_decref(e->about);
    uvm_strings_clear(&e->users);
}

void pool_survey_clear(struct pool_survey *s)
{
    for (size_t i = 0; i < s->count; i++)
        entry_clear(&s->entries[i]);
    free(s->entries);
    uvm_strings_clear(&s->doubts);
    *s = (struct pool_survey){0};
}

char *pool_entry_title(const struct pool_entry *e)
{
    const char *release = json_string_value(json_object_get(e->about, "release"));
    const char *arch = json_string_value(json_object_get(e->about, "arch"));
    if (!e->product)
        return uvm_printable(e->name);
    uvm_auto_free char *title = release && arch ? uvm_format("%s %s %s", release, arch, e->version)
                                                : uvm_format("%s %s", e->product, e->version);
    return uvm_printable(title);
}

/* ---- one look -------------------------------------------------------------------------------- */

#define NO_NODE SIZE_MAX

/* A volume of any pool, which may be an overlay. */
struct scanned {
    size_t node;
    char *user; /* "volume foo in pool default" */
};

struct look {
    struct pool *pool;
    struct pool_survey survey;
    size_t *nodes; /* per entry of the survey, its file */
    struct scanned *scanned;
    size_t scanned_count;
    struct pool_stores stores;
    struct pool_chains chains;
    size_t stamp; /* of the last walk; starts at 1 */
};

static void look_clear(struct look *l)
{
    pool_survey_clear(&l->survey);
    free(l->nodes);
    for (size_t i = 0; i < l->scanned_count; i++)
        free(l->scanned[i].user);
    free(l->scanned);
    pool_stores_clear(&l->stores);
    pool_chains_clear(&l->chains);
}
#define auto_look __attribute__((cleanup(look_clear))) struct look

static struct pool_entry *add_entry(struct look *l, const char *name)
{
    struct pool_survey *s = &l->survey;
    s->entries = uvm_grow(s->entries, s->count + 1, sizeof(*s->entries));
    l->nodes = uvm_grow(l->nodes, s->count + 1, sizeof(*l->nodes));
    l->nodes[s->count] = NO_NODE;
    struct pool_entry *e = &s->entries[s->count++];
    *e = (struct pool_entry){.name = uvm_strdup(name)};
    e->state = pool_volume_parse(name, &e->product, &e->version) ? POOL_UNUSED : POOL_FOREIGN;
    return e;
}

/* ---- volumes --------------------------------------------------------------------------------- */

/* libvirt knows only what it saw at the last refresh. A refresh that is refused (it is while a
 * clone runs) leaves open what else is there. */
static void refresh_stores(struct look *l)
{
    for (size_t i = 0; i < l->stores.count; i++) {
        struct pool_store *s = l->stores.items[i];
        uvm_auto_error err = UVM_ERROR_INIT;
        bool own = strcmp(s->uuid, l->pool->store->uuid) == 0;
        if (!s->active || !pool_store_is_folder(s))
            continue;
        if (!pool_store_refresh(s, &err))
            uvm_strings_add(&l->survey.doubts, err.message);
        else if (own)
            l->survey.listed = true;
    }
}

/* A user who may not look into a folder is told so once, not once per volume. */
static bool may_look(struct look *l, const struct pool_store *s)
{
    if (!pool_store_is_folder(s) || access(s->path, R_OK | X_OK) == 0)
        return true;
    uvm_auto_free char *text = uvm_format("pool %s: %s: %s", s->name, s->path, strerror(errno));
    uvm_strings_add(&l->survey.doubts, text);
    return false;
}

static void scan_volume(struct look *l, const struct pool_store *s, const struct pool_volume *v,
                        struct uvm_strings *doubts, struct pool_entry *entry)
{
    if (!v->path)
        return;
    uvm_auto_free char *shown = uvm_printable(v->name);
    uvm_auto_free char *who = uvm_format("volume %s in pool %s", shown, s->name);
    size_t node = 0;
    /* A volume that is gone since the refresh keeps nothing. */
    if (!pool_chains_add(&l->chains, v->path, POOL_MISSING_IS_FINE, who, doubts, &node))
        return;
    l->chains.nodes[node].volume = true;
    l->scanned = uvm_grow(l->scanned, l->scanned_count + 1, sizeof(*l->scanned));
    l->scanned[l->scanned_count++] = (struct scanned){node, UVM_STEAL(who)};
    if (entry)
        l->nodes[entry - l->survey.entries] = node;
}

static bool scan_store(struct look *l, struct pool_store *s, struct uvm_error *err)
{
    pool_auto_volumes volumes = {0};
    uvm_auto_strings told_already = {0};
    bool own = strcmp(s->uuid, l->pool->store->uuid) == 0;
    if (!pool_volumes_list(s, own ? POOL_SIZES : POOL_BRIEF, &volumes, err))
        return false;
    struct uvm_strings *doubts = may_look(l, s) ? &l->survey.doubts : &told_already;
    for (size_t i = 0; i < volumes.count; i++) {
        struct pool_volume *v = &volumes.items[i];
        struct pool_entry *entry = own ? add_entry(l, v->name) : NULL;
        if (entry) {
            entry->allocation = v->allocation;
            entry->capacity = v->capacity;
        }
        scan_volume(l, s, v, doubts, entry);
    }
    return true;
}

static bool may_be_volume(const struct dirent *e)
{
    return e->d_type == DT_REG || e->d_type == DT_LNK || e->d_type == DT_UNKNOWN;
}

/* libvirt lists nothing of a pool that is not active, but its overlays still need their bases. A
 * folder that is not there holds none. */
static void scan_folder(struct look *l, const struct pool_store *s)
{
    DIR *dir = opendir(s->path);
    int reason = dir || errno == ENOENT ? 0 : errno;
    errno = 0;
    for (struct dirent *e; dir && (e = readdir(dir)); errno = 0) {
        uvm_auto_free char *path = uvm_format("%s/%s", s->path, e->d_name);
        const struct pool_volume v = {.name = e->d_name, .path = path};
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && may_be_volume(e))
            scan_volume(l, s, &v, &l->survey.doubts, NULL);
    }
    if (dir) {
        reason = errno;
        closedir(dir);
    }
    if (reason) {
        uvm_auto_free char *text =
            uvm_format("pool %s: %s: %s", s->name, s->path, strerror(reason));
        uvm_strings_add(&l->survey.doubts, text);
    }
}

static bool scan_stores(struct look *l, struct uvm_error *err)
{
    for (size_t i = 0; i < l->stores.count; i++) {
        struct pool_store *s = l->stores.items[i];
        uvm_auto_error failed = UVM_ERROR_INIT;
        if (!s->active && pool_store_is_folder(s))
            scan_folder(l, s);
        if (!s->active || scan_store(l, s, &failed))
            continue;
        if (strcmp(s->uuid, l->pool->store->uuid) == 0)
            return uvm_fail(err, failed.code, "%s", failed.message);
        uvm_strings_add(&l->survey.doubts, failed.message);
    }
    return true;
}

/* ---- guests ---------------------------------------------------------------------------------- */

static struct pool_store *store_named(struct look *l, const char *name)
{
    for (size_t i = 0; i < l->stores.count; i++) {
        if (strcmp(l->stores.items[i]->name, name) == 0)
            return l->stores.items[i];
    }
    return NULL;
}

/* The path of a volume that a guest names by pool and volume. *ret_path is NULL when it is no local
 * file. */
static bool volume_path(struct look *l, const struct pool_ref *ref, char **ret_path,
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

static void use_ref(struct look *l, const struct pool_ref *ref, const char *guest, const char *who)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *path = uvm_strdup(ref->path);
    size_t node = 0;
    if (!ref->path && !volume_path(l, ref, &path, &err)) {
        uvm_auto_free char *shown = uvm_printable(ref->volume);
        uvm_auto_free char *text = uvm_format("%s: volume %s: %s", who, shown, err.message);
        uvm_strings_add(&l->survey.doubts, text);
        return;
    }
    enum pool_missing missing = ref->may_miss ? POOL_MISSING_IS_FINE : POOL_MISSING_IS_DOUBT;
    if (path && pool_chains_add(&l->chains, path, missing, who, &l->survey.doubts, &node))
        pool_chains_mark_guest(&l->chains, node, guest, l->stamp);
}

static void add_doubt(struct look *l, const char *who, const char *reason)
{
    uvm_auto_free char *text = uvm_format("%s: %s", who, reason);
    uvm_strings_add(&l->survey.doubts, text);
}

static void scan_domain(void *opaque, const struct pool_domain *d)
{
    struct look *l = opaque;
    uvm_auto_free char *who = uvm_format("guest %s", d->name);
    uvm_auto_strings odd = {0};
    pool_auto_refs refs = {0};

    l->stamp++;
    for (size_t i = 0; i < d->doubts.count; i++)
        uvm_strings_add(&l->survey.doubts, d->doubts.items[i]);
    for (size_t i = 0; i < d->xml.count; i++) {
        uvm_auto_error err = UVM_ERROR_INIT;
        if (!pool_refs_read(d->xml.items[i], &refs, &odd, &err))
            add_doubt(l, who, err.message);
    }
    for (size_t i = 0; i < odd.count; i++) {
        if (i == 0 || strcmp(odd.items[i], odd.items[i - 1]) != 0)
            add_doubt(l, who, odd.items[i]);
    }
    for (size_t i = 0; i < refs.count; i++)
        use_ref(l, &refs.items[i], d->name, who);
}

/* What an overlay keeps that no guest names: it may belong to a guest that is being made. */
static void mark_overlays(struct look *l)
{
    for (size_t i = 0; i < l->scanned_count; i++) {
        const struct scanned *v = &l->scanned[i];
        l->stamp++;
        if (!l->chains.nodes[v->node].guest)
            pool_chains_mark_volume(&l->chains, v->node, v->user, l->stamp);
    }
}

/* ---- metadata and states --------------------------------------------------------------------- */

static bool take_metadata(struct look *l, struct uvm_error *err)
{
    uvm_auto_strings names = {0};
    mirror_auto_json *index = json_object();
    uvm_auto_error failed = UVM_ERROR_INIT;
    if (!pool_metadata_names(l->pool, &names, &failed)) {
        /* Without the folder every image looks as if it was retired. */
        if (failed.sys_errno != ENOENT)
            return uvm_fail(err, failed.code, "%s", failed.message);
        uvm_strings_add(&l->survey.doubts, failed.message);
    }
    for (size_t i = 0; i < l->survey.count; i++)
        json_object_set_new(index, l->survey.entries[i].name, json_integer((json_int_t)i));

    for (size_t i = 0; i < names.count; i++) {
        uvm_auto_free char *product = NULL;
        uvm_auto_free char *version = NULL;
        if (!pool_volume_parse(names.items[i], &product, &version))
            continue;
        const json_t *known = json_object_get(index, names.items[i]);
        struct pool_entry *e =
            known ? &l->survey.entries[json_integer_value(known)] : add_entry(l, names.items[i]);
        e->state = known ? POOL_READY : POOL_BROKEN;
        e->metadata = pool_metadata_read(l->pool, e->name, product, version);
    }
    return true;
}

static void take_users(struct look *l)
{
    for (size_t i = 0; i < l->survey.count; i++) {
        if (l->nodes[i] == NO_NODE)
            continue;
        const struct uvm_strings *users = &l->chains.nodes[l->nodes[i]].users;
        for (size_t u = 0; u < users->count; u++)
            uvm_strings_add(&l->survey.entries[i].users, users->items[u]);
    }
}

/* Entries start out as POOL_FOREIGN or POOL_UNUSED; metadata made some of them READY or BROKEN. */
static void settle_states(struct look *l)
{
    for (size_t i = 0; i < l->survey.count; i++) {
        struct pool_entry *e = &l->survey.entries[i];
        if (e->state == POOL_UNUSED && (e->users.count > 0 || l->survey.doubts.count > 0))
            e->state = POOL_RETIRED;
    }
}

static int compare_entries(const void *a, const void *b)
{
    const struct pool_entry *x = a, *y = b;
    if (!x->product || !y->product)
        return x->product ? -1 : y->product ? 1 : strcmp(x->name, y->name);
    int by_product = strcmp(x->product, y->product);
    return by_product ? by_product : mirror_version_compare(y->version, x->version);
}

const struct pool_entry *pool_survey_entry(const struct pool_survey *s, const char *name)
{
    uvm_auto_free char *own_name = uvm_strdup(name);
    uvm_auto_free char *product = NULL;
    uvm_auto_free char *version = NULL;
    pool_volume_parse(name, &product, &version);
    struct pool_entry key = {.name = own_name, .product = product, .version = version};
    return s->count ? bsearch(&key, s->entries, s->count, sizeof(key), compare_entries) : NULL;
}

/* The versions of one product stand beside each other; one with metadata speaks for those without. */
static void tell_about(struct pool_survey *s)
{
    for (size_t i = 0, first = 0; i < s->count; i++) {
        const char *product = s->entries[i].product;
        if (!product || strcmp(product, s->entries[first].product) != 0)
            first = i;
        for (size_t j = first; product && j < s->count && !s->entries[i].about; j++) {
            const struct pool_entry *other = &s->entries[j];
            if (!other->product || strcmp(other->product, product) != 0)
                break;
            s->entries[i].about = json_incref(other->metadata);
        }
    }
}

static bool look_around(struct look *l, struct uvm_error *err)
{
    if (!pool_stores_list(l->pool->virt, &l->stores, err))
        return false;
    refresh_stores(l);
    if (!scan_stores(l, err) || !pool_domains_each(l->pool->virt, scan_domain, l, err))
        return false;
    mark_overlays(l);
    if (!take_metadata(l, err))
        return false;
    take_users(l);
    settle_states(l);
    return true;
}

bool pool_survey_take(struct pool *p, struct pool_survey *ret_survey, struct uvm_error *err)
{
    auto_look l = {.pool = p};
    pool_chains_init(&l.chains);
    if (!look_around(&l, err))
        return uvm_prefix(err, "survey of pool %s", p->store->name);
    if (l.survey.count)
        qsort(l.survey.entries, l.survey.count, sizeof(*l.survey.entries), compare_entries);
    tell_about(&l.survey);
    *ret_survey = l.survey;
    l.survey = (struct pool_survey){0};
    return true;
}
