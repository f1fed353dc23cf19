/*
 * journal.c: the import that is under way, so that the next run can finish or undo what a crash
 * left. Its two shapes are drawn in internal.h.
 *
 * Up to the moment in which the journal's phase becomes "commit", a crash means: undo. From then on
 * it means: finish. Every step of finishing may be repeated.
 */
#include "pool/internal.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define JOURNAL_MAX     ((size_t)64 << 20)
#define JOURNAL_VERSION 1
#define JOURNAL_MODE    0644

static char *journal_path(const struct pool *p)
{
    return uvm_format("%s/journal.json", p->state_dir);
}

/* ---- writing --------------------------------------------------------------------------------- */

static json_t *strings_to_json(const struct uvm_strings *strings)
{
    json_t *array = json_array();
    for (size_t i = 0; i < strings->count; i++)
        json_array_append_new(array, json_string(strings->items[i]));
    return array;
}

static bool write_journal(const struct pool *p, const json_t *tree, struct uvm_error *err)
{
    uvm_auto_free char *path = journal_path(p);
    uvm_auto_free char *text = json_dumps(tree, JSON_INDENT(1));
    if (!text)
        abort();
    if (!uvm_file_replace(path, JOURNAL_MODE, text, strlen(text), err))
        return uvm_prefix(err, "journal");
    return true;
}

bool pool_journal_write_import(const struct pool *p, const struct uvm_strings *volumes,
                               const struct uvm_strings *offered, struct uvm_error *err)
{
    mirror_auto_json *tree =
        json_pack("{s:i, s:s, s:s, s:s, s:o, s:o}", "version", JOURNAL_VERSION, "phase", "import",
                  "pool", p->store->uuid, "metadata_dir", p->metadata_dir, "volumes",
                  strings_to_json(volumes), "offered", strings_to_json(offered));
    return write_journal(p, tree, err);
}

bool pool_journal_write_commit(const struct pool *p, const struct pool_commit *c,
                               struct uvm_error *err)
{
    mirror_auto_json *tree = json_pack(
        "{s:i, s:s, s:s, s:s, s:O, s:O, s:o, s:O}", "version", JOURNAL_VERSION, "phase", "commit",
        "pool", p->store->uuid, "metadata_dir", p->metadata_dir, "metadata", c->metadata, "files",
        c->files, "retire", strings_to_json(&c->retire), "seen", c->seen.tree);
    return write_journal(p, tree, err);
}

bool pool_journal_remove(const struct pool *p, struct uvm_error *err)
{
    uvm_auto_free char *path = journal_path(p);
    if (unlink(path) != 0 && errno != ENOENT)
        return uvm_fail_errno(err, UVM_FAILED, "journal: remove %s", path);
    return uvm_sync_dir_of(path, err);
}

/* ---- undoing --------------------------------------------------------------------------------- */

static bool undo_volume(struct pool *p, const struct pool_survey *survey, const char *name,
                        const struct uvm_strings *offered, struct uvm_error *err)
{
    const struct pool_entry *e = pool_survey_entry(survey, name);
    bool was_offered = uvm_strings_has(offered, name);
    /* Metadata goes first, whoever wrote it: the volume is not what it says. */
    if (was_offered && !pool_metadata_unlink(p, name, err))
        return false;
    bool used = e && e->users.count > 0;
    /* Without metadata uvt-kvm never offered it, so no guest can stand on it unseen. */
    if (used || (was_offered && survey->doubts.count > 0)) {
        uvm_warning(p->observer,
                    "volume %s was left by an import that did not end; it stays, because of: %s",
                    name, used ? e->users.items[0] : survey->doubts.items[0]);
        return true;
    }
    return pool_volume_delete(p->store, name, POOL_WAIT, p->observer, err);
}

/* Those that have metadata now join those that had it earlier, and the journal gets to know them
 * before it goes: a run that dies in between must not make the next one believe that they never
 * had. */
