/*
 * sweep.c: the deletions of a cleanup, and how sure it is of each.
 */
#include "pool/internal.h"

#include <unistd.h>

#define LOOK_HOLDS_MS 2000 /* a look is believed so long, at least, */
#define LOOK_HOLDS    4    /* and so many times as long as it took: the cost stays linear */
#define LOOKS_MAX     10   /* without a deletion in between */

/* ---- which volumes go ------------------------------------------------------------------------ */

/* A batch of deletions. */
struct sweep {
    struct pool *pool;
    const struct pool_clean_options *options;
    struct pool_cleaned *cleaned;
    struct pool_survey look; /* the last one, and when it was taken: */
    bool looked;
    int64_t began_ms, took_ms;
    size_t changes; /* counted by then */
    int folders;    /* what listens to the folders of volumes */
    unsigned idle;  /* looks since the last deletion */
};

static void sweep_clear(struct sweep *sw)
{
    pool_survey_clear(&sw->look);
    if (sw->folders >= 0)
        close(sw->folders);
}
#define auto_sweep __attribute__((cleanup(sweep_clear))) struct sweep

static char *path_of(const struct sweep *sw, const struct pool_entry *e)
{
    return uvm_format("%s/%s", sw->pool->store->path, e->name);
}

static void keep(struct sweep *sw, const char *title, const char *why)
{
    uvm_auto_free char *line = uvm_format("%s: %s", title, why);
    uvm_strings_add(&sw->cleaned->kept, line);
}

/* Whether nobody needs it, as far as a look could tell. */
static bool is_unused(const struct pool_survey *s, const struct pool_entry *e)
{
    if (e->state == POOL_FOREIGN)
        return e->users.count == 0 && s->doubts.count == 0;
    return e->state == POOL_UNUSED;
}

static bool is_candidate(const struct sweep *sw, const struct pool_survey *s,
                         const struct pool_entry *e)
{
    bool wanted = e->state != POOL_FOREIGN || (sw->options->flags & POOL_CLEAN_FOREIGN);
    return wanted && is_unused(s, e);
}

static time_t foreign_age(const struct pool_clean_options *options)
{
    return options->foreign_age ? options->foreign_age : POOL_FOREIGN_AGE;
}

/* Other programs make a volume first, and what tells that it is needed after that: the metadata of
 * an image, the definition of a guest. */
static bool may_be_in_the_making(struct sweep *sw, const struct pool_entry *e, const char *title)
{
    uvm_auto_error why = UVM_ERROR_INIT;
    uvm_auto_free char *path = path_of(sw, e);
    if (e->state == POOL_FOREIGN && !pool_file_is_older(path, foreign_age(sw->options)))
        keep(sw, title, "is not old enough");
    else if (!pool_file_idle(path, &why))
        keep(sw, title, why.message);
    else
        return false;
    return true;
}

static void note_deleted(struct sweep *sw, const struct pool_entry *e, const char *title)
{
    uvm_strings_add(&sw->cleaned->deleted, title);
    sw->cleaned->freed += e->allocation;
}

void pool_sweep_list(struct pool *p, const struct pool_clean_options *options,
                     const struct pool_survey *s, struct pool_cleaned *cleaned)
{
    struct sweep sw = {.pool = p, .options = options, .cleaned = cleaned};
    for (size_t i = 0; i < s->count; i++) {
        const struct pool_entry *e = &s->entries[i];
        uvm_auto_free char *title = pool_entry_title(e);
        if (is_candidate(&sw, s, e) && !may_be_in_the_making(&sw, e, title))
            note_deleted(&sw, e, title);
    }
}

static size_t count_candidates(const struct sweep *sw, const struct pool_survey *s)
{
    size_t count = 0;
    for (size_t i = 0; i < s->count; i++)
        count += is_candidate(sw, s, &s->entries[i]);
    return count;
}

/* ---- looking again --------------------------------------------------------------------------- */

/*
 * libvirt cannot be asked to delete a volume unless somebody needs it, and a look at thousands of
 * guests takes its time. So a look is believed until something shows that it is not true any more:
 *
 *     - an event of libvirt: a guest was defined, started, got a disk; a pool came (watch.c);
 *     - a file was made in a folder of volumes: the overlay of a guest to be (folders.c);
 *     - it is old: not everything is told (a disk that is added to a stored definition is not).
 *
 * What is left is the moment between the last of these checks and the deletion: one answer of the
 * daemon. In it, only a file that somebody has open already is safe (file.c).
 */

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static bool look_holds(struct sweep *sw)
{
    int64_t valid_ms =
        sw->took_ms * LOOK_HOLDS > LOOK_HOLDS_MS ? sw->took_ms * LOOK_HOLDS : LOOK_HOLDS_MS;
    return sw->looked && now_ms() - sw->began_ms <= valid_ms &&
           !pool_folders_changed(sw->folders) && pool_watch_changes(sw->pool->virt) == sw->changes;
}

