/* Readers of images that stand in the tree. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "mirror/reader.h"
#include "mirror/sums.h"

#define READ_BLOCK ((size_t)512 << 10)

struct file_reader {
    struct mirror_reader base;
    const struct mirror_tree *tree;
    const struct mirror_image *image;
    int fd;
    uint64_t done;
    struct mirror_sums sums; /* not started when no byte is hashed */
    bool known;              /* no byte need be hashed */
    char block[READ_BLOCK];
};

struct uvm_reader mirror_reader_bytes(struct mirror_reader *r)
{
    return (struct uvm_reader){r->read, r};
}

void mirror_reader_free(struct mirror_reader *r)
{
    if (r)
        r->free(r);
}

static bool fail_changed(const struct mirror_tree *t, const struct mirror_image *image,
                         const char *what, struct uvm_error *err)
{
    mirror_verified_forget(t->verified, image->path);
    return uvm_fail(err, UVM_CONTENT,
                    "%s/%s: its %s has changed since it was verified: fetch it again", t->dir,
                    image->path, what);
}

bool mirror_reader_check_known(const struct mirror_tree *t, const struct mirror_image *image,
                               int fd, struct uvm_error *err)
{
    struct stat st;
    return (fstat(fd, &st) == 0 && mirror_tree_knows(t, image, &st)) ||
           fail_changed(t, image, "content", err);
}

static bool check_end(struct file_reader *r, struct uvm_error *err)
{
    uvm_auto_error why = UVM_ERROR_INIT;
    if (r->done != r->image->size)
        return fail_changed(r->tree, r->image, "size", err);
    if (r->known)
        return mirror_reader_check_known(r->tree, r->image, r->fd, err);
    if (!r->sums.sha256) /* its end was reported before */
        return true;
    bool good = mirror_sums_check(&r->sums, r->image, &why);
    mirror_sums_clear(&r->sums);
    return good || fail_changed(r->tree, r->image, "content", err);
}

static bool take(struct file_reader *r, size_t len, struct uvm_error *err)
{
    if (len > r->image->size - r->done)
        return fail_changed(r->tree, r->image, "size", err);
    if (!r->known)
        mirror_sums_add(&r->sums, r->block, len);
    r->done += len;
    return true;
}

static bool read_file(void *opaque, const void **ret_data, size_t *ret_len, struct uvm_error *err)
{
    struct file_reader *r = opaque;
    size_t len = 0;
    if (!uvm_read_some(r->fd, r->block, READ_BLOCK, &len, err))
        return uvm_prefix(err, "%s/%s", r->tree->dir, r->image->path);
    if (!(len == 0 ? check_end(r, err) : take(r, len, err)))
        return false;
    *ret_data = r->block;
    *ret_len = len;
    return true;
}

static void free_file(struct mirror_reader *base)
{
    struct file_reader *r = (struct file_reader *)base;
    mirror_sums_clear(&r->sums);
    uvm_close_ptr(&r->fd);
    free(r);
}

static struct file_reader *open_file(const struct mirror_tree *t, const struct mirror_image *image,
                                     struct uvm_error *err)
{
    uvm_auto_fd fd = -1;
    if (!mirror_tree_open_image(t, image, &fd, err))
        return NULL;
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    struct file_reader *r = uvm_alloc(sizeof *r);
    r->base = (struct mirror_reader){read_file, free_file};
    r->tree = t;
    r->image = image;
    r->fd = uvm_steal_fd(&fd);
    return r;
}

bool mirror_tree_read(const struct mirror_tree *t, const struct mirror_image *image,
                      struct mirror_reader **ret_reader, struct uvm_error *err)
{
    struct file_reader *r = open_file(t, image, err);
    if (!r)
        return false;
    mirror_sums_start(&r->sums, image);
    *ret_reader = &r->base;
    return true;
}

bool mirror_reader_open_known(const struct mirror_tree *t, const struct mirror_image *image,
                              struct mirror_reader **ret_reader, struct uvm_error *err)
{
    struct file_reader *r = open_file(t, image, err);
    if (!r)
        return false;
    r->known = true;
    *ret_reader = &r->base;
    return true;
}
