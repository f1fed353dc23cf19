/*
 * metadata.c: uvtool's metadata files: one per image, named as its volume, flat JSON of strings.
 *
 * A file appears under its name complete and durable, or not at all: it is written without a name
 * (O_TMPFILE) and then linked, so that uvtool, which takes every name in the folder for an image,
 * never sees a temporary one.
 */
#include "pool/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define METADATA_MODE 0644
#define LINK_TRIES    20

/* ---- text, as Python 3's json.dump(indent=4) ------------------------------------------------- */

/* The code point of valid UTF-8 at `*s`, which moves behind it. */
static uint32_t next_code_point(const unsigned char **s)
{
    const unsigned char *p = *s;
    unsigned more = *p < 0x80 ? 0 : *p < 0xe0 ? 1 : *p < 0xf0 ? 2 : 3;
    uint32_t c = more == 0 ? *p : *p & (0x3fu >> more);

    for (p++; more > 0 && *p; more--, p++)
        c = c << 6 | (*p & 0x3f);
    *s = p;
    return c;
}

static void print_code_point(FILE *out, uint32_t c)
{
    static const char short_from[] = "\"\\\b\f\n\r\t";
    static const char short_to[] = "\"\\bfnrt";
    const char *found = c > 0 && c < 0x80 ? strchr(short_from, (int)c) : NULL;

    if (found)
        fprintf(out, "\\%c", short_to[found - short_from]);
    else if (c >= 0x20 && c < 0x7f)
        fputc((int)c, out);
    else if (c < 0x10000)
        fprintf(out, "\\u%04x", (unsigned)c);
    else
        fprintf(out, "\\u%04x\\u%04x", 0xd800u + ((c - 0x10000) >> 10), 0xdc00u + (c & 0x3ff));
}

static void print_string(FILE *out, const char *s)
{
    fputc('"', out);
    for (const unsigned char *p = (const unsigned char *)s; *p;)
        print_code_point(out, next_code_point(&p));
    fputc('"', out);
}

char *pool_metadata_text(const json_t *metadata)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    if (!out)
        abort();

    const char *key;
    json_t *value;
    const char *before = "{\n    ";
    /* jansson's iterators take a mutable object but do not change it. */
    json_object_foreach((json_t *)(uintptr_t)metadata, key, value)
    {
        fputs(before, out);
        print_string(out, key);
        fputs(": ", out);
        print_string(out, json_string_value(value));
        before = ",\n    ";
    }
    fputs(json_object_size(metadata) ? "\n}" : "{}", out);
    if (fclose(out) != 0)
        abort();
    return text;
}

/* ---- open files, by a name ------------------------------------------------------------------- */

#define PROC_PATH_MAX (sizeof("/proc/self/fd/") + 11)

static void proc_path(int fd, char ret_path[PROC_PATH_MAX])
{
    snprintf(ret_path, PROC_PATH_MAX, "/proc/self/fd/%d", fd);
}

/* ---- reading --------------------------------------------------------------------------------- */

static bool all_strings(const json_t *metadata)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)metadata, key, value)
    {
        if (!json_is_string(value))
            return false;
    }
    return true;
}

char *pool_metadata_path(const struct pool *p, const char *name)
{
    return uvm_format("%s/%s", p->metadata_dir, name);
}

bool pool_metadata_exists(const struct pool *p, const char *name, bool *ret_exists,
                          struct uvm_error *err)
{
    uvm_auto_free char *path = pool_metadata_path(p, name);
    struct stat st;
    if (lstat(path, &st) == 0) {
        *ret_exists = !S_ISDIR(st.st_mode);
        return true;
    }
    if (errno != ENOENT)
        return uvm_fail_errno(err, UVM_FAILED, "%s", path);
    *ret_exists = false;
    return true;
}

bool pool_metadata_is_folder(const struct pool *p, const char *name)
{
    uvm_auto_free char *path = pool_metadata_path(p, name);
    struct stat st;
    return lstat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Reads a file of the metadata folder, in which others may write, too: whatever they link there, it
 * leads nowhere else. */
static bool read_file(const char *path, struct uvm_buf *buf, struct uvm_error *err)
{
    uvm_auto_fd fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0)
        return uvm_fail_errno(err, UVM_FAILED, "%s", path);
    if (S_ISLNK(st.st_mode))
        return uvm_fail(err, UVM_CONTENT, "%s: is a symbolic link", path);
    char self[PROC_PATH_MAX];
    proc_path(fd, self);
    return uvm_file_read(self, POOL_METADATA_MAX, buf, err) || uvm_prefix(err, "%s", path);
}

json_t *pool_metadata_read(const struct pool *p, const char *name, const char *product,
                           const char *version)
{
    uvm_auto_free char *path = pool_metadata_path(p, name);
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_buf text = {.max = POOL_METADATA_MAX};
    mirror_auto_json *metadata = NULL;

    if (!read_file(path, &text, &err) || !mirror_json_parse(text.data, text.len, &metadata, &err)) {
        uvm_warning(p->observer, "metadata of %s %s cannot be used: %s", product, version,
                    err.message);
        return NULL;
    }
    const char *is_product = json_string_value(json_object_get(metadata, "product_name"));
    const char *is_version = json_string_value(json_object_get(metadata, "version_name"));
    if (!all_strings(metadata) || !is_product || strcmp(is_product, product) != 0 || !is_version ||
        strcmp(is_version, version) != 0) {
        uvm_warning(p->observer, "metadata of %s %s cannot be used: %s does not describe it",
                    product, version, path);
        return NULL;
    }
    return UVM_STEAL(metadata);
}

