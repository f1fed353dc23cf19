/*
 * What killed processes left: files and folders under names that nobody asks for again.
 *
 * Whoever makes one locks it (flock) before he puts anything in, and the lock goes with the process. So
 * what has content and no lock is nobody's. Where that does not tell, age has to: between making and
 * locking is a moment, and a lock on what is on another machine's disk may be one machine's alone.
 */
#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "mirror/base/base.h"

/* Seconds. */
#define AGE_EMPTY  60
#define AGE_SHARED 3600

#ifndef CEPH_SUPER_MAGIC
#define CEPH_SUPER_MAGIC 0x00c36400
#endif
#ifndef EXFAT_SUPER_MAGIC
#define EXFAT_SUPER_MAGIC 0x2011bab0
#endif

/* File systems that other machines may have, too; FUSE is what its program makes of it. */
static const uint32_t shared[] = {NFS_SUPER_MAGIC,  SMB_SUPER_MAGIC,  CIFS_SUPER_MAGIC,
                                  SMB2_SUPER_MAGIC, FUSE_SUPER_MAGIC, V9FS_MAGIC,
                                  AFS_SUPER_MAGIC,  AFS_FS_MAGIC,     CEPH_SUPER_MAGIC,
                                  CODA_SUPER_MAGIC, OCFS2_SUPER_MAGIC};

/* Whose files belong to whom the medium was mounted for. */
static const uint32_t without_owners[] = {MSDOS_SUPER_MAGIC, EXFAT_SUPER_MAGIC};

static bool is_among(const struct statfs *fs, const uint32_t *types, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if ((uint32_t)fs->f_type == types[i])
            return true;
    return false;
}

#define IS_AMONG(fs, types) is_among(fs, types, sizeof(types) / sizeof *(types))

/* True also when it cannot be told. */
static bool is_empty_folder(int dir_fd)
{
    int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    bool empty = true;
    if (!dir) {
        uvm_close_ptr(&fd);
        return true;
    }
    for (struct dirent *entry; empty && (entry = readdir(dir));)
        empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
    closedir(dir);
    return empty;
}

static bool is_empty(int fd, const struct stat *st)
{
    return S_ISDIR(st->st_mode) ? is_empty_folder(fd) : st->st_size == 0;
}

/* A clock that was put back makes things young that are old. */
static bool is_older(const struct stat *st, long long seconds)
{
    return llabs((long long)time(NULL) - (long long)st->st_mtime) > seconds;
}

static bool may_be_left(const struct stat *st, const struct statfs *fs)
{
    return (S_ISREG(st->st_mode) || S_ISDIR(st->st_mode)) &&
           (st->st_uid == geteuid() || IS_AMONG(fs, without_owners));
}

static bool is_left(int fd, const struct stat *st)
{
    struct statfs fs;
    return fstatfs(fd, &fs) == 0 && may_be_left(st, &fs) && flock(fd, LOCK_EX | LOCK_NB) == 0 &&
           (!is_empty(fd, st) || is_older(st, AGE_EMPTY)) &&
           (!IS_AMONG(&fs, shared) || is_older(st, AGE_SHARED));
}

void uvm_remove_left(int dir_fd, const char *name)
{
    /* O_NONBLOCK: a FIFO of that name would be waited for. */
    uvm_auto_fd fd =
        openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    uvm_auto_error ignored = UVM_ERROR_INIT;
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || !is_left(fd, &st))
        return;
    if (S_ISREG(st.st_mode))
        unlinkat(dir_fd, name, 0);
    else if (uvm_remove_below(fd, &ignored))
        unlinkat(dir_fd, name, AT_REMOVEDIR);
}

void uvm_remove_all_left(const char *folder, bool (*is_ours)(const void *opaque, const char *name),
                         const void *opaque)
{
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        if (is_ours(opaque, entry->d_name))
            uvm_remove_left(dirfd(dir), entry->d_name);
    if (dir)
        closedir(dir);
}
