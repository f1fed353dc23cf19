/*
 * Which blocks a disk holds. As a file, all numbers big-endian:
 *
 *      0  "uvmblocks" 00 00 01     12  zero (u32)     16  number of records (u64)
 *     24  records, ascending by block: first half of a block's SHA-256 (16), number of the block (u64)
 *         SHA-256 of all that stands before it
 */
#include <errno.h>

#include "bundle/compact.h"

#define HEAD       24
#define RECORD     24
#define AT_ONCE    4096 /* records */
#define BLOCK_LAST (UINT64_MAX / BUNDLE_BLOCK)

static const char magic[12] = "uvmblocks\0\0\1";

struct record {
    struct bundle_block_id id;
    uint64_t block;
};

struct bundle_blocks {
    struct record *records;
    size_t count, room;
};

/* ---- digests --------------------------------------------------------------------------------- */

static uint8_t digit(char c)
{
    return (uint8_t)(c <= '9' ? c - '0' : c - 'a' + 10);
}

static void unhex(const char *hex, uint8_t *ret_bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        ret_bytes[i] = (uint8_t)(digit(hex[2 * i]) << 4 | digit(hex[2 * i + 1]));
}

void bundle_digest_raw(struct uvm_digest *d, uint8_t ret_sha256[32])
{
    char hex[UVM_DIGEST_HEX_MAX];
    uvm_digest_finish(d, hex);
    unhex(hex, ret_sha256, 32);
}

void bundle_block_id(const void *data, struct bundle_block_id *ret_id)
{
    char hex[UVM_DIGEST_HEX_MAX];
    uvm_digest_bytes(UVM_SHA256, data, BUNDLE_BLOCK, hex);
    unhex(hex, ret_id->bytes, sizeof ret_id->bytes);
}

static bool same_id(const struct bundle_block_id *a, const struct bundle_block_id *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

/* ---- in memory ------------------------------------------------------------------------------- */

struct bundle_blocks *bundle_blocks_new(void)
{
    return uvm_alloc(sizeof(struct bundle_blocks));
}

void bundle_blocks_free(struct bundle_blocks *b)
{
    if (!b)
        return;
    free(b->records);
    free(b);
}

void bundle_blocks_add(struct bundle_blocks *b, uint64_t block, const struct bundle_block_id *id)
{
    if (b->count == BUNDLE_BLOCKS_MAX)
        return;
    if (b->count == b->room) {
        b->room = b->room ? b->room * 2 : 1024;
        b->records = uvm_grow(b->records, b->room, sizeof *b->records);
    }
    b->records[b->count++] = (struct record){*id, block};
}

bool bundle_blocks_has(const struct bundle_blocks *b, uint64_t block,
                       const struct bundle_block_id *id)
{
    size_t low = 0, high = b->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (b->records[middle].block < block)
            low = middle + 1;
        else
            high = middle;
    }
    return low < b->count && b->records[low].block == block && same_id(&b->records[low].id, id);
}

/* ---- by content ------------------------------------------------------------------------------ */

#define FREE UINT32_MAX

/* Open addressing; a slot is the number of a record. */
struct bundle_finder {
    const struct bundle_blocks *blocks;
    uint32_t *slots;
    size_t mask;
};

/* Where an id is, or the free slot where it should be. */
static uint32_t *slot_of(const struct bundle_finder *f, const struct bundle_block_id *id)
{
    size_t at = bundle_get64(id->bytes) & f->mask;
    while (f->slots[at] != FREE && !same_id(&f->blocks->records[f->slots[at]].id, id))
        at = (at + 1) & f->mask;
    return &f->slots[at];
}

struct bundle_finder *bundle_finder_new(const struct bundle_blocks *b)
{
    struct bundle_finder *f = uvm_alloc(sizeof *f);
    size_t size = 16;
    while (size < b->count + b->count / 2)
        size *= 2;
    f->blocks = b;
    f->mask = size - 1;
    f->slots = uvm_grow(NULL, size, sizeof *f->slots);
    memset(f->slots, 0xff, size * sizeof *f->slots);
    for (size_t i = 0; i < b->count; i++) {
        uint32_t *slot = slot_of(f, &b->records[i].id);
        if (*slot == FREE)
            *slot = (uint32_t)i;
    }
    return f;
}

void bundle_finder_free(struct bundle_finder *f)
{
    if (!f)
        return;
    free(f->slots);
    free(f);
}

bool bundle_finder_find(const struct bundle_finder *f, const struct bundle_block_id *id,
                        uint64_t *ret_block)
{
    uint32_t slot = *slot_of(f, id);
    if (slot == FREE)
        return false;
    *ret_block = f->blocks->records[slot].block;
    return true;
}

/* ---- as a file ------------------------------------------------------------------------------- */

