/*
 * How an image gets into the mirror:
 *
 *     source --bytes--> uvmirror/partial/<hex of its checksum> --rename--> <path of the image>
 *                \----> SHA-256, and SHA-512 when it is signed
 *
 * The name of a partial file is the content that it is to have, so what a run left behind can be
 * taken up by any later one: its bytes are hashed, the rest is asked for. Nothing is believed about
 * them; when the sum is wrong, the image is fetched once more from its start.
 *
 * A finished file is not synced (verified.c says why, and what takes its place).
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "mirror/beneath.h"
#include "mirror/source.h"
#include "mirror/tree.h"

#define FILE_MODE  0644
#define HASH_BLOCK ((size_t)512 << 10)

/* The checksums of one image, and how far they are. */
struct sums {
    struct uvm_digest *sha256, *sha512; /* sha512 NULL when it is not signed */
    uint64_t bytes;
    char sha256_hex[UVM_DIGEST_HEX_MAX], sha512_hex[UVM_DIGEST_HEX_MAX];
};

static void sums_clear(struct sums *sums)
{
    uvm_digest_free(sums->sha256);
    uvm_digest_free(sums->sha512);
    *sums = (struct sums){0};
}
#define auto_sums __attribute__((cleanup(sums_clear))) struct sums

static void sums_start(struct sums *sums, const struct mirror_image *image)
{
    sums_clear(sums);
    sums->sha256 = uvm_digest_new(UVM_SHA256);
    sums->sha512 = image->sha512 ? uvm_digest_new(UVM_SHA512) : NULL;
}

static void sums_add(struct sums *sums, const void *data, size_t len)
{
    uvm_digest_update(sums->sha256, data, len);
    if (sums->sha512)
        uvm_digest_update(sums->sha512, data, len);
    sums->bytes += len;
}

/* Everything that the stream signs about the bytes holds. Ends the computation. */
static bool sums_check(struct sums *sums, const struct mirror_image *image, struct uvm_error *err)
{
    uvm_digest_finish(sums->sha256, sums->sha256_hex);
    if (sums->sha512)
        uvm_digest_finish(sums->sha512, sums->sha512_hex);
    if ((image->sha256 && strcmp(image->sha256, sums->sha256_hex) != 0) ||
        (image->sha512 && strcmp(image->sha512, sums->sha512_hex) != 0))
        return uvm_fail(err, UVM_CONTENT, "its checksum is not the signed one");
    return true;
}

/* ---- one image on its way ---- */

struct download {
    struct mirror_tree *tree;
    const struct mirror_image *image;
    const struct uvm_observer *observer;
    char *title;         /* printable */
    const char *partial; /* its name: the strongest checksum */
    int fd;              /* of the partial file */
    bool resumed;        /* bytes of an earlier run are part of it */
    struct sums sums;
};

static void download_clear(struct download *d)
{
    sums_clear(&d->sums);
    uvm_close_ptr(&d->fd);
    free(d->title);
}
#define auto_download __attribute__((cleanup(download_clear))) struct download

static struct download download_of(struct mirror_tree *t, const struct mirror_image *image,
                                   const struct uvm_observer *observer)
{
    uvm_auto_free char *title = mirror_image_title(image);
    struct download d = {
        .tree = t, .image = image, .observer = observer, .title = uvm_printable(title), .fd = -1};
    mirror_image_digest(image, &d.partial);
    return d;
}

static void report(const struct download *d, const char *step)
{
    uvm_progress(d->observer, step, d->title, d->sums.bytes, d->image->size);
}

/* Hashes what `fd` holds, from its start to its end, which leaves the file's position there. */
static bool hash_file(struct download *d, int fd, struct uvm_error *err)
{
    uvm_auto_free char *block = uvm_alloc(HASH_BLOCK);
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    while (uvm_go_on(d->observer, err)) {
        size_t len = 0;
        if (!uvm_read_some(fd, block, HASH_BLOCK, &len, err))
            return false;
        if (len == 0)
            return true;
        sums_add(&d->sums, block, len);
        report(d, "verify");
    }
    return false;
}

