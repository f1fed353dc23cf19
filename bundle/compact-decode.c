/*
 * Decoding a compact payload:
 *
 *     member --bundle_unzstd--> head, map                       in bundle_decoder_new
 *                               carried blocks --+
 *                               the base's blocks +--> ring --> the content's reader
 *                               zeros -----------+ '--> the kept content
 *                               segments                        dropped, or made the image's bytes
 *
 * A thread fills the ring, a cluster of MIRROR_CLUSTER at a time. When it is through, what follows the
 * blocks is the reader's.
 */
#include <errno.h>
#include <unistd.h>

#include "bundle/compact.h"

#define PER_CLUSTER (MIRROR_CLUSTER / BUNDLE_BLOCK)

struct bundle_decoder {
    struct bundle_decode_options o;
    struct bundle_unzstd *unzstd; /* the thread's, until it ends */
    struct bundle_compact_head head;
    struct bundle_map map;
    struct bundle_ring *ring;
    bool quit;

    /* The thread's. */
    struct bundle_map_place place;
    uint64_t at; /* block */
    struct uvm_digest *from_base;

    struct mirror_content content;
    struct mirror_extent *extents;
    struct bundle_segments segments;
    struct bundle_rebuild *rebuild;
    bool blocks_ended; /* the content was read to its end */
    bool base_changed; /* the thread's, too */
};

/* ---- a cluster ------------------------------------------------------------------------------- */

static bool read_base(struct bundle_decoder *d, const struct bundle_map_run *run, uint8_t *data,
                      struct uvm_error *err)
{
    size_t len = run->count * BUNDLE_BLOCK;
    if (!d->o.base->read(d->o.base->opaque, run->base * BUNDLE_BLOCK, data, len, err)) {
        d->base_changed = err->code == UVM_CONTENT;
        return false;
    }
    uvm_digest_update(d->from_base, data, len);
    return true;
}

static bool read_run(struct bundle_decoder *d, const struct bundle_map_run *run, uint8_t *data,
                     struct uvm_error *err)
{
    size_t len = run->count * BUNDLE_BLOCK;
    if (run->kind == BUNDLE_MAP_CARRIED)
        return bundle_compact_read(d->unzstd, data, len, err);
    if (run->kind == BUNDLE_MAP_BASE)
        return read_base(d, run, data, err);
    memset(data, 0, len);
    return true;
}

/* Fills a cluster from the map; behind its last block there are zeros. *ret_stored: there is anything in
 * it; *ret_shown: and a guest can see of it. */
static bool read_cluster(struct bundle_decoder *d, uint8_t *data, bool *ret_stored, bool *ret_shown,
                         struct uvm_error *err)
{
    uint64_t seen = (d->head.virtual_size - 1) / BUNDLE_BLOCK + 1;
    *ret_stored = *ret_shown = false;
    for (size_t done = 0; done < PER_CLUSTER;) {
        struct bundle_map_run run = bundle_map_next(&d->map, &d->place, PER_CLUSTER - done);
        if (run.count == 0) {
            memset(data + done * BUNDLE_BLOCK, 0, (PER_CLUSTER - done) * BUNDLE_BLOCK);
            break;
        }
        if (!read_run(d, &run, data + done * BUNDLE_BLOCK, err))
            return false;
        bool stored = run.kind != BUNDLE_MAP_ZEROS;
        *ret_stored = *ret_stored || stored;
        *ret_shown = *ret_shown || (stored && d->at < seen);
        done += run.count;
        d->at += run.count;
    }
    return true;
}

/* Passes over clusters that are nothing but zeros. */
static void skip_zeros(struct bundle_decoder *d)
{
    if (d->place.run == d->map.count)
        return;
    const struct bundle_map_run *run = &d->map.runs[d->place.run];
    uint64_t clusters = (run->count - d->place.done) / PER_CLUSTER;
    if (run->kind != BUNDLE_MAP_ZEROS || clusters == 0)
        return;
    bundle_map_next(&d->map, &d->place, clusters * PER_CLUSTER);
    d->at += clusters * PER_CLUSTER;
}

