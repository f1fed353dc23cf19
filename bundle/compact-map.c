/* Head and map of a compact payload; compact.h draws them. */
#include <inttypes.h>

#include "bundle/compact.h"

#define CLUSTER_BITS_LO 9
#define CLUSTER_BITS_HI 21
#define COUNT_MAX       ((UINT64_C(1) << 56) - 1)
#define BASE_MAX        (UINT64_C(1) << 51) /* blocks: a disk of 2^63 bytes */
#define PER_CLUSTER     (MIRROR_CLUSTER / BUNDLE_BLOCK)

static const char magic[12] = "uvmcompact\0\1";

/* ---- head ------------------------------------------------------------------------------------ */

void bundle_compact_head_put(const struct bundle_compact_head *head,
                             uint8_t ret_bytes[BUNDLE_COMPACT_HEAD])
{
    uint32_t bits = htobe32(head->cluster_bits);
    memcpy(ret_bytes, magic, sizeof magic);
    memcpy(ret_bytes + 12, &bits, sizeof bits);
    bundle_put64(ret_bytes + 16, head->virtual_size);
    bundle_put64(ret_bytes + 24, head->file_size);
    bundle_put64(ret_bytes + 32, (uint64_t)head->records << 32);
    bundle_put64(ret_bytes + 40, head->carried);
    bundle_put64(ret_bytes + 48, head->from_base);
    memcpy(ret_bytes + 56, head->base_sha256, sizeof head->base_sha256);
}

static bool all_zeros(const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (data[i])
            return false;
    return true;
}

bool bundle_compact_head_get(const uint8_t bytes[BUNDLE_COMPACT_HEAD], uint64_t max_virtual,
                             struct bundle_compact_head *ret_head, struct uvm_error *err)
{
    struct bundle_compact_head head = {
        .cluster_bits = (uint32_t)bundle_get64(bytes + 8),
        .virtual_size = bundle_get64(bytes + 16),
        .file_size = bundle_get64(bytes + 24),
        .records = (uint32_t)(bundle_get64(bytes + 32) >> 32),
        .carried = bundle_get64(bytes + 40),
        .from_base = bundle_get64(bytes + 48),
    };
    memcpy(head.base_sha256, bytes + 56, sizeof head.base_sha256);
    if (memcmp(bytes, magic, sizeof magic) != 0)
        return uvm_fail(err, UVM_CONTENT, "it is no compact image");
    if (head.cluster_bits < CLUSTER_BITS_LO || head.cluster_bits > CLUSTER_BITS_HI)
        return uvm_fail(err, UVM_CONTENT, "its cluster bits are %u, not %d to %d",
                        head.cluster_bits, CLUSTER_BITS_LO, CLUSTER_BITS_HI);
    if (head.virtual_size < 1 || head.virtual_size > max_virtual)
        return uvm_fail(err, UVM_CONTENT,
                        "its virtual size of %" PRIu64
                        " bytes is not from 1 to the limit of %" PRIu64,
                        head.virtual_size, max_virtual);
    if (head.records < 1 || head.records > BUNDLE_COMPACT_MAP_MAX || !all_zeros(bytes + 36, 4))
        return uvm_fail(err, UVM_CONTENT, "its map of %u records makes no sense", head.records);
    if (head.from_base == 0 && !all_zeros(head.base_sha256, sizeof head.base_sha256))
        return uvm_fail(err, UVM_CONTENT, "it has a checksum of no blocks");
    *ret_head = head;
    return true;
}

uint64_t bundle_compact_blocks(const struct bundle_compact_head *head)
{
    uint64_t clusters = ((head->virtual_size - 1) >> head->cluster_bits) + 1;
    return ((clusters << head->cluster_bits) + BUNDLE_BLOCK - 1) / BUNDLE_BLOCK;
}

/* ---- map ------------------------------------------------------------------------------------- */

void bundle_map_clear(struct bundle_map *map)
{
    free(map->runs);
    *map = (struct bundle_map){0};
}

static bool goes_on(const struct bundle_map_run *last, const struct bundle_map_run *run)
{
    return last->kind == run->kind &&
           (run->kind != BUNDLE_MAP_BASE || last->base + last->count == run->base);
}

static void count(struct bundle_map *map, const struct bundle_map_run *run)
{
    map->blocks += run->count;
    map->carried += run->kind == BUNDLE_MAP_CARRIED ? run->count : 0;
    map->from_base += run->kind == BUNDLE_MAP_BASE ? run->count : 0;
}

