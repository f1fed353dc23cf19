/*
 * How an image that no stream lists gets into the mirror:
 *
 *     file or URL --bytes--> uvmirror/partial/added --rename--> local/<release>/.../<file name>
 *                     \----> SHA-256, SHA-512 when it is wanted, the qcow2 head as soon as it is there
 *
 * Nobody has signed how long it is or what its sum is, so the name of the partial file says nothing,
 * and the next one starts over. In contrast to a download, which can be repeated, the file is synced:
 * where it came from may be gone tomorrow.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "mirror/beneath.h"
#include "mirror/intake.h"
#include "mirror/qcow2.h"

#define PARTIAL   "added"
#define FILE_MODE 0644

#define ADVICE "'qemu-img convert -O qcow2 OLD NEW' makes a plain one"

struct transfer {
    struct mirror_tree *tree;
    const struct uvm_observer *observer;
    const char *step, *title;
    int fd;
    struct mirror_image expected; /* the sums that are known, borrowed */
    struct mirror_sums sums;
    uint64_t total; /* as announced, or MIRROR_SIZE_UNKNOWN */
    uint64_t limit; /* what there is room for */
    uint64_t max_virtual;
    struct uvm_buf head; /* the first MIRROR_QCOW2_HEAD bytes */
    struct mirror_qcow2 info;
};

static void transfer_clear(struct transfer *x)
{
    mirror_sums_clear(&x->sums);
    uvm_buf_clear(&x->head);
}
#define auto_transfer __attribute__((cleanup(transfer_clear))) struct transfer

void mirror_intake_clear(struct mirror_intake *intake)
{
    if (intake->fd >= 0)
        unlinkat(intake->tree->partial_fd, PARTIAL, 0);
    uvm_close_ptr(&intake->fd);
    mirror_sums_clear(&intake->sums);
    *intake = MIRROR_INTAKE_INIT;
}

/* ---- is it a qcow2? ---- */

/* `size` may be a guess while the image is on its way. */
static bool check_head(struct transfer *x, uint64_t size, struct uvm_error *err)
{
    if (!mirror_qcow2_check(x->head.data, x->head.len, size, UINT64_MAX, &x->info, err)) {
        uvm_auto_free char *message = UVM_STEAL(err->message);
        err->message = uvm_format("%s (%s)", message, ADVICE);
        return false;
    }
    if (x->info.virtual_size <= x->max_virtual)
        return true;
    uvm_auto_free char *virtual = uvm_size_text(x->info.virtual_size),
                       *limit = uvm_size_text(x->max_virtual);
    return uvm_fail(err, UVM_CONTENT,
                    "its disk of %s is over the limit of %s (see --max-virtual-size)", virtual,
                    limit);
}

/* Keeps the head, and looks at it as soon as it is there: before hours of download. */
static bool take_head(struct transfer *x, const void *data, size_t len, struct uvm_error *err)
{
    size_t missing = MIRROR_QCOW2_HEAD - x->head.len;
    if (missing == 0)
        return true;
    if (!uvm_buf_add(&x->head, data, len < missing ? len : missing, err))
        return false;
    return x->head.len < MIRROR_QCOW2_HEAD ||
           check_head(x, x->total == MIRROR_SIZE_UNKNOWN ? MIRROR_SIZE_MAX : x->total, err);
}

/* ---- the sink ---- */

static bool start_over(struct transfer *x, struct uvm_error *err)
{
    mirror_sums_start(&x->sums, &x->expected);
    uvm_buf_clear(&x->head);
    if (ftruncate(x->fd, 0) < 0 || lseek(x->fd, 0, SEEK_SET) < 0)
        return uvm_fail_errno(err, UVM_FAILED, "cannot empty the partial file");
    return true;
}

static bool check_limit(const struct transfer *x, uint64_t need, struct uvm_error *err)
{
    if (need <= x->limit)
        return true;
    uvm_auto_free char *needed = uvm_size_text(need), *room = uvm_size_text(x->limit);
    return uvm_fail(err, UVM_SPACE, "needs %s, but the mirror folder %s has room for %s", needed,
                    x->tree->dir, room);
}

/* How much may come: what is announced, and else as much as there is room for. */
static bool set_limit(struct transfer *x, uint64_t total, struct uvm_error *err)
{
    uint64_t free_bytes;
    if (!uvm_free_space(x->tree->dir, &free_bytes, err))
        return false;
    x->total = total;
    x->limit =
        free_bytes < MIRROR_SIZE_MAX - x->sums.bytes ? x->sums.bytes + free_bytes : MIRROR_SIZE_MAX;
    return total == MIRROR_SIZE_UNKNOWN || check_limit(x, total, err);
}

static bool sink_start(void *opaque, const struct mirror_answer *answer, struct uvm_error *err)
{
    struct transfer *x = opaque;
    return (answer->offset != 0 || start_over(x, err)) && set_limit(x, answer->total, err);
}

static bool sink_write(void *opaque, const void *data, size_t len, struct uvm_error *err)
{
    struct transfer *x = opaque;
    if (!check_limit(x, x->sums.bytes + len, err))
        return false;
    if (!uvm_write_all(x->fd, data, len, err))
        return uvm_prefix(err, "mirror folder %s", x->tree->dir);
    mirror_sums_add(&x->sums, data, len);
    uvm_progress(x->observer, x->step, x->title, x->sums.bytes,
                 x->total == MIRROR_SIZE_UNKNOWN ? 0 : x->total);
    return take_head(x, data, len, err);
}

/* ---- once it is whole ---- */

