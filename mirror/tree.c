/*
 * The mirror folder. What of it was verified is in verified.c, how an image gets into it in
 * download.c.
 *
 * Everything in uvmirror/ belongs to the program; no image's path leads there. One process at a
 * time works in the folder: the lock is held as long as the tree is open. Others may look: what they
 * read is replaced as a whole, if at all.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "mirror/beneath.h"
#include "mirror/tree.h"

#define FOLDER_MODE 0755
#define FILE_MODE   0644

#define OWN_DIR     "uvmirror"
#define PARTIAL_DIR OWN_DIR "/partial"
#define LOCK_FILE   OWN_DIR "/lock"
#define RECORD_FILE OWN_DIR "/verified.json"
#define SERIAL_FILE OWN_DIR "/serial"
#define COMPACT_DIR OWN_DIR "/compact"

#define PARTIAL_KEEP_SECONDS (30L * 24 * 3600)
#define SERIAL_MAX           ((uint64_t)1 << 53) /* what every JSON reader can hold */
#define SERIAL_TEXT_MAX      32

/* ---- open and close ---- */

static char *path_in(const struct mirror_tree *t, const char *name)
{
    return uvm_format("%s/%s", t->dir, name);
}

static char *without_slashes(const char *dir)
{
    size_t len = strlen(dir);
    while (len > 1 && dir[len - 1] == '/')
        len--;
    return uvm_strndup(dir, len);
}

/* Downloads that nobody came back for. */
static void drop_old_partials(int partial_fd)
{
    int fd = openat(partial_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir)
        return;
    time_t now = time(NULL);
    for (struct dirent *entry; (entry = readdir(dir));) {
        struct stat st;
        if (mirror_beneath_stat(partial_fd, entry->d_name, &st) &&
            now - st.st_mtime > PARTIAL_KEEP_SECONDS)
            unlinkat(partial_fd, entry->d_name, 0);
    }
    closedir(dir);
}

static struct mirror_tree *new_tree(const char *dir)
{
    struct mirror_tree *t = uvm_alloc(sizeof *t);
    t->root_fd = t->partial_fd = t->lock_fd = -1;
    t->dir = without_slashes(dir);
    return t;
}

