/*
 * The content of a qcow2 file, front to back. One walk over its L2 tables tells the extents, a second
 * one, as the bytes are wanted, which clusters of the file each job reads: as many as fill its block.
 *
 *     the file's clusters    [  a  ][  b  ]       [  c  ]         smaller than the content's, or larger
 *     the content's          |      1      |  2   |      3      |
 *     a job's block          |  a      b   |  c      0   |        2 is left out; what 3 lacks is zeros
 */
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "mirror/disk.h"

/* A job's block: enough clusters that the rest does not count. */
#define JOB_BYTES ((size_t)1 << 20)

/* How much that is not wanted is read along between two compressed clusters. */
#define PACKED_GAP 4096

struct piece {
    struct mirror_disk_cluster cluster;
    size_t at; /* in the block */
};

struct job {
    uint8_t *block;
    size_t len;
    struct piece *pieces; /* ascending */
    size_t count, room;
    struct mirror_codec *codec;
};

struct mirror_disk_reader {
    struct mirror_disk *disk;
    const struct uvm_observer *observer;
    struct mirror_content content;
    struct mirror_extent *extents;
    unsigned cluster_bits;
    uint64_t clusters; /* of the content's size, which the disk has */
    size_t block_size; /* a cluster of the file at least */
    struct mirror_disk_walk walk;
    struct mirror_disk_cluster ahead; /* which the last job had no room for */
    bool has_ahead;
    struct uvm_lanes *lanes;
};

/* The clusters of the content that a cluster of the file has to do with. */
static struct mirror_extent covers(const struct mirror_disk_reader *r, uint64_t index)
{
    uint64_t first = (index << r->cluster_bits) / MIRROR_CLUSTER;
    uint64_t end = (((index + 1) << r->cluster_bits) + MIRROR_CLUSTER - 1) / MIRROR_CLUSTER;
    return (struct mirror_extent){first, (end < r->clusters ? end : r->clusters) - first};
}

/* ---- extents --------------------------------------------------------------------------------- */

static uint64_t end_of(const struct mirror_extent *e)
{
    return e->first + e->count;
}

static bool append(struct mirror_disk_reader *r, struct mirror_extent e, struct uvm_error *err)
{
    size_t count = r->content.extent_count;
    if (count == MIRROR_EXTENTS_MAX)
        return uvm_fail(err, UVM_SPACE, "its content is in more than %zu pieces",
                        MIRROR_EXTENTS_MAX);
    if ((count & (count - 1)) == 0) /* it is full at every power of two */
        r->extents = uvm_grow(r->extents, count ? 2 * count : 1, sizeof *r->extents);
    r->extents[r->content.extent_count++] = e;
    return true;
}

/* They come in order; small clusters of the file have one of the content's together. */
static bool add(struct mirror_disk_reader *r, struct mirror_extent e, uint64_t *stored,
                struct uvm_error *err)
{
    size_t count = r->content.extent_count;
    struct mirror_extent *last = count ? &r->extents[count - 1] : NULL;
    bool joins = last && e.first <= end_of(last);
    uint64_t more = joins ? end_of(&e) - end_of(last) : e.count;
    *stored += more;
    if (*stored > MIRROR_QCOW2_CLUSTERS_MAX)
        return uvm_fail(err, UVM_SPACE,
                        "its content has more than the %" PRIu64 " clusters of 64 KiB that an "
                        "image may have",
                        MIRROR_QCOW2_CLUSTERS_MAX);
    if (!joins)
        return append(r, e, err);
    last->count += more;
    return true;
}

static bool find_extents(struct mirror_disk_reader *r, struct uvm_error *err)
{
    struct mirror_disk_walk walk = {0};
    struct mirror_disk_cluster cluster;
    uint64_t stored = 0;
    for (bool end = false;;) {
        if (!uvm_go_on(r->observer, err) || !mirror_disk_next(r->disk, &walk, &cluster, &end, err))
            return false;
        if (end)
            return true;
        if (!add(r, covers(r, cluster.index), &stored, err))
            return false;
    }
}

/* ---- what a job reads ------------------------------------------------------------------------ */

