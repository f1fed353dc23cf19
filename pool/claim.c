/*
 * claim.c: names in the pool: each is made free and journaled before its volume is made.
 */
#include "pool/import.h"

/* Writes the names of `volumes` down. */
static bool write_journal(struct pool_import *i, struct uvm_error *err)
{
    /* Also when writing fails: it may have failed after its effect. */
    i->journaled = true;
    const struct uvm_strings none = {0};
    return pool_journal_write_import(i->pool, &i->volumes, &none, err);
}

void pool_import_disown_last(struct pool_import *i)
{
    uvm_auto_error failed = UVM_ERROR_INIT;
    size_t last = i->volumes.count - 1;
    free(i->volumes.items[last]);
    i->volumes.items[last] = NULL;
    i->volumes.count = last;
    if (!write_journal(i, &failed))
        uvm_warning(i->pool->observer, "%s", failed.message);
}

/* Removes a volume that stands in the way without (sound) metadata. Since the plan was made a guest
 * may have come to use it. */
static bool remove_unproven(struct pool_import *i, const char *name, struct uvm_error *err)
{
    pool_auto_survey survey = {0};
    if (!pool_survey_take(i->pool, &survey, err))
        return false;
    const struct pool_entry *e = pool_survey_entry(&survey, name);
    if (e && (e->users.count > 0 || survey.doubts.count > 0))
        return uvm_fail(err, UVM_LIBVIRT, "its volume is here without metadata and in use: %s",
                        e->users.count > 0 ? e->users.items[0] : survey.doubts.items[0]);
    if (e && e->state == POOL_READY && e->metadata)
        return uvm_fail(err, UVM_LIBVIRT, "another program made this image in the meantime");
    uvm_auto_free char *path = uvm_format("%s/%s", i->pool->store->path, name);
    uvm_auto_error why = UVM_ERROR_INIT;
    if (e && !pool_file_idle(path, &why))
        return uvm_fail(err, UVM_LIBVIRT, "its volume is here without metadata, and %s",
                        why.message);
    return pool_metadata_unlink(i->pool, name, err) &&
           pool_volume_delete(i->pool->store, name, POOL_AT_ONCE, i->pool->observer, err);
}

bool pool_import_claim(struct pool_import *i, const char *name, struct uvm_error *err)
{
    bool taken = false, offered = false;
    if (!pool_volume_find(i->pool->store, name, &taken, NULL, err) ||
        !pool_metadata_exists(i->pool, name, &offered, err))
        return false;
    if ((taken || offered) && !remove_unproven(i, name, err))
        return false;
    /* A folder of that name would stop the commit when it is too late. */
    if (!pool_metadata_unlink(i->pool, name, err))
        return false;
    uvm_strings_add(&i->volumes, name);
    return write_journal(i, err);
}

void pool_import_remember(struct pool_import *i, const char *name)
{
    uvm_auto_free char *path = uvm_format("%s/%s", i->pool->store->path, name);
    uvm_auto_free char *identity = pool_file_identity(path);
    if (identity)
        json_object_set_new(i->files, name, json_string(identity));
}

bool pool_import_has(struct pool_import *i, const char *name, struct uvm_error *err)
{
    uvm_auto_free char *path = uvm_format("%s/%s", i->pool->store->path, name);
    bool found = false;
    if (!pool_volume_find(i->pool->store, name, &found, NULL, err))
        return false;
    if (found && pool_file_is(path, json_string_value(json_object_get(i->files, name))))
        return true;
    return uvm_fail(err, UVM_LIBVIRT, "volume %s was %s by another program while it was imported",
                    name, found ? "replaced" : "deleted");
}