static bool check_size(const struct transfer *x, struct uvm_error *err)
{
    if (x->total == MIRROR_SIZE_UNKNOWN || x->sums.bytes == x->total)
        return true;
    return uvm_fail(err, UVM_SOURCE,
                    "it came to %llu bytes instead of %llu: did it change meanwhile?",
                    (unsigned long long)x->sums.bytes, (unsigned long long)x->total);
}

static bool check_sums(struct transfer *x, struct uvm_error *err)
{
    struct mirror_image *expected = &x->expected;
    expected->size = x->sums.bytes;
    if (mirror_sums_check(&x->sums, expected, err))
        return true;
    bool long_one = expected->sha512 && strcmp(expected->sha512, x->sums.sha512_hex) != 0;
    uvm_error_clear(err);
    return uvm_fail(err, UVM_CONTENT, "its %s sum is %s, and should be %s",
                    long_one ? "SHA-512" : "SHA-256",
                    long_one ? x->sums.sha512_hex : x->sums.sha256_hex,
                    long_one ? expected->sha512 : expected->sha256);
}

/* ---- all of it ---- */

static bool open_partial(struct mirror_tree *t, int *ret_fd, struct uvm_error *err)
{
    unlinkat(t->partial_fd, PARTIAL, 0); /* of a run that was killed */
    *ret_fd = mirror_beneath_open(t->partial_fd, PARTIAL, O_RDWR | O_CREAT | O_EXCL, FILE_MODE);
    return *ret_fd >= 0 ||
           uvm_fail_errno(err, UVM_FAILED, "cannot write in %s/uvmirror/partial", t->dir);
}

static bool transfer(struct transfer *x, struct mirror_place *place, struct uvm_error *err)
{
    struct mirror_sink sink = {sink_start, sink_write, x};
    struct mirror_wanted wanted = {
        .path = place->name, .size = MIRROR_SIZE_UNKNOWN, .title = x->title};
    return mirror_source_get(place->source, &wanted, &sink, x->observer, err) && check_size(x, err);
}

bool mirror_intake_take(struct mirror_tree *t, const struct mirror_addition *addition,
                        const struct mirror_image *expected, const char *title,
                        struct mirror_intake *ret_intake, struct uvm_error *err)
{
    mirror_auto_place place = {0};
    mirror_auto_intake intake = {.tree = t, .fd = -1};
    if (!mirror_place_open(addition->image, &addition->network, addition->observer, &place, err) ||
        !open_partial(t, &intake.fd, err))
        return false;
    auto_transfer x = {
        .tree = t,
        .observer = addition->observer,
        .step = place.remote ? "download" : "copy",
        .title = title,
        .fd = intake.fd,
        .expected = {.sha256 = expected->sha256, .sha512 = expected->sha512},
        .max_virtual = addition->max_virtual ? addition->max_virtual : MIRROR_VIRTUAL_MAX,
    };
    if (!transfer(&x, &place, err) || !check_sums(&x, err) || !check_head(&x, x.sums.bytes, err))
        return false;
    uvm_auto_free char *size = uvm_size_text(x.sums.bytes);
    uvm_done(x.observer, x.step, title, "%s", size);
    /* All that is behind the head, as import will look at it: better here than behind the air gap. */
    if (!mirror_qcow2_check_tables(&x.info, x.fd, x.sums.bytes, x.observer, err))
        return false;
    uvm_done(x.observer, "verify", title, "a sound qcow2");
    intake.sums = x.sums;
    x.sums = (struct mirror_sums){0};
    *ret_intake = intake;
    intake = MIRROR_INTAKE_INIT;
    return true;
}

struct mirror_image mirror_intake_image(struct mirror_intake *intake)
{
    struct mirror_sums *sums = &intake->sums;
    return (struct mirror_image){.size = sums->bytes,
                                 .sha256 = sums->sha256_hex,
                                 .sha512 = sums->sha512 ? sums->sha512_hex : NULL};
}

/* All folders on the way, some of which may be new. */
static bool sync_folders(const struct mirror_tree *t, const char *path, struct uvm_error *err)
{
    uvm_auto_free char *folder = uvm_strdup(path);
    for (char *slash; (slash = strrchr(folder, '/'));) {
        *slash = 0;
        uvm_auto_fd fd = mirror_beneath_open(t->root_fd, folder, O_RDONLY | O_DIRECTORY, 0);
        if (fd < 0 || fsync(fd) < 0)
            return uvm_fail_errno(err, UVM_FAILED, "cannot sync %s/%s", t->dir, folder);
    }
    return fsync(t->root_fd) == 0 || uvm_fail_errno(err, UVM_FAILED, "cannot sync %s", t->dir);
}

bool mirror_intake_place(struct mirror_intake *intake, const struct mirror_image *image,
                         struct uvm_error *err)
{
    struct mirror_tree *t = intake->tree;
    uvm_auto_fd parent = -1;
    const char *name;
    struct stat st;
    if (!mirror_beneath_parent(t->root_fd, image->path, &parent, &name, err))
        return uvm_prefix(err, "mirror folder %s", t->dir);
    if (fsync(intake->fd) < 0 || renameat(t->partial_fd, PARTIAL, parent, name) < 0 ||
        fstat(intake->fd, &st) < 0)
        return uvm_fail_errno(err, UVM_FAILED, "cannot put it at %s/%s", t->dir, image->path);
    if (!sync_folders(t, image->path, err))
        return false;
    mirror_verified_set(t->verified, image->path, &st, image->sha256, image->sha512,
                        MIRROR_ON_DISK);
    uvm_close_ptr(&intake->fd);
    return true;
}