static bool note_offered(const struct pool *p, const struct uvm_strings *volumes,
                         struct uvm_strings *offered, struct uvm_error *err)
{
    size_t before = offered->count;
    for (size_t i = 0; i < volumes->count; i++) {
        const char *name = volumes->items[i];
        bool exists = false;
        if (!pool_metadata_exists(p, name, &exists, err))
            return false;
        if (exists && !uvm_strings_has(offered, name))
            uvm_strings_add(offered, name);
    }
    return offered->count == before || pool_journal_write_import(p, volumes, offered, err);
}

bool pool_undo_volumes(struct pool *p, const struct uvm_strings *volumes,
                       const struct uvm_strings *offered, struct uvm_error *err)
{
    pool_auto_survey survey = {0};
    uvm_auto_strings all_offered = {0};
    /* Nor was anything else removed then, and the journal must not go. */
    if (!pool_virt_answers(p->virt))
        return uvm_fail(err, UVM_LIBVIRT,
                        "the connection to libvirt broke (see 'systemctl status libvirtd', then "
                        "run this again)");
    if (volumes->count == 0)
        return true;
    for (size_t i = 0; i < offered->count; i++)
        uvm_strings_add(&all_offered, offered->items[i]);
    if (!note_offered(p, volumes, &all_offered, err) || !pool_survey_take(p, &survey, err))
        return false;
    for (size_t i = 0; i < volumes->count; i++) {
        if (!undo_volume(p, &survey, volumes->items[i], &all_offered, err))
            return false;
    }
    return true;
}

/* ---- finishing ------------------------------------------------------------------------------- */

void pool_commit_clear(struct pool_commit *c)
{
    json_decref(c->metadata);
    json_decref(c->files);
    uvm_strings_clear(&c->retire);
    pool_seen_clear(&c->seen);
    *c = (struct pool_commit){0};
}

/* Whether the volume that was verified is there, and not another one that bears its name. */
static bool is_there(struct pool *p, const struct pool_commit *c, const char *name, bool *ret_found,
                     struct uvm_error *err)
{
    uvm_auto_free char *path = uvm_format("%s/%s", p->store->path, name);
    if (!pool_volume_find(p->store, name, ret_found, NULL, err))
        return false;
    if (!pool_file_is(path, json_string_value(json_object_get(c->files, name))))
        *ret_found = false;
    return true;
}

static bool link_all(struct pool *p, const struct pool_commit *c, struct uvm_error *err)
{
    const char *name;
    json_t *text;
    json_object_foreach(c->metadata, name, text)
    {
        bool found = false;
        if (!is_there(p, c, name, &found, err) ||
            (found && !pool_metadata_link(p, name, json_string_value(text), err)))
            return false;
    }
    return true;
}

/* A cleanup of another program may have taken a volume in the moment before it had metadata. */
static bool look_again(struct pool *p, const struct pool_commit *c, struct uvm_strings *lost,
                       struct uvm_error *err)
{
    const char *name;
    json_t *text;
    json_object_foreach(c->metadata, name, text)
    {
        bool found = false;
        if (!is_there(p, c, name, &found, err))
            return false;
        if (found)
            continue;
        uvm_strings_add(lost, name);
        if (!pool_metadata_unlink(p, name, err))
            return false;
    }
    return true;
}

bool pool_commit_finish(struct pool *p, const struct pool_commit *c, struct uvm_strings *lost,
                        struct uvm_error *err)
{
    if (!link_all(p, c, err) || !look_again(p, c, lost, err) ||
        !pool_seen_write(&c->seen, p->state_dir, err))
        return false;
    /* Where a new one was lost, the old ones stay: the same bundle again retires them. */
    for (size_t i = 0; i < c->retire.count && lost->count == 0; i++) {
        if (!pool_metadata_unlink(p, c->retire.items[i], err))
            return false;
    }
    return pool_journal_remove(p, err);
}

/* ---- recovery -------------------------------------------------------------------------------- */

/* The strings of an array that are names of ours: a journal that was tampered with must not reach
 * outside the metadata folder. */
static void own_names(const json_t *array, struct uvm_strings *ret_names)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        const char *name = json_string_value(json_array_get(array, i));
        uvm_auto_free char *product = NULL;
        uvm_auto_free char *version = NULL;
        if (name && pool_volume_parse(name, &product, &version))
            uvm_strings_add(ret_names, name);
    }
}