/* What is heard before the look is in it. */
static bool look(struct sweep *sw, const struct uvm_strings *folders, struct uvm_error *err)
{
    struct pool_survey now = {0};
    pool_folders_watch(sw->folders, folders);
    pool_folders_changed(sw->folders);
    sw->changes = pool_watch_changes(sw->pool->virt);
    sw->began_ms = now_ms();
    if (!pool_survey_look(sw->pool, sw->options->ignored_guests, &now, err))
        return false;
    sw->took_ms = now_ms() - sw->began_ms;
    pool_survey_clear(&sw->look);
    sw->look = now;
    sw->looked = true;
    return true;
}

/* Makes sure of a look that is true now. One that never is gets to be an empty one: nothing is
 * unused in it. */
static bool look_again(struct sweep *sw, const struct pool_survey *first, struct uvm_error *err)
{
    while (!look_holds(sw) && sw->idle < LOOKS_MAX) {
        /* The pools may be others by now. */
        const struct uvm_strings *folders = sw->looked ? &sw->look.folders : &first->folders;
        sw->idle++;
        if (!look(sw, folders, err))
            return false;
    }
    if (sw->idle < LOOKS_MAX)
        return true;
    pool_survey_clear(&sw->look);
    uvm_warning(sw->pool->observer,
                "guests and volumes keep changing: what is unused is left to the next cleanup");
    return true;
}

/* ---- deleting -------------------------------------------------------------------------------- */

/* Deletes one volume, unless metadata has come since: then it is an image again. */
static bool delete_entry(struct sweep *sw, const struct pool_entry *e, const char *title,
                         struct uvm_error *err)
{
    struct pool *p = sw->pool;
    bool offered = false;
    if (may_be_in_the_making(sw, e, title))
        return true;
    if (e->product && !pool_metadata_exists(p, e->name, &offered, err))
        return uvm_prefix(err, "%s", title);
    if (offered)
        return true;
    if (!pool_volume_delete(p->store, e->name, POOL_AT_ONCE, p->observer, err))
        return uvm_prefix(err, "%s", title);
    sw->idle = 0;
    note_deleted(sw, e, title);
    uvm_done(p->observer, "delete", title, NULL);
    return true;
}

static bool is_still_unused(const struct sweep *sw, const struct pool_entry *e)
{
    const struct pool_entry *now = pool_survey_entry(&sw->look, e->name);
    return now && now->state == e->state && is_unused(&sw->look, now);
}

/* Fails when there is nobody to ask any more: then no other volume can be deleted either. */
static bool still_there(const struct sweep *sw, struct uvm_error *err)
{
    struct pool_virt *v = sw->pool->virt;
    if (pool_virt_is_stuck(v) || pool_virt_alive(v))
        return true;
    return uvm_fail(err, UVM_LIBVIRT,
                    "the connection to libvirt broke after %zu deletions (see 'systemctl status "
                    "libvirtd', then run it again)",
                    sw->cleaned->deleted.count);
}

/* One candidate's turn. *ret_failed counts those that could not be deleted: one does not keep the
 * others. */
static bool take_turn(struct sweep *sw, const struct pool_survey *first, const struct pool_entry *e,
                      size_t *ret_failed, struct uvm_error *err)
{
    uvm_auto_free char *title = pool_entry_title(e);
    uvm_auto_error failed = UVM_ERROR_INIT;
    if (!uvm_go_on(sw->pool->observer, err))
        return false;
    if (!look_again(sw, first, &failed))
        return still_there(sw, err) && uvm_fail(err, failed.code, "%s", failed.message);
    if (!is_still_unused(sw, e) || delete_entry(sw, e, title, &failed))
        return true;
    if (!still_there(sw, err))
        return false;
    (*ret_failed)++;
    uvm_warning(sw->pool->observer, "%s", failed.message);
    return true;
}

bool pool_sweep(struct pool *p, const struct pool_clean_options *options,
                const struct pool_survey *first, struct pool_cleaned *cleaned,
                struct uvm_error *err)
{
    auto_sweep sw = {.pool = p, .options = options, .cleaned = cleaned, .folders = -1};
    size_t failed = 0;
    if (count_candidates(&sw, first) == 0)
        return true;
    if (!pool_watch_begin(p->virt, err))
        return false;
    sw.folders = pool_folders_open();
    for (size_t i = 0; i < first->count && sw.idle < LOOKS_MAX; i++) {
        const struct pool_entry *e = &first->entries[i];
        if (is_candidate(&sw, first, e) && !take_turn(&sw, first, e, &failed, err))
            return false;
    }
    /* With doubts nothing was unused in it. */
    for (size_t i = 0; i < sw.look.doubts.count; i++)
        uvm_strings_add(&cleaned->doubts, sw.look.doubts.items[i]);
    return failed == 0 ||
           uvm_fail(err, UVM_PARTIAL, "%zu unused volumes could not be deleted", failed);
}
