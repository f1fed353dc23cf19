/*
 * import.c: an import from its plan to its commit.
 *
 *     begin   survey, plan; unused volumes go; space
 *     image   verified, checked -> journal -> volume                         (once per payload)
 *     commit  volumes durable -> journal turns to "commit" -> metadata, record, retirement
 *             -> journal gone
 *
 * Until the journal turns, anything that goes wrong undoes all of it; after that it is finished, by
 * this run or by the next one.
 */
#include "pool/import.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* ---- beginning ------------------------------------------------------------------------------- */

bool pool_step_is_new(const struct pool_step *step)
{
    return step->action == POOL_ADD || step->action == POOL_ADOPT;
}

bool pool_step_wants_bytes(const struct pool_step *step)
{
    return pool_step_is_new(step) || step->action == POOL_RELINK;
}

/* Importing into the folder of a pool that is not mounted would fill the wrong disk. */
static bool check_listed(const struct pool_survey *s, const struct pool *p, struct uvm_error *err)
{
    size_t broken = 0;
    for (size_t k = 0; k < s->count; k++)
        broken += s->entries[k].state == POOL_BROKEN;
    if (broken > 1 && broken == s->count)
        return uvm_fail(
            err, UVM_LIBVIRT,
            "metadata of %zu images is there, but none of their volumes: is the folder of "
            "pool %s mounted?",
            broken, p->store->name);
    return true;
}

static unsigned clean_flags(const struct pool_import *i)
{
    return (i->flags & POOL_IMPORT_DRY_RUN ? POOL_CLEAN_DRY_RUN : 0) |
           (i->flags & POOL_IMPORT_NO_CLEAN ? POOL_CLEAN_NO_VOLUMES : 0);
}

static bool make_room(struct pool_import *i, const struct pool_survey *survey,
                      struct uvm_error *err)
{
    uvm_auto_error failed = UVM_ERROR_INIT;
    if (pool_clean_after(i->pool, survey, clean_flags(i), &i->room, &failed) ||
        failed.code == UVM_PARTIAL)
        return true;
    return uvm_fail(err, failed.code, "cleanup before the import: %s", failed.message);
}

static bool begin(struct pool_import *i, const struct pool_import_options *options,
                  struct uvm_error *err)
{
    struct pool *p = i->pool;
    pool_auto_survey survey = {0};
    pool_auto_seen seen = {0};
    if (!pool_survey_take(p, &survey, err) ||
        !pool_seen_read(p->state_dir, p->observer, &seen, err) ||
        !pool_plan_make(options, &survey, &seen, p->observer, &i->plan, err) ||
        (options->approve && !options->approve(options->opaque, i->plan.steps, i->plan.count, err)))
        return false;
    if (i->flags & POOL_IMPORT_DRY_RUN)
        return true;
    return pool_metadata_writable(p, err) && check_listed(&survey, p, err) &&
           make_room(i, &survey, err) && pool_space_check_plan(i, options, err);
}

bool pool_import_begin(struct pool *p, const struct pool_import_options *options,
                       struct pool_import **ret_import, struct uvm_error *err)
{
    UVM_AUTO(pool_import_free) struct pool_import *i = uvm_alloc(sizeof(*i));
    i->pool = p;
    i->files = json_object();
    i->flags = options->flags;
    i->max_virtual = options->max_virtual ? options->max_virtual : MIRROR_VIRTUAL_MAX;
    if (p->lock_fd < 0 && !(i->flags & POOL_IMPORT_DRY_RUN))
        return uvm_fail(err, UVM_FAILED, "import: this host's lock is not held");
    if (!begin(i, options, err))
        return false;
    *ret_import = UVM_STEAL(i);
    return true;
}

const struct pool_step *pool_import_steps(const struct pool_import *i, size_t *ret_count)
{
    *ret_count = i->plan.count;
    return i->plan.steps;
}

struct pool_step *pool_import_step(const struct pool_import *i, const struct mirror_image *image)
{
    for (size_t k = 0; k < i->plan.count; k++) {
        struct pool_step *step = &i->plan.steps[k];
        if (pool_step_wants_bytes(step) && !step->done && step->image == image)
            return step;
    }
    return NULL;
}

bool pool_import_wants(const struct pool_import *i, const struct mirror_image *image)
{
    return !(i->flags & POOL_IMPORT_DRY_RUN) && pool_import_step(i, image) != NULL;
}

/* ---- committing ------------------------------------------------------------------------------ */

static bool all_done(const struct pool_import *i, struct uvm_error *err)
{
    for (size_t k = 0; k < i->plan.count; k++) {
        const struct pool_step *step = &i->plan.steps[k];
        if (pool_step_wants_bytes(step) && !step->done)
            return uvm_fail(err, UVM_CONTENT, "%s: is not carried, and this host does not have it",
                            step->title);
    }
    return true;
}

static bool all_there(struct pool_import *i, struct uvm_error *err)
{
    /* Without a refresh libvirt still lists a volume whose file somebody removed. */
    if (i->journaled && !pool_store_settle(i->pool->store, i->pool->observer, err))
        return false;
    for (size_t k = 0; k < i->plan.count; k++) {
        const struct pool_step *step = &i->plan.steps[k];
        if (pool_step_wants_bytes(step) && !pool_import_has(i, step->name, err))
            return false;
    }
    return true;
}

