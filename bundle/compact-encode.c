/*
 * Encoding a qcow2 image. The disk is gone through twice, so that nothing of its content has to be kept:
 *
 *     scan 1   every block's id, what a base has of them, and a proof for each compressed cluster; of
 *              these come head, map, and the list of segments
 *     scan 2   the carried blocks
 *
 * Both scans work side by side; what they yield is taken, and compressed, here.
 */
#include "bundle/compact.h"

#define STEP "compact"

struct encoder {
    const struct bundle_encode_options *o;
    struct bundle_compact_head head;
    struct bundle_finder *finder; /* NULL without a base */
    struct bundle_map map;
    uint32_t references;          /* runs of kind BASE */
    uint64_t base_next;           /* the block of the base behind the last one that was taken */
    struct uvm_digest *from_base; /* SHA-256 of what is taken from it */
    struct bundle_blocks *blocks; /* the disk's own */
    struct bundle_segment_list segments;
    uint64_t same, other; /* bytes of clusters that come out the same, and of those that do not */
    uint64_t content;     /* bytes */
    uint64_t seen;        /* bytes of the file, in both scans */
};

static void clear(struct encoder *e)
{
    bundle_finder_free(e->finder);
    bundle_map_clear(&e->map);
    uvm_digest_free(e->from_base);
    bundle_blocks_free(e->blocks);
    bundle_segment_list_clear(&e->segments);
}

static void progress(struct encoder *e, const struct bundle_stretch *stretch)
{
    for (size_t i = 0; i < stretch->count; i++)
        e->seen += stretch->clusters[i].bytes;
    uint64_t total = 2 * e->o->file_size;
    uvm_progress(e->o->observer, STEP, e->o->title, e->seen < total ? e->seen : total, total);
}

/* ---- scan 1 ---------------------------------------------------------------------------------- */

/* Where the base has the block: behind the last one that was taken, in the same place, or anywhere; so
 * the map stays short. */
static bool find_in_base(const struct encoder *e, uint64_t block, const struct bundle_block_id *id,
                         uint64_t *ret_base)
{
    if (!e->finder || e->references == BUNDLE_COMPACT_REFERENCES_MAX)
        return false;
    if (bundle_blocks_has(e->o->base, e->base_next, id))
        *ret_base = e->base_next;
    else if (bundle_blocks_has(e->o->base, block, id))
        *ret_base = block;
    else
        return bundle_finder_find(e->finder, id, ret_base);
    return true;
}

static bool add_from_base(struct encoder *e, uint64_t base, const uint8_t *data)
{
    size_t before = e->map.count;
    struct bundle_map_run run = {.kind = BUNDLE_MAP_BASE, .count = 1, .base = base};
    if (!bundle_map_add(&e->map, run))
        return false;
    e->references += e->map.count - before;
    e->base_next = base + 1;
    uvm_digest_update(e->from_base, data, BUNDLE_BLOCK);
    return true;
}

static bool add_block(struct encoder *e, const struct bundle_stretch *stretch, size_t i)
{
    uint64_t block = stretch->first + i, base = 0;
    if (stretch->zero[i])
        return bundle_map_add(&e->map,
                              (struct bundle_map_run){.kind = BUNDLE_MAP_ZEROS, .count = 1});
    /* What a guest cannot see of a block, a volume of the disk does not have. */
    if (block < e->head.virtual_size / BUNDLE_BLOCK)
        bundle_blocks_add(e->blocks, block, &stretch->ids[i]);
    if (find_in_base(e, block, &stretch->ids[i], &base))
        return add_from_base(e, base, stretch->data + i * BUNDLE_BLOCK);
    return bundle_map_add(&e->map, (struct bundle_map_run){.kind = BUNDLE_MAP_CARRIED, .count = 1});
}

/* Zeros up to a block. */
static bool add_zeros(struct encoder *e, uint64_t block)
{
    return bundle_map_add(
        &e->map, (struct bundle_map_run){.kind = BUNDLE_MAP_ZEROS, .count = block - e->map.blocks});
}

static bool add_segments(struct encoder *e, const struct bundle_stretch *stretch)
{
    for (size_t i = 0; i < stretch->count; i++) {
        const struct mirror_disk_cluster *cluster = &stretch->clusters[i];
        e->same += stretch->same[i];
        e->other += stretch->same[i] ? 0 : cluster->bytes;
        if (stretch->same[i] &&
            !bundle_segment_list_add(&e->segments,
                                     (struct bundle_segment_at){.offset = cluster->offset,
                                                                .cluster = cluster->index,
                                                                .bytes = stretch->same[i],
                                                                .deflated = cluster->compressed}))
            return false;
    }
    return true;
}

/* False: it is too large. The ids are worth having all the same. */
static bool add_stretch(struct encoder *e, const struct bundle_stretch *stretch)
{
    uint64_t left = bundle_compact_blocks(&e->head) - stretch->first;
    size_t count = left < stretch->blocks ? (size_t)left : stretch->blocks;
    bool fits = add_zeros(e, stretch->first);
    for (size_t i = 0; i < count; i++)
        fits = add_block(e, stretch, i) && fits;
    return add_segments(e, stretch) && fits;
}

static bool scan(struct encoder *e, bool *ret_fits, struct uvm_error *err)
{
    UVM_AUTO(bundle_scan_free)
    struct bundle_scan *s = bundle_scan_new(e->o, BUNDLE_SCAN_PROVE, NULL);
    const struct bundle_stretch *stretch = NULL;
    bool fits = true;
    do {
        if (!bundle_scan_next(s, &stretch, err))
            return false;
        if (stretch) {
            fits = add_stretch(e, stretch) && fits;
            progress(e, stretch);
        }
    } while (stretch);
    *ret_fits = add_zeros(e, bundle_compact_blocks(&e->head)) && fits;
    return true;
}