static bool open_root(struct mirror_tree *t, struct uvm_error *err)
{
    t->root_fd = open(t->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return t->root_fd >= 0 || uvm_fail_errno(err, UVM_FAILED, "cannot open");
}

static bool open_folders(struct mirror_tree *t, struct uvm_error *err)
{
    const char *name;
    return uvm_make_dirs(t->dir, FOLDER_MODE, err) && open_root(t, err) &&
           mirror_beneath_parent(t->root_fd, PARTIAL_DIR "/", &t->partial_fd, &name, err);
}

static bool lock(struct mirror_tree *t, struct uvm_error *err)
{
    uvm_auto_free char *path = path_in(t, LOCK_FILE);
    return uvm_lock_file(path, &t->lock_fd, err);
}

/* On a read-only medium, or somebody else's. */
static bool fail_to_open(const struct mirror_tree *t, struct uvm_error *err)
{
    int why = err->sys_errno;
    if (why != EROFS && why != EACCES && why != EPERM)
        return uvm_prefix(err, "mirror folder %s", t->dir);
    uvm_error_clear(err);
    errno = why;
    return uvm_fail_errno(
        err, UVM_FAILED,
        "mirror folder %s cannot be written, and each run leaves a record there, such "
        "as a bundle's serial, by which the next one is told to be newer: copy it, and "
        "name the copy by --mirror (--dry-run looks without)",
        t->dir);
}

bool mirror_tree_open(const char *dir, struct mirror_tree **ret_tree, struct uvm_error *err)
{
    UVM_AUTO(mirror_tree_free) struct mirror_tree *t = new_tree(dir);
    if (!open_folders(t, err) || !lock(t, err))
        return fail_to_open(t, err);
    drop_old_partials(t->partial_fd);
    uvm_auto_free char *record = path_in(t, RECORD_FILE);
    t->verified = mirror_verified_load(record, t->root_fd);
    *ret_tree = UVM_STEAL(t);
    return true;
}

bool mirror_tree_look(const char *dir, struct mirror_tree **ret_tree, struct uvm_error *err)
{
    UVM_AUTO(mirror_tree_free) struct mirror_tree *t = new_tree(dir);
    if (!open_root(t, err))
        return uvm_prefix(err, "mirror folder %s", t->dir);
    uvm_auto_free char *record = path_in(t, RECORD_FILE);
    t->verified = mirror_verified_look(record, t->root_fd);
    *ret_tree = UVM_STEAL(t);
    return true;
}

void mirror_tree_free(struct mirror_tree *t)
{
    if (!t)
        return;
    mirror_verified_free(t->verified); /* before the lock goes */
    uvm_close_ptr(&t->partial_fd);
    uvm_close_ptr(&t->root_fd);
    uvm_close_ptr(&t->lock_fd);
    free(t->dir);
    free(t);
}

const char *mirror_tree_dir(const struct mirror_tree *t)
{
    return t->dir;
}

/* ---- images ---- */

static bool record_agrees(const struct mirror_tree *t, const struct mirror_image *image,
                          const struct stat *st, enum uvm_digest_type type, const char *signed_hex)
{
    char hex[UVM_DIGEST_HEX_MAX];
    return !signed_hex || (mirror_verified_get(t->verified, image->path, st, type, hex) &&
                           strcmp(hex, signed_hex) == 0);
}

bool mirror_tree_knows(const struct mirror_tree *t, const struct mirror_image *image,
                       const struct stat *st)
{
    return S_ISREG(st->st_mode) && (uint64_t)st->st_size == image->size &&
           record_agrees(t, image, st, UVM_SHA256, image->sha256) &&
           record_agrees(t, image, st, UVM_SHA512, image->sha512);
}

bool mirror_tree_has(const struct mirror_tree *t, const struct mirror_image *image)
{
    struct stat st;
    return mirror_beneath_stat(t->root_fd, image->path, &st) && mirror_tree_knows(t, image, &st);
}

bool mirror_tree_sha256(const struct mirror_tree *t, const struct mirror_image *image,
                        char hex[UVM_DIGEST_HEX_MAX], struct uvm_error *err)
{
    struct stat st;
    if (image->sha256) {
        memcpy(hex, image->sha256, strlen(image->sha256) + 1);
        return true;
    }
    return (mirror_tree_has(t, image) && mirror_beneath_stat(t->root_fd, image->path, &st) &&
            mirror_verified_get(t->verified, image->path, &st, UVM_SHA256, hex)) ||
           uvm_fail(err, UVM_FAILED, "%s/%s is not a verified file of the mirror: fetch it first",
                    t->dir, image->path);
}

bool mirror_tree_open_image(const struct mirror_tree *t, const struct mirror_image *image,
                            int *ret_fd, struct uvm_error *err)
{
    uvm_auto_fd fd = mirror_beneath_open(t->root_fd, image->path, O_RDONLY | O_NONBLOCK, 0);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return uvm_fail_errno(err, UVM_FAILED, "%s/%s", t->dir, image->path);
    if (!S_ISREG(st.st_mode))
        return uvm_fail(err, UVM_CONTENT, "%s/%s is not a regular file", t->dir, image->path);
    if ((uint64_t)st.st_size != image->size)
        return uvm_fail(err, UVM_CONTENT, "%s/%s has %llu bytes instead of %llu: fetch it again",
                        t->dir, image->path, (unsigned long long)st.st_size,
                        (unsigned long long)image->size);
    *ret_fd = uvm_steal_fd(&fd);
    return true;
}

/* ---- bundles ---- */

/* The last serial, 0 when there is none or the file makes no sense. */
static uint64_t last_serial(const char *path)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_buf text = {0};
    if (!uvm_file_read(path, SERIAL_TEXT_MAX, &text, &err))
        return 0;
    char *end;
    errno = 0;
    unsigned long long serial = strtoull(text.data, &end, 10);
    return errno == 0 && end > text.data && (*end == '\n' || *end == 0) && serial < SERIAL_MAX
               ? serial
               : 0;
}

bool mirror_tree_next_serial(struct mirror_tree *t, time_t now, uint64_t *ret_serial,
                             struct uvm_error *err)
{
    uvm_auto_free char *path = path_in(t, SERIAL_FILE);
    uint64_t serial = last_serial(path) + 1;
    if (now > 0 && (uint64_t)now > serial)
        serial = (uint64_t)now;
    uvm_auto_free char *text = uvm_format("%llu\n", (unsigned long long)serial);
    if (!uvm_file_replace(path, FILE_MODE, text, strlen(text), err))
        return uvm_prefix(err, "cannot record the bundle's serial");
    *ret_serial = serial;
    return true;
}

bool mirror_tree_compact_folder(const struct mirror_tree *t, char **ret_path, int *ret_fd,
                                struct uvm_error *err)
{
    const char *name;
    if (!mirror_beneath_parent(t->root_fd, COMPACT_DIR "/", ret_fd, &name, err))
        return uvm_prefix(err, "mirror folder %s", t->dir);
    *ret_path = path_in(t, COMPACT_DIR);
    return true;
}

bool mirror_tree_has_content(const struct mirror_tree *t, const char *hex)
{
    enum uvm_digest_type type = uvm_digest_valid(UVM_SHA256, hex) ? UVM_SHA256 : UVM_SHA512;
    uvm_auto_free char *path = mirror_verified_find(t->verified, type, hex);
    return path != NULL;
}