/* ---- files that are there without a record ---- */

/* Sets *ret_adopted when the file at the image's path turned out to be the image. */
static bool adopt(struct download *d, bool *ret_adopted, struct uvm_error *err)
{
    uvm_auto_error why = UVM_ERROR_INIT;
    uvm_auto_fd fd =
        mirror_beneath_open(d->tree->root_fd, d->image->path, O_RDONLY | O_NONBLOCK, 0);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
        (uint64_t)st.st_size != d->image->size)
        return true;
    sums_start(&d->sums, d->image);
    if (!hash_file(d, fd, &why) && why.code == UVM_INTERRUPTED) {
        *err = why;
        why = UVM_ERROR_INIT;
        return false;
    }
    if (why.code != UVM_OK || !sums_check(&d->sums, d->image, &why) || fsync(fd) < 0)
        return true; /* the download will put a good one in its place */
    mirror_verified_set(d->tree->verified, d->image->path, &st, d->sums.sha256_hex,
                        d->image->sha512 ? d->sums.sha512_hex : NULL, MIRROR_ON_DISK);
    uvm_done(d->observer, "verify", d->title, "already in the mirror");
    *ret_adopted = true;
    return true;
}

/* ---- the partial file ---- */

static bool open_partial(struct download *d, struct uvm_error *err)
{
    uvm_close_ptr(&d->fd);
    d->fd = mirror_beneath_open(d->tree->partial_fd, d->partial, O_RDWR | O_CREAT | O_NONBLOCK,
                                FILE_MODE);
    struct stat st;
    if (d->fd < 0 || fstat(d->fd, &st) < 0)
        return uvm_fail_errno(err, UVM_FAILED, "cannot write in %s/uvmirror/partial", d->tree->dir);
    if (!S_ISREG(st.st_mode) || st.st_nlink != 1)
        return uvm_fail(err, UVM_FAILED, "%s/uvmirror/partial/%s is not a plain file", d->tree->dir,
                        d->partial);
    sums_start(&d->sums, d->image);
    if ((uint64_t)st.st_size > d->image->size && ftruncate(d->fd, 0) < 0)
        return uvm_fail_errno(err, UVM_FAILED, "cannot empty the partial file");
    return true;
}

static void drop_partial(struct download *d)
{
    unlinkat(d->tree->partial_fd, d->partial, 0);
    uvm_close_ptr(&d->fd);
    d->fd = -1;
}

static bool is_empty(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && st.st_size == 0;
}

static bool check_space(const struct download *d, struct uvm_error *err)
{
    uint64_t free_bytes, need = d->image->size - d->sums.bytes;
    if (!uvm_free_space(d->tree->dir, &free_bytes, err))
        return false;
    if (need <= free_bytes)
        return true;
    uvm_auto_free char *need_text = uvm_size_text(need);
    uvm_auto_free char *free_text = uvm_size_text(free_bytes);
    return uvm_fail(err, UVM_SPACE, "needs %s, but the mirror folder %s has only %s free",
                    need_text, d->tree->dir, free_text);
}

/* ---- the sink of the transfer ---- */

static bool sink_start(void *opaque, uint64_t offset, uint64_t total, struct uvm_error *err)
{
    struct download *d = opaque;
    if (total != MIRROR_SIZE_UNKNOWN && total != d->image->size)
        return uvm_fail(err, total > d->image->size ? UVM_CONTENT : UVM_SOURCE,
                        "the source has %llu bytes, the stream signs %llu",
                        (unsigned long long)total, (unsigned long long)d->image->size);
    d->resumed = offset > 0;
    if (offset == d->sums.bytes)
        return true;
    sums_start(&d->sums, d->image);
    if (ftruncate(d->fd, 0) < 0 || lseek(d->fd, 0, SEEK_SET) < 0)
        return uvm_fail_errno(err, UVM_FAILED, "cannot empty the partial file");
    return true;
}

