/*
 * The head of a qcow2 file (QEMU, docs/interop/qcow2.txt), all numbers big-endian:
 *
 *     0   magic "QFI\xfb"        4   version
 *     8   backing name offset    16  backing name size        20  cluster bits
 *     24  virtual size           32  encryption method
 *     36  L1 entries             40  L1 offset
 *     48  refcount table offset  56  refcount table clusters
 *     60  number of snapshots    64  snapshot table offset
 *     -- version 3 only --
 *     72  incompatible features  80  compatible features      88  autoclear features
 *     96  refcount order         100 header length            104 compression type
 *     -- then, up to the first cluster's end --
 *     header extensions: type (4), length (4), data, padded to 8; type 0 is the last
 *
 * QEMU follows what it finds here: to a backing or data file with root's eyes, to tables anywhere.
 * So nothing but a plain, self-contained image passes, and where QEMU's reading is more generous
 * than the specification, both readings must.
 */
#include <inttypes.h>
#include <string.h>

#include "mirror/qcow2.h"

#define MAGIC           0x514649fbu
#define V2_LENGTH       72
#define V3_LENGTH       104 /* the shortest one of version 3 */
#define CLUSTER_BITS_LO 9
#define CLUSTER_BITS_HI 21
#define L1_BYTES_MAX    ((uint64_t)32 << 20) /* QEMU's own limits */
#define REFCOUNT_MAX    ((uint64_t)8 << 20)
#define REFCOUNT_ORDER  6

#define V2_REFCOUNT_ORDER 4
#define BACKING_MAX       1023

#define INCOMPATIBLE_DIRTY       (UINT64_C(1) << 0)
#define INCOMPATIBLE_CORRUPT     (UINT64_C(1) << 1)
#define INCOMPATIBLE_DATA_FILE   (UINT64_C(1) << 2)
#define INCOMPATIBLE_COMPRESSION (UINT64_C(1) << 3)

#define AUTOCLEAR_BITMAPS (UINT64_C(1) << 0)

#define EXTENSION_END        0
#define EXTENSION_ENCRYPTION 0x0537be77u
#define EXTENSION_DATA_FILE  0x44415441u

/* ---- checks, in the order of the header ------------------------------------------------------ */

static bool check_version(const uint8_t *head, size_t len, struct mirror_qcow2 *info,
                          struct uvm_error *err)
{
    if (len < 8 || mirror_be32(head) != MAGIC)
        return uvm_fail(err, UVM_CONTENT, "is not a qcow2 image");
    info->version = mirror_be32(head + 4);
    if (info->version != 2 && info->version != 3)
        return uvm_fail(err, UVM_CONTENT, "is qcow version %u, not 2 or 3", info->version);
    if (len < (info->version == 2 ? V2_LENGTH : V3_LENGTH))
        return uvm_fail(err, UVM_CONTENT, "qcow2 header is cut off");
    return true;
}

static bool check_plain(const uint8_t *head, struct uvm_error *err)
{
    if (mirror_be64(head + 8) || mirror_be32(head + 16))
        return uvm_fail(err, UVM_CONTENT, "qcow2 image has a backing file");
    if (mirror_be32(head + 32))
        return uvm_fail(err, UVM_CONTENT, "qcow2 image is encrypted");
    if (mirror_be32(head + 60))
        return uvm_fail(err, UVM_CONTENT, "qcow2 image has internal snapshots");
    return true;
}

static bool check_geometry(const uint8_t *head, uint64_t max_virtual, struct mirror_qcow2 *info,
                           struct uvm_error *err)
{
    uint32_t bits = mirror_be32(head + 20);
    if (bits < CLUSTER_BITS_LO || bits > CLUSTER_BITS_HI)
        return uvm_fail(err, UVM_CONTENT, "qcow2 cluster bits are %" PRIu32 ", not %d to %d", bits,
                        CLUSTER_BITS_LO, CLUSTER_BITS_HI);
    info->cluster_bits = bits;
    info->virtual_size = mirror_be64(head + 24);
    if (info->virtual_size < 1 || info->virtual_size > max_virtual)
        return uvm_fail(err, UVM_CONTENT,
                        "qcow2 virtual size of %" PRIu64 " bytes is not from 1 to the limit of "
                        "%" PRIu64,
                        info->virtual_size, max_virtual);
    return true;
}