static void complete_head(struct encoder *e)
{
    struct mirror_extent *extents = NULL;
    size_t count = 0;
    e->content =
        bundle_map_extents(&e->map, e->head.virtual_size, &extents, &count) * MIRROR_CLUSTER;
    free(extents);
    e->head.records = (uint32_t)e->map.count;
    e->head.carried = e->map.carried;
    e->head.from_base = e->map.from_base;
    if (e->map.from_base)
        bundle_digest_raw(e->from_base, e->head.base_sha256);
}

/* ---- scan 2, and writing --------------------------------------------------------------------- */

static bool write_head(struct encoder *e, struct bundle_stage *stage, struct uvm_error *err)
{
    uint8_t head[BUNDLE_COMPACT_HEAD], record[BUNDLE_COMPACT_RECORD];
    bundle_compact_head_put(&e->head, head);
    if (!bundle_stage_write(stage, head, sizeof head, err))
        return false;
    for (size_t i = 0; i < e->map.count; i++) {
        bundle_map_put(&e->map.runs[i], record);
        if (!bundle_stage_write(stage, record, sizeof record, err))
            return false;
    }
    return true;
}

/* The carried blocks of a stretch. `place` is at *at, which is not behind its begin. */
static bool write_carried(struct encoder *e, const struct bundle_stretch *stretch,
                          struct bundle_map_place *place, uint64_t *at, struct bundle_stage *stage,
                          struct uvm_error *err)
{
    uint64_t end = stretch->first + stretch->blocks;
    while (*at < end) {
        uint64_t most = (*at < stretch->first ? stretch->first : end) - *at;
        struct bundle_map_run run = bundle_map_next(&e->map, place, most);
        if (run.count == 0)
            break;
        if (run.kind == BUNDLE_MAP_CARRIED &&
            !bundle_stage_write(stage, stretch->data + (*at - stretch->first) * BUNDLE_BLOCK,
                                run.count * BUNDLE_BLOCK, err))
            return false;
        *at += run.count;
    }
    return true;
}

static bool is_smaller(const struct encoder *e, const struct bundle_stage *stage)
{
    return bundle_stage_bytes(stage) < e->o->file_size;
}

static bool write_blocks(struct encoder *e, struct bundle_stage *stage, struct uvm_error *err)
{
    UVM_AUTO(bundle_scan_free)
    struct bundle_scan *s = bundle_scan_new(e->o, BUNDLE_SCAN_CARRY, &e->map);
    const struct bundle_stretch *stretch = NULL;
    struct bundle_map_place place = {0};
    uint64_t at = 0;
    do {
        if (!bundle_scan_next(s, &stretch, err))
            return false;
        if (stretch && !write_carried(e, stretch, &place, &at, stage, err))
            return false;
        if (stretch)
            progress(e, stretch);
    } while (stretch && is_smaller(e, stage));
    return true;
}

/* Stops when it has become larger than the file is. */
static bool write_all(struct encoder *e, bool *ret_smaller, struct uvm_error *err)
{
    UVM_AUTO(bundle_stage_free)
    struct bundle_stage *stage = bundle_stage_new_long(e->o->sink, e->o->level);
    if (!write_head(e, stage, err) || !write_blocks(e, stage, err))
        return false;
    if (is_smaller(e, stage) &&
        (!bundle_segments_write(&e->segments, e->o->fd, e->o->file_size, stage, err) ||
         !bundle_stage_end_frame(stage, err)))
        return false;
    *ret_smaller = is_smaller(e, stage);
    return true;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static void begin(struct encoder *e, const struct bundle_encode_options *o)
{
    const struct mirror_qcow2 *info = mirror_disk_info(o->disk);
    e->o = o;
    e->head.cluster_bits = info->cluster_bits;
    e->head.virtual_size = info->virtual_size;
    e->head.file_size = o->file_size;
    e->finder = o->base ? bundle_finder_new(o->base) : NULL;
    e->from_base = uvm_digest_new(UVM_SHA256);
    e->blocks = bundle_blocks_new();
}

/* Scan 1 and what follows from it. */
static bool look(struct encoder *e, bool *ret_worthwhile, struct uvm_error *err)
{
    bool fits = false;
    if (!scan(e, &fits, err))
        return false;
    bundle_segment_list_settle(&e->segments, e->o->file_size);
    bundle_finder_free(UVM_STEAL(e->finder));
    complete_head(e);
    *ret_worthwhile = fits && e->other <= e->same;
    return true;
}

bool bundle_encode(const struct bundle_encode_options *options,
                   struct bundle_encode_result *ret_result, struct uvm_error *err)
{
    __attribute__((cleanup(clear))) struct encoder e = {0};
    bool worthwhile = false;
    begin(&e, options);
    if (!look(&e, &worthwhile, err) || (worthwhile && !write_all(&e, &worthwhile, err))) {
        uvm_step_failed(options->observer, STEP, options->title);
        return false;
    }
    uvm_done(options->observer, STEP, options->title, NULL);
    *ret_result = (struct bundle_encode_result){.worthwhile = worthwhile,
                                                .content = e.content,
                                                .base_blocks = e.map.from_base,
                                                .blocks = UVM_STEAL(e.blocks)};
    return true;
}
