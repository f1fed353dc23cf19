/*
 * A disk in stretches, each read, inflated and proven by a thread of its own:
 *
 *     the disk   | stretch 0       |                 | stretch 2       |  ...
 *                | cluster cluster |  nothing is     | cluster         |
 *                | block block ... |  stored here    | block block ... |
 *
 * A cluster of the file may be smaller than a block, or larger than MIRROR_CLUSTER.
 */
#include <errno.h>
#include <unistd.h>

#include "bundle/compact.h"

struct bundle_scan {
    const struct bundle_encode_options *options;
    enum bundle_scan_purpose purpose;
    unsigned cluster_bits, stretch_bits; /* log2 of bytes */
    bool can_deflate;                    /* the file's compressed clusters are deflated */
    uint64_t clusters;                   /* of the disk */
    struct uvm_lanes *lanes;

    /* Of whoever takes a stretch, one at a time. */
    struct mirror_disk_walk walk;
    struct mirror_disk_cluster next; /* not part of a stretch yet */
    bool begun, ended;
    const struct bundle_map *map;
    struct bundle_map_place place;
    uint64_t place_at; /* its block */
};

/* ---- which stretches ------------------------------------------------------------------------- */

static bool look_ahead(struct bundle_scan *s, struct uvm_error *err)
{
    s->begun = true;
    if (!mirror_disk_next(s->options->disk, &s->walk, &s->next, &s->ended, err))
        return false;
    s->ended = s->ended || s->next.index >= s->clusters;
    return true;
}

static uint64_t number_of_next(const struct bundle_scan *s)
{
    return s->next.index >> (s->stretch_bits - s->cluster_bits);
}

static bool gather(struct bundle_scan *s, struct bundle_stretch *stretch, struct uvm_error *err)
{
    uint64_t number = number_of_next(s);
    stretch->first = number * stretch->blocks;
    stretch->count = 0;
    while (!s->ended && number_of_next(s) == number) {
        if (stretch->count == stretch->room_)
            return uvm_fail(err, UVM_CONTENT, "a cluster is stored twice");
        stretch->clusters[stretch->count++] = s->next;
        if (!look_ahead(s, err))
            return false;
    }
    return true;
}

/* Whether the map has a carried block in the stretch. They are asked for in the disk's order. */
static bool has_carried(struct bundle_scan *s, const struct bundle_stretch *stretch)
{
    uint64_t end = stretch->first + stretch->blocks;
    bool found = false;
    while (s->place_at < end) {
        bool before = s->place_at < stretch->first;
        struct bundle_map_run run =
            bundle_map_next(s->map, &s->place, (before ? stretch->first : end) - s->place_at);
        if (run.count == 0)
            break;
        s->place_at += run.count;
        found = found || (!before && run.kind == BUNDLE_MAP_CARRIED);
    }
    return found;
}

static void make_room(const struct bundle_scan *s, struct bundle_stretch *stretch)
{
    size_t cluster = (size_t)1 << s->cluster_bits, bytes = (size_t)1 << s->stretch_bits;
    stretch->blocks = bytes / BUNDLE_BLOCK;
    stretch->room_ = bytes / cluster;
    stretch->data = uvm_alloc(bytes);
    stretch->clusters = uvm_grow(NULL, stretch->room_, sizeof *stretch->clusters);
    stretch->codec_ = mirror_codec_new();
    if (s->purpose != BUNDLE_SCAN_PROVE)
        return;
    stretch->ids = uvm_grow(NULL, stretch->blocks, sizeof *stretch->ids);
    stretch->zero = uvm_grow(NULL, stretch->blocks, sizeof *stretch->zero);
    stretch->same = uvm_grow(NULL, stretch->room_, sizeof *stretch->same);
    stretch->deflated_ = uvm_alloc(cluster);
    stretch->found_ = uvm_alloc(cluster);
}

static bool take(void *opaque, void *job, bool *ret_end, struct uvm_error *err)
{
    struct bundle_scan *s = opaque;
    struct bundle_stretch *stretch = job;
    if (!stretch->data)
        make_room(s, stretch);
    if (!s->begun && !look_ahead(s, err))
        return false;
    while (!s->ended) {
        if (!gather(s, stretch, err))
            return false;
        if (s->purpose == BUNDLE_SCAN_PROVE || has_carried(s, stretch))
            return true;
    }
    *ret_end = true;
    return true;
}

static void clear(void *opaque, void *job)
{
    struct bundle_stretch *stretch = job;
    (void)opaque;
    free(stretch->data);
    free(stretch->ids);
    free(stretch->zero);
    free(stretch->clusters);
    free(stretch->same);
    free(stretch->deflated_);
    free(stretch->found_);
    mirror_codec_free(stretch->codec_);
}

/* ---- what is in them ------------------------------------------------------------------------- */

