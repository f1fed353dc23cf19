/*
 * The structure of a qcow2 file behind its header (QEMU, docs/interop/qcow2.txt), big-endian:
 *
 *     L1 table --> L2 tables, a cluster each --> data clusters, and the sectors of compressed ones
 *     refcount table --> refcount blocks, a cluster each: how often each cluster is referred to
 *
 *     L1 entry            63 copied   62-56 0                 55-9 L2 table        8-0 0
 *     L2 entry            63 copied   62 0         61-56 0    55-9 data cluster    8-1 0   0 zeros (v3)
 *     L2 entry, packed    63 0        62 1   61-x  sectors beyond the first   (x-1)-0 first byte
 *                                            x = 62 - (cluster bits - 8)
 *     refcount table      63-9 refcount block                                      8-0 0
 *
 * From the top: each entry claims what it refers to, before that is read. So each table is read once,
 * and when all have been, it is known what each cluster of the file serves; the refcount blocks, which
 * come last, are compared with that.
 */
#include <inttypes.h>

#include "mirror/qcow2.h"

#define WORD sizeof(uint64_t)

#define REFTABLE_OFFSET UINT64_C(0xfffffffffffffe00)

/* What a cluster serves: so many compressed clusters (0 = nothing), or one master alone. */
#define USE_SOLE   0x8000u
#define USE_COPIED 0x4000u /* the entry that refers to it says that nothing else does */
#define USE_COUNT  0x3fffu

struct tables {
    const struct mirror_qcow2 *info;
    const struct uvm_observer *observer;
    int fd;
    uint64_t file_size;
    uint64_t cluster_size;
    uint64_t clusters; /* of the file; the last one may be cut off */
    uint16_t *uses;
    uint8_t *block; /* a cluster: the L2 table or refcount block at hand */
    uint8_t *top;   /* the L1 table, then the refcount table */
};

static void tables_clear(struct tables *t)
{
    free(t->uses);
    free(t->block);
    free(t->top);
}

/* ---- what a cluster serves ------------------------------------------------------------------- */

static bool fail_overlap(uint64_t cluster, struct uvm_error *err)
{
    return uvm_fail(err, UVM_CONTENT, "qcow2 cluster %" PRIu64 " serves two purposes", cluster);
}

/* For an entry that refers to a cluster, or for the header: 0. */
static bool claim(struct tables *t, uint64_t offset, uint64_t entry, struct uvm_error *err)
{
    uint16_t *use = &t->uses[offset >> t->info->cluster_bits];
    if (*use != 0)
        return fail_overlap(offset >> t->info->cluster_bits, err);
    *use = USE_SOLE | (entry & MIRROR_QCOW2_COPIED ? USE_COPIED : 0);
    return true;
}

/* The head has been checked: this is inside the file. */
static bool claim_range(struct tables *t, uint64_t offset, uint64_t bytes, struct uvm_error *err)
{
    for (uint64_t done = 0; done < bytes; done += t->cluster_size) {
        if (!claim(t, offset + done, 0, err))
            return false;
    }
    return true;
}

static bool claim_packed(struct tables *t, uint64_t cluster, struct uvm_error *err)
{
    uint16_t *use = &t->uses[cluster];
    if (*use & USE_SOLE)
        return fail_overlap(cluster, err);
    if (*use < USE_COUNT)
        ++*use;
    return true;
}

/* ---- entries --------------------------------------------------------------------------------- */

static bool fail_entry(const char *what, uint64_t entry, struct uvm_error *err)
{
    return uvm_fail(err, UVM_CONTENT, "qcow2 %s entry %016" PRIx64 " has bits that make no sense",
                    what, entry);
}

/* A whole cluster, as a table needs it. */
static bool check_table(const struct tables *t, const char *what, uint64_t offset,
                        struct uvm_error *err)
{
    if (offset % t->cluster_size || offset > t->file_size ||
        t->cluster_size > t->file_size - offset)
        return uvm_fail(err, UVM_CONTENT,
                        "qcow2 %s at %" PRIu64 " is not aligned or not in the file", what, offset);
    return true;
}