/* A file and the SHA-256 of what went by. */
struct hashed {
    int fd;
    struct uvm_digest *digest;
};

static bool put(const struct hashed *file, const void *data, size_t len, struct uvm_error *err)
{
    uvm_digest_update(file->digest, data, len);
    return uvm_write_all(file->fd, data, len, err);
}

static bool put_records(const struct hashed *file, const struct bundle_blocks *b, size_t first,
                        size_t count, struct uvm_error *err)
{
    uint8_t bytes[AT_ONCE * RECORD];
    for (size_t i = 0; i < count; i++) {
        const struct record *record = &b->records[first + i];
        memcpy(bytes + i * RECORD, &record->id, sizeof record->id);
        bundle_put64(bytes + i * RECORD + sizeof record->id, record->block);
    }
    return put(file, bytes, count * RECORD, err);
}

static size_t at_once(size_t left)
{
    return left < AT_ONCE ? left : AT_ONCE;
}

bool bundle_blocks_write(const struct bundle_blocks *b, int fd, struct uvm_error *err)
{
    UVM_AUTO(uvm_digest_free) struct uvm_digest *digest = uvm_digest_new(UVM_SHA256);
    struct hashed file = {fd, digest};
    uint8_t head[HEAD] = {0}, sum[32];
    memcpy(head, magic, sizeof magic);
    bundle_put64(head + 16, b->count);
    if (!put(&file, head, sizeof head, err))
        return false;
    for (size_t i = 0; i < b->count; i += AT_ONCE)
        if (!put_records(&file, b, i, at_once(b->count - i), err))
            return false;
    bundle_digest_raw(digest, sum);
    return uvm_write_all(fd, sum, sizeof sum, err);
}

static bool read_all(int fd, uint8_t *data, size_t len, struct uvm_error *err)
{
    for (size_t done = 0, got; done < len; done += got) {
        if (!uvm_read_some(fd, data + done, len - done, &got, err))
            return false;
        if (got == 0)
            return uvm_fail(err, UVM_CONTENT, "it is cut off");
    }
    return true;
}

static bool get(const struct hashed *file, uint8_t *data, size_t len, struct uvm_error *err)
{
    if (!read_all(file->fd, data, len, err))
        return false;
    uvm_digest_update(file->digest, data, len);
    return true;
}

static bool get_head(const struct hashed *file, uint64_t *ret_count, struct uvm_error *err)
{
    uint8_t head[HEAD];
    if (!get(file, head, sizeof head, err))
        return false;
    uint64_t count = bundle_get64(head + 16);
    if (memcmp(head, magic, sizeof magic) != 0 || memcmp(head + 12, "\0\0\0", 4) != 0 ||
        count > BUNDLE_BLOCKS_MAX)
        return uvm_fail(err, UVM_CONTENT, "it is no list of blocks");
    *ret_count = count;
    return true;
}

static bool get_records(const struct hashed *file, struct bundle_blocks *b, size_t count,
                        struct uvm_error *err)
{
    uint8_t bytes[AT_ONCE * RECORD];
    if (!get(file, bytes, count * RECORD, err))
        return false;
    for (size_t i = 0; i < count; i++) {
        struct bundle_block_id id;
        memcpy(&id, bytes + i * RECORD, sizeof id);
        uint64_t block = bundle_get64(bytes + i * RECORD + sizeof id);
        if (block > BLOCK_LAST || (b->count && block <= b->records[b->count - 1].block))
            return uvm_fail(err, UVM_CONTENT, "its blocks are out of order");
        bundle_blocks_add(b, block, &id);
    }
    return true;
}

static bool check_end(const struct hashed *file, struct uvm_error *err)
{
    uint8_t sum[32], found[32], more;
    size_t len = 0;
    bundle_digest_raw(file->digest, sum);
    if (!read_all(file->fd, found, sizeof found, err) ||
        !uvm_read_some(file->fd, &more, 1, &len, err))
        return false;
    if (memcmp(sum, found, sizeof sum) != 0 || len != 0)
        return uvm_fail(err, UVM_CONTENT, "it is damaged");
    return true;
}

bool bundle_blocks_read(int fd, struct bundle_blocks **ret_blocks, struct uvm_error *err)
{
    UVM_AUTO(uvm_digest_free) struct uvm_digest *digest = uvm_digest_new(UVM_SHA256);
    UVM_AUTO(bundle_blocks_free) struct bundle_blocks *b = bundle_blocks_new();
    struct hashed file = {fd, digest};
    uint64_t count = 0;
    if (!get_head(&file, &count, err))
        return false;
    while (b->count < count)
        if (!get_records(&file, b, at_once(count - b->count), err))
            return false;
    if (!check_end(&file, err))
        return false;
    *ret_blocks = UVM_STEAL(b);
    return true;
}
