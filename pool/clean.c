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
    uvm_strings_clear(&c->overlooked);
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
        uvm_auto_free char *more =
            e->names.count > 1 ? uvm_format(" (and %zu more)", e->names.count - 1) : uvm_strdup("");
        uvm_auto_free char *line = uvm_format("%s: %s%s", title, e->users.items[0], more);
        uvm_strings_add(&c->kept, line);
    }
}

/* Volumes with other names are left alone unless somebody asks for them, but not kept secret. */
static size_t count_foreign(const struct pool_survey *s, unsigned flags)
{
    size_t count = 0;
    for (size_t i = 0; i < s->count; i++) {
        const struct pool_entry *e = &s->entries[i];
        count += e->state == POOL_FOREIGN && e->users.count == 0;
    }
    return flags & POOL_CLEAN_FOREIGN ? 0 : count;
}

static bool clean_after(struct pool *p, const struct pool_survey *first,
                        const struct pool_clean_options *options, struct pool_cleaned *cleaned,
                        struct uvm_error *err)
{
    add_all(&cleaned->doubts, &first->doubts);
    add_all(&cleaned->overlooked, &first->overlooked);
    cleaned->foreign = count_foreign(first, options->flags);
    list_kept(first, cleaned);
    if (!erase_broken(p, first, options->flags, cleaned, err))
        return false;
    if (options->flags & POOL_CLEAN_NO_VOLUMES)
        return true;
    if (options->flags & POOL_CLEAN_DRY_RUN) {
        pool_sweep_list(p, options, first, cleaned);
        return true;
    }
    return pool_sweep(p, options, first, cleaned, err);
}

bool pool_clean_after(struct pool *p, const struct pool_survey *first, unsigned flags,
                      struct pool_cleaned *ret_cleaned, struct uvm_error *err)
{
    const struct pool_clean_options options = {.flags = flags};
    return clean_after(p, first, &options, ret_cleaned, err);
}

bool pool_clean(struct pool *p, const struct pool_clean_options *options,
                struct pool_cleaned *ret_cleaned, struct uvm_error *err)
{
    pool_auto_survey first = {0};
    *ret_cleaned = (struct pool_cleaned){0};
    if (!pool_survey_look(p, options->ignored_guests, &first, err))
        return uvm_prefix(err, "cleanup");
    /* Before anything goes. */
    for (size_t i = 0; i < first.overlooked.count; i++)
        uvm_warning(p->observer, "ignored: %s", first.overlooked.items[i]);
    return clean_after(p, &first, options, ret_cleaned, err) || uvm_prefix(err, "cleanup");
}
