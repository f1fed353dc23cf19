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
 * All of these are made of words of 8 bytes at multiples of 8, and are taken in as they pass: a word
 * of the L1 table marks a cluster as an L2 table, and when that cluster passes, its words mark
 * others. For each cluster of the file it is noted what it serves and what its refcount says; at the
 * end the two are compared.
 */
#include <inttypes.h>
#include <string.h>

#include "mirror/qcow2.h"

#define WORD   8
#define SECTOR UINT64_C(512)

/* How much that is not wanted is read along, rather than to start anew behind it. */
#define MISSING_GAP ((uint64_t)1 << 20)

#define ENTRY_COPIED     (UINT64_C(1) << 63)
#define ENTRY_COMPRESSED (UINT64_C(1) << 62)
#define ENTRY_ZERO       UINT64_C(1)
#define ENTRY_OFFSET     UINT64_C(0x00fffffffffffe00)
#define REFTABLE_OFFSET  UINT64_C(0xfffffffffffffe00)

/* What a cluster serves: compressed clusters, and then how many of them (0 = nothing), or one master
 * alone, and then what it is. */
#define USE_SOLE   0x8000u
#define USE_COPIED 0x4000u /* the entry that refers to it says that nothing else does */
#define USE_VALUE  0x3fffu
enum {
    SOLE_DATA,
    SOLE_HEADER,
    SOLE_L1, /* these four are still to be read */
    SOLE_REFTABLE,
    SOLE_L2,
    SOLE_REFBLOCK,
    SOLE_READ, /* one of them, read */
};

struct refblock {
    uint32_t cluster, index; /* where it stands, and its place in the refcount table */
};

struct mirror_qcow2_tables {
    struct mirror_qcow2 info;
    uint64_t file_size;
    uint32_t clusters; /* of the file; the last one may be cut off */
    uint16_t *uses;
    uint16_t *refcounts;        /* as stated; 65535 stands for that and more */
    struct refblock *refblocks; /* by cluster, once the refcount table has been read */
    size_t refblock_count;
    uint64_t at;        /* what is fed next stands here */
    uint8_t word[WORD]; /* the part of a word that was there when the last bytes ended */
    uint32_t wanted;    /* L2 tables and refcount blocks that are still to be read */
    bool sorted, ended;
    uint64_t compressed; /* clusters */
};

void mirror_qcow2_tables_free(struct mirror_qcow2_tables *t)
{
    if (!t)
        return;
    free(t->uses);
    free(t->refcounts);
    free(t->refblocks);
    free(t);
}

static uint64_t cluster_size(const struct mirror_qcow2_tables *t)
{
    return (uint64_t)1 << t->info.cluster_bits;
}

/* ---- what a cluster serves ------------------------------------------------------------------- */

static bool is_sole(unsigned use, unsigned kind)
{
    return use & USE_SOLE && (use & USE_VALUE) == kind;
}

/* An L2 table or refcount block that is still to be read. */
static bool is_wanted(const struct mirror_qcow2_tables *t, uint64_t cluster)
{
    return is_sole(t->uses[cluster], SOLE_L2) || is_sole(t->uses[cluster], SOLE_REFBLOCK);
}

static bool fail_overlap(uint32_t cluster, struct uvm_error *err)
{
    return uvm_fail(err, UVM_CONTENT, "qcow2 cluster %" PRIu32 " serves two purposes", cluster);
}

/* `use` with USE_COPIED or without. */
static bool claim(struct mirror_qcow2_tables *t, uint64_t cluster, unsigned use,
                  struct uvm_error *err)
{
    if (t->uses[cluster] != 0)
        return fail_overlap((uint32_t)cluster, err);
    t->uses[cluster] = (uint16_t)(USE_SOLE | use);
    t->wanted += is_wanted(t, cluster);
    return true;
}

/* The head has been checked: this is inside the file. */
static bool claim_range(struct mirror_qcow2_tables *t, uint64_t offset, uint64_t bytes,
                        unsigned kind, struct uvm_error *err)
{
    uint64_t end = (offset + bytes - 1) >> t->info.cluster_bits;
    for (uint64_t c = offset >> t->info.cluster_bits; c <= end; c++) {
        if (!claim(t, c, kind, err))
            return false;
    }
    return true;
}

