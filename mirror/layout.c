/*
 * The qcow2 file that is made of a content, front to back (QEMU, docs/interop/qcow2.txt; the entries
 * are drawn in qcow2-tables.c). Clusters of 64 KiB, one refcount of 16 bits for each, all of them 1:
 *
 *     header | refcount table | refcount blocks | L1 table | L2 table, data | L2 table, data | ...
 *
 * All of it follows from the extents: an L2 table stands for 8,192 clusters of the disk, and is there
 * when one of them is.
 */
#include <inttypes.h>
#include <string.h>

#include "mirror/qcow2.h"

#define BITS         16
#define WORD         sizeof(uint64_t)
#define TABLE        (MIRROR_CLUSTER / WORD) /* entries of a table that is a cluster */
#define REFCOUNTS    (MIRROR_CLUSTER / sizeof(uint16_t))
#define REFTABLE     1                    /* cluster */
#define L1_BYTES_MAX ((uint64_t)32 << 20) /* QEMU's limit */
#define V3_LENGTH    112                  /* with the compression type, as QEMU has it since 5.1 */

/* One cluster of refcount table is enough. */
_Static_assert(MIRROR_QCOW2_CLUSTERS_MAX <= TABLE * REFCOUNTS, "refcount table");

/* How far the disk was laid out. */
struct place {
    size_t extent;  /* the first that is not wholly behind us */
    uint64_t taken; /* how many of its clusters are */
    uint64_t next;  /* cluster of the file: the next L2 table's */
};

struct mirror_layout {
    struct mirror_content content; /* borrowed */
    uint64_t refblocks, l1_entries, l1_clusters;
    uint64_t clusters; /* of the file */
    uint8_t *front;
    /* The body, as far as it was yielded. */
    struct place place;
    uint8_t *table;       /* the present L2 table */
    uint64_t left;        /* bytes of its data clusters */
    const uint8_t *block; /* of the content's data, what is left of it */
    size_t block_len;
    bool ended;
};

static void put(uint8_t *at, unsigned bytes, uint64_t value)
{
    for (unsigned i = bytes; i-- > 0; value >>= 8)
        at[i] = (uint8_t)value;
}

static uint64_t divide_up(uint64_t value, uint64_t by)
{
    return value / by + (value % by != 0);
}

uint64_t mirror_content_bytes(const struct mirror_content *content)
{
    uint64_t clusters = 0;
    for (size_t i = 0; i < content->extent_count; i++)
        clusters += content->extents[i].count;
    return clusters * MIRROR_CLUSTER;
}

/* ---- sizes ----------------------------------------------------------------------------------- */

static bool check_extents(const struct mirror_content *content, struct uvm_error *err)
{
    uint64_t end = 0, clusters = divide_up(content->virtual_size, MIRROR_CLUSTER);
    for (size_t i = 0; i < content->extent_count; i++) {
        const struct mirror_extent *e = &content->extents[i];
        if (e->count == 0 || e->first < end || e->first > clusters ||
            e->count > clusters - e->first)
            return uvm_fail(err, UVM_CONTENT, "content is not in the disk's order, or not in it");
        end = e->first + e->count;
    }
    return true;
}

/* Data clusters, and the L2 tables over them. */
static uint64_t body_clusters(const struct mirror_content *content)
{
    uint64_t sum = 0, tables_end = 0;
    for (size_t i = 0; i < content->extent_count; i++) {
        const struct mirror_extent *e = &content->extents[i];
        uint64_t first = e->first / TABLE, end = divide_up(e->first + e->count, TABLE);
        if (first < tables_end)
            first = tables_end;
        sum += e->count + (end - first);
        tables_end = end;
    }
    return sum;
}

/* The refcount blocks count themselves. */
static bool measure(struct mirror_layout *l, struct uvm_error *err)
{
    uint64_t size = l->content.virtual_size;
    l->l1_entries = divide_up(divide_up(size, MIRROR_CLUSTER), TABLE);
    if (size == 0 || l->l1_entries > L1_BYTES_MAX / WORD)
        return uvm_fail(err, UVM_CONTENT, "virtual size of %" PRIu64 " bytes is out of bounds",
                        size);
    l->l1_clusters = divide_up(l->l1_entries, TABLE);
    uint64_t rest = 1 + REFTABLE + l->l1_clusters + body_clusters(&l->content);
    l->refblocks = divide_up(rest, REFCOUNTS - 1);
    l->clusters = rest + l->refblocks;
    if (l->clusters > MIRROR_QCOW2_CLUSTERS_MAX)
        return uvm_fail(err, UVM_SPACE,
                        "qcow2 image would have %" PRIu64 " clusters, over the limit of %" PRIu64,
                        l->clusters, MIRROR_QCOW2_CLUSTERS_MAX);
    return true;
}

/* ---- the front ------------------------------------------------------------------------------- */

static uint64_t l1_cluster(const struct mirror_layout *l)
{
    return 1 + REFTABLE + l->refblocks;
}

static uint64_t front_clusters(const struct mirror_layout *l)
{
    return l1_cluster(l) + l->l1_clusters;
}

static void put_header(const struct mirror_layout *l)
{
    uint8_t *h = l->front;
    memcpy(h, "QFI\xfb", 4);
    put(h + 4, 4, 3);
    put(h + 20, 4, BITS);
    put(h + 24, 8, l->content.virtual_size);
    put(h + 36, 4, l->l1_entries);
    put(h + 40, 8, l1_cluster(l) << BITS);
    put(h + 48, 8, (uint64_t)1 << BITS);
    put(h + 56, 4, REFTABLE);
    put(h + 96, 4, 4); /* refcounts have 2^4 bits */
    put(h + 100, 4, V3_LENGTH);
}