static const char *feature_fault(uint64_t incompatible)
{
    if (incompatible & INCOMPATIBLE_DATA_FILE)
        return "has an external data file";
    if (incompatible & INCOMPATIBLE_CORRUPT)
        return "is marked as corrupt";
    if (incompatible & INCOMPATIBLE_DIRTY)
        return "is marked as dirty: it was not closed properly";
    if (incompatible & ~INCOMPATIBLE_COMPRESSION)
        return "needs a feature that is not accepted";
    return NULL;
}

/* The part that only version 3 has. */
static bool check_v3(const uint8_t *head, size_t len, struct mirror_qcow2 *info, size_t *ret_length,
                     struct uvm_error *err)
{
    uint64_t incompatible = mirror_be64(head + 72);
    uint32_t length = mirror_be32(head + 100);
    const char *fault = feature_fault(incompatible);
    if (fault)
        return uvm_fail(err, UVM_CONTENT, "qcow2 image %s", fault);
    /* Tables of their own, which nothing here needs. Without this bit QEMU passes over them. */
    if (mirror_be64(head + 88) & AUTOCLEAR_BITMAPS)
        return uvm_fail(err, UVM_CONTENT,
                        "qcow2 image has dirty bitmaps ('qemu-img convert' leaves them out)");
    info->refcount_order = mirror_be32(head + 96);
    if (info->refcount_order > REFCOUNT_ORDER)
        return uvm_fail(err, UVM_CONTENT, "qcow2 refcount order is %u, over %d",
                        info->refcount_order, REFCOUNT_ORDER);
    if (length < V3_LENGTH || length % 8 || length > len ||
        length > (uint64_t)1 << info->cluster_bits)
        return uvm_fail(err, UVM_CONTENT, "qcow2 header length of %" PRIu32 " makes no sense",
                        length);
    info->compression = length > V3_LENGTH ? head[V3_LENGTH] : 0;
    if (info->compression != (incompatible & INCOMPATIBLE_COMPRESSION ? 1 : 0))
        return uvm_fail(err, UVM_CONTENT, "qcow2 compression type %u is unknown or not announced",
                        info->compression);
    *ret_length = length;
    return true;
}

/* Walks the extensions from `at` to their end mark or the end of the first cluster. */
static bool check_extensions(const uint8_t *head, size_t len, size_t at,
                             const struct mirror_qcow2 *info, struct uvm_error *err)
{
    size_t end = (size_t)1 << info->cluster_bits;
    while (at < end) {
        if (at + 8 > len)
            return uvm_fail(err, UVM_CONTENT, "qcow2 header extensions have no end");
        uint32_t type = mirror_be32(head + at), size = mirror_be32(head + at + 4);
        at += 8;
        if (type == EXTENSION_END)
            return true;
        if (type == EXTENSION_DATA_FILE)
            return uvm_fail(err, UVM_CONTENT, "qcow2 image names an external data file");
        if (type == EXTENSION_ENCRYPTION)
            return uvm_fail(err, UVM_CONTENT, "qcow2 image has an encryption header");
        if (size > end - at)
            return uvm_fail(err, UVM_CONTENT, "qcow2 header extension is longer than its cluster");
        at += ((size_t)size + 7) / 8 * 8;
    }
    return true;
}

/* ---- tables ---------------------------------------------------------------------------------- */

struct extent {
    uint64_t offset, bytes;
};

/* A table starts at a cluster, behind the header, and ends within the file. */
static bool check_extent(const char *what, struct extent table, uint64_t cluster,
                         uint64_t file_size, struct uvm_error *err)
{
    if (table.offset == 0 || table.offset % cluster)
        return uvm_fail(err, UVM_CONTENT, "qcow2 %s is not at a cluster behind the header", what);
    if (table.offset > file_size || table.bytes > file_size - table.offset)
        return uvm_fail(err, UVM_CONTENT, "qcow2 %s is not inside the file", what);
    return true;
}