static bool claim_compressed(struct mirror_qcow2_tables *t, uint64_t cluster, struct uvm_error *err)
{
    uint16_t *use = &t->uses[cluster];
    if (*use & USE_SOLE)
        return fail_overlap((uint32_t)cluster, err);
    if (*use < USE_VALUE)
        ++*use;
    return true;
}

/* A whole cluster, as a table needs it. */
static bool check_table(const struct mirror_qcow2_tables *t, const char *what, uint64_t offset,
                        struct uvm_error *err)
{
    uint64_t size = cluster_size(t);
    if (offset % size || offset > t->file_size || size > t->file_size - offset)
        return uvm_fail(err, UVM_CONTENT,
                        "qcow2 %s at %" PRIu64 " is not aligned or not in the file", what, offset);
    return true;
}

/* ---- entries --------------------------------------------------------------------------------- */

static bool fail_entry(const char *what, uint64_t entry, struct uvm_error *err)
{
    return uvm_fail(err, UVM_CONTENT, "qcow2 %s entry %016" PRIx64 " has bits that make no sense",
                    what, entry);
}

static unsigned copied(uint64_t entry)
{
    return entry & ENTRY_COPIED ? USE_COPIED : 0;
}

static bool take_l1(struct mirror_qcow2_tables *t, uint64_t entry, struct uvm_error *err)
{
    uint64_t offset = entry & ENTRY_OFFSET;
    if (entry == 0)
        return true;
    if (offset == 0 || entry & ~(ENTRY_COPIED | ENTRY_OFFSET))
        return fail_entry("L1", entry, err);
    return check_table(t, "L2 table", offset, err) &&
           claim(t, offset >> t->info.cluster_bits, SOLE_L2 | copied(entry), err);
}

static bool take_compressed(struct mirror_qcow2_tables *t, uint64_t entry, struct uvm_error *err)
{
    unsigned bits = t->info.cluster_bits, x = 62 - (bits - 8);
    uint64_t offset = entry & ((UINT64_C(1) << x) - 1);
    uint64_t sectors = (entry >> x & ((UINT64_C(1) << (bits - 8)) - 1)) + 1;
    uint64_t first = offset / SECTOR, there = (t->file_size + SECTOR - 1) / SECTOR;
    if (entry & ENTRY_COPIED)
        return fail_entry("L2", entry, err);
    if (first > there || sectors > there - first)
        return uvm_fail(err, UVM_CONTENT,
                        "qcow2 compressed cluster at %" PRIu64 " is not in the file", offset);
    t->compressed++;
    uint64_t last = (first + sectors - 1) * SECTOR >> bits;
    for (uint64_t c = offset >> bits; c <= last; c++) {
        if (!claim_compressed(t, c, err))
            return false;
    }
    return true;
}

static bool take_l2(struct mirror_qcow2_tables *t, uint64_t entry, struct uvm_error *err)
{
    uint64_t zero = t->info.version >= 3 ? ENTRY_ZERO : 0, offset = entry & ENTRY_OFFSET;
    if (entry & ENTRY_COMPRESSED)
        return take_compressed(t, entry, err);
    if (entry & ~(ENTRY_COPIED | ENTRY_OFFSET | zero) || (offset == 0 && entry & ENTRY_COPIED))
        return fail_entry("L2", entry, err);
    if (offset == 0)
        return true;
    if (offset % cluster_size(t) || offset >= t->file_size)
        return uvm_fail(err, UVM_CONTENT,
                        "qcow2 data cluster at %" PRIu64 " is not aligned or not in the file",
                        offset);
    return claim(t, offset >> t->info.cluster_bits, SOLE_DATA | copied(entry), err);
}

static bool take_reftable(struct mirror_qcow2_tables *t, uint64_t at, uint64_t entry,
                          struct uvm_error *err)
{
    uint64_t offset = entry & REFTABLE_OFFSET;
    if (entry == 0)
        return true;
    if (offset == 0 || entry != offset)
        return fail_entry("refcount table", entry, err);
    if (!check_table(t, "refcount block", offset, err) ||
        !claim(t, offset >> t->info.cluster_bits, SOLE_REFBLOCK, err))
        return false;
    t->refblocks = uvm_grow(t->refblocks, t->refblock_count + 1, sizeof(*t->refblocks));
    t->refblocks[t->refblock_count++] =
        (struct refblock){(uint32_t)(offset >> t->info.cluster_bits),
                          (uint32_t)((at - t->info.refcount_offset) / WORD)};
    return true;
}

