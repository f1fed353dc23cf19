/*
 * A vendor's file, made again of its content and its segments. Those are read and batched in their
 * order, by one thread at a time; clusters are read from the kept content and deflated side by side.
 *
 *     segments   verbatim | deflated | deflated | ...
 *     a batch    | bytes, there      | room for what the cluster becomes | ... |
 */
#include "bundle/compact.h"
#include <errno.h>
#include <unistd.h>

#define BATCH ((size_t)256 << 10) /* bytes that it costs to make it, about */

struct bundle_rebuild {
    struct bundle_segments *segments;
    int fd;
    size_t cluster; /* bytes */
    struct bundle_segment segment;
    uint64_t left; /* of it; 0: the next one is due */
    struct uvm_lanes *lanes;
};

/* A cluster whose place in the batch is known. */
struct piece {
    size_t at;
    struct bundle_segment segment;
};
struct batch {
    uint8_t *bytes;
    size_t len;
    struct piece *pieces;
    size_t count, room;
    uint8_t *content;  /* of one cluster */
    uint8_t *deflated; /* the same */
    struct mirror_codec *codec;
};

/* ---- filling a batch ------------------------------------------------------------------------- */

static void make_room(const struct bundle_rebuild *r, struct batch *b)
{
    /* The last cluster begins before BATCH. */
    b->bytes = uvm_alloc(BATCH + r->cluster);
    b->content = uvm_alloc(r->cluster);
    b->deflated = uvm_alloc(r->cluster);
    b->codec = mirror_codec_new();
}

static void add_piece(struct batch *b, const struct bundle_segment *segment)
{
    if (b->count == b->room) {
        b->room = b->room ? b->room * 2 : 16;
        b->pieces = uvm_grow(b->pieces, b->room, sizeof *b->pieces);
    }
    b->pieces[b->count++] = (struct piece){b->len, *segment};
}

/* Adds what fits of the present segment. *cost grows by what it takes. */
static bool add_segment(struct bundle_rebuild *r, struct batch *b, size_t *cost,
                        struct uvm_error *err)
{
    bool whole =
        r->segment.kind == BUNDLE_SEGMENT_CLUSTER || r->segment.kind == BUNDLE_SEGMENT_DEFLATED;
    size_t room = BATCH - b->len, part = r->left < room || whole ? (size_t)r->left : room;
    if (whole)
        add_piece(b, &r->segment);
    else if (r->segment.kind == BUNDLE_SEGMENT_ZEROS)
        memset(b->bytes + b->len, 0, part);
    else if (!bundle_segments_verbatim(r->segments, b->bytes + b->len, part, err))
        return false;
    *cost += whole ? r->cluster : part;
    b->len += part;
    r->left -= part;
    return true;
}

static bool take(void *opaque, void *job, bool *ret_end, struct uvm_error *err)
{
    struct bundle_rebuild *r = opaque;
    struct batch *b = job;
    bool end = false;
    if (!b->bytes)
        make_room(r, b);
    b->len = b->count = 0;
    for (size_t cost = 0; cost < BATCH && b->len < BATCH && !end;) {
        if (r->left == 0 && !bundle_segments_next(r->segments, &r->segment, &end, err))
            return false;
        if (r->left == 0 && !end)
            r->left = r->segment.bytes;
        if (!end && !add_segment(r, b, &cost, err))
            return false;
    }
    *ret_end = end && b->len == 0;
    return true;
}

static void clear(void *opaque, void *job)
{
    struct batch *b = job;
    (void)opaque;
    free(b->bytes);
    free(b->pieces);
    free(b->content);
    free(b->deflated);
    mirror_codec_free(b->codec);
}

char *bundle_deflate_advice(void)
{
    return uvm_format(
        "zlib %s of this host may deflate otherwise than the one that made the bundle: "
        "then a plain bundle is needed, made without --compact",
        mirror_codec_version());
}

/* ---- clusters -------------------------------------------------------------------------------- */

/* Behind the end of the kept content there are zeros. */
static bool read_content(const struct bundle_rebuild *r, uint64_t cluster, uint8_t *data,
                         struct uvm_error *err)
{
    size_t done = 0;
    while (done < r->cluster) {
        ssize_t got =
            pread(r->fd, data + done, r->cluster - done, (off_t)(cluster * r->cluster + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return uvm_fail_errno(err, UVM_FAILED, "cannot read a temporary file");
        if (got == 0)
            break;
        done += (size_t)got;
    }
    memset(data + done, 0, r->cluster - done);
    return true;
}

static bool make_piece(const struct bundle_rebuild *r, struct batch *b, const struct piece *piece,
                       struct uvm_error *err)
{
    const uint8_t *made = b->content;
    if (!read_content(r, piece->segment.cluster, b->content, err))
        return false;
    if (piece->segment.kind == BUNDLE_SEGMENT_DEFLATED) {
        if (mirror_codec_deflate(b->codec, b->content, r->cluster, b->deflated) !=
            piece->segment.bytes) {
            uvm_auto_free char *advice = bundle_deflate_advice();
            return uvm_fail(err, UVM_CONTENT, "a cluster does not deflate to what it was: %s",
                            advice);
        }
        made = b->deflated;
    }
    memcpy(b->bytes + piece->at, made, piece->segment.bytes);
    return true;
}

static bool work(void *opaque, void *job, struct uvm_error *err)
{
    struct batch *b = job;
    for (size_t i = 0; i < b->count; i++)
        if (!make_piece(opaque, b, &b->pieces[i], err))
            return false;
    return true;
}

/* ---- the caller's side ----------------------------------------------------------------------- */

struct bundle_rebuild *bundle_rebuild_new(struct bundle_segments *segments, int fd)
{
    struct bundle_rebuild *r = uvm_alloc(sizeof *r);
    r->segments = segments;
    r->fd = fd;
    r->cluster = (size_t)1 << segments->head->cluster_bits;
    r->lanes = uvm_lanes_new(&(struct uvm_lanes_options){.job_size = sizeof(struct batch),
                                                         .job_bytes = BATCH + 3 * r->cluster,
                                                         .take = take,
                                                         .work = work,
                                                         .clear = clear,
                                                         .opaque = r});
    return r;
}

void bundle_rebuild_free(struct bundle_rebuild *r)
{
    if (!r)
        return;
    uvm_lanes_free(r->lanes);
    free(r);
}

bool bundle_rebuild_read(void *opaque, const void **ret_data, size_t *ret_len,
                         struct uvm_error *err)
{
    struct bundle_rebuild *r = opaque;
    void *job = NULL;
    if (!uvm_lanes_next(r->lanes, &job, err))
        return false;
    const struct batch *b = job;
    *ret_data = b ? b->bytes : NULL;
    *ret_len = b ? b->len : 0;
    return true;
}
