/*
 * The small files of bundles that were written, uvmirror/bundles/<id>/..., by which parts of one can be
 * written again.
 *
 * What is not kept any more is renamed to ".<id>" first: half of a bundle's files is nothing that anybody
 * should find under its id. A run that was killed leaves such a folder to the next one.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "mirror/beneath.h"
#include "mirror/tree.h"

#define FILE_MODE   0644
#define BUNDLES_DIR "uvmirror/bundles"
#define ID_PREFIX   "uvmirror-" /* of every bundle's id: a folder of another name is not ours */

bool mirror_tree_keep(struct mirror_tree *t, const char *id, const char *name, const void *data,
                      size_t len, struct uvm_error *err)
{
    uvm_auto_free char *below = uvm_format(BUNDLES_DIR "/%s/%s", id, name);
    uvm_auto_free char *path = uvm_format("%s/%s", t->dir, below);
    uvm_auto_fd parent = -1;
    const char *last;
    if (strchr(id, '/') || id[0] == '.')
        return uvm_fail(err, UVM_FAILED, "a bundle's id holds a '/', or begins with a '.'");
    if (!mirror_path_check(below, err) ||
        !mirror_beneath_parent(t->root_fd, below, &parent, &last, err) ||
        !uvm_file_replace(path, FILE_MODE, data, len, err))
        return uvm_prefix(err, "mirror folder %s", t->dir);
    return true;
}

/* ---- those that are there ---- */

/* All names in the folder, which may be missing; hidden ones are what a killed run left. */
static bool list_names(const struct mirror_tree *t, struct uvm_strings *ids,
                       struct uvm_strings *hidden, struct uvm_error *err)
{
    int fd = mirror_beneath_open(t->root_fd, BUNDLES_DIR, O_RDONLY | O_DIRECTORY, 0);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir)
        return errno == ENOENT ||
               uvm_fail_errno(err, UVM_FAILED, "mirror folder %s: " BUNDLES_DIR, t->dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        const char *name = entry->d_name;
        if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0)
            uvm_strings_add(name[0] == '.' ? hidden : ids, name);
    }
    closedir(dir);
    return true;
}

bool mirror_tree_kept(const struct mirror_tree *t, struct uvm_strings *ret_ids,
                      struct uvm_error *err)
{
    uvm_auto_strings hidden = {0};
    return list_names(t, ret_ids, &hidden, err);
}

/* ---- those that go ---- */

static bool remove_folder(int bundles_fd, const char *name, struct uvm_error *err)
{
    uvm_auto_fd fd = mirror_beneath_open(bundles_fd, name, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return true; /* no folder: none of ours */
    return uvm_remove_below(fd, err) &&
           (unlinkat(bundles_fd, name, AT_REMOVEDIR) == 0 ||
            uvm_fail_errno(err, UVM_FAILED, "cannot remove " BUNDLES_DIR "/%s", name));
}

static bool forget(int bundles_fd, const char *id, struct uvm_error *err)
{
    uvm_auto_free char *hidden = uvm_format(".%s", id);
    if (renameat(bundles_fd, id, bundles_fd, hidden) < 0)
        return uvm_fail_errno(err, UVM_FAILED, "cannot rename " BUNDLES_DIR "/%s", id);
    return remove_folder(bundles_fd, hidden, err);
}

bool mirror_tree_keep_only(struct mirror_tree *t, const struct uvm_strings *ids,
                           struct uvm_error *err)
{
    uvm_auto_strings present = {0}, hidden = {0};
    if (!list_names(t, &present, &hidden, err))
        return false;
    uvm_auto_fd fd = mirror_beneath_open(t->root_fd, BUNDLES_DIR, O_RDONLY | O_DIRECTORY, 0);
    for (size_t i = 0; i < hidden.count; i++)
        if (!remove_folder(fd, hidden.items[i], err))
            return uvm_prefix(err, "mirror folder %s", t->dir);
    for (size_t i = 0; i < present.count; i++)
        if (!uvm_strings_has(ids, present.items[i]) && !forget(fd, present.items[i], err))
            return uvm_prefix(err, "mirror folder %s", t->dir);
    return true;
}

/* `id` is a folder of bundles/. */
static void drop_half_kept(const struct mirror_tree *t, int bundles_fd, const char *id,
                           const char *last)
{
    uvm_auto_error ignored = UVM_ERROR_INIT;
    uvm_auto_fd fd = openat(bundles_fd, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return;
    if (faccessat(fd, last, F_OK, 0) == 0) {
        uvm_auto_free char *file = uvm_format("%s/" BUNDLES_DIR "/%s/%s", t->dir, id, last);
        uvm_auto_free char *folder = uvm_dirname(file);
        uvm_remove_unfinished(folder);
    } else if (errno == ENOENT && uvm_remove_below(fd, &ignored)) {
        unlinkat(bundles_fd, id, AT_REMOVEDIR);
    }
}

void mirror_tree_drop_half_kept(struct mirror_tree *t, const char *last)
{
    uvm_auto_error ignored = UVM_ERROR_INIT;
    uvm_auto_strings ids = {0};
    uvm_auto_fd fd = mirror_beneath_open(t->root_fd, BUNDLES_DIR, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0 || !mirror_tree_kept(t, &ids, &ignored))
        return;
    for (size_t i = 0; i < ids.count; i++)
        if (strncmp(ids.items[i], ID_PREFIX, strlen(ID_PREFIX)) == 0)
            drop_half_kept(t, fd, ids.items[i], last);
}