/* Takes out of the object what has no name of ours or no text. */
static json_t *own_metadata(const json_t *object)
{
    json_t *own = json_object();
    const char *name;
    json_t *text;
    json_object_foreach((json_t *)(uintptr_t)object, name, text)
    {
        uvm_auto_free char *product = NULL;
        uvm_auto_free char *version = NULL;
        if (json_is_string(text) && pool_volume_parse(name, &product, &version))
            json_object_set(own, name, text);
    }
    return own;
}

static bool finish_commit(struct pool *p, const json_t *tree, struct uvm_error *err)
{
    pool_auto_commit commit = {0};
    uvm_auto_strings lost = {0};

    commit.metadata = own_metadata(json_object_get(tree, "metadata"));
    commit.files = json_incref(json_object_get(tree, "files"));
    own_names(json_object_get(tree, "retire"), &commit.retire);
    pool_seen_from_json(json_incref(json_object_get(tree, "seen")), &commit.seen);
    if (!pool_commit_finish(p, &commit, &lost, err))
        return false;
    for (size_t i = 0; i < lost.count; i++)
        uvm_warning(
            p->observer,
            "volume %s went away, or another took its place, before its import was finished",
            lost.items[i]);
    uvm_notice(p->observer, "finished an import that was interrupted");
    return true;
}

static bool undo_import(struct pool *p, const json_t *tree, struct uvm_error *err)
{
    uvm_auto_strings volumes = {0};
    uvm_auto_strings offered = {0};
    own_names(json_object_get(tree, "volumes"), &volumes);
    own_names(json_object_get(tree, "offered"), &offered);
    if (!pool_undo_volumes(p, &volumes, &offered, err) || !pool_journal_remove(p, err))
        return false;
    uvm_notice(p->observer, "undid an import that was interrupted");
    return true;
}

/* Where the journal cannot be read nobody knows the names any more. They have no metadata, unless a
 * commit had begun, and so cleanup or the next import deals with them; nothing here believes a
 * volume without metadata. */
static bool drop_journal(struct pool *p, const char *path, const char *reason,
                         struct uvm_error *err)
{
    uvm_warning(p->observer,
                "%s is damaged (%s): volumes of an interrupted import may be left, unused", path,
                reason);
    return pool_journal_remove(p, err);
}

static bool same_place(const struct pool *p, const json_t *tree)
{
    const char *uuid = json_string_value(json_object_get(tree, "pool"));
    const char *dir = json_string_value(json_object_get(tree, "metadata_dir"));
    return uuid && strcmp(uuid, p->store->uuid) == 0 && dir && strcmp(dir, p->metadata_dir) == 0;
}

bool pool_journal_recover(struct pool *p, struct uvm_error *err)
{
    uvm_auto_free char *path = journal_path(p);
    uvm_auto_buf text = {.max = JOURNAL_MAX};
    mirror_auto_json *tree = NULL;

    if (!uvm_file_read(path, JOURNAL_MAX, &text, err)) {
        if (err->sys_errno != ENOENT)
            return uvm_prefix(err, "journal");
        uvm_error_clear(err);
        return true;
    }
    uvm_auto_error damage = UVM_ERROR_INIT;
    if (!mirror_json_parse(text.data, text.len, &tree, &damage))
        return drop_journal(p, path, damage.message, err);
    const char *phase = json_string_value(json_object_get(tree, "phase"));
    if (json_integer_value(json_object_get(tree, "version")) != JOURNAL_VERSION || !phase)
        return uvm_fail(err, UVM_FAILED, "journal %s is of another version of uvmirror", path);
    if (!same_place(p, tree))
        return uvm_fail(
            err, UVM_LIBVIRT,
            "an import into another pool or metadata folder was interrupted (see %s): run "
            "uvmirror with these first, or remove that file if they are gone for good",
            path);
    bool ok =
        strcmp(phase, "commit") == 0 ? finish_commit(p, tree, err) : undo_import(p, tree, err);
    return ok || uvm_prefix(err, "recover from an interrupted import");
}