static bool look_ahead(struct mirror_disk_reader *r, bool *ret_end, struct uvm_error *err)
{
    *ret_end = false;
    if (r->has_ahead)
        return true;
    if (!mirror_disk_next(r->disk, &r->walk, &r->ahead, ret_end, err))
        return false;
    r->has_ahead = !*ret_end;
    return true;
}

static void add_piece(struct job *job, const struct mirror_disk_cluster *cluster, size_t at)
{
    if (job->count == job->room) {
        job->room = job->room ? 2 * job->room : 16;
        job->pieces = uvm_grow(job->pieces, job->room, sizeof *job->pieces);
    }
    job->pieces[job->count++] = (struct piece){*cluster, at};
}

/* Puts the cluster ahead into the job; false when that has no room. Where the one before it is in the
 * same cluster of the content, it has. */
static bool put_ahead(const struct mirror_disk_reader *r, struct job *job)
{
    uint64_t index = r->ahead.index;
    struct mirror_extent e = covers(r, index);
    size_t bytes = (size_t)e.count * MIRROR_CLUSTER;
    bool begins =
        job->count == 0 || covers(r, job->pieces[job->count - 1].cluster.index).first != e.first;
    if (begins && bytes > r->block_size - job->len)
        return false;
    if (begins)
        job->len += bytes;
    uint64_t within = (index << r->cluster_bits) - e.first * MIRROR_CLUSTER;
    add_piece(job, &r->ahead, job->len - bytes + (size_t)within);
    return true;
}

static bool take(void *opaque, void *job_, bool *ret_end, struct uvm_error *err)
{
    struct mirror_disk_reader *r = opaque;
    struct job *job = job_;
    job->len = job->count = 0;
    for (bool end;; r->has_ahead = false) {
        if (!look_ahead(r, &end, err))
            return false;
        if (end || !put_ahead(r, job))
            break;
    }
    *ret_end = job->count == 0;
    return true;
}

/* ---- a job ----------------------------------------------------------------------------------- */

/* How many pieces from the first on stand behind each other in the file, too, uncompressed. */
static size_t plain_run(const struct job *job, size_t first, size_t *ret_len)
{
    const struct piece *p = &job->pieces[first];
    uint64_t len = p->cluster.bytes;
    size_t n = 1;
    for (; first + n < job->count; n++) {
        const struct piece *q = &p[n];
        if (q->cluster.compressed || q->cluster.offset != p->cluster.offset + len ||
            q->at != p->at + len)
            break;
        len += q->cluster.bytes;
    }
    *ret_len = (size_t)len;
    return n;
}

/* The same for compressed ones of `size` bytes, which stand close to each other. */
static size_t packed_run(const struct job *job, size_t first, size_t size, size_t *ret_len)
{
    const struct piece *p = &job->pieces[first];
    uint64_t start = p->cluster.offset, end = start + p->cluster.bytes;
    size_t n = 1;
    for (; first + n < job->count; n++) {
        const struct mirror_disk_cluster *c = &p[n].cluster;
        if (!c->compressed || c->offset < start || c->offset > end + PACKED_GAP ||
            p[n].at != p->at + n * size)
            break;
        if (end < c->offset + c->bytes)
            end = c->offset + c->bytes;
    }
    *ret_len = (size_t)(end - start);
    return n;
}

static bool inflate_run(const struct mirror_disk_reader *r, struct job *job, size_t first,
                        size_t count, size_t len, struct uvm_error *err)
{
    const struct piece *p = &job->pieces[first];
    uint64_t start = p->cluster.offset;
    uint8_t *packed = mirror_codec_room(job->codec, len);
    if (!mirror_read_at(mirror_disk_fd(r->disk), start, packed, len, err))
        return false;
    for (size_t i = 0; i < count; i++) {
        const struct mirror_disk_cluster *c = &p[i].cluster;
        size_t used;
        if (!mirror_codec_inflate(job->codec, mirror_disk_info(r->disk),
                                  packed + (c->offset - start), c->bytes, job->block + p[i].at,
                                  &used, err))
            return mirror_disk_fail_cluster(c, err);
    }
    return true;
}