/* Entries of the L1 table: each stands for one L2 table, a cluster of 8-byte entries. */
static uint64_t l1_wanted(const struct mirror_qcow2 *info)
{
    unsigned bits = 2 * info->cluster_bits - 3;
    return ((info->virtual_size - 1) >> bits) + 1;
}

static bool check_tables(const uint8_t *head, uint64_t file_size, struct mirror_qcow2 *info,
                         struct uvm_error *err)
{
    uint64_t cluster = (uint64_t)1 << info->cluster_bits;
    info->l1_entries = mirror_be32(head + 36);
    info->l1_offset = mirror_be64(head + 40);
    info->refcount_offset = mirror_be64(head + 48);
    info->refcount_clusters = mirror_be32(head + 56);
    struct extent l1 = {info->l1_offset, (uint64_t)info->l1_entries * 8};
    struct extent refcounts = {info->refcount_offset, info->refcount_clusters * cluster};
    if (l1.bytes > L1_BYTES_MAX || info->l1_entries < l1_wanted(info))
        return uvm_fail(err, UVM_CONTENT, "qcow2 L1 table of %" PRIu32 " entries has a wrong size",
                        info->l1_entries);
    if (refcounts.bytes == 0 || refcounts.bytes > REFCOUNT_MAX)
        return uvm_fail(err, UVM_CONTENT, "qcow2 refcount table has a wrong size");
    if (!check_extent("L1 table", l1, cluster, file_size, err) ||
        !check_extent("refcount table", refcounts, cluster, file_size, err))
        return false;
    if (l1.offset < refcounts.offset + refcounts.bytes && refcounts.offset < l1.offset + l1.bytes)
        return uvm_fail(err, UVM_CONTENT, "qcow2 tables overlap");
    return true;
}

bool mirror_qcow2_check(const void *head, size_t len, uint64_t file_size, uint64_t max_virtual,
                        struct mirror_qcow2 *ret_info, struct uvm_error *err)
{
    struct mirror_qcow2 info = {.refcount_order = V2_REFCOUNT_ORDER};
    size_t header_length = V2_LENGTH;
    if (len > file_size || len < (file_size < MIRROR_QCOW2_HEAD ? file_size : MIRROR_QCOW2_HEAD))
        return uvm_fail(err, UVM_CONTENT, "head of %zu bytes does not fit a file of %" PRIu64, len,
                        file_size);
    if (!check_version(head, len, &info, err) || !check_plain(head, err) ||
        !check_geometry(head, max_virtual, &info, err))
        return false;
    if (info.version == 3 && !check_v3(head, len, &info, &header_length, err))
        return false;
    if (!check_extensions(head, len, header_length, &info, err) ||
        !check_tables(head, file_size, &info, err))
        return false;
    *ret_info = info;
    return true;
}

bool mirror_qcow2_backing(const void *head, size_t len, uint64_t *ret_offset, uint32_t *ret_len,
                          struct uvm_error *err)
{
    const uint8_t *p = head;
    if (len < 4 || mirror_be32(p) != MAGIC) {
        *ret_offset = 0;
        *ret_len = 0;
        return true;
    }
    if (len < 20)
        return uvm_fail(err, UVM_CONTENT, "qcow header is cut off");
    uint32_t version = mirror_be32(p + 4), size = mirror_be32(p + 16);
    uint64_t offset = mirror_be64(p + 8);
    if (version < 1 || version > 3)
        return uvm_fail(err, UVM_CONTENT, "qcow version %" PRIu32 " is unknown", version);
    if (offset && (size > BACKING_MAX || offset > (uint64_t)INT64_MAX - size))
        return uvm_fail(err, UVM_CONTENT, "qcow backing file's name is out of bounds");
    *ret_offset = offset;
    *ret_len = offset ? size : 0;
    return true;
}
