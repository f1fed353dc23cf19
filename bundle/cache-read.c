/* Members that the mirror keeps, on their way into a bundle. */
#include <string.h>
#include <unistd.h>

#include "bundle/cache.h"

#define READ_BLOCK ((size_t)256 << 10)

struct bundle_cached {
    const struct bundle_cache *cache;
    const struct bundle_image *image;
    char *name;
    int fd;
    struct uvm_digest *digest; /* NULL: its end was reported */
    char block[READ_BLOCK];
};

void bundle_cached_free(struct bundle_cached *cached)
{
    if (!cached)
        return;
    uvm_digest_free(cached->digest);
    uvm_close_ptr(&cached->fd);
    free(cached->name);
    free(cached);
}

/* The record goes, so that the next bundle encodes the image anew. */
static bool fail_damaged(struct bundle_cached *cached, struct uvm_error *err)
{
    uvm_auto_free char *record = uvm_format("%s" BUNDLE_CACHE_RECORD_END, cached->name);
    unlinkat(cached->cache->fd, record, 0);
    return uvm_fail(err, UVM_CONTENT,
                    "%s/%s has changed since it was encoded: the same command makes it anew",
                    cached->cache->path, cached->name);
}

static bool check_end(struct bundle_cached *cached, struct uvm_error *err)
{
    char hex[UVM_DIGEST_HEX_MAX];
    if (!cached->digest)
        return true;
    uvm_digest_finish(cached->digest, hex);
    uvm_digest_free(UVM_STEAL(cached->digest));
    return strcmp(hex, cached->image->sha256) == 0 || fail_damaged(cached, err);
}

static bool read_cached(void *opaque, const void **ret_data, size_t *ret_len, struct uvm_error *err)
{
    struct bundle_cached *cached = opaque;
    size_t len = 0;
    if (!uvm_read_some(cached->fd, cached->block, READ_BLOCK, &len, err))
        return uvm_prefix(err, "%s/%s", cached->cache->path, cached->name);
    if (len == 0 && !check_end(cached, err))
        return false;
    if (len > 0 && cached->digest)
        uvm_digest_update(cached->digest, cached->block, len);
    *ret_data = cached->block;
    *ret_len = len;
    return true;
}

struct uvm_reader bundle_cached_bytes(struct bundle_cached *cached)
{
    return (struct uvm_reader){read_cached, cached};
}

/* A manifest does not tell the level. */
static bool find_member(const struct bundle_cache *c, const struct bundle_image *image,
                        const char *base, char **ret_name)
{
    struct bundle_cache_key key = {bundle_image_digest(image->image), base, 1};
    for (; key.level <= BUNDLE_COMPACT_LEVEL_MAX; key.level++) {
        struct bundle_encoded found;
        if (!bundle_cache_find(c, &key, &found) || !found.worthwhile || found.size != image->size ||
            strcmp(found.sha256, image->sha256) != 0)
            continue;
        *ret_name = bundle_cache_member_name(&key);
        return true;
    }
    return false;
}

bool bundle_cached_open(const struct bundle_cache *c, const struct bundle_image *image,
                        struct bundle_cached **ret_cached, struct uvm_error *err)
{
    const struct bundle_base_name *base = &image->base;
    uvm_auto_free char *name = NULL;
    bool found = base->product ? (base->sha256 && find_member(c, image, base->sha256, &name)) ||
                                     (base->sha512 && find_member(c, image, base->sha512, &name))
                               : find_member(c, image, NULL, &name);
    if (!found) {
        uvm_auto_free char *title = mirror_image_title(image->image);
        return uvm_fail(err, UVM_FAILED,
                        "the mirror no longer holds %s as it was encoded: write a new bundle",
                        title);
    }
    uvm_auto_fd fd = bundle_cache_open_file(c, name);
    if (fd < 0)
        return uvm_fail_errno(err, UVM_FAILED, "%s/%s", c->path, name);
    struct bundle_cached *cached = uvm_alloc(sizeof *cached);
    cached->cache = c;
    cached->image = image;
    cached->name = UVM_STEAL(name);
    cached->fd = uvm_steal_fd(&fd);
    cached->digest = uvm_digest_new(UVM_SHA256);
    *ret_cached = cached;
    return true;
}