static void put_refcounts(const struct mirror_layout *l)
{
    uint8_t *table = l->front + MIRROR_CLUSTER, *counts = table + REFTABLE * MIRROR_CLUSTER;
    for (uint64_t i = 0; i < l->refblocks; i++)
        put(table + i * WORD, 8, (1 + REFTABLE + i) << BITS);
    for (uint64_t i = 0; i < l->clusters; i++)
        put(counts + i * sizeof(uint16_t), 2, 1);
}

/* ---- L2 tables ------------------------------------------------------------------------------- */

static bool at_end(const struct mirror_layout *l, const struct place *p)
{
    return p->extent == l->content.extent_count;
}

/* The L2 table that stands for the cluster of the disk at which we are. */
static uint64_t table_index(const struct mirror_layout *l, const struct place *p)
{
    return (l->content.extents[p->extent].first + p->taken) / TABLE;
}

/* `count` clusters of the disk from `first` on, which stand behind each other from `at` on. */
static void put_entries(uint8_t *table, uint64_t first, uint64_t count, uint64_t at)
{
    for (uint64_t i = 0; i < count; i++)
        put(table + (first + i) % TABLE * WORD, 8, MIRROR_QCOW2_COPIED | (at + i) << BITS);
}

/* Passes the next L2 table, which is written to `ret_table` unless that is NULL, and its data clusters.
 * Returns how many these are. */
static uint64_t pass_table(const struct mirror_layout *l, struct place *p, uint8_t *ret_table)
{
    uint64_t end = (table_index(l, p) + 1) * TABLE, at = p->next + 1;
    if (ret_table)
        memset(ret_table, 0, MIRROR_CLUSTER);
    while (!at_end(l, p)) {
        const struct mirror_extent *e = &l->content.extents[p->extent];
        uint64_t first = e->first + p->taken, count = e->count - p->taken;
        if (first >= end)
            break;
        if (count > end - first)
            count = end - first;
        if (ret_table)
            put_entries(ret_table, first, count, at);
        at += count;
        p->taken += count;
        if (p->taken < e->count)
            break;
        p->extent++;
        p->taken = 0;
    }
    uint64_t passed = at - p->next - 1;
    p->next = at;
    return passed;
}

static void put_l1(const struct mirror_layout *l)
{
    uint8_t *l1 = l->front + l1_cluster(l) * MIRROR_CLUSTER;
    for (struct place p = {.next = front_clusters(l)}; !at_end(l, &p);) {
        put(l1 + table_index(l, &p) * WORD, 8, MIRROR_QCOW2_COPIED | p.next << BITS);
        pass_table(l, &p, NULL);
    }
}

/* ---- the whole ------------------------------------------------------------------------------- */

bool mirror_layout_new(const struct mirror_content *content, struct mirror_layout **ret_layout,
                       struct uvm_error *err)
{
    UVM_AUTO(mirror_layout_free) struct mirror_layout *l = uvm_alloc(sizeof *l);
    l->content = *content;
    if (!check_extents(content, err) || !measure(l, err))
        return false;
    l->front = uvm_alloc(front_clusters(l) * MIRROR_CLUSTER);
    l->table = uvm_alloc(MIRROR_CLUSTER);
    l->place.next = front_clusters(l);
    put_header(l);
    put_refcounts(l);
    put_l1(l);
    *ret_layout = UVM_STEAL(l);
    return true;
}

void mirror_layout_free(struct mirror_layout *l)
{
    if (!l)
        return;
    free(l->front);
    free(l->table);
    free(l);
}

uint64_t mirror_layout_file_size(const struct mirror_layout *l)
{
    return l->clusters * MIRROR_CLUSTER;
}

const void *mirror_layout_front(const struct mirror_layout *l, size_t *ret_len)
{
    *ret_len = (size_t)front_clusters(l) * MIRROR_CLUSTER;
    return l->front;
}

/* ---- the body -------------------------------------------------------------------------------- */

static bool read_content(struct mirror_layout *l, struct uvm_error *err)
{
    const void *data;
    if (!l->content.data.read(l->content.data.opaque, &data, &l->block_len, err))
        return false;
    l->block = data;
    return true;
}

static bool check_end(struct mirror_layout *l, struct uvm_error *err)
{
    if (l->block_len == 0 && !l->ended && !read_content(l, err))
        return false;
    if (l->block_len > 0)
        return uvm_fail(err, UVM_CONTENT, "content is longer than its extents");
    l->ended = true;
    return true;
}

static bool read_clusters(struct mirror_layout *l, const void **ret_data, size_t *ret_len,
                          struct uvm_error *err)
{
    if (l->block_len == 0 && !read_content(l, err))
        return false;
    if (l->block_len == 0)
        return uvm_fail(err, UVM_CONTENT, "content is shorter than its extents");
    size_t len = l->block_len < l->left ? l->block_len : (size_t)l->left;
    *ret_data = l->block;
    *ret_len = len;
    l->left -= len;
    l->block_len -= len;
    l->block += len;
    return true;
}

static bool read_body(void *opaque, const void **ret_data, size_t *ret_len, struct uvm_error *err)
{
    struct mirror_layout *l = opaque;
    if (l->left > 0)
        return read_clusters(l, ret_data, ret_len, err);
    bool end = at_end(l, &l->place);
    if (end && !check_end(l, err))
        return false;
    if (!end)
        l->left = pass_table(l, &l->place, l->table) * MIRROR_CLUSTER;
    *ret_data = l->table;
    *ret_len = end ? 0 : MIRROR_CLUSTER;
    return true;
}

struct uvm_reader mirror_layout_body(struct mirror_layout *l)
{
    return (struct uvm_reader){read_body, l};
}