/* Whether these bytes stand in the file. */
static bool is_in_file(const struct bundle_scan *s, uint64_t offset, const void *data, size_t len,
                       void *buffer, bool *ret_same, struct uvm_error *err)
{
    size_t done = 0;
    while (done < len) {
        ssize_t got =
            pread(s->options->fd, (char *)buffer + done, len - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return uvm_fail_errno(err, UVM_FAILED, "cannot read the image");
        if (got == 0)
            break;
        done += (size_t)got;
    }
    *ret_same = done == len && memcmp(buffer, data, len) == 0;
    return true;
}

/* How many bytes of the file come out of the cluster's content again: 0 when they do not. */
static bool prove(const struct bundle_scan *s, struct bundle_stretch *stretch, size_t i,
                  const uint8_t *data, struct uvm_error *err)
{
    const struct mirror_disk_cluster *cluster = &stretch->clusters[i];
    bool same = false;
    stretch->same[i] = cluster->compressed ? 0 : cluster->bytes;
    if (!cluster->compressed || !s->can_deflate)
        return true;
    size_t len = mirror_codec_deflate(stretch->codec_, data, (size_t)1 << s->cluster_bits,
                                      stretch->deflated_);
    if (len == 0 || len > cluster->bytes)
        return true;
    if (!is_in_file(s, cluster->offset, stretch->deflated_, len, stretch->found_, &same, err))
        return false;
    stretch->same[i] = same ? (uint32_t)len : 0;
    return true;
}

static bool load(const struct bundle_scan *s, struct bundle_stretch *stretch, struct uvm_error *err)
{
    size_t cluster = (size_t)1 << s->cluster_bits;
    uint64_t start = stretch->first * BUNDLE_BLOCK;
    if (stretch->count < stretch->room_)
        memset(stretch->data, 0, (size_t)1 << s->stretch_bits);
    for (size_t i = 0; i < stretch->count; i++) {
        uint8_t *data = stretch->data + (stretch->clusters[i].index * cluster - start);
        size_t used = 0;
        if (!mirror_disk_cluster_read(s->options->disk, &stretch->clusters[i], stretch->codec_,
                                      data, &used, err) ||
            (s->purpose == BUNDLE_SCAN_PROVE && !prove(s, stretch, i, data, err)))
            return false;
    }
    return true;
}

static bool is_zero(const uint8_t *block)
{
    return block[0] == 0 && memcmp(block, block + 1, BUNDLE_BLOCK - 1) == 0;
}

static void identify(struct bundle_stretch *stretch)
{
    for (size_t i = 0; i < stretch->blocks; i++) {
        const uint8_t *block = stretch->data + i * BUNDLE_BLOCK;
        stretch->zero[i] = is_zero(block);
        if (!stretch->zero[i])
            bundle_block_id(block, &stretch->ids[i]);
    }
}

static bool work(void *opaque, void *job, struct uvm_error *err)
{
    const struct bundle_scan *s = opaque;
    if (!load(s, job, err))
        return false;
    if (s->purpose == BUNDLE_SCAN_PROVE)
        identify(job);
    return true;
}

/* The stretch; and of its clusters one as it is in the file, deflated again, and compared. */
static size_t stretch_bytes(const struct bundle_scan *s)
{
    return ((size_t)1 << s->stretch_bits) + ((size_t)3 << s->cluster_bits);
}

/* ---- the caller's side ----------------------------------------------------------------------- */

struct bundle_scan *bundle_scan_new(const struct bundle_encode_options *options,
                                    enum bundle_scan_purpose purpose, const struct bundle_map *map)
{
    struct bundle_scan *s = uvm_alloc(sizeof *s);
    const struct mirror_qcow2 *info = mirror_disk_info(options->disk);
    unsigned least = (unsigned)__builtin_ctzll(MIRROR_CLUSTER);
    s->options = options;
    s->purpose = purpose;
    s->map = map;
    s->cluster_bits = info->cluster_bits;
    s->stretch_bits = info->cluster_bits < least ? least : info->cluster_bits;
    s->can_deflate = info->compression == 0;
    s->clusters = ((info->virtual_size - 1) >> info->cluster_bits) + 1;
    s->lanes = uvm_lanes_new(&(struct uvm_lanes_options){.job_size = sizeof(struct bundle_stretch),
                                                         .job_bytes = stretch_bytes(s),
                                                         .take = take,
                                                         .work = work,
                                                         .clear = clear,
                                                         .opaque = s});
    return s;
}

void bundle_scan_free(struct bundle_scan *s)
{
    if (!s)
        return;
    uvm_lanes_free(s->lanes);
    free(s);
}

bool bundle_scan_next(struct bundle_scan *s, const struct bundle_stretch **ret_stretch,
                      struct uvm_error *err)
{
    void *job = NULL;
    if (!uvm_go_on(s->options->observer, err) || !uvm_lanes_next(s->lanes, &job, err))
        return false;
    *ret_stretch = job;
    return true;
}
