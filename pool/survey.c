/*
 * survey.c: what is in the pool, in which state, and who needs it.
 */
#include "pool/survey.h"

#include <errno.h>
#include <string.h>

static void entry_clear(struct pool_entry *e)
{
    free(e->name);
    free(e->product);
    free(e->version);
    json_decref(e->metadata);
    json_decref(e->about);
    uvm_strings_clear(&e->users);
    uvm_strings_clear(&e->names);
}

void pool_survey_clear(struct pool_survey *s)
{
    for (size_t i = 0; i < s->count; i++)
        entry_clear(&s->entries[i]);
    free(s->entries);
    uvm_strings_clear(&s->doubts);
    uvm_strings_clear(&s->overlooked);
    uvm_strings_clear(&s->folders);
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

static void look_clear(struct pool_look *l)
{
    pool_survey_clear(&l->survey);
    free(l->nodes);
    for (size_t i = 0; i < l->scanned_count; i++)
        free(l->scanned[i].user);
    free(l->scanned);
    pool_stores_clear(&l->stores);
    pool_chains_clear(&l->chains);
    uvm_strings_clear(&l->ignored);
    uvm_strings_clear(&l->met);
}

struct pool_entry *pool_look_add_entry(struct pool_look *l, const char *name)
{
    struct pool_survey *s = &l->survey;
    s->entries = uvm_grow(s->entries, s->count + 1, sizeof(*s->entries));
    l->nodes = uvm_grow(l->nodes, s->count + 1, sizeof(*l->nodes));
    l->nodes[s->count] = POOL_NO_NODE;
    struct pool_entry *e = &s->entries[s->count++];
    *e = (struct pool_entry){.name = uvm_strdup(name)};
    e->state = pool_volume_parse(name, &e->product, &e->version) ? POOL_UNUSED : POOL_FOREIGN;
    return e;
}

void pool_look_doubt(struct pool_look *l, const char *who, const char *reason)
{
    uvm_auto_free char *text = uvm_format("%s: %s", who, reason);
    uvm_strings_add(&l->survey.doubts, text);
}

/* ---- metadata and states --------------------------------------------------------------------- */

/* A folder is no metadata, whatever it is called. */
static bool is_folder(struct pool *p, const char *name)
{
    if (!pool_metadata_is_folder(p, name))
        return false;
    if (!p->told_folder)
        uvm_warning(p->observer, "%s/%s is a folder: it is left alone", p->metadata_dir, name);
    p->told_folder = true;
    return true;
}

static bool take_metadata(struct pool_look *l, struct uvm_error *err)
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
        if (!pool_volume_parse(names.items[i], &product, &version) ||
            is_folder(l->pool, names.items[i]))
            continue;
        const json_t *known = json_object_get(index, names.items[i]);
        struct pool_entry *e = known ? &l->survey.entries[json_integer_value(known)]
                                     : pool_look_add_entry(l, names.items[i]);
        e->state = known ? POOL_READY : POOL_BROKEN;
        e->metadata = pool_metadata_read(l->pool, e->name, product, version);
    }
    return true;
}

/* "guest web1 (snapshot s1)" -> "web1", "volume a in pool b" -> "a" */
static char *short_name(const char *user)
{
    const char *name = strchr(user, ' ') + 1;
    const char *end = strncmp(user, "guest", strlen("guest")) == 0 ? strstr(name, " (")
                                                                   : strstr(name, " in pool ");
    return uvm_strndup(name, end ? (size_t)(end - name) : strlen(name));
}

static void take_users(struct pool_look *l)
{
    for (size_t i = 0; i < l->survey.count; i++) {
        struct pool_entry *e = &l->survey.entries[i];
        if (l->nodes[i] == POOL_NO_NODE)
            continue;
        const struct pool_node *n = &l->chains.nodes[l->nodes[i]];
        for (size_t u = 0; u < n->use_count; u++) {
            const struct pool_use *use = &l->chains.uses[n->uses[u]];
            uvm_auto_free char *text = pool_chains_tell(&l->chains, n->uses[u]);
            uvm_auto_free char *name = short_name(l->chains.users.items[use->user]);
            uvm_strings_add(&e->users, text);
            /* The same guest's come one after another. */
            if (e->names.count == 0 || strcmp(e->names.items[e->names.count - 1], name) != 0)
                uvm_strings_add(&e->names, name);
        }
    }
}

/* Entries start out as POOL_FOREIGN or POOL_UNUSED; metadata made some of them READY or BROKEN. */
static void settle_states(struct pool_look *l)
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
    for (size_t first = 0, end = 0; first < s->count && s->entries[first].product; first = end) {
        json_t *about = NULL;
        for (end = first; end < s->count && s->entries[end].product &&
                          strcmp(s->entries[end].product, s->entries[first].product) == 0;
             end++) {
            if (!about)
                about = s->entries[end].metadata;
        }
        for (size_t i = first; i < end; i++)
            s->entries[i].about =
                json_incref(s->entries[i].metadata ? s->entries[i].metadata : about);
    }
}

/* Who may not read what stands here gets one line, not one per file. */
static void tell_denied(struct pool_look *l)
{
    if (l->chains.denied == 0)
        return;
    uvm_auto_free char *text =
        uvm_format("%zu files or folders of volumes and guests may not be read by this user",
                   l->chains.denied);
    uvm_strings_add(&l->survey.doubts, text);
}

static bool look_around(void *opaque, struct uvm_error *err)
{
    struct pool_look *l = opaque;
    if (!pool_look_volumes(l, err) || !pool_look_guests(l, err))
        return false;
    pool_look_overlays(l);
    tell_denied(l);
    if (!take_metadata(l, err))
        return false;
    take_users(l);
    settle_states(l);
    return true;
}

bool pool_survey_look(struct pool *p, const struct uvm_strings *ignored_guests,
                      struct pool_survey *ret_survey, struct uvm_error *err)
{
    struct pool_look *l = uvm_alloc(sizeof(*l));
    l->pool = p;
    pool_chains_init(&l->chains);
    for (size_t i = 0; ignored_guests && i < ignored_guests->count; i++)
        uvm_strings_add(&l->ignored, ignored_guests->items[i]);
    bool ok = pool_virt_call(p->virt, look_around, l, err);
    if (pool_virt_is_stuck(p->virt))
        return uvm_prefix(err, "survey of pool %s", p->store->name);
    if (ok) {
        if (l->survey.count)
            qsort(l->survey.entries, l->survey.count, sizeof(*l->survey.entries), compare_entries);
        tell_about(&l->survey);
        *ret_survey = l->survey;
        l->survey = (struct pool_survey){0};
    }
    look_clear(l);
    free(l);
    return ok || uvm_prefix(err, "survey of pool %s", p->store->name);
}

bool pool_survey_take(struct pool *p, struct pool_survey *ret_survey, struct uvm_error *err)
{
    return pool_survey_look(p, NULL, ret_survey, err);
}
