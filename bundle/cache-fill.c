/* An image of the mirror, encoded into what the mirror keeps. */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bundle/cache.h"

#define STEP "compact"

struct fill {
    const struct bundle_cache *cache;
    const struct uvm_observer *observer;
};

/* The image's file as it was when it was hashed. */
struct source {
    int fd;
    char *title;
    struct stat was;
};

static void source_clear(struct source *s)
{
    uvm_close_ptr(&s->fd);
    free(s->title);
}

static bool fail_changed(const struct fill *f, const struct bundle_image *image,
                         struct uvm_error *err)
{
    return uvm_fail(err, UVM_CONTENT,
                    "%s/%s: its content has changed since it was verified: fetch it again",
                    mirror_tree_dir(f->cache->tree), image->image->path);
}

static bool open_source(const struct fill *f, const struct bundle_image *image, struct source *ret,
                        struct uvm_error *err)
{
    bool same = false;
    if (!mirror_tree_open_image(f->cache->tree, image->image, &ret->fd, err))
        return false;
    ret->title = mirror_image_title(image->image);
    struct bundle_check check = {
        .step = "verify", .name = ret->title, .size = image->image->size, .sha256 = image->sha256};
    if (fstat(ret->fd, &ret->was) < 0)
        return uvm_fail_errno(err, UVM_FAILED, "%s", image->image->path);
    if (!bundle_check_file(ret->fd, &check, f->observer, &same, err))
        return false;
    uvm_done(f->observer, check.step, check.name, NULL);
    return same || fail_changed(f, image, err);
}

static bool is_unchanged(const struct source *s)
{
    struct stat now;
    return fstat(s->fd, &now) == 0 && now.st_size == s->was.st_size &&
           now.st_mtim.tv_sec == s->was.st_mtim.tv_sec &&
           now.st_mtim.tv_nsec == s->was.st_mtim.tv_nsec &&
           now.st_ctim.tv_sec == s->was.st_ctim.tv_sec &&
           now.st_ctim.tv_nsec == s->was.st_ctim.tv_nsec;
}

static bool write_member(const struct fill *f, const struct source *s, struct mirror_disk *disk,
                         const struct bundle_cache_key *key, const struct bundle_blocks *base,
                         struct uvm_outfile *member, struct bundle_encoded *ret,
                         struct bundle_encode_result *ret_result, struct uvm_error *err)
{
    __attribute__((cleanup(bundle_file_clear))) struct bundle_file file = {.fd = -1};
    if (!bundle_cache_begin(f->cache, key, member, err))
        return false;
    bundle_file_init(&file, member->fd, member->path, BUNDLE_HASHED);
    struct bundle_encode_options options = {
        .disk = disk,
        .fd = s->fd,
        .file_size = (uint64_t)s->was.st_size,
        .base = base,
        .level = key->level,
        .title = s->title,
        .observer = f->observer,
        .sink = {bundle_file_write, &file},
    };
    if (!bundle_encode(&options, ret_result, err))
        return false;
    *ret = (struct bundle_encoded){.worthwhile = ret_result->worthwhile &&
                                                 file.bytes < (uint64_t)s->was.st_size};
    if (!ret->worthwhile)
        return true;
    ret->size = file.bytes;
    ret->content = ret_result->content;
    ret->base_bytes = ret_result->base_blocks * BUNDLE_BLOCK;
    return bundle_file_sync(&file, ret->sha256, err);
}

static void report(const struct fill *f, const struct source *s, const struct bundle_encoded *e)
{
    uvm_auto_free char *was = uvm_size_text((uint64_t)s->was.st_size), *is = uvm_size_text(e->size);
    if (e->worthwhile)
        uvm_done(f->observer, STEP, s->title, "%s instead of %s", is, was);
    else
        uvm_done(f->observer, STEP, s->title, "not worthwhile: carried as it is, %s", was);
}

static bool encode_disk(const struct fill *f, const struct bundle_image *image,
                        const struct source *s, struct mirror_disk *disk,
                        const struct bundle_cache_key *key, const struct bundle_blocks *base,
                        struct bundle_encoded *ret, struct uvm_error *err)
{
    uvm_auto_outfile member = UVM_OUTFILE_INIT;
    struct bundle_encode_result result = {0};
    bool ok = write_member(f, s, disk, key, base, &member, ret, &result, err);
    UVM_AUTO(bundle_blocks_free) struct bundle_blocks *blocks = result.blocks;
    if (!ok)
        return uvm_prefix(err, "encoding %s", s->title);
    if (!is_unchanged(s))
        return fail_changed(f, image, err);
    if (!bundle_cache_keep(f->cache, key, ret, blocks, &member, err))
        return uvm_prefix(err, "encoding %s", s->title);
    report(f, s, ret);
    return true;
}

/* What is no sound qcow2 image is for somebody else to judge: it is carried as it is. */
bool bundle_cache_fill(const struct bundle_cache *c, const struct bundle_image *image,
                       const struct bundle_cache_key *key, const struct bundle_blocks *base,
                       const struct uvm_observer *observer, struct bundle_encoded *ret_encoded,
                       struct uvm_error *err)
{
    struct fill f = {c, observer};
    __attribute__((cleanup(source_clear))) struct source s = {.fd = -1};
    UVM_AUTO(mirror_disk_free) struct mirror_disk *disk = NULL;
    uvm_auto_error why = UVM_ERROR_INIT;
    if (!open_source(&f, image, &s, err))
        return false;
    if (mirror_disk_open(s.fd, image->image->size, MIRROR_VIRTUAL_MAX, observer, &disk, &why))
        return encode_disk(&f, image, &s, disk, key, base, ret_encoded, err);
    if (why.code == UVM_CONTENT || why.code == UVM_SPACE) {
        *ret_encoded = (struct bundle_encoded){.worthwhile = false};
        return true;
    }
    *err = why;
    why = UVM_ERROR_INIT;
    return uvm_prefix(err, "%s", s.title);
}
