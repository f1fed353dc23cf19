/*
 * Files on media: sticks and disks that are pulled, die, lie, or take no file of more than 4 GiB.
 *
 * The kernel is told to begin writing early, so that the end finds little left to do. What is to be
 * read back is hashed on its way out, synced, dropped from the page cache, and read from the medium.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "bundle/internal.h"

#define WRITEBACK_STEP ((uint64_t)16 << 20)
#define READ_SIZE      ((size_t)1 << 20)

/* ---- which medium ---- */

/* "vfat", "fuse.fusefat", ...: as the list of mounts names the file system of a device; NULL when it
 * does not. */
static char *type_by_mounts(dev_t device)
{
    char *line = NULL, *found = NULL;
    size_t size = 0;
    FILE *mounts = fopen("/proc/self/mountinfo", "re");
    while (mounts && !found && getline(&line, &size, mounts) > 0) {
        unsigned major_number, minor_number;
        const char *type = strstr(line, " - ");
        if (type && sscanf(line, "%*d %*d %u:%u", &major_number, &minor_number) == 2 &&
            makedev(major_number, minor_number) == device)
            found = uvm_strndup(type + 3, strcspn(type + 3, " "));
    }
    free(line);
    if (mounts)
        fclose(mounts);
    return found;
}

/* Programs that bring FAT to user space have it in their names; exFAT has no such limit. */
static bool is_fat_by_name(const char *folder)
{
    struct stat st;
    uvm_auto_free char *type = stat(folder, &st) == 0 ? type_by_mounts(st.st_dev) : NULL;
    return type && strstr(type, "fat") && !strstr(type, "exfat");
}

uint64_t bundle_output_file_max(const char *folder)
{
    struct statfs fs;
    if (statfs(folder, &fs) < 0)
        return UINT64_MAX;
    bool fat =
        fs.f_type == MSDOS_SUPER_MAGIC || (fs.f_type == FUSE_SUPER_MAGIC && is_fat_by_name(folder));
    return fat ? BUNDLE_PART_FAT32 : UINT64_MAX;
}

/* Another file system than the mirror's, and not in memory. */
static bool is_medium(const char *folder, const struct mirror_tree *tree)
{
    struct stat there, here;
    struct statfs fs;
    return stat(folder, &there) == 0 && stat(mirror_tree_dir(tree), &here) == 0 &&
           there.st_dev != here.st_dev && statfs(folder, &fs) == 0 && fs.f_type != TMPFS_MAGIC &&
           fs.f_type != RAMFS_MAGIC;
}

enum bundle_read_back bundle_read_back_for(enum bundle_read_back asked, const char *output,
                                           const struct mirror_tree *tree)
{
    uvm_auto_free char *folder = bundle_output_folder(output);
    if (asked != BUNDLE_READ_BACK_MEDIA || !folder)
        return folder ? asked : BUNDLE_READ_BACK_NEVER;
    return is_medium(folder, tree) ? BUNDLE_READ_BACK_ALWAYS : BUNDLE_READ_BACK_NEVER;
}

/* ---- writing ---- */

void bundle_file_init(struct bundle_file *file, int fd, const char *name,
                      enum bundle_hashing hashing)
{
    struct stat st;
    *file = (struct bundle_file){
        .fd = fd,
        .name = name,
        .digest = hashing == BUNDLE_HASHED ? uvm_digest_new(UVM_SHA256) : NULL,
        .can_push = fstat(fd, &st) == 0 && S_ISREG(st.st_mode),
    };
}

void bundle_file_clear(struct bundle_file *file)
{
    uvm_digest_free(file->digest);
    *file = (struct bundle_file){.fd = -1};
}

/* A hint: a failure shows up when the file is synced. */
static void push(struct bundle_file *file)
{
    if (!file->can_push || file->bytes - file->pushed < WRITEBACK_STEP)
        return;
    sync_file_range(file->fd, (off_t)file->pushed, (off_t)(file->bytes - file->pushed),
                    SYNC_FILE_RANGE_WRITE);
    file->pushed = file->bytes;
}