/* ---- refcount blocks ------------------------------------------------------------------------- */

static int by_cluster(const void *a, const void *b)
{
    const struct refblock *x = a, *y = b;
    return (x->cluster > y->cluster) - (x->cluster < y->cluster);
}

/* The place in the refcount table of the block that stands in this cluster. */
static uint64_t refblock_index(struct mirror_qcow2_tables *t, uint64_t cluster)
{
    const struct refblock key = {.cluster = (uint32_t)cluster};
    if (!t->sorted)
        qsort(t->refblocks, t->refblock_count, sizeof(*t->refblocks), by_cluster);
    t->sorted = true;
    const struct refblock *found =
        bsearch(&key, t->refblocks, t->refblock_count, sizeof(*t->refblocks), by_cluster);
    if (!found)
        abort(); /* only words of noted blocks come here */
    return found->index;
}

/* The i-th refcount of a word. Those below a byte count from its lowest bit. */
static uint64_t refcount_in(const uint8_t word[WORD], unsigned order, unsigned i)
{
    unsigned bits = 1u << order;
    if (bits < 8)
        return word[i * bits / 8] >> (i * bits % 8) & ((1u << bits) - 1);
    uint64_t value = 0;
    for (unsigned k = 0; k < bits / 8; k++)
        value = value << 8 | word[i * bits / 8 + k];
    return value;
}

static void take_refcounts(struct mirror_qcow2_tables *t, uint64_t at, const uint8_t word[WORD])
{
    unsigned order = t->info.refcount_order, count = 64u >> order;
    uint64_t block = refblock_index(t, at >> t->info.cluster_bits);
    uint64_t per_block = cluster_size(t) * 8 >> order;
    uint64_t cluster = block * per_block + at % cluster_size(t) / WORD * count;
    for (unsigned i = 0; i < count && cluster + i < t->clusters; i++) {
        uint64_t value = refcount_in(word, order, i);
        t->refcounts[cluster + i] = (uint16_t)(value > UINT16_MAX ? UINT16_MAX : value);
    }
}

/* ---- bytes ----------------------------------------------------------------------------------- */

/* The end of the table to which the cluster at `at` belongs; 0 when it is no table that is to be
 * read. */
static uint64_t table_end(const struct mirror_qcow2_tables *t, uint64_t at)
{
    const struct mirror_qcow2 *i = &t->info;
    unsigned use = t->uses[at >> i->cluster_bits];
    if (is_sole(use, SOLE_L1))
        return i->l1_offset + (uint64_t)i->l1_entries * WORD;
    if (is_sole(use, SOLE_REFTABLE) || is_wanted(t, at >> i->cluster_bits))
        return (at | (cluster_size(t) - 1)) + 1;
    return 0;
}

/* A word of a table, which stands at `at`. */
static bool take(struct mirror_qcow2_tables *t, uint64_t at, const uint8_t word[WORD],
                 struct uvm_error *err)
{
    switch (t->uses[at >> t->info.cluster_bits] & USE_VALUE) {
    case SOLE_L1:
        return take_l1(t, mirror_be64(word), err);
    case SOLE_REFTABLE:
        return take_reftable(t, at, mirror_be64(word), err);
    case SOLE_L2:
        return take_l2(t, mirror_be64(word), err);
    default:
        take_refcounts(t, at, word);
        return true;
    }
}

/* A table is read once, for its entries claim what they refer to. */
static void end_cluster(struct mirror_qcow2_tables *t, uint64_t cluster)
{
    uint16_t *use = &t->uses[cluster];
    if (!table_end(t, cluster << t->info.cluster_bits))
        return;
    t->wanted -= is_wanted(t, cluster);
    *use = (uint16_t)((*use & ~USE_VALUE) | SOLE_READ);
}

