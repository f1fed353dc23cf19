/*
 * The mirror's images hashed again: all of them, or those of which nothing is known. What is good
 * gets a record that does not depend on this start of the machine. Of all, what is bad is removed,
 * so that nothing takes it for the image.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "mirror/beneath.h"
#include "mirror/held.h"
#include "mirror/sums.h"

#define HASH_BLOCK ((size_t)512 << 10)

void mirror_checked_clear(struct mirror_checked *c)
{
    uvm_strings_clear(&c->bad);
    *c = (struct mirror_checked){0};
}
#define auto_checked __attribute__((cleanup(mirror_checked_clear))) struct mirror_checked

/* ---- what is held ---- */

/* {path: entry} of every held file, with all the checksums that are known of it. */
static json_t *held_files(const struct mirror_holdings *h)
{
    json_t *files = json_object(), *entry;
    const char *key;
    for (size_t i = 0; i < h->count; i++)
        json_object_foreach(h->others[i].images, key, entry)
        {
            const char *path = json_string_value(json_object_get(entry, "path"));
            json_t *known = json_object_get(files, path);
            if (known)
                json_object_update_missing(known, entry);
            else
                json_object_set_new(files, path, json_copy(entry));
        }
    return files;
}

/* ---- one file ---- */

struct look {
    struct mirror_tree *tree;
    const struct uvm_observer *observer;
    struct mirror_image image;
    struct mirror_sums sums;
};

static void look_clear(struct look *l)
{
    mirror_image_clear(&l->image);
    mirror_sums_clear(&l->sums);
}

/* Reads what is on the disk, not what the kernel remembers of it. */
static bool hash_file(struct look *l, int fd, struct uvm_error *err)
{
    uvm_auto_free char *block = uvm_alloc(HASH_BLOCK);
    if (fsync(fd) < 0 && errno != EROFS && errno != EINVAL) /* which has nothing to sync */
        return uvm_fail_errno(err, UVM_FAILED, "cannot sync");
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    mirror_sums_start(&l->sums, &l->image);
    for (size_t len = 1; len > 0;) {
        if (!uvm_go_on(l->observer, err) || !uvm_read_some(fd, block, HASH_BLOCK, &len, err))
            return false;
        mirror_sums_add(&l->sums, block, len);
        uvm_progress(l->observer, "verify", l->image.path, l->sums.bytes, l->image.size);
    }
    return true;
}

/* Whether what was hashed is the image; then it is on record. */
static bool judge(struct look *l, const struct stat *st)
{
    uvm_auto_error why = UVM_ERROR_INIT;
    if (!mirror_sums_check(&l->sums, &l->image, &why))
        return false;
    mirror_verified_set(l->tree->verified, l->image.path, st, l->sums.sha256_hex,
                        l->image.sha512 ? l->sums.sha512_hex : NULL, MIRROR_ON_DISK);
    return true;
}

/* A file that is not there, or is no file, is bad; one that cannot be read is an error: it may be
 * good. */
static bool look_at(struct look *l, bool *ret_good, struct uvm_error *err)
{
    struct stat st;
    uvm_auto_fd fd = mirror_beneath_open(l->tree->root_fd, l->image.path, O_RDONLY | O_NONBLOCK, 0);
    if (fd < 0 && errno != ENOENT && errno != ENOTDIR && errno != ELOOP)
        return uvm_fail_errno(err, UVM_FAILED, "cannot open");
    *ret_good = false;
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
        (uint64_t)st.st_size != l->image.size)
        return true;
    if (!hash_file(l, fd, err))
        return false;
    *ret_good = judge(l, &st);
    return true;
}

static bool check_file(struct mirror_tree *t, const json_t *entry,
                       const struct uvm_observer *observer, bool *ret_good, struct uvm_error *err)
{
    __attribute__((cleanup(look_clear))) struct look l = {
        .tree = t, .observer = observer, .image = mirror_record_image(entry)};
    if (!uvm_go_on(observer, err))
        return false;
    if (!look_at(&l, ret_good, err))
        return err->code == UVM_INTERRUPTED ? false
                                            : uvm_prefix(err, "%s/%s", t->dir, l.image.path);
    if (*ret_good)
        uvm_done(observer, "verify", l.image.path, "good");
    return true;
}