/* What the last cluster has behind the disk's end is no content. */
static void cut(const struct mirror_disk_reader *r, struct job *job)
{
    const struct piece *p = &job->pieces[job->count - 1];
    uint64_t size = r->content.virtual_size, at = p->cluster.index << r->cluster_bits;
    uint64_t there = size - at + p->at;
    if (there < job->len)
        memset(job->block + there, 0, job->len - (size_t)there);
}

static bool work(void *opaque, void *job_, struct uvm_error *err)
{
    const struct mirror_disk_reader *r = opaque;
    struct job *job = job_;
    size_t size = (size_t)1 << r->cluster_bits, filled = 0, len, n;
    if (!job->block)
        job->block = uvm_grow(NULL, r->block_size, 1);
    if (!job->codec)
        job->codec = mirror_codec_new();
    for (size_t i = 0; i < job->count; i += n) {
        const struct piece *p = &job->pieces[i];
        bool compressed = p->cluster.compressed;
        memset(job->block + filled, 0, p->at - filled);
        n = compressed ? packed_run(job, i, size, &len) : plain_run(job, i, &len);
        if (!(compressed ? inflate_run(r, job, i, n, len, err)
                         : mirror_read_at(mirror_disk_fd(r->disk), p->cluster.offset,
                                          job->block + p->at, len, err)))
            return false;
        filled = compressed ? p[n - 1].at + size : p->at + len;
    }
    if (filled < job->len)
        memset(job->block + filled, 0, job->len - filled);
    cut(r, job);
    return true;
}

static void clear(void *opaque, void *job_)
{
    struct job *job = job_;
    (void)opaque;
    free(job->block);
    free(job->pieces);
    mirror_codec_free(job->codec);
}

/* ---- the reader ------------------------------------------------------------------------------ */

static bool read_block(void *opaque, const void **ret_data, size_t *ret_len, struct uvm_error *err)
{
    struct mirror_disk_reader *r = opaque;
    void *job_;
    if (!uvm_go_on(r->observer, err) || !uvm_lanes_next(r->lanes, &job_, err))
        return false;
    const struct job *job = job_;
    *ret_data = job ? job->block : NULL;
    *ret_len = job ? job->len : 0;
    return true;
}

/* Whole clusters of the file, for they are inflated into it. */
static size_t block_size(const struct mirror_content *content, size_t cluster)
{
    uint64_t bytes = mirror_content_bytes(content);
    size_t size = bytes < JOB_BYTES ? (size_t)bytes : JOB_BYTES;
    return (size + cluster - 1) / cluster * cluster;
}

bool mirror_disk_reader_new(struct mirror_disk *d, const struct uvm_observer *observer,
                            struct mirror_disk_reader **ret_reader, struct uvm_error *err)
{
    UVM_AUTO(mirror_disk_reader_free) struct mirror_disk_reader *r = uvm_alloc(sizeof *r);
    const struct mirror_qcow2 *info = mirror_disk_info(d);
    size_t cluster = (size_t)1 << info->cluster_bits;
    r->disk = d;
    r->observer = observer;
    r->cluster_bits = info->cluster_bits;
    r->clusters = (info->virtual_size - 1) / MIRROR_CLUSTER + 1;
    r->content.virtual_size = info->virtual_size;
    if (!find_extents(r, err))
        return false;
    r->content.extents = r->extents;
    r->block_size = block_size(&r->content, cluster);
    posix_fadvise(mirror_disk_fd(d), 0, 0, POSIX_FADV_SEQUENTIAL);
    r->content.data = (struct uvm_reader){read_block, r};
    r->lanes = uvm_lanes_new(&(struct uvm_lanes_options){
        .job_size = sizeof(struct job),
        .take = take,
        .work = work,
        .clear = clear,
        .opaque = r,
    });
    *ret_reader = UVM_STEAL(r);
    return true;
}

void mirror_disk_reader_free(struct mirror_disk_reader *r)
{
    if (!r)
        return;
    uvm_lanes_free(r->lanes);
    free(r->extents);
    free(r);
}

const struct mirror_content *mirror_disk_reader_content(const struct mirror_disk_reader *r)
{
    return &r->content;
}