static bool keep(const struct bundle_decoder *d, uint64_t offset, const uint8_t *data,
                 struct uvm_error *err)
{
    for (size_t done = 0; d->o.keep_fd >= 0 && done < MIRROR_CLUSTER;) {
        ssize_t put =
            pwrite(d->o.keep_fd, data + done, MIRROR_CLUSTER - done, (off_t)(offset + done));
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return uvm_fail_errno(err, UVM_FAILED, "cannot write a temporary file");
        done += (size_t)put;
    }
    return true;
}

/* The next cluster. Where a guest does not see it, it is kept alone. */
static bool next_cluster(struct bundle_decoder *d, uint8_t *data, bool *ret_shown,
                         struct uvm_error *err)
{
    uint64_t offset = d->at * BUNDLE_BLOCK;
    bool stored = false;
    if (!read_cluster(d, data, &stored, ret_shown, err) || (stored && !keep(d, offset, data, err)))
        return false;
    if (*ret_shown && d->head.virtual_size - offset < MIRROR_CLUSTER) {
        size_t seen = (size_t)(d->head.virtual_size - offset);
        memset(data + seen, 0, MIRROR_CLUSTER - seen);
    }
    return true;
}

/* ---- the thread ------------------------------------------------------------------------------ */

static bool check_base(struct bundle_decoder *d, struct uvm_error *err)
{
    uint8_t sha256[32];
    if (d->map.from_base == 0)
        return true;
    bundle_digest_raw(d->from_base, sha256);
    d->base_changed = memcmp(sha256, d->head.base_sha256, sizeof sha256) != 0;
    return !d->base_changed ||
           uvm_fail(err, UVM_CONTENT,
                    "the older image that it refers to is not what it was: it was changed");
}

/* A bundle_filler's. */
static bool fill(void *opaque, void *block, size_t *ret_len, struct uvm_error *err)
{
    struct bundle_decoder *d = opaque;
    size_t len = 0;
    while (len < BUNDLE_RING_BLOCK && d->at < d->map.blocks) {
        bool shown = false;
        skip_zeros(d);
        if (!next_cluster(d, (uint8_t *)block + len, &shown, err))
            return false;
        len += shown ? MIRROR_CLUSTER : 0;
    }
    *ret_len = len;
    return len > 0 || check_base(d, err);
}

/* ---- the reader's side ----------------------------------------------------------------------- */

/* The next block of the content; *ret_len 0 is the end of that. */
static bool read_blocks(struct bundle_decoder *d, const void **ret_data, size_t *ret_len,
                        struct uvm_error *err)
{
    *ret_len = 0;
    if (d->blocks_ended)
        return true;
    if (!bundle_ring_next(d->ring, ret_data, ret_len, err))
        return false;
    d->blocks_ended = *ret_len == 0;
    return true;
}

static bool read_content(void *opaque, const void **ret_data, size_t *ret_len,
                         struct uvm_error *err)
{
    struct bundle_decoder *d = opaque;
    if (!read_blocks(d, ret_data, ret_len, err))
        return false;
    return *ret_len > 0 || bundle_segments_drop(&d->segments, d->o.observer, err);
}

static bool read_image(void *opaque, const void **ret_data, size_t *ret_len, struct uvm_error *err)
{
    struct bundle_decoder *d = opaque;
    for (size_t len = 1; !d->blocks_ended;)
        if (!read_blocks(d, ret_data, &len, err))
            return false;
    if (!uvm_go_on(d->o.observer, err))
        return false;
    if (!d->rebuild)
        d->rebuild = bundle_rebuild_new(&d->segments, d->o.keep_fd);
    return bundle_rebuild_read(d->rebuild, ret_data, ret_len, err);
}

const struct mirror_content *bundle_decoder_content(const struct bundle_decoder *d)
{
    return &d->content;
}

struct uvm_reader bundle_decoder_image(struct bundle_decoder *d)
{
    return (struct uvm_reader){read_image, d};
}

/* ---- head and map ---------------------------------------------------------------------------- */

