/*
 * Files that are whole or not there. NAME is written as ".NAME.uvm-XXXXXX", locked (flock), and renamed
 * when it is complete; nobody else's names look like that (rsync's have no "uvm-"). What killed processes
 * left goes with the next one in the folder.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mirror/base/base.h"

#define TEMPORARY_TRIES 100 /* names, before it is given up */

/* ---- making one ---- */

/* A file may be replaced by a new one; /dev/null may not. */
static bool check_replaceable(const char *path, struct uvm_error *err)
{
    struct stat st;
    if (stat(path, &st) < 0 || S_ISREG(st.st_mode))
        return true;
    return uvm_fail(err, UVM_FAILED, "%s is %s, which is not to be replaced by a file", path,
                    S_ISDIR(st.st_mode) ? "a folder" : "a device, a pipe or a socket");
}

static bool is_unfinished(const void *opaque, const char *name)
{
    (void)opaque;
    size_t len = strlen(name), tail = strlen(UVM_UNFINISHED_TAIL),
           fixed = strcspn(UVM_UNFINISHED_TAIL, "X");
    return name[0] == '.' && len > 1 + tail &&
           strncmp(name + len - tail, UVM_UNFINISHED_TAIL, fixed) == 0;
}

void uvm_remove_unfinished(const char *folder)
{
    uvm_remove_all_left(folder, is_unfinished, NULL);
}

/* mkostemp(3) that leaves the mode to the umask. Writes over the six letters at the end of `path`. */
static int open_temporary(char *path, mode_t mode)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    unsigned char random[6];
    char *end = path + strlen(path) - sizeof random;
    int fd = -1;
    for (int i = 0; i < TEMPORARY_TRIES; i++) {
        if (getrandom(random, sizeof random, 0) != sizeof random)
            return -1;
        for (size_t n = 0; n < sizeof random; n++)
            end[n] = letters[random[n] % (sizeof letters - 1)];
        fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        if (fd >= 0 || errno != EEXIST)
            break;
    }
    return fd;
}

bool uvm_outfile_open(struct uvm_outfile *file, const char *path, mode_t mode,
                      struct uvm_error *err)
{
    if (!check_replaceable(path, err))
        return false;
    uvm_auto_free char *dir = uvm_dirname(path);
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    uvm_remove_unfinished(dir);
    uvm_auto_free char *tmp =
        uvm_format("%s/.%s" UVM_UNFINISHED_TAIL, strcmp(dir, "/") == 0 ? "" : dir, name);
    uvm_auto_fd fd = open_temporary(tmp, mode);
    if (fd < 0)
        return uvm_fail_errno(err, UVM_FAILED, "cannot write in folder %s", dir);
    *file = (struct uvm_outfile){uvm_steal_fd(&fd), uvm_strdup(path), UVM_STEAL(tmp)};
    uvm_claim(file->fd, LOCK_EX);
    return true;
}

/* As link(2) and unlink(2), and what knows no links is at least looked at. */
static bool rename_checked(int dir_fd, const char *name, const char *path)
{
    struct stat st;
    if (linkat(dir_fd, name, AT_FDCWD, path, 0) == 0) {
        unlinkat(dir_fd, name, 0); /* a hidden name too many does no harm */
        return true;
    }
    if (errno == EEXIST || lstat(path, &st) == 0) {
        errno = EEXIST;
        return false;
    }
    return renameat(dir_fd, name, AT_FDCWD, path) == 0;
}

bool uvm_rename_new(int dir_fd, const char *name, const char *path, struct uvm_error *err)
{
    if (renameat2(dir_fd, name, AT_FDCWD, path, RENAME_NOREPLACE) == 0 ||
        ((errno == EINVAL || errno == ENOSYS) && rename_checked(dir_fd, name, path)))
        return true;
    if (errno == EEXIST)
        return uvm_fail(err, UVM_FAILED,
                        "%s was put there meanwhile, and is not replaced: run this again", path);
    return uvm_fail_errno(err, UVM_FAILED, "%s", path);
}

static bool close_synced(struct uvm_outfile *file, struct uvm_error *err)
{
    if (fsync(file->fd) < 0)
        return uvm_fail_errno(err, UVM_FAILED, "%s", file->path);
    int fd = uvm_steal_fd(&file->fd);
    return close(fd) == 0 || uvm_fail_errno(err, UVM_FAILED, "%s", file->path);
}

static bool stands(struct uvm_outfile *file, struct uvm_error *err)
{
    free(UVM_STEAL(file->tmp_path));
    return uvm_sync_dir_of(file->path, err);
}

bool uvm_outfile_commit(struct uvm_outfile *file, struct uvm_error *err)
{
    if (!close_synced(file, err))
        return false;
    if (rename(file->tmp_path, file->path) < 0)
        return uvm_fail_errno(err, UVM_FAILED, "%s", file->path);
    return stands(file, err);
}

bool uvm_outfile_commit_new(struct uvm_outfile *file, struct uvm_error *err)
{
    return close_synced(file, err) && uvm_rename_new(AT_FDCWD, file->tmp_path, file->path, err) &&
           stands(file, err);
}

void uvm_outfile_clear(struct uvm_outfile *file)
{
    uvm_close_ptr(&file->fd);
    if (file->tmp_path)
        unlink(file->tmp_path);
    free(file->tmp_path);
    free(file->path);
    *file = UVM_OUTFILE_INIT;
}

bool uvm_file_replace(const char *path, mode_t mode, const void *data, size_t len,
                      struct uvm_error *err)
{
    uvm_auto_outfile file = UVM_OUTFILE_INIT;
    if (!uvm_outfile_open(&file, path, mode, err))
        return false;
    if (!uvm_write_all(file.fd, data, len, err))
        return uvm_prefix(err, "%s", path);
    return uvm_outfile_commit(&file, err);
}