static bool sink_write(void *opaque, const void *data, size_t len, struct uvm_error *err)
{
    struct download *d = opaque;
    if (len > d->image->size - d->sums.bytes)
        return uvm_fail(err, UVM_CONTENT, "more than the %llu bytes that the stream signs",
                        (unsigned long long)d->image->size);
    if (!uvm_write_all(d->fd, data, len, err))
        return uvm_prefix(err, "mirror folder %s", d->tree->dir);
    sums_add(&d->sums, data, len);
    report(d, "download");
    return true;
}

static bool transfer(struct download *d, struct mirror_source *source, struct uvm_error *err)
{
    struct mirror_sink sink = {sink_start, sink_write, d};
    struct mirror_wanted wanted = {d->image->path, d->sums.bytes, d->image->size};
    if (!mirror_source_get(source, &wanted, &sink, d->observer, err))
        return false;
    if (d->sums.bytes < d->image->size)
        return uvm_fail(err, UVM_SOURCE, "it ended after %llu of %llu bytes",
                        (unsigned long long)d->sums.bytes, (unsigned long long)d->image->size);
    return true;
}

static bool complete(struct download *d, struct mirror_source *source, struct uvm_error *err)
{
    if (!hash_file(d, d->fd, err))
        return false;
    d->resumed = d->sums.bytes > 0;
    bool whole = d->resumed && d->sums.bytes == d->image->size;
    return check_space(d, err) && (whole || transfer(d, source, err)) &&
           sums_check(&d->sums, d->image, err);
}

/* Fills the partial file up to the whole, verified image. On failure it stays, unless its bytes are
 * no good or there are none. */
static bool attempt(struct download *d, struct mirror_source *source, struct uvm_error *err)
{
    if (!open_partial(d, err))
        return false;
    bool ok = complete(d, source, err);
    if (!ok && (err->code == UVM_CONTENT || is_empty(d->fd)))
        drop_partial(d);
    return ok;
}

/* ---- into its place ---- */

static bool place(struct download *d, struct uvm_error *err)
{
    uvm_auto_fd parent = -1;
    const char *name;
    struct stat st;
    enum mirror_durability durability =
        mirror_verified_knows_boot(d->tree->verified) ? MIRROR_IN_CACHE : MIRROR_ON_DISK;
    if (!mirror_beneath_parent(d->tree->root_fd, d->image->path, &parent, &name, err))
        return uvm_prefix(err, "mirror folder %s", d->tree->dir);
    if ((durability == MIRROR_ON_DISK && fsync(d->fd) < 0) ||
        renameat(d->tree->partial_fd, d->partial, parent, name) < 0 || fstat(d->fd, &st) < 0)
        return uvm_fail_errno(err, UVM_FAILED, "cannot put it at %s/%s", d->tree->dir,
                              d->image->path);
    mirror_verified_set(d->tree->verified, d->image->path, &st, d->sums.sha256_hex,
                        d->image->sha512 ? d->sums.sha512_hex : NULL, durability);
    return true;
}

static bool download(struct download *d, struct mirror_source *source, struct uvm_error *err)
{
    bool ok = attempt(d, source, err);
    if (!ok && err->code == UVM_CONTENT && d->resumed) {
        /* Perhaps only what the earlier run left was wrong. */
        uvm_error_clear(err);
        ok = attempt(d, source, err);
    }
    return ok && place(d, err);
}

bool mirror_tree_fetch(struct mirror_tree *t, struct mirror_source *source,
                       const struct mirror_image *image, const struct uvm_observer *observer,
                       struct uvm_error *err)
{
    if (mirror_tree_has(t, image))
        return true;
    auto_download d = download_of(t, image, observer);
    bool adopted = false;
    if (!adopt(&d, &adopted, err))
        return uvm_prefix(err, "%s", d.title);
    if (adopted)
        return true;
    if (!download(&d, source, err))
        return uvm_prefix(err, "%s", d.title);
    uvm_auto_free char *size = uvm_size_text(image->size);
    uvm_done(observer, "download", d.title, "%s", size);
    return true;
}