/* ---- all of them ---- */

/* The file goes and is no longer known; *checked names it. */
static bool drop_file(struct mirror_tree *t, const char *path, const struct uvm_observer *observer,
                      struct mirror_checked *checked, struct uvm_error *err)
{
    mirror_verified_forget(t->verified, path);
    if (!mirror_beneath_remove(t->root_fd, path, err))
        return uvm_prefix(err, "mirror folder %s", t->dir);
    uvm_warning(observer, "%s/%s is not the image any more: it is taken out of the mirror", t->dir,
                path);
    uvm_strings_add(&checked->bad, path);
    return true;
}

static bool check_files(struct mirror_tree *t, json_t *files, const struct uvm_observer *observer,
                        struct mirror_checked *checked, struct uvm_error *err)
{
    const char *path;
    json_t *entry;
    json_object_foreach(files, path, entry)
    {
        bool good = false;
        if (!check_file(t, entry, observer, &good, err) ||
            (!good && !drop_file(t, path, observer, checked, err)))
            return false;
        checked->good += good;
        checked->bytes += good ? (uint64_t)json_integer_value(json_object_get(entry, "size")) : 0;
    }
    return true;
}

/* Takes the images at these paths out of a record. Should a removal not have reached the disk, the
 * next hold repeats it. */
static bool forget_images(const struct mirror_tree *t, struct mirror_record *r, const json_t *bad,
                          struct uvm_error *err)
{
    mirror_auto_json *kept = json_object();
    const char *key;
    json_t *entry;
    json_object_foreach(r->images, key, entry)
    {
        json_t *path = json_object_get(entry, "path");
        if (json_object_get(bad, json_string_value(path)))
            json_array_append(r->superseded, path);
        else
            json_object_set(kept, key, entry);
    }
    if (json_object_size(kept) == json_object_size(r->images))
        return true;
    json_decref(r->images);
    r->images = json_incref(kept);
    return mirror_record_save(t, r, err);
}

static bool forget_bad(const struct mirror_tree *t, const struct mirror_holdings *h,
                       const struct mirror_checked *checked, struct uvm_error *err)
{
    mirror_auto_json *bad = json_object();
    for (size_t i = 0; i < checked->bad.count; i++)
        json_object_set_new(bad, checked->bad.items[i], json_true());
    for (size_t i = 0; i < h->count; i++)
        if (!forget_images(t, &h->others[i], bad, err))
            return false;
    return true;
}

bool mirror_tree_check(struct mirror_tree *t, const struct uvm_observer *observer,
                       struct mirror_checked *ret_checked, struct uvm_error *err)
{
    mirror_auto_holdings h = {0};
    auto_checked checked = {0};
    uvm_auto_error unsaved = UVM_ERROR_INIT;
    if (!mirror_holdings_load(t, NULL, observer, &h, err))
        return false;
    if (h.gap)
        return uvm_fail(err, UVM_CONTENT, "%s", h.gap);
    mirror_auto_json *files = held_files(&h);
    bool done = check_files(t, files, observer, &checked, err);
    /* What was found is recorded in any case. */
    if (!forget_bad(t, &h, &checked, done ? err : &unsaved) || !done)
        return false;
    *ret_checked = checked;
    checked = (struct mirror_checked){0};
    return true;
}

/* ---- those that nothing is known about ---- */

static bool is_known(const struct mirror_tree *t, const json_t *entry)
{
    __attribute__((cleanup(mirror_image_clear))) struct mirror_image image =
        mirror_record_image(entry);
    return mirror_tree_has(t, &image);
}

bool mirror_tree_recall(struct mirror_tree *t, const struct uvm_observer *observer,
                        struct uvm_error *err)
{
    mirror_auto_holdings h = {0};
    if (!mirror_holdings_load(t, NULL, observer, &h, err))
        return false;
    mirror_auto_json *files = held_files(&h);
    const char *path;
    json_t *entry;
    json_object_foreach(files, path, entry)
    {
        bool ignored;
        if (!is_known(t, entry) && !check_file(t, entry, observer, &ignored, err))
            return false;
    }
    return true;
}
