/*
 * Writing a bundle as a series of files that a medium takes: plain cuts of the one stream.
 *
 *     .NAME.uvm-XXXXXX/              while it is written: a folder, locked, that nobody else looks at
 *         NAME.001  NAME.002 ...
 *     NAME.001  NAME.002 ...         then they get their names,
 *     NAME.sums                      and last the sums, which make them a bundle
 *
 * What fits into one part is no split bundle: it gets the plain NAME, and has no sums.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bundle/internal.h"

struct bundle_parts {
    const struct bundle_parts_options *options;
    char *folder; /* where the parts are to stand */
    char *name;   /* NAME */
    char *work;   /* the folder in which they are made */
    int work_fd;  /* locked */
    struct bundle_sums sums;

    struct bundle_file file; /* the present part; its fd is owned */
    char *file_name;
    struct uvm_digest *head;   /* of its first bytes, until there are enough */
    uint64_t written;          /* bytes of the stream's present part, kept or not */
    struct uvm_strings placed; /* final names that were given */
};

/* ---- the folder ---- */

void bundle_parts_free(struct bundle_parts *p)
{
    uvm_auto_error ignored = UVM_ERROR_INIT;
    if (!p)
        return;
    for (size_t i = 0; i < p->placed.count; i++)
        unlink(p->placed.items[i]);
    uvm_strings_clear(&p->placed);
    uvm_close_ptr(&p->file.fd);
    bundle_file_clear(&p->file);
    uvm_digest_free(p->head);
    if (p->work)
        uvm_remove_tree(p->work, &ignored);
    uvm_close_ptr(&p->work_fd);
    bundle_sums_clear(&p->sums);
    free(p->file_name);
    free(p->folder);
    free(p->name);
    free(p->work);
    free(p);
}

static bool make_work_folder(struct bundle_parts *p, struct uvm_error *err)
{
    uvm_remove_unfinished(p->folder);
    uvm_auto_free char *hidden = uvm_format(".%s" UVM_UNFINISHED_TAIL, p->name);
    uvm_auto_free char *path = bundle_path_in(p->folder, hidden);
    if (!mkdtemp(path))
        return uvm_fail_errno(err, UVM_FAILED, "cannot write in folder %s", p->folder);
    p->work = UVM_STEAL(path);
    p->work_fd = open(p->work, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (p->work_fd < 0)
        return uvm_fail_errno(err, UVM_FAILED, "%s", p->work);
    uvm_claim(p->work_fd, LOCK_EX); /* says that somebody still writes here */
    return true;
}

bool bundle_parts_new(const char *path, const struct bundle_parts_options *options,
                      struct bundle_parts **ret_parts, struct uvm_error *err)
{
    UVM_AUTO(bundle_parts_free) struct bundle_parts *p = uvm_alloc(sizeof *p);
    const char *slash = strrchr(path, '/');
    p->options = options;
    p->folder = uvm_dirname(path);
    p->name = uvm_strdup(slash ? slash + 1 : path);
    p->work_fd = -1;
    p->file.fd = -1;
    if (!bundle_sums_name_fits(p->name))
        return uvm_fail(err, UVM_USAGE, "%s: a split bundle needs a plainer or shorter name", path);
    p->sums.name = uvm_strdup(p->name);
    if (!make_work_folder(p, err))
        return false;
    *ret_parts = UVM_STEAL(p);
    return true;
}

/* ---- the stream, cut ---- */

static bool is_wanted(const struct bundle_parts *p, size_t number)
{
    const struct bundle_parts_options *o = p->options;
    if (!o->only)
        return true;
    for (size_t i = 0; i < o->only_count; i++)
        if (o->only[i] == number)
            return true;
    return false;
}

static bool begin_part(struct bundle_parts *p, struct uvm_error *err)
{
    bundle_sums_add(&p->sums);
    p->written = 0;
    if (p->sums.count > BUNDLE_PARTS_MAX)
        return uvm_fail(err, UVM_USAGE,
                        "%s: would have more than %d parts: split it into larger ones", p->name,
                        BUNDLE_PARTS_MAX);
    if (!is_wanted(p, p->sums.count))
        return true;
    p->file_name = bundle_part_name(p->name, p->sums.count);
    int fd = openat(p->work_fd, p->file_name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0)
        return uvm_fail_errno(err, UVM_FAILED, "%s/%s", p->work, p->file_name);
    bundle_file_init(&p->file, fd, p->file_name, BUNDLE_HASHED);
    p->head = uvm_digest_new(UVM_SHA256);
    return true;
}

static bool read_back(struct bundle_parts *p, const struct bundle_part *part, struct uvm_error *err)
{
    struct bundle_check check = {
        .step = "read back", .name = p->file_name, .size = part->size, .sha256 = part->sha256};
    return p->options->read_back == BUNDLE_READ_BACK_NEVER ||
           bundle_file_read_back(p->file.fd, &check, p->options->observer, err);
}

static bool end_part(struct bundle_parts *p, struct uvm_error *err)
{
    struct bundle_part *part = &p->sums.parts[p->sums.count - 1];
    part->size = p->written;
    if (p->file.fd < 0)
        return true;
    uvm_digest_finish(p->head, part->head);
    uvm_digest_free(UVM_STEAL(p->head));
    if (!bundle_file_sync(&p->file, part->sha256, err) || !read_back(p, part, err))
        return false;
    int fd = uvm_steal_fd(&p->file.fd);
    bundle_file_clear(&p->file);
    if (close(fd) < 0)
        return uvm_fail_errno(err, UVM_FAILED, "writing %s", p->file_name);
    free(UVM_STEAL(p->file_name));
    return true;
}

static bool put(struct bundle_parts *p, const char *data, size_t len, struct uvm_error *err)
{
    if (p->file.fd >= 0) {
        size_t head = p->written < BUNDLE_PART_HEAD ? BUNDLE_PART_HEAD - (size_t)p->written : 0;
        uvm_digest_update(p->head, data, len < head ? len : head);
        if (!bundle_file_write(&p->file, data, len, err))
            return false;
    }
    p->written += len;
    return true;
}

static bool write_cut(void *opaque, const void *data, size_t len, struct uvm_error *err)
{
    struct bundle_parts *p = opaque;
    const char *at = data;
    while (len > 0) {
        bool full = p->written == p->options->part_size;
        if ((p->sums.count == 0 || full) && ((full && !end_part(p, err)) || !begin_part(p, err)))
            return false;
        uint64_t room = p->options->part_size - p->written;
        size_t n = len < room ? len : (size_t)room;
        if (!put(p, at, n, err))
            return false;
        at += n;
        len -= n;
    }
    return true;
}

struct bundle_sink bundle_parts_sink(struct bundle_parts *p)
{
    return (struct bundle_sink){write_cut, p};
}

bool bundle_parts_finish(struct bundle_parts *p, const struct bundle_sums **ret_sums,
                         struct uvm_error *err)
{
    if (!end_part(p, err))
        return false;
    *ret_sums = &p->sums;
    return true;
}

/* ---- in their places ---- */

/* The sums of an older bundle of that name go first: without them its parts count for nothing. */
static bool drop_old_sums(const struct bundle_parts *p, struct uvm_error *err)
{
    uvm_auto_free char *place = bundle_path_in(p->folder, p->name);
    uvm_auto_free char *sums = uvm_format("%s" BUNDLE_SUMS_SUFFIX, place);
    if (unlink(sums) < 0 && errno != ENOENT)
        return uvm_fail_errno(err, UVM_FAILED, "%s", sums);
    return true;
}

static void drop_old_parts(const struct bundle_parts *p)
{
    uvm_auto_free char *place = bundle_path_in(p->folder, p->name);
    for (size_t n = p->sums.count + 1; n <= BUNDLE_PARTS_MAX; n++) {
        uvm_auto_free char *path = bundle_part_name(place, n);
        if (unlink(path) < 0)
            return;
    }
}

static bool replace(const struct bundle_parts *p, const char *made, const char *path,
                    struct uvm_error *err)
{
    struct stat st;
    if (lstat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode))
        return uvm_fail(err, UVM_FAILED, "%s is not a file, and not to be replaced by one", path);
    if (renameat(p->work_fd, made, AT_FDCWD, path) < 0)
        return uvm_fail_errno(err, UVM_FAILED, "%s", path);
    return true;
}