static bool fail_write(const struct bundle_file *file, struct uvm_error *err)
{
    if (err->sys_errno != EFBIG)
        return uvm_prefix(err, "writing %s", file->name);
    uvm_error_clear(err);
    uvm_fail(err, UVM_SPACE,
             "writing %s: a file cannot be larger there: split the bundle (--split fat32)",
             file->name);
    err->sys_errno = EFBIG;
    return false;
}

bool bundle_file_write(void *opaque, const void *data, size_t len, struct uvm_error *err)
{
    struct bundle_file *file = opaque;
    bool written = file->can_push ? uvm_write_all(file->fd, data, len, err)
                                  : uvm_write_pipe(file->fd, data, len, file->observer, err);
    if (!written)
        return fail_write(file, err);
    if (file->digest)
        uvm_digest_update(file->digest, data, len);
    file->bytes += len;
    push(file);
    return true;
}

bool bundle_file_sync(struct bundle_file *file, char ret_sha256[UVM_DIGEST_HEX_MAX],
                      struct uvm_error *err)
{
    if (fsync(file->fd) < 0)
        return uvm_fail_errno(err, UVM_FAILED, "writing %s", file->name);
    if (file->digest)
        uvm_digest_finish(file->digest, ret_sha256);
    uvm_digest_free(UVM_STEAL(file->digest));
    return true;
}

/* ---- reading back ---- */

static bool hash_file(int fd, const struct bundle_check *check, const struct uvm_observer *observer,
                      uint64_t *done, char sha256[UVM_DIGEST_HEX_MAX], struct uvm_error *err)
{
    uvm_auto_free char *block = uvm_alloc(READ_SIZE);
    UVM_AUTO(uvm_digest_free) struct uvm_digest *digest = uvm_digest_new(UVM_SHA256);
    for (size_t len = 1; len > 0;) {
        if (!uvm_go_on(observer, err) || !uvm_read_some(fd, block, READ_SIZE, &len, err))
            return false;
        uvm_digest_update(digest, block, len);
        *done += len;
        uvm_progress(observer, check->step, check->name, *done, check->size);
        if (*done > check->size)
            break;
    }
    uvm_digest_finish(digest, sha256);
    return true;
}

bool bundle_check_file(int fd, const struct bundle_check *check,
                       const struct uvm_observer *observer, bool *ret_same, struct uvm_error *err)
{
    char sha256[UVM_DIGEST_HEX_MAX];
    uint64_t done = 0;
    if (lseek(fd, 0, SEEK_SET) < 0)
        return uvm_fail_errno(err, UVM_FAILED, "reading %s", check->name);
    if (!hash_file(fd, check, observer, &done, sha256, err))
        return uvm_prefix(err, "reading %s", check->name);
    *ret_same = done == check->size && strcmp(sha256, check->sha256) == 0;
    return true;
}

bool bundle_file_read_back(int fd, const struct bundle_check *check,
                           const struct uvm_observer *observer, struct uvm_error *err)
{
    bool same = false;
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED); /* what is synced leaves the page cache */
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    if (!bundle_check_file(fd, check, observer, &same, err))
        return false;
    if (!same)
        return uvm_fail(err, UVM_CONTENT,
                        "%s: the medium gives back other bytes than were written to it: take "
                        "another one",
                        check->name);
    uvm_done(observer, check->step, check->name, "every byte is on the medium");
    return true;
}

bool bundle_sync_folder_of(const char *path, enum bundle_read_back read_back, struct uvm_error *err)
{
    uvm_auto_free char *folder = uvm_dirname(path);
    if (!uvm_sync_dir_of(path, err))
        return false;
    if (read_back == BUNDLE_READ_BACK_NEVER)
        return true;
    /* The names, too, are to be on the medium when it is called safe to remove. */
    uvm_auto_fd fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return (fd >= 0 && syncfs(fd) == 0) ||
           uvm_fail_errno(err, UVM_FAILED, "cannot sync folder %s", folder);
}