/* libvirt writes without any sync. Who may not open the pool's folder syncs everything. */
static bool make_durable(const struct pool *p, struct uvm_error *err)
{
    uvm_auto_fd fd = open(p->store->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 && (errno == EACCES || errno == EPERM)) {
        sync();
        return true;
    }
    if (fd < 0 || syncfs(fd) != 0)
        return uvm_fail_errno(err, UVM_FAILED, "sync of %s", p->store->path);
    return true;
}

static void describe_commit(const struct pool_import *i, struct pool_commit *c)
{
    c->metadata = json_object();
    c->files = json_incref(i->files);
    c->seen.tree = json_incref(i->plan.seen.tree);
    for (size_t k = 0; k < i->plan.count; k++) {
        const struct pool_step *step = &i->plan.steps[k];
        if (step->action == POOL_RETIRE)
            uvm_strings_add(&c->retire, step->name);
        if (!pool_step_wants_bytes(step))
            continue;
        uvm_auto_free char *text = pool_metadata_text(step->image->metadata);
        json_object_set_new(c->metadata, step->name, json_string(text));
    }
}

static bool finish(struct pool_import *i, struct uvm_error *err)
{
    struct pool *p = i->pool;
    pool_auto_commit commit = {0};
    uvm_auto_strings lost = {0};

    describe_commit(i, &commit);
    if (!pool_journal_write_commit(p, &commit, err))
        return false;
    i->committed = true;
    if (!pool_commit_finish(p, &commit, &lost, err))
        return uvm_prefix(err, "the next run will finish what is left");
    if (lost.count > 0)
        return uvm_fail(err, UVM_PARTIAL,
                        "volume %s was deleted or replaced by another program: nothing was retired",
                        lost.items[0]);
    for (size_t k = 0; k < i->plan.count; k++) {
        if (i->plan.steps[k].action == POOL_RETIRE)
            i->plan.steps[k].done = true;
    }
    return true;
}

bool pool_import_commit(struct pool_import *i, struct uvm_error *err)
{
    if (i->flags & POOL_IMPORT_DRY_RUN)
        return true;
    if (!all_done(i, err) || !all_there(i, err) || !make_durable(i->pool, err) ||
        !all_there(i, err))
        return false;
    if (!finish(i, err))
        return false;
    if (i->plan.partial)
        return uvm_fail(
            err, UVM_PARTIAL,
            "an image was left out: its volume is here without metadata, in use, and another one");
    return true;
}

/* ---- cleaning up ----------------------------------------------------------------------------- */

/* The survey as it would be once the plan's retirements were done. */
static void retire_in(const struct pool_plan *plan, struct pool_survey *s)
{
    for (size_t k = 0; k < s->count; k++) {
        struct pool_entry *e = &s->entries[k];
        if (e->state == POOL_READY && pool_plan_retires(plan, e->name))
            e->state = e->users.count > 0 || s->doubts.count > 0 ? POOL_RETIRED : POOL_UNUSED;
    }
}

bool pool_import_clean(struct pool_import *i, struct pool_cleaned *ret_cleaned,
                       struct uvm_error *err)
{
    pool_auto_survey now = {0};
    *ret_cleaned = i->room;
    i->room = (struct pool_cleaned){0};
    /* These are told as they are now. */
    uvm_strings_clear(&ret_cleaned->kept);
    uvm_strings_clear(&ret_cleaned->doubts);
    if (!pool_survey_take(i->pool, &now, err))
        return uvm_prefix(err, "cleanup");
    if (i->flags & POOL_IMPORT_DRY_RUN)
        retire_in(&i->plan, &now);
    return pool_clean_after(i->pool, &now, clean_flags(i), ret_cleaned, err) ||
           uvm_prefix(err, "cleanup");
}

/* ---- the end --------------------------------------------------------------------------------- */

static bool undo_in(const struct pool_import *i, struct pool *p, struct uvm_error *err)
{
    const struct uvm_strings none = {0};
    return pool_undo_volumes(p, &i->volumes, &none, err) && pool_journal_remove(p, err);
}

/* Often it is the connection that failed, and what does not answer cannot be told to undo anything: then
 * it is tried over another one. Every step may be repeated. */
static bool undo(struct pool_import *i, struct uvm_error *err)
{
    UVM_AUTO(pool_free) struct pool *again = NULL;
    struct pool_virt *virt = i->pool->virt;
    if (pool_virt_answers(virt) && undo_in(i, i->pool, err))
        return true;
    if (pool_virt_answers(virt))
        return false;
    uvm_error_clear(err);
    return pool_open_again(i->pool, &again, err) && undo_in(i, again, err);
}

static void tell_left(const struct pool_import *i, const struct uvm_error *why)
{
    size_t count = i->volumes.count;
    uvm_warning(
        i->pool->observer,
        "this import could not be undone: up to %zu unfinished volume%s, which no guest can "
        "use, may be left in pool %s; the next 'uvmirror import' or 'uvmirror clean' removes "
        "them (%s)",
        count, count == 1 ? "" : "s", i->pool->store->name, why->message);
}

void pool_import_free(struct pool_import *i)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    if (!i)
        return;
    if (i->journaled && !i->committed && !undo(i, &err))
        tell_left(i, &err);
    pool_plan_clear(&i->plan);
    uvm_strings_clear(&i->volumes);
    json_decref(i->files);
    pool_cleaned_clear(&i->room);
    free(i);
}