static bool place(struct bundle_parts *p, const char *made, const char *name, struct uvm_error *err)
{
    uvm_auto_free char *path = bundle_path_in(p->folder, name);
    bool placed = p->options->named ? uvm_rename_new(p->work_fd, made, path, err)
                                    : replace(p, made, path, err);
    if (placed)
        uvm_strings_add(&p->placed, path);
    return placed;
}

static bool place_parts(struct bundle_parts *p, struct uvm_error *err)
{
    bool single = p->sums.count == 1 && !p->options->only;
    for (size_t n = 1; n <= p->sums.count; n++) {
        uvm_auto_free char *name = bundle_part_name(p->name, n);
        if (is_wanted(p, n) && !place(p, name, single ? p->name : name, err))
            return false;
    }
    return true;
}

static bool make_sums(struct bundle_parts *p, const struct uvm_buf *content, const char *name,
                      struct uvm_error *err)
{
    char sha256[UVM_DIGEST_HEX_MAX];
    uvm_auto_fd fd = openat(p->work_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0 || !uvm_write_all(fd, content->data, content->len, err) || fsync(fd) < 0)
        return err->code != UVM_OK ? uvm_prefix(err, "%s", name)
                                   : uvm_fail_errno(err, UVM_FAILED, "%s", name);
    uvm_digest_bytes(UVM_SHA256, content->data, content->len, sha256);
    struct bundle_check check = {
        .step = "read back", .name = name, .size = content->len, .sha256 = sha256};
    return p->options->read_back == BUNDLE_READ_BACK_NEVER ||
           bundle_file_read_back(fd, &check, p->options->observer, err);
}

bool bundle_parts_commit(struct bundle_parts *p, const struct uvm_buf *sums_file,
                         struct uvm_error *err)
{
    enum bundle_read_back read_back = p->options->read_back;
    uvm_auto_free char *sums = uvm_format("%s" BUNDLE_SUMS_SUFFIX, p->name);
    uvm_auto_free char *sums_path = bundle_path_in(p->folder, sums);
    if (sums_file && !make_sums(p, sums_file, sums, err))
        return false;
    bool replaces = sums_file && !p->options->named;
    if ((replaces && !drop_old_sums(p, err)) || !place_parts(p, err) ||
        !bundle_sync_folder_of(sums_path, read_back, err))
        return false;
    if (replaces)
        drop_old_parts(p);
    if (sums_file &&
        (!place(p, sums, sums, err) || !bundle_sync_folder_of(sums_path, read_back, err)))
        return false;
    uvm_strings_clear(&p->placed); /* they stay */
    return true;
}