/* The bytes of one cluster, or a part of them. A word may come in two parts. */
static bool feed_table(struct mirror_qcow2_tables *t, const uint8_t *data, size_t len, uint64_t end,
                       struct uvm_error *err)
{
    for (uint64_t at = t->at; len > 0 && at < end;) {
        size_t have = at % WORD, part = WORD - have;
        if (part > len)
            part = len;
        memcpy(t->word + have, data, part);
        if (have + part == WORD && !take(t, at - have, t->word, err))
            return false;
        at += part;
        data += part;
        len -= part;
    }
    return true;
}

bool mirror_qcow2_tables_feed(struct mirror_qcow2_tables *t, const void *data, size_t len,
                              struct uvm_error *err)
{
    const uint8_t *p = data;
    if (len > t->file_size - t->at)
        return uvm_fail(err, UVM_CONTENT, "qcow2 image is longer than its %" PRIu64 " bytes",
                        t->file_size);
    while (len > 0) {
        uint64_t left = cluster_size(t) - t->at % cluster_size(t);
        size_t part = left < len ? (size_t)left : len;
        uint64_t end = table_end(t, t->at);
        if (end && !feed_table(t, p, part, end, err))
            return false;
        if (part == left)
            end_cluster(t, t->at >> t->info.cluster_bits);
        t->at += part;
        p += part;
        len -= part;
    }
    t->ended = t->ended || t->at == t->file_size;
    return true;
}

/* ---- beginning and end ----------------------------------------------------------------------- */

bool mirror_qcow2_tables_new(const struct mirror_qcow2 *info, uint64_t file_size,
                             struct mirror_qcow2_tables **ret_tables, struct uvm_error *err)
{
    uint64_t clusters = ((file_size - 1) >> info->cluster_bits) + 1;
    if (clusters > MIRROR_QCOW2_CLUSTERS_MAX)
        return uvm_fail(err, UVM_SPACE,
                        "qcow2 image has %" PRIu64 " clusters, over the limit of %" PRIu64,
                        clusters, MIRROR_QCOW2_CLUSTERS_MAX);
    UVM_AUTO(mirror_qcow2_tables_free) struct mirror_qcow2_tables *t = uvm_alloc(sizeof(*t));
    t->info = *info;
    t->file_size = file_size;
    t->clusters = (uint32_t)clusters;
    t->uses = uvm_alloc(clusters * sizeof(*t->uses));
    t->refcounts = uvm_alloc(clusters * sizeof(*t->refcounts));
    if (!claim(t, 0, SOLE_HEADER, err) ||
        !claim_range(t, info->l1_offset, (uint64_t)info->l1_entries * WORD, SOLE_L1, err) ||
        !claim_range(t, info->refcount_offset, info->refcount_clusters * cluster_size(t),
                     SOLE_REFTABLE, err))
        return false;
    *ret_tables = UVM_STEAL(t);
    return true;
}

bool mirror_qcow2_tables_missing(struct mirror_qcow2_tables *t, uint64_t *ret_offset,
                                 uint64_t *ret_len)
{
    uint64_t first = 0, gap = MISSING_GAP >> t->info.cluster_bits;
    if (t->wanted == 0)
        return false;
    while (!is_wanted(t, first))
        first++;
    uint64_t last = first;
    for (uint64_t c = first; c < t->clusters && c - last <= gap + 1; c++) {
        if (is_wanted(t, c))
            last = c;
    }
    t->at = first << t->info.cluster_bits;
    *ret_offset = t->at;
    *ret_len = (last - first + 1) << t->info.cluster_bits;
    return true;
}

static bool check_refcount(unsigned use, unsigned refcount)
{
    unsigned references = use & USE_SOLE ? 1 : use & USE_VALUE;
    return refcount >= references && !(use & USE_SOLE && use & USE_COPIED && refcount != 1);
}

bool mirror_qcow2_tables_finish(const struct mirror_qcow2_tables *t, uint64_t *ret_inflated,
                                struct uvm_error *err)
{
    if (!t->ended || t->wanted > 0)
        return uvm_fail(err, UVM_CONTENT, "qcow2 image ends before its tables do");
    for (uint32_t c = 0; c < t->clusters; c++) {
        if (!check_refcount(t->uses[c], t->refcounts[c]))
            return uvm_fail(err, UVM_CONTENT,
                            "qcow2 refcount %u of cluster %" PRIu32 " does not fit its use",
                            t->refcounts[c], c);
    }
    *ret_inflated = t->compressed << t->info.cluster_bits;
    return true;
}