static bool take_l1(struct tables *t, uint64_t entry, struct uvm_error *err)
{
    uint64_t offset = entry & MIRROR_QCOW2_OFFSET;
    if (entry == 0)
        return true;
    if (offset == 0 || entry & ~(MIRROR_QCOW2_COPIED | MIRROR_QCOW2_OFFSET))
        return fail_entry("L1", entry, err);
    return check_table(t, "L2 table", offset, err) && claim(t, offset, entry, err);
}

static bool take_packed(struct tables *t, uint64_t entry, struct uvm_error *err)
{
    uint64_t offset = mirror_qcow2_packed_at(t->info, entry);
    uint64_t sectors = mirror_qcow2_packed_sectors(t->info, entry);
    uint64_t first = offset / MIRROR_QCOW2_SECTOR;
    uint64_t there = (t->file_size + MIRROR_QCOW2_SECTOR - 1) / MIRROR_QCOW2_SECTOR;
    if (entry & MIRROR_QCOW2_COPIED)
        return fail_entry("L2", entry, err);
    if (first > there || sectors > there - first)
        return uvm_fail(err, UVM_CONTENT,
                        "qcow2 compressed cluster at %" PRIu64 " is not in the file", offset);
    uint64_t last = (first + sectors - 1) * MIRROR_QCOW2_SECTOR >> t->info->cluster_bits;
    for (uint64_t c = offset >> t->info->cluster_bits; c <= last; c++) {
        if (!claim_packed(t, c, err))
            return false;
    }
    return true;
}

static bool take_l2(struct tables *t, uint64_t entry, struct uvm_error *err)
{
    uint64_t zero = t->info->version >= 3 ? MIRROR_QCOW2_ZERO : 0;
    uint64_t offset = entry & MIRROR_QCOW2_OFFSET;
    if (entry & MIRROR_QCOW2_COMPRESSED)
        return take_packed(t, entry, err);
    if (entry & ~(MIRROR_QCOW2_COPIED | MIRROR_QCOW2_OFFSET | zero) ||
        (offset == 0 && entry & MIRROR_QCOW2_COPIED))
        return fail_entry("L2", entry, err);
    if (offset == 0)
        return true;
    if (offset % t->cluster_size || offset >= t->file_size)
        return uvm_fail(err, UVM_CONTENT,
                        "qcow2 data cluster at %" PRIu64 " is not aligned or not in the file",
                        offset);
    return claim(t, offset, entry, err);
}

static bool take_reftable(struct tables *t, uint64_t entry, struct uvm_error *err)
{
    uint64_t offset = entry & REFTABLE_OFFSET;
    if (entry == 0)
        return true;
    if (offset == 0 || entry != offset)
        return fail_entry("refcount table", entry, err);
    return check_table(t, "refcount block", offset, err) && claim(t, offset, 0, err);
}

/* ---- tables ---------------------------------------------------------------------------------- */

static uint64_t word_at(const uint8_t *words, size_t i)
{
    return mirror_be64(words + i * WORD);
}

static bool take_all(struct tables *t, const uint8_t *words, size_t count,
                     bool (*take_entry)(struct tables *t, uint64_t entry, struct uvm_error *err),
                     struct uvm_error *err)
{
    for (size_t i = 0; i < count; i++) {
        if (!take_entry(t, word_at(words, i), err))
            return false;
    }
    return true;
}

/* Reads the L1 or the refcount table. */
static bool read_top(struct tables *t, uint64_t offset, size_t count, struct uvm_error *err)
{
    t->top = uvm_grow(t->top, count, WORD);
    return mirror_read_at(t->fd, offset, t->top, count * WORD, err);
}

static bool read_block(struct tables *t, uint64_t offset, struct uvm_error *err)
{
    return uvm_go_on(t->observer, err) &&
           mirror_read_at(t->fd, offset, t->block, t->cluster_size, err);
}

