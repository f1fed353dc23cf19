/* A qcow2 file that is read anywhere: which of its clusters are stored, and what a guest sees. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "mirror/disk.h"

#define WORD  sizeof(uint64_t)
#define CACHE 4 /* L2 tables that are kept */

/* Inflated clusters that are kept: what is read next may be behind one that was read before. */
#define INFLATED_MAX   32
#define INFLATED_BYTES ((size_t)2 << 20)

/* An L2 table, as the file has it. */
struct table {
    uint64_t offset; /* in the file; 0 = none */
    uint8_t *words;
};

struct inflated {
    uint64_t index; /* of the cluster in the disk */
    uint8_t *data;  /* NULL = none */
};

struct mirror_disk {
    int fd;
    uint64_t file_size;
    struct mirror_qcow2 info;
    uint64_t clusters; /* of the disk */
    uint64_t *l1;      /* offsets */
    struct table tables[CACHE];
    size_t next_table; /* the one to be given up next */
    /* For mirror_disk_read. */
    struct mirror_codec *codec;
    struct inflated inflated[INFLATED_MAX];
    size_t next_inflated;
};

bool mirror_read_at(int fd, uint64_t offset, void *data, size_t len, struct uvm_error *err)
{
    for (size_t got = 0; got < len;) {
        ssize_t n = pread(fd, (char *)data + got, len - got, (off_t)(offset + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return uvm_fail_errno(err, UVM_FAILED, "cannot read the image");
        if (n == 0)
            return uvm_fail(err, UVM_FAILED, "the image became shorter while it was read");
        got += (size_t)n;
    }
    return true;
}

/* ---- opening --------------------------------------------------------------------------------- */

static bool check(struct mirror_disk *d, uint64_t max_virtual, const struct uvm_observer *observer,
                  struct uvm_error *err)
{
    size_t len = d->file_size < MIRROR_QCOW2_HEAD ? (size_t)d->file_size : MIRROR_QCOW2_HEAD;
    uvm_auto_free void *head = uvm_alloc(len);
    return mirror_read_at(d->fd, 0, head, len, err) &&
           mirror_qcow2_check(head, len, d->file_size, max_virtual, &d->info, err) &&
           mirror_qcow2_check_tables(&d->info, d->fd, d->file_size, observer, err);
}

static bool read_l1(struct mirror_disk *d, struct uvm_error *err)
{
    size_t count = d->info.l1_entries;
    d->l1 = uvm_grow(NULL, count, WORD);
    if (!mirror_read_at(d->fd, d->info.l1_offset, d->l1, count * WORD, err))
        return false;
    for (size_t i = 0; i < count; i++)
        d->l1[i] = mirror_be64((const uint8_t *)&d->l1[i]) & MIRROR_QCOW2_OFFSET;
    return true;
}

bool mirror_disk_open(int fd, uint64_t file_size, uint64_t max_virtual,
                      const struct uvm_observer *observer, struct mirror_disk **ret_disk,
                      struct uvm_error *err)
{
    UVM_AUTO(mirror_disk_free) struct mirror_disk *d = uvm_alloc(sizeof *d);
    d->fd = fd;
    d->file_size = file_size;
    if (!check(d, max_virtual, observer, err) || !read_l1(d, err))
        return false;
    d->clusters = ((d->info.virtual_size - 1) >> d->info.cluster_bits) + 1;
    d->codec = mirror_codec_new();
    *ret_disk = UVM_STEAL(d);
    return true;
}

void mirror_disk_free(struct mirror_disk *d)
{
    if (!d)
        return;
    for (size_t i = 0; i < CACHE; i++)
        free(d->tables[i].words);
    for (size_t i = 0; i < INFLATED_MAX; i++)
        free(d->inflated[i].data);
    mirror_codec_free(d->codec);
    free(d->l1);
    free(d);
}

const struct mirror_qcow2 *mirror_disk_info(const struct mirror_disk *d)
{
    return &d->info;
}

int mirror_disk_fd(const struct mirror_disk *d)
{
    return d->fd;
}

static size_t cluster_size(const struct mirror_disk *d)
{
    return (size_t)1 << d->info.cluster_bits;
}

/* ---- entries --------------------------------------------------------------------------------- */

static unsigned l2_bits(const struct mirror_disk *d)
{
    return d->info.cluster_bits - 3;
}

/* The L2 table for a cluster of the disk, NULL when there is none. Borrowed until the next call. */
static bool find_table(struct mirror_disk *d, uint64_t index, const uint8_t **ret_words,
                       struct uvm_error *err)
{
    uint64_t offset = d->l1[index >> l2_bits(d)];
    *ret_words = NULL;
    if (offset == 0)
        return true;
    for (size_t i = 0; i < CACHE && !*ret_words; i++) {
        if (d->tables[i].offset == offset)
            *ret_words = d->tables[i].words;
    }
    if (*ret_words)
        return true;
    struct table *t = &d->tables[d->next_table];
    if (!t->words)
        t->words = uvm_alloc(cluster_size(d));
    t->offset = 0;
    if (!mirror_read_at(d->fd, offset, t->words, cluster_size(d), err))
        return false;
    t->offset = offset;
    d->next_table = (d->next_table + 1) % CACHE;
    *ret_words = t->words;
    return true;
}

/* False when it reads as zeros. */
static bool decode(const struct mirror_disk *d, uint64_t index, uint64_t entry,
                   struct mirror_disk_cluster *ret_cluster)
{
    bool compressed = entry & MIRROR_QCOW2_COMPRESSED;
    uint64_t offset = entry & MIRROR_QCOW2_OFFSET, bytes = cluster_size(d);
    if (!compressed && (offset == 0 || entry & MIRROR_QCOW2_ZERO))
        return false;
    if (compressed) {
        offset = mirror_qcow2_packed_at(&d->info, entry);
        bytes = mirror_qcow2_packed_sectors(&d->info, entry) * MIRROR_QCOW2_SECTOR -
                offset % MIRROR_QCOW2_SECTOR;
    }
    uint64_t there = offset < d->file_size ? d->file_size - offset : 0;
    *ret_cluster = (struct mirror_disk_cluster){
        .index = index,
        .offset = offset,
        .bytes = (uint32_t)(bytes < there ? bytes : there),
        .compressed = compressed,
    };
    return true;
}

bool mirror_disk_next(struct mirror_disk *d, struct mirror_disk_walk *walk,
                      struct mirror_disk_cluster *ret_cluster, bool *ret_end, struct uvm_error *err)
{
    uint64_t per_table = UINT64_C(1) << l2_bits(d);
    for (uint64_t i = walk->next; i < d->clusters;) {
        const uint8_t *words;
        if (!find_table(d, i, &words, err))
            return false;
        uint64_t end = (i | (per_table - 1)) + 1;
        for (; words && i < end && i < d->clusters; i++) {
            if (decode(d, i, mirror_be64(words + i % per_table * WORD), ret_cluster)) {
                walk->next = i + 1;
                *ret_end = false;
                return true;
            }
        }
        i = end;
    }
    walk->next = d->clusters;
    *ret_end = true;
    return true;
}

bool mirror_disk_fail_cluster(const struct mirror_disk_cluster *cluster, struct uvm_error *err)
{
    return uvm_prefix(err, "qcow2 cluster %" PRIu64 " of the disk, at %" PRIu64, cluster->index,
                      cluster->offset);
}

/* ---- bytes ----------------------------------------------------------------------------------- */

/* What a file that ends in a cluster does not have reads as zeros. */
static bool read_plain(const struct mirror_disk *d, const struct mirror_disk_cluster *cluster,
                       size_t from, void *data, size_t len, struct uvm_error *err)
{
    size_t there = cluster->bytes > from ? cluster->bytes - from : 0;
    if (there > len)
        there = len;
    memset((char *)data + there, 0, len - there);
    return mirror_read_at(d->fd, cluster->offset + from, data, there, err);
}

bool mirror_disk_cluster_read(const struct mirror_disk *d,
                              const struct mirror_disk_cluster *cluster, struct mirror_codec *codec,
                              void *data, size_t *ret_used, struct uvm_error *err)
{
    size_t used = cluster->bytes;
    if (!cluster->compressed) {
        if (!read_plain(d, cluster, 0, data, cluster_size(d), err))
            return false;
    } else {
        void *packed = mirror_codec_room(codec, cluster->bytes);
        if (!mirror_read_at(d->fd, cluster->offset, packed, cluster->bytes, err))
            return false;
        if (!mirror_codec_inflate(codec, &d->info, packed, cluster->bytes, data, &used, err))
            return mirror_disk_fail_cluster(cluster, err);
    }
    *ret_used = used;
    return true;
}

/* The place of the cluster, or the one that is to be used again. */
static struct inflated *find_inflated(struct mirror_disk *d, uint64_t index)
{
    size_t count = INFLATED_BYTES >> d->info.cluster_bits;
    if (count > INFLATED_MAX)
        count = INFLATED_MAX;
    for (size_t i = 0; i < count; i++) {
        if (d->inflated[i].data && d->inflated[i].index == index)
            return &d->inflated[i];
    }
    struct inflated *oldest = &d->inflated[d->next_inflated];
    d->next_inflated = (d->next_inflated + 1) % count;
    return oldest;
}

static bool read_packed(struct mirror_disk *d, const struct mirror_disk_cluster *cluster,
                        size_t from, void *data, size_t len, struct uvm_error *err)
{
    struct inflated *place = find_inflated(d, cluster->index);
    size_t used;
    if (!place->data || place->index != cluster->index) {
        uvm_auto_free uint8_t *whole = UVM_STEAL(place->data); /* gone if this fails */
        if (!whole)
            whole = uvm_alloc(cluster_size(d));
        if (!mirror_disk_cluster_read(d, cluster, d->codec, whole, &used, err))
            return false;
        *place = (struct inflated){cluster->index, UVM_STEAL(whole)};
    }
    memcpy(data, place->data + from, len);
    return true;
}

/* Within one cluster. */
static bool read_part(struct mirror_disk *d, uint64_t index, size_t from, void *data, size_t len,
                      struct uvm_error *err)
{
    struct mirror_disk_cluster cluster;
    const uint8_t *words;
    if (!find_table(d, index, &words, err))
        return false;
    uint64_t slot = index & ((UINT64_C(1) << l2_bits(d)) - 1);
    if (!words || !decode(d, index, mirror_be64(words + slot * WORD), &cluster)) {
        memset(data, 0, len);
        return true;
    }
    return cluster.compressed ? read_packed(d, &cluster, from, data, len, err)
                              : read_plain(d, &cluster, from, data, len, err);
}

bool mirror_disk_read(struct mirror_disk *d, uint64_t offset, void *data, size_t len,
                      struct uvm_error *err)
{
    uint64_t size = d->info.virtual_size, there = offset < size ? size - offset : 0;
    size_t wanted = len < there ? len : (size_t)there;
    memset((char *)data + wanted, 0, len - wanted);
    for (size_t done = 0; done < wanted;) {
        size_t from = (size_t)((offset + done) & (cluster_size(d) - 1));
        size_t part = cluster_size(d) - from;
        if (part > wanted - done)
            part = wanted - done;
        if (!read_part(d, (offset + done) >> d->info.cluster_bits, from, (char *)data + done, part,
                       err))
            return false;
        done += part;
    }
    return true;
}
