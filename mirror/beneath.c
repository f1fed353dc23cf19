/* Files below a folder, through openat2(2). */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mirror/beneath.h"

#define FOLDER_MODE 0755

int mirror_beneath_open(int dir_fd, const char *path, int flags, mode_t mode)
{
    struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC | O_NOFOLLOW),
                           .mode = mode,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
    return (int)syscall(SYS_openat2, dir_fd, path, &how, sizeof how);
}

bool mirror_beneath_stat(int dir_fd, const char *path, struct stat *ret_st)
{
    uvm_auto_fd fd = mirror_beneath_open(dir_fd, path, O_PATH, 0);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return false;
    if (!S_ISREG(st.st_mode)) {
        errno = S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
        return false;
    }
    *ret_st = st;
    return true;
}

static bool fail_folder(const char *path, size_t len, struct uvm_error *err)
{
    int saved = errno;
    uvm_auto_free char *part = uvm_strndup(path, len);
    uvm_auto_free char *name = uvm_printable(part);
    errno = saved;
    return uvm_fail_errno(err, UVM_FAILED, "cannot make folder %s", name);
}

bool mirror_beneath_parent(int dir_fd, const char *path, int *ret_fd, const char **ret_name,
                           struct uvm_error *err)
{
    uvm_auto_fd fd = mirror_beneath_open(dir_fd, ".", O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return uvm_fail_errno(err, UVM_FAILED, "cannot open the folder");
    const char *segment = path;
    for (const char *slash; (slash = strchr(segment, '/')); segment = slash + 1) {
        uvm_auto_free char *name = uvm_strndup(segment, (size_t)(slash - segment));
        if (mkdirat(fd, name, FOLDER_MODE) < 0 && errno != EEXIST)
            return fail_folder(path, (size_t)(slash - path), err);
        int next = mirror_beneath_open(fd, name, O_RDONLY | O_DIRECTORY, 0);
        if (next < 0)
            return fail_folder(path, (size_t)(slash - path), err);
        close(fd);
        fd = next;
    }
    *ret_fd = uvm_steal_fd(&fd);
    *ret_name = segment;
    return true;
}

/* ---- removing ---- */

/* The folder of `path`, without making it. */
static int open_folder_of(int dir_fd, const char *path)
{
    uvm_auto_free char *folder = uvm_dirname(path);
    return mirror_beneath_open(dir_fd, folder, O_RDONLY | O_DIRECTORY, 0);
}

static const char *last_segment(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

void mirror_beneath_remove_folders(int dir_fd, const char *path)
{
    uvm_auto_free char *folder = uvm_dirname(path);
    while (strcmp(folder, ".") != 0) {
        uvm_auto_fd parent = open_folder_of(dir_fd, folder);
        if ((parent < 0 || unlinkat(parent, last_segment(folder), AT_REMOVEDIR) < 0) &&
            errno != ENOENT)
            return;
        uvm_auto_free char *gone = folder;
        folder = uvm_dirname(gone);
    }
}

bool mirror_beneath_remove(int dir_fd, const char *path, struct uvm_error *err)
{
    struct stat st;
    uvm_auto_fd parent = open_folder_of(dir_fd, path);
    if (parent < 0 || !mirror_beneath_stat(parent, last_segment(path), &st))
        return true;
    if (unlinkat(parent, last_segment(path), 0) < 0 && errno != ENOENT)
        return uvm_fail_errno(err, UVM_FAILED, "cannot remove %s", path);
    mirror_beneath_remove_folders(dir_fd, path);
    return true;
}