static void append(struct bundle_map *map, const struct bundle_map_run *run)
{
    if (map->count == map->room) {
        map->room = map->room ? map->room * 2 : 256;
        map->runs = uvm_grow(map->runs, map->room, sizeof *map->runs);
    }
    map->runs[map->count++] = *run;
}

bool bundle_map_add(struct bundle_map *map, struct bundle_map_run run)
{
    if (run.count == 0)
        return true;
    struct bundle_map_run *last = map->count ? &map->runs[map->count - 1] : NULL;
    if (last && goes_on(last, &run))
        last->count += run.count;
    else if (map->count == BUNDLE_COMPACT_MAP_MAX)
        return false;
    else
        append(map, &run);
    count(map, &run);
    return true;
}

void bundle_map_put(const struct bundle_map_run *run, uint8_t ret_bytes[BUNDLE_COMPACT_RECORD])
{
    bundle_put64(ret_bytes, (uint64_t)run->kind << 56 | run->count);
    bundle_put64(ret_bytes + 8, run->base);
}

bool bundle_map_get(struct bundle_map *map, const uint8_t bytes[BUNDLE_COMPACT_RECORD],
                    struct uvm_error *err)
{
    uint64_t first = bundle_get64(bytes);
    struct bundle_map_run run = {
        .kind = first >> 56, .count = first & COUNT_MAX, .base = bundle_get64(bytes + 8)};
    bool is_base = run.kind == BUNDLE_MAP_BASE;
    if (run.kind > BUNDLE_MAP_BASE || run.count == 0 || run.count > BASE_MAX - map->blocks ||
        (is_base ? run.base > BASE_MAX - run.count : run.base != 0))
        return uvm_fail(err, UVM_CONTENT, "record %zu of its map makes no sense", map->count);
    append(map, &run);
    count(map, &run);
    return true;
}

bool bundle_map_check(const struct bundle_map *map, const struct bundle_compact_head *head,
                      struct uvm_error *err)
{
    uint64_t blocks = bundle_compact_blocks(head);
    if (map->blocks != blocks)
        return uvm_fail(err, UVM_CONTENT,
                        "its map is of %" PRIu64 " blocks, where the disk has %" PRIu64,
                        map->blocks, blocks);
    if (map->carried != head->carried || map->from_base != head->from_base)
        return uvm_fail(err, UVM_CONTENT, "its map is not what its head says");
    return true;
}

struct bundle_map_run bundle_map_next(const struct bundle_map *map, struct bundle_map_place *place,
                                      uint64_t most)
{
    if (place->run == map->count)
        return (struct bundle_map_run){0};
    struct bundle_map_run run = map->runs[place->run];
    uint64_t left = run.count - place->done, taken = left < most ? left : most;
    run.base += run.kind == BUNDLE_MAP_BASE ? place->done : 0;
    run.count = taken;
    place->done += taken;
    if (taken == left)
        *place = (struct bundle_map_place){place->run + 1, 0};
    return run;
}

/* ---- what is stored -------------------------------------------------------------------------- */

struct extents {
    struct mirror_extent *items;
    size_t count, room;
    uint64_t clusters;
};

/* Clusters first to end (which is behind the last); the first may be there already. */
static void add_extent(struct extents *e, uint64_t first, uint64_t end)
{
    struct mirror_extent *last = e->count ? &e->items[e->count - 1] : NULL;
    uint64_t known = last ? last->first + last->count : 0;
    if (last && first < known)
        first = known;
    if (first >= end)
        return;
    e->clusters += end - first;
    if (last && first == known) {
        last->count += end - first;
        return;
    }
    if (e->count == e->room) {
        e->room = e->room ? e->room * 2 : 256;
        e->items = uvm_grow(e->items, e->room, sizeof *e->items);
    }
    e->items[e->count++] = (struct mirror_extent){first, end - first};
}

uint64_t bundle_map_extents(const struct bundle_map *map, uint64_t virtual_size,
                            struct mirror_extent **ret_extents, size_t *ret_count)
{
    struct extents e = {0};
    uint64_t blocks = (virtual_size - 1) / BUNDLE_BLOCK + 1, at = 0;
    for (size_t i = 0; i < map->count && at < blocks; i++) {
        uint64_t left = blocks - at;
        uint64_t part = map->runs[i].count < left ? map->runs[i].count : left;
        if (map->runs[i].kind != BUNDLE_MAP_ZEROS)
            add_extent(&e, at / PER_CLUSTER, (at + part - 1) / PER_CLUSTER + 1);
        at += part;
    }
    *ret_extents = e.items;
    *ret_count = e.count;
    return e.clusters;
}