bool pool_metadata_names(const struct pool *p, struct uvm_strings *ret_names, struct uvm_error *err)
{
    DIR *dir = opendir(p->metadata_dir);
    if (!dir)
        return uvm_fail_errno(err, UVM_FAILED, "metadata folder %s", p->metadata_dir);
    errno = 0;
    for (struct dirent *e; (e = readdir(dir)); errno = 0) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            uvm_strings_add(ret_names, e->d_name);
    }
    int failed = errno;
    closedir(dir);
    errno = failed;
    return failed == 0 || uvm_fail_errno(err, UVM_FAILED, "metadata folder %s", p->metadata_dir);
}

/* ---- writing --------------------------------------------------------------------------------- */

bool pool_metadata_writable(const struct pool *p, struct uvm_error *err)
{
    if (access(p->metadata_dir, W_OK | X_OK) == 0)
        return true;
    const char *advice = errno == ENOENT ? " (see 'uvmirror init')" : "";
    return uvm_fail(err, UVM_LIBVIRT, "metadata folder %s: %s%s", p->metadata_dir, strerror(errno),
                    advice);
}

static bool write_and_sync(int fd, const char *text, struct uvm_error *err)
{
    if (!uvm_write_all(fd, text, strlen(text), err))
        return false;
    /* The umask must not hide an image from the users of uvt-kvm. */
    if (fchmod(fd, METADATA_MODE) != 0 || fsync(fd) != 0)
        return uvm_fail_errno(err, UVM_FAILED, "write");
    return true;
}

/* For file systems without O_TMPFILE (overlayfs of old kernels, NFS): the file stands under its own
 * name while it is written. The journal holds its text and repairs it after a crash. */
static bool link_in_place(const char *path, const char *text, struct uvm_error *err)
{
    uvm_auto_fd fd =
        open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, METADATA_MODE);
    if (fd < 0)
        return uvm_fail_errno(err, UVM_FAILED, "%s", path);
    if (!write_and_sync(fd, text, err)) {
        unlink(path);
        return uvm_prefix(err, "%s", path);
    }
    return uvm_sync_dir_of(path, err);
}

static bool link_new(const char *dir, const char *path, const char *text, struct uvm_error *err)
{
    uvm_auto_fd fd = open(dir, O_TMPFILE | O_WRONLY | O_CLOEXEC, METADATA_MODE);
    if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL))
        return link_in_place(path, text, err);
    if (fd < 0)
        return uvm_fail_errno(err, UVM_FAILED, "metadata folder %s", dir);
    if (!write_and_sync(fd, text, err))
        return uvm_prefix(err, "%s", path);

    char self[PROC_PATH_MAX];
    proc_path(fd, self);
    if (linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW) != 0)
        return uvm_fail_errno(err, UVM_FAILED, "%s", path);
    return uvm_sync_dir_of(path, err);
}

/* Whether the file already holds exactly this text. */
static bool holds(const char *path, const char *text)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_buf buf = {.max = POOL_METADATA_MAX};
    return read_file(path, &buf, &err) && buf.len == strlen(text) &&
           memcmp(buf.data, text, buf.len) == 0;
}

/* What another program wrote for a volume that was not complete is not to be believed. */
static bool replace(const struct pool *p, const char *name, const char *path, const char *text,
                    struct uvm_error *err)
{
    bool exists = false;
    return pool_metadata_exists(p, name, &exists, err) &&
           (!exists || pool_metadata_unlink(p, name, err)) &&
           (link_new(p->metadata_dir, path, text, err) || uvm_prefix(err, "metadata"));
}

bool pool_metadata_link(const struct pool *p, const char *name, const char *text,
                        struct uvm_error *err)
{
    uvm_auto_free char *path = pool_metadata_path(p, name);
    /* The run that put it there may have been killed before its name was durable. */
    if (holds(path, text))
        return uvm_sync_dir_of(path, err);
    for (int tries = 1; !replace(p, name, path, text, err); tries++) {
        /* Another program, which is syncing in this moment, was quicker. */
        if (err->sys_errno != EEXIST || tries == LINK_TRIES)
            return false;
        uvm_error_clear(err);
    }
    return true;
}

bool pool_metadata_unlink(const struct pool *p, const char *name, struct uvm_error *err)
{
    uvm_auto_free char *path = pool_metadata_path(p, name);
    if (unlink(path) != 0 && errno != ENOENT)
        return uvm_fail_errno(err, UVM_FAILED, "metadata: remove %s", path);
    if (!uvm_sync_dir_of(path, err)) {
        if (err->sys_errno != ENOENT)
            return uvm_prefix(err, "metadata");
        uvm_error_clear(err); /* no folder, no file */
    }
    return true;
}
