/*
 * sight.c: what a guest sees of an image, in one number: the digest of all blocks of 4 KiB that hold
 * more than zeros, each with its place in front. Two files may differ where their contents do not.
 */
#include "pool/import.h"

#include <string.h>

#define BLOCK ((size_t)4096)

struct pool_sight {
    struct mirror_content content; /* as the one that is looked at, but read through this */
    struct uvm_reader data;        /* of that one */
    struct uvm_digest *digest;
    size_t extent; /* the next one */
    uint64_t at;   /* of the block that comes, in the disk */
    uint64_t left; /* bytes of the present extent, from `at` on */
    uint8_t block[BLOCK];
    size_t filled; /* of the block, when its bytes did not come at once */
};

static void take_block(struct pool_sight *s, const uint8_t *block)
{
    static const uint8_t zeros[BLOCK];
    while (s->left == 0 && s->extent < s->content.extent_count) {
        const struct mirror_extent *e = &s->content.extents[s->extent++];
        s->at = e->first * MIRROR_CLUSTER;
        s->left = e->count * MIRROR_CLUSTER;
    }
    if (memcmp(block, zeros, BLOCK) != 0) {
        uvm_digest_update(s->digest, &s->at, sizeof(s->at));
        uvm_digest_update(s->digest, block, BLOCK);
    }
    s->at += BLOCK;
    s->left -= s->left < BLOCK ? s->left : BLOCK;
}

static void take(struct pool_sight *s, const uint8_t *data, size_t len)
{
    while (len > 0) {
        size_t part = BLOCK - s->filled < len ? BLOCK - s->filled : len;
        if (part == BLOCK) {
            take_block(s, data);
        } else {
            memcpy(s->block + s->filled, data, part);
            s->filled += part;
            if (s->filled == BLOCK) {
                take_block(s, s->block);
                s->filled = 0;
            }
        }
        data += part;
        len -= part;
    }
}

static bool read_through(void *opaque, const void **ret_data, size_t *ret_len,
                         struct uvm_error *err)
{
    struct pool_sight *s = opaque;
    if (!s->data.read(s->data.opaque, ret_data, ret_len, err))
        return false;
    take(s, *ret_data, *ret_len);
    return true;
}

struct pool_sight *pool_sight_new(const struct mirror_content *content)
{
    struct pool_sight *s = uvm_alloc(sizeof(*s));
    s->content = *content;
    s->content.data = (struct uvm_reader){read_through, s};
    s->data = content->data;
    s->digest = uvm_digest_new(UVM_SHA256);
    return s;
}

void pool_sight_free(struct pool_sight *s)
{
    if (!s)
        return;
    uvm_digest_free(s->digest);
    free(s);
}

const struct mirror_content *pool_sight_content(const struct pool_sight *s)
{
    return &s->content;
}

void pool_sight_finish(struct pool_sight *s, char ret_hex[UVM_DIGEST_HEX_MAX])
{
    uvm_digest_finish(s->digest, ret_hex);
}

/* ---- all of it ------------------------------------------------------------------------------- */

static bool read_all(const struct mirror_content *content, const char *subject,
                     const struct uvm_observer *observer, struct uvm_error *err)
{
    uint64_t done = 0, total = mirror_content_bytes(content);
    for (;;) {
        const void *block = NULL;
        size_t len = 0;
        if (!uvm_go_on(observer, err) ||
            !content->data.read(content->data.opaque, &block, &len, err))
            return false;
        if (len == 0)
            return true;
        done += len;
        uvm_progress(observer, "compare", subject, done, total);
    }
}

bool pool_sight_read(const struct mirror_content *content, const char *subject,
                     const struct uvm_observer *observer, char ret_hex[UVM_DIGEST_HEX_MAX],
                     struct uvm_error *err)
{
    UVM_AUTO(pool_sight_free) struct pool_sight *sight = pool_sight_new(content);
    if (!read_all(pool_sight_content(sight), subject, observer, err))
        return false;
    pool_sight_finish(sight, ret_hex);
    return true;
}

bool pool_sight_disk(struct mirror_disk *disk, const char *subject,
                     const struct uvm_observer *observer, char ret_hex[UVM_DIGEST_HEX_MAX],
                     struct uvm_error *err)
{
    UVM_AUTO(mirror_disk_reader_free) struct mirror_disk_reader *reader = NULL;
    return mirror_disk_reader_new(disk, observer, &reader, err) &&
           pool_sight_read(mirror_disk_reader_content(reader), subject, observer, ret_hex, err);
}