static bool check_guest(struct tables *t, struct uvm_error *err)
{
    size_t count = t->info->l1_entries;
    if (!read_top(t, t->info->l1_offset, count, err) || !take_all(t, t->top, count, take_l1, err))
        return false;
    for (size_t i = 0; i < count; i++) {
        uint64_t offset = word_at(t->top, i) & MIRROR_QCOW2_OFFSET;
        if (offset && (!read_block(t, offset, err) ||
                       !take_all(t, t->block, t->cluster_size / WORD, take_l2, err)))
            return false;
    }
    return true;
}

/* The i-th refcount of a block. Those below a byte count from its lowest bit. */
static uint64_t refcount_in(const uint8_t *block, unsigned order, uint64_t i)
{
    unsigned bits = 1u << order;
    if (bits < 8)
        return block[i * bits / 8] >> (i * bits % 8) & ((1u << bits) - 1);
    uint64_t value = 0;
    for (unsigned k = 0; k < bits / 8; k++)
        value = value << 8 | block[i * bits / 8 + k];
    return value;
}

static bool check_refcount(const struct tables *t, uint64_t cluster, uint64_t refcount,
                           struct uvm_error *err)
{
    unsigned use = t->uses[cluster], references = use & USE_SOLE ? 1 : use;
    if (refcount >= references && (refcount == 1 || !(use & USE_COPIED)))
        return true;
    return uvm_fail(err, UVM_CONTENT,
                    "qcow2 refcount %" PRIu64 " of cluster %" PRIu64 " does not fit its use",
                    refcount, cluster);
}

/* The refcounts of one block, 0 = there is none, which stands for zeros. */
static bool check_refblock(struct tables *t, uint64_t offset, uint64_t first, uint64_t count,
                           struct uvm_error *err)
{
    if (offset && !read_block(t, offset, err))
        return false;
    for (uint64_t i = 0; i < count && first + i < t->clusters; i++) {
        uint64_t refcount = offset ? refcount_in(t->block, t->info->refcount_order, i) : 0;
        if (!check_refcount(t, first + i, refcount, err))
            return false;
    }
    return true;
}

static bool check_refcounts(struct tables *t, struct uvm_error *err)
{
    size_t count = (size_t)(t->info->refcount_clusters * t->cluster_size / WORD);
    uint64_t each = t->cluster_size * 8 >> t->info->refcount_order;
    if (!read_top(t, t->info->refcount_offset, count, err) ||
        !take_all(t, t->top, count, take_reftable, err))
        return false;
    for (uint64_t i = 0; i * each < t->clusters; i++) {
        if (!check_refblock(t, i < count ? word_at(t->top, i) : 0, i * each, each, err))
            return false;
    }
    return true;
}

bool mirror_qcow2_check_tables(const struct mirror_qcow2 *info, int fd, uint64_t file_size,
                               const struct uvm_observer *observer, struct uvm_error *err)
{
    uint64_t clusters = ((file_size - 1) >> info->cluster_bits) + 1;
    if (clusters > MIRROR_QCOW2_CLUSTERS_MAX)
        return uvm_fail(err, UVM_SPACE,
                        "qcow2 image has %" PRIu64 " clusters, over the limit of %" PRIu64,
                        clusters, MIRROR_QCOW2_CLUSTERS_MAX);
    __attribute__((cleanup(tables_clear))) struct tables t = {
        .info = info,
        .observer = observer,
        .fd = fd,
        .file_size = file_size,
        .cluster_size = UINT64_C(1) << info->cluster_bits,
        .clusters = clusters,
    };
    t.uses = uvm_alloc(clusters * sizeof *t.uses);
    t.block = uvm_alloc(t.cluster_size);
    return claim(&t, 0, 0, err) &&
           claim_range(&t, info->l1_offset, (uint64_t)info->l1_entries * WORD, err) &&
           claim_range(&t, info->refcount_offset, info->refcount_clusters * t.cluster_size, err) &&
           check_guest(&t, err) && check_refcounts(&t, err);
}