/* zstd's own checksum of the content must be there (RFC 8878, section 3.1.1.1.1). */
static bool begin_frame(struct bundle_decoder *d, struct uvm_error *err)
{
    const void *head = NULL;
    size_t len = 0;
    if (!bundle_unzstd_begin(d->unzstd, err) || !bundle_unzstd_peek(d->unzstd, 5, &head, &len, err))
        return false;
    return (len >= 5 && ((const uint8_t *)head)[4] & 4) ||
           uvm_fail(err, UVM_CONTENT, "its zstd frame has no checksum");
}

static bool read_head(struct bundle_decoder *d, struct uvm_error *err)
{
    uint8_t bytes[BUNDLE_COMPACT_HEAD];
    if (!bundle_compact_read(d->unzstd, bytes, sizeof bytes, err) ||
        !bundle_compact_head_get(bytes, d->o.max_virtual, &d->head, err))
        return false;
    return d->head.file_size == d->o.file_size ||
           uvm_fail(err, UVM_CONTENT, "it is of another image: that one has %llu bytes, not %llu",
                    (unsigned long long)d->head.file_size, (unsigned long long)d->o.file_size);
}

static bool read_map(struct bundle_decoder *d, struct uvm_error *err)
{
    uint8_t bytes[BUNDLE_COMPACT_RECORD];
    for (uint32_t i = 0; i < d->head.records; i++)
        if (!bundle_compact_read(d->unzstd, bytes, sizeof bytes, err) ||
            !bundle_map_get(&d->map, bytes, err))
            return false;
    if (!bundle_map_check(&d->map, &d->head, err))
        return false;
    return d->map.from_base == 0 || d->o.base ||
           uvm_fail(err, UVM_CONTENT, "it refers to an older image, and there is none");
}

static bool set_content(struct bundle_decoder *d, struct uvm_error *err)
{
    size_t count = 0;
    uint64_t clusters = bundle_map_extents(&d->map, d->head.virtual_size, &d->extents, &count);
    d->content = (struct mirror_content){.virtual_size = d->head.virtual_size,
                                         .extents = d->extents,
                                         .extent_count = count,
                                         .data = {read_content, d}};
    return clusters == d->o.content / MIRROR_CLUSTER && d->o.content % MIRROR_CLUSTER == 0
               ? true
               : uvm_fail(err, UVM_CONTENT,
                          "it has %llu clusters of content, where the manifest says %llu bytes",
                          (unsigned long long)clusters, (unsigned long long)d->o.content);
}

/* ---- the whole ------------------------------------------------------------------------------- */

bool bundle_decoder_new(const struct bundle_decode_options *options,
                        struct bundle_decoder **ret_decoder, struct uvm_error *err)
{
    UVM_AUTO(bundle_decoder_free) struct bundle_decoder *d = uvm_alloc(sizeof *d);
    d->o = *options;
    d->unzstd = bundle_unzstd_of(options->member);
    d->from_base = uvm_digest_new(UVM_SHA256);
    d->segments = (struct bundle_segments){.unzstd = d->unzstd, .head = &d->head};
    if (!begin_frame(d, err) || !read_head(d, err) || !read_map(d, err) || !set_content(d, err) ||
        !bundle_ring_start((struct bundle_filler){fill, d}, &d->quit, options->observer, &d->ring,
                           err))
        return false;
    *ret_decoder = UVM_STEAL(d);
    return true;
}

void bundle_decoder_stop(struct bundle_decoder *d, bool *ret_base_changed)
{
    bundle_rebuild_free(UVM_STEAL(d->rebuild));
    bundle_ring_free(UVM_STEAL(d->ring));
    *ret_base_changed = d->base_changed;
}

void bundle_decoder_free(struct bundle_decoder *d)
{
    bool ignored;
    if (!d)
        return;
    bundle_decoder_stop(d, &ignored);
    bundle_unzstd_free(d->unzstd);
    uvm_digest_free(d->from_base);
    bundle_map_clear(&d->map);
    free(d->extents);
    free(d);
}
