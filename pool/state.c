/*
 * state.c: the state folder: its lock, what a crash left in it, and which pool its metadata folders
 * belong to.
 *
 *     binding.json   {"version": 1, "folders": {<metadata folder>: <UUID of its pool>}}
 *
 * Without the binding, a pool of another name with uvtool's metadata folder would look as if every
 * image had lost its volume, and the metadata of all would be erased; and uvtool's pool with another
 * folder as if every image was retired, and the unused ones would be deleted. A pool has one folder.
 */
#include "pool/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STATE_MODE      0700 /* of a state folder that `init` did not make */
#define BINDING_MAX     ((size_t)1 << 20)
#define BINDING_VERSION 1

/* ---- leftovers ------------------------------------------------------------------------------- */

static bool is_leftover(const char *name)
{
    static const char *const prefixes[] = {".journal.json.", ".seen.json.", ".binding.json.",
                                           ".spool."};
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    }
    return false;
}

/* Files that a crash kept from getting their names. While the lock is held nobody writes them. */
static void sweep(const char *dir_name)
{
    DIR *dir = opendir(dir_name);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        if (is_leftover(e->d_name))
            unlinkat(dirfd(dir), e->d_name, 0);
    }
    if (dir)
        closedir(dir);
}

/* ---- binding --------------------------------------------------------------------------------- */

/* A record that is missing or damaged binds nothing. */
static bool read_binding(const char *path, json_t **ret_tree, struct uvm_error *err)
{
    uvm_auto_buf text = {.max = BINDING_MAX};
    uvm_auto_error failed = UVM_ERROR_INIT;
    json_t *tree = NULL;
    if (!uvm_file_read(path, BINDING_MAX, &text, &failed)) {
        if (failed.sys_errno != ENOENT)
            return uvm_fail(err, failed.code, "%s", failed.message);
    } else {
        mirror_json_parse(text.data, text.len, &tree, &failed);
    }
    if (!json_is_object(json_object_get(tree, "folders"))) {
        json_decref(tree);
        tree = json_pack("{s:i, s:{}}", "version", BINDING_VERSION, "folders");
    }
    *ret_tree = tree;
    return true;
}

/* The folder to which a pool is bound; NULL when it is to none. Borrowed. */
static const char *folder_of(const json_t *folders, const char *uuid)
{
    const char *folder;
    json_t *bound;
    json_object_foreach((json_t *)(uintptr_t)folders, folder, bound)
    {
        if (json_is_string(bound) && strcmp(json_string_value(bound), uuid) == 0)
            return folder;
    }
    return NULL;
}

static bool bind_folder(const struct pool *p, struct uvm_error *err)
{
    uvm_auto_free char *path = uvm_format("%s/binding.json", p->state_dir);
    const char *folder = p->metadata_dir;
    mirror_auto_json *tree = NULL;
    if (!read_binding(path, &tree, err))
        return false;

    json_t *folders = json_object_get(tree, "folders");
    const char *bound = json_string_value(json_object_get(folders, folder));
    if (bound && strcmp(bound, p->store->uuid) == 0)
        return true;
    if (bound)
        return uvm_fail(
            err, UVM_LIBVIRT,
            "metadata folder %s belongs to the pool with UUID %.40s, not to pool %s (UUID "
            "%s); if that pool was made anew, remove %s",
            folder, bound, p->store->name, p->store->uuid, path);
    const char *other = folder_of(folders, p->store->uuid);
    if (other)
        return uvm_fail(err, UVM_LIBVIRT,
                        "pool %s has its metadata in %s, not in %s; if that folder was moved, "
                        "remove %s",
                        p->store->name, other, folder, path);
    json_object_set_new(folders, folder, json_string(p->store->uuid));
    uvm_auto_free char *text = json_dumps(tree, JSON_INDENT(1) | JSON_SORT_KEYS);
    if (!text)
        abort();
    return uvm_file_replace(path, 0644, text, strlen(text), err);
}

/* ---- the lock -------------------------------------------------------------------------------- */

/* Whoever may write to the folder may take the lock: on a host that `init` prepared that is group
 * libvirt. Only the file's owner can see to that, and has to do so once. */
static void share_lock(const struct pool *p)
{
    struct stat dir, lock;
    if (stat(p->state_dir, &dir) != 0 || fstat(p->lock_fd, &lock) != 0)
        return;
    mode_t wanted = dir.st_mode & 0660;
    /* What a member of the group linked there may be anything. */
    if (!S_ISREG(lock.st_mode) || lock.st_nlink != 1)
        return;
    if (lock.st_uid == geteuid() && (lock.st_mode & 0777) != wanted && fchmod(p->lock_fd, wanted))
        uvm_notice(p->observer, "%s/lock: its mode cannot be changed: %s", p->state_dir,
                   strerror(errno));
}

static bool take_lock(struct pool *p, struct uvm_error *err)
{
    uvm_auto_free char *path = uvm_format("%s/lock", p->state_dir);
    if (!uvm_make_dirs(p->state_dir, STATE_MODE, err) || !uvm_lock_file(path, &p->lock_fd, err))
        return false;
    share_lock(p);
    return true;
}

bool pool_lock(struct pool *p, struct uvm_error *err)
{
    if (p->lock_fd >= 0)
        return true;
    if (!take_lock(p, err))
        return uvm_prefix(err, "state folder");
    sweep(p->state_dir);
    if (bind_folder(p, err) && pool_journal_recover(p, err))
        return true;
    uvm_close_ptr(&p->lock_fd);
    return false;
}
