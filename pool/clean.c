/*
 * clean.c: deletes what nobody needs any more. It fails closed: where use cannot be told,
 * everything stays.
 */
#include "pool/internal.h"

#include <string.h>

void pool_cleaned_clear(struct pool_cleaned *c)
{
    uvm_strings_clear(&c->deleted);
    uvm_strings_clear(&c->erased);
    uvm_strings_clear(&c->kept);
    uvm_strings_clear(&c->doubts);
    *c = (struct pool_cleaned){0};
}

static void add_all(struct uvm_strings *to, const struct uvm_strings *from)
{
    for (size_t i = 0; i < from->count; i++)
        uvm_strings_add(to, from->items[i]);
}

static size_t count_state(const struct pool_survey *s, enum pool_state state)
{
    size_t count = 0;
    for (size_t i = 0; i < s->count; i++)
        count += s->entries[i].state == state;
    return count;
}

static bool is_still(const struct pool_survey *s, const struct pool_entry *entry)
{
    const struct pool_entry *now = pool_survey_entry(s, entry->name);
    return now && now->state == entry->state;
}

/* Metadata without volume. An empty pool may be one that is not mounted: then no more than a single
 * file is taken for an error. */
static bool erase_broken(struct pool *p, const struct pool_survey *s, unsigned flags,
                         struct pool_cleaned *c, struct uvm_error *err)
{
    size_t broken = count_state(s, POOL_BROKEN);
    if (!s->listed)
        return true; /* a doubt says so */
    if (broken > 1 && broken == s->count) {
        uvm_warning(
            p->observer,
            "metadata of %zu images is there, but none of their volumes: is the folder of pool "
            "%s mounted? Nothing is erased",
            broken, p->store->name);
        return true;
    }
    for (size_t i = 0; i < s->count; i++) {
        const struct pool_entry *e = &s->entries[i];
        bool found = false;
        if (e->state != POOL_BROKEN)
            continue;
        /* Another program may have made the volume since the pool was listed. */
        if (!pool_volume_find(p->store, e->name, &found, NULL, err))
            return false;
        if (found)
            continue;
        if (!(flags & POOL_CLEAN_DRY_RUN) && !pool_metadata_unlink(p, e->name, err))
            return false;
        uvm_strings_add(&c->erased, e->name);
    }
    return true;
}

static void list_kept(const struct pool_survey *s, struct pool_cleaned *c)
{
    for (size_t i = 0; i < s->count; i++) {
        const struct pool_entry *e = &s->entries[i];
        if (e->state != POOL_RETIRED || e->users.count == 0)
            continue;
        uvm_auto_free char *title = pool_entry_title(e);
        uvm_auto_free char *line = uvm_format("%s: %s", title, e->users.items[0]);
        uvm_strings_add(&c->kept, line);
    }
}

static void note_deleted(const struct pool_entry *e, const char *title, struct pool_cleaned *c)
{
    uvm_strings_add(&c->deleted, title);
    c->freed += e->allocation;
}

/* Another tool gives a volume its metadata last, too: what it fills at the moment looks like one
 * that nobody needs. */
static bool keep_open(const struct pool *p, const struct pool_entry *e, const char *title,
                      struct pool_cleaned *c)
{
    uvm_auto_error why = UVM_ERROR_INIT;
    uvm_auto_free char *path = uvm_format("%s/%s", p->store->path, e->name);
    if (pool_file_idle(path, &why))
        return false;
    uvm_auto_free char *line = uvm_format("%s: %s", title, why.message);
    uvm_strings_add(&c->kept, line);
    return true;
}

/* Deletes one volume, unless metadata has come since: then it is an image again. */
static bool delete_entry(struct pool *p, const struct pool_entry *e, struct pool_cleaned *c,
                         struct uvm_error *err)
{
    uvm_auto_free char *title = pool_entry_title(e);
    bool offered = false;
    if (keep_open(p, e, title, c))
        return true;
    if (!pool_metadata_exists(p, e->name, &offered, err))
        return uvm_prefix(err, "%s", title);
    if (offered)
        return true;
    if (!pool_volume_delete(p->store, e->name, POOL_AT_ONCE, p->observer, err))
        return uvm_prefix(err, "%s", title);
    note_deleted(e, title, c);
    uvm_done(p->observer, "delete", title, NULL);
    return true;
}

/* One volume that cannot be deleted does not keep the others. */
static bool delete_unused(struct pool *p, const struct pool_survey *first,
                          const struct pool_survey *second, struct pool_cleaned *c,
                          struct uvm_error *err)
{
    size_t failures = 0;
    for (size_t i = 0; i < first->count; i++) {
        const struct pool_entry *e = &first->entries[i];
        uvm_auto_error failed = UVM_ERROR_INIT;
        if (e->state != POOL_UNUSED || !is_still(second, e))
            continue;
        if (!uvm_go_on(p->observer, err))
            return false;
        if (delete_entry(p, e, c, &failed))
            continue;
        failures++;
        uvm_warning(p->observer, "%s", failed.message);
    }
    return failures == 0 ||
           uvm_fail(err, UVM_PARTIAL, "%zu unused volumes could not be deleted", failures);
}

static void list_unused(const struct pool *p, const struct pool_survey *s, struct pool_cleaned *c)
{
    for (size_t i = 0; i < s->count; i++) {
        const struct pool_entry *e = &s->entries[i];
        uvm_auto_free char *title = pool_entry_title(e);
        if (e->state == POOL_UNUSED && !keep_open(p, e, title, c))
            note_deleted(e, title, c);
    }
}

bool pool_clean_after(struct pool *p, const struct pool_survey *first, unsigned flags,
                      struct pool_cleaned *ret_cleaned, struct uvm_error *err)
{
    pool_auto_survey second = {0};
    add_all(&ret_cleaned->doubts, &first->doubts);
    list_kept(first, ret_cleaned);
    if (!erase_broken(p, first, flags, ret_cleaned, err))
        return false;
    if (flags & POOL_CLEAN_NO_VOLUMES)
        return true;
    if (flags & POOL_CLEAN_DRY_RUN) {
        list_unused(p, first, ret_cleaned);
        return true;
    }
    if (count_state(first, POOL_UNUSED) == 0)
        return true;
    if (!pool_survey_take(p, &second, err))
        return false;
    /* With doubts nothing is POOL_UNUSED in it. */
    add_all(&ret_cleaned->doubts, &second.doubts);
    return delete_unused(p, first, &second, ret_cleaned, err);
}

bool pool_clean(struct pool *p, unsigned flags, struct pool_cleaned *ret_cleaned,
                struct uvm_error *err)
{
    pool_auto_survey first = {0};
    pool_auto_cleaned cleaned = {0};
    if (!pool_survey_take(p, &first, err))
        return uvm_prefix(err, "cleanup");
    bool ok = pool_clean_after(p, &first, flags, &cleaned, err);
    /* What was done is told also when a part of it failed. */
    if (!ok && err->code != UVM_PARTIAL)
        return uvm_prefix(err, "cleanup");
    *ret_cleaned = cleaned;
    cleaned = (struct pool_cleaned){0};
    return ok || uvm_prefix(err, "cleanup");
}
