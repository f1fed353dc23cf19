/*
 * compact.h: the compact encoding of a qcow2 image. Vendors' images are made of deflated clusters,
 * which nothing can compress any further. Here they travel inflated, and what was one long file
 * becomes three things: the content of the disk in blocks of 4 KiB, of which those that a base holds
 * are named and not carried; where they belong; and how the vendor's file is made of them again, byte
 * for byte. docs/bundle-format.md describes it; all numbers are big-endian:
 *
 *     one zstd frame (window of at most 2^27, checksum of the content):
 *
 *     head      0  "uvmcompact" 00 01      12  cluster bits of the qcow2     16  its virtual size
 *              24  size of the file        32  number of map records (u32)   36  zero (u32)
 *              40  number of carried blocks   48  number of blocks taken from the base
 *              56  SHA-256 of these, in their order; zeros when there are none                  (88)
 *     map       16 bytes a record: kind << 56 | number of blocks, first block of the base (0 unless
 *               BASE). Records follow each other in the disk's order, from its first block to its
 *               last; the disk is rounded up to whole clusters of the qcow2, and to whole blocks.
 *     blocks    4,096 bytes each: those that the map calls CARRIED, in its order
 *     file      segments, from the first byte of the qcow2 file to its last: 16 bytes each,
 *               kind << 56 | number of bytes in the file, cluster of the disk (0 unless it is one);
 *               behind a VERBATIM segment, its bytes
 *
 * Importing needs head, map and blocks alone; what follows is read to its verified end, and dropped.
 * Nothing here is trusted: the member's SHA-256 is checked by the reader that hands its bytes out, at
 * their end. The SHA-256 in the head does the same for what comes from a base.
 */
#pragma once

#include <endian.h>
#include <string.h>

#include "bundle/internal.h"

#define BUNDLE_BLOCK           ((size_t)4096)
#define BUNDLE_COMPACT_HEAD    88
#define BUNDLE_COMPACT_RECORD  16
#define BUNDLE_COMPACT_MAP_MAX ((uint32_t)2 << 20) /* records: 32 MiB */

/* What an encoder remembers of a disk, so that its memory is bounded. */
#define BUNDLE_BLOCKS_MAX             ((size_t)1 << 20) /* blocks: 4 GiB that others can refer to */
#define BUNDLE_COMPACT_SEGMENTS_MAX   ((size_t)1 << 20) /* clusters that come out the same */
#define BUNDLE_COMPACT_REFERENCES_MAX (BUNDLE_COMPACT_MAP_MAX / 2) /* records of kind BASE */

enum bundle_map_kind { BUNDLE_MAP_ZEROS, BUNDLE_MAP_CARRIED, BUNDLE_MAP_BASE };
enum bundle_segment_kind {
    BUNDLE_SEGMENT_VERBATIM, /* these bytes */
    BUNDLE_SEGMENT_ZEROS,    /* so many zeros */
    BUNDLE_SEGMENT_CLUSTER,  /* a cluster of the disk as it is, perhaps cut off by the file's end */
    BUNDLE_SEGMENT_DEFLATED, /* a cluster of the disk as QEMU deflates it (mirror_codec_deflate) */
};

static inline uint64_t bundle_get64(const uint8_t *p)
{
    uint64_t value;
    memcpy(&value, p, sizeof value);
    return be64toh(value);
}

static inline void bundle_put64(uint8_t *p, uint64_t value)
{
    value = htobe64(value);
    memcpy(p, &value, sizeof value);
}

/* ---- which blocks a disk holds (blocks.c) ---------------------------------------------------- */

/* The first half of a block's SHA-256. Enough to find what is the same; what comes from a base is held
 * against the whole SHA-256 of it all. */
struct bundle_block_id {
    uint8_t bytes[16];
};
void bundle_block_id(const void *data, struct bundle_block_id *ret_id);
/* Ends a SHA-256. */
void bundle_digest_raw(struct uvm_digest *d, uint8_t ret_sha256[32]);

/* The id of each stored block of a disk, and where it is: 24 bytes a block. Of those that are all zeros
 * there is none; nor of those behind the first BUNDLE_BLOCKS_MAX. */
struct bundle_blocks;
struct bundle_blocks *bundle_blocks_new(void);
void bundle_blocks_free(struct bundle_blocks *b);
UVM_DEFINE_AUTO(struct bundle_blocks *, bundle_blocks_free)

/* In the disk's order. */
void bundle_blocks_add(struct bundle_blocks *b, uint64_t block, const struct bundle_block_id *id);
/* Whether the disk has that content in that block. */
bool bundle_blocks_has(const struct bundle_blocks *b, uint64_t block,
                       const struct bundle_block_id *id);

/* As a file that the mirror keeps, so that an image can be a base after it is gone from the mirror.
 * Reading is strict: UVM_CONTENT. The mirror is its owner's, but a file may be damaged. */
bool bundle_blocks_write(const struct bundle_blocks *b, int fd, struct uvm_error *err);
bool bundle_blocks_read(int fd, struct bundle_blocks **ret_blocks, struct uvm_error *err);

/* Finds blocks by their content: the first one of several. `b` is borrowed, and stays as it is. */
struct bundle_finder;
struct bundle_finder *bundle_finder_new(const struct bundle_blocks *b);
void bundle_finder_free(struct bundle_finder *f);
UVM_DEFINE_AUTO(struct bundle_finder *, bundle_finder_free)
bool bundle_finder_find(const struct bundle_finder *f, const struct bundle_block_id *id,
                        uint64_t *ret_block);

/* ---- head and map (compact-map.c) ------------------------------------------------------------ */

struct bundle_compact_head {
    unsigned cluster_bits;
    uint64_t virtual_size, file_size; /* bytes */
    uint32_t records;                 /* of the map */
    uint64_t carried, from_base;      /* blocks */
    uint8_t base_sha256[32];
};
void bundle_compact_head_put(const struct bundle_compact_head *head,
                             uint8_t ret_bytes[BUNDLE_COMPACT_HEAD]);
/* Checks what can be checked without the map. UVM_CONTENT. */
bool bundle_compact_head_get(const uint8_t bytes[BUNDLE_COMPACT_HEAD], uint64_t max_virtual,
                             struct bundle_compact_head *ret_head, struct uvm_error *err);
/* Blocks of the disk, rounded up as the map is. */
uint64_t bundle_compact_blocks(const struct bundle_compact_head *head);

/* Blocks that follow each other, of one kind. */
struct bundle_map_run {
    uint64_t kind : 8, count : 56;
    uint64_t base; /* the first one's number there; 0 unless BASE */
};
struct bundle_map {
    struct bundle_map_run *runs;
    size_t count, room;
    uint64_t blocks, carried, from_base; /* in all */
};
void bundle_map_clear(struct bundle_map *map);
/* Adds blocks of a kind behind the others. False: there are too many records. */
bool bundle_map_add(struct bundle_map *map, struct bundle_map_run run);
void bundle_map_put(const struct bundle_map_run *run, uint8_t ret_bytes[BUNDLE_COMPACT_RECORD]);
/* Adds a record as it was read. UVM_CONTENT. */
bool bundle_map_get(struct bundle_map *map, const uint8_t bytes[BUNDLE_COMPACT_RECORD],
                    struct uvm_error *err);
/* Whether the whole of it is what the head says. UVM_CONTENT. */
bool bundle_map_check(const struct bundle_map *map, const struct bundle_compact_head *head,
                      struct uvm_error *err);

/* A place in a map, from zeros on. */
struct bundle_map_place {
    size_t run;
    uint64_t done; /* blocks of that run */
};
/* The next blocks of one kind, at most so many; `count` 0 is the end. */
struct bundle_map_run bundle_map_next(const struct bundle_map *map, struct bundle_map_place *place,
                                      uint64_t most);

/* The clusters of MIRROR_CLUSTER bytes that hold anything before `virtual_size`. The caller frees
 * *ret_extents. Returns how many clusters they are. */
uint64_t bundle_map_extents(const struct bundle_map *map, uint64_t virtual_size,
                            struct mirror_extent **ret_extents, size_t *ret_count);

/* ---- a disk in stretches, side by side (compact-scan.c) -------------------------------------- */

/* A stretch of the disk in which something is stored: MIRROR_CLUSTER bytes, or one cluster of the file
 * where that is larger. */
struct bundle_stretch {
    uint64_t first; /* block */
    size_t blocks;
    uint8_t *data;               /* zeros where nothing is stored */
    struct bundle_block_id *ids; /* PROVE: of each block; */
    bool *zero;                  /* these have none */
    struct mirror_disk_cluster *clusters;
    /* PROVE: bytes in the file of each cluster, 0 when it does not come out the same. */
    uint32_t *same;
    size_t count; /* of clusters */

    /* compact-scan.c's own */
    size_t room_;
    struct mirror_codec *codec_;
    uint8_t *deflated_, *found_;
};
enum bundle_scan_purpose {
    BUNDLE_SCAN_PROVE, /* everything, ids and proofs */
    BUNDLE_SCAN_CARRY, /* the data of stretches that have carried blocks */
};
struct bundle_scan;
struct bundle_encode_options;
/* All is borrowed; `map` is for CARRY. */
struct bundle_scan *bundle_scan_new(const struct bundle_encode_options *options,
                                    enum bundle_scan_purpose purpose, const struct bundle_map *map);
void bundle_scan_free(struct bundle_scan *s);
UVM_DEFINE_AUTO(struct bundle_scan *, bundle_scan_free)
/* The next one in the disk's order, valid until the next call; NULL at the end. */
bool bundle_scan_next(struct bundle_scan *s, const struct bundle_stretch **ret_stretch,
                      struct uvm_error *err);

/* ---- the file (compact-segments.c) ----------------------------------------------------------- */

struct bundle_segment {
    enum bundle_segment_kind kind;
    uint64_t bytes;
    uint64_t cluster; /* of the disk */
};

/* A cluster that comes out the same. */
struct bundle_segment_at {
    uint64_t offset; /* in the file */
    uint64_t cluster;
    uint32_t bytes;
    bool deflated;
};
struct bundle_segment_list {
    struct bundle_segment_at *items;
    size_t count, room;
};
/* False: there are too many. */
bool bundle_segment_list_add(struct bundle_segment_list *list, struct bundle_segment_at segment);
/* Sorts them, and removes those that overlap another one. */
void bundle_segment_list_settle(struct bundle_segment_list *list, uint64_t file_size);
void bundle_segment_list_clear(struct bundle_segment_list *list);
bool bundle_segments_write(const struct bundle_segment_list *list, int fd, uint64_t file_size,
                           struct bundle_stage *stage, struct uvm_error *err);

/* Reads them. */
struct bundle_segments {
    struct bundle_unzstd *unzstd; /* borrowed; behind the last carried block */
    const struct bundle_compact_head *head;
    uint64_t done;     /* bytes of the file */
    uint64_t verbatim; /* bytes that follow */
    bool ended;
};
/* The next one. Its bytes, when they are verbatim, are to be read before the one that follows. At the
 * end, of which *ret_end tells, the member has ended as it must, verified. UVM_CONTENT. */
bool bundle_segments_next(struct bundle_segments *s, struct bundle_segment *ret_segment,
                          bool *ret_end, struct uvm_error *err);
bool bundle_segments_verbatim(struct bundle_segments *s, void *data, size_t len,
                              struct uvm_error *err);
/* Reads all that is left, and drops it. */
bool bundle_segments_drop(struct bundle_segments *s, const struct uvm_observer *observer,
                          struct uvm_error *err);

/* Reads exactly so many bytes of a compact payload. UVM_CONTENT when there are fewer. */
bool bundle_compact_read(struct bundle_unzstd *u, void *data, size_t len, struct uvm_error *err);

/* ---- the image's own bytes (compact-rebuild.c) ----------------------------------------------- */

/* Makes the file of its segments and of the content, of which `fd` holds all. Everything is borrowed. */
struct bundle_rebuild;
struct bundle_rebuild *bundle_rebuild_new(struct bundle_segments *segments, int fd);
void bundle_rebuild_free(struct bundle_rebuild *r);
UVM_DEFINE_AUTO(struct bundle_rebuild *, bundle_rebuild_free)
/* What to do where the bytes are not the image, though all was signed. The caller frees it. */
char *bundle_deflate_advice(void);
/* A uvm_reader's. */
bool bundle_rebuild_read(void *opaque, const void **ret_data, size_t *ret_len,
                         struct uvm_error *err);

/* ---- encoding (compact-encode.c) ------------------------------------------------------------- */

struct bundle_encode_options {
    struct mirror_disk *disk;         /* of `fd` */
    int fd;                           /* the qcow2 file */
    uint64_t file_size;               /* bytes */
    const struct bundle_blocks *base; /* NULL = none: all is carried */
    int level;                        /* of zstd, 1-19 */
    const char *title;                /* of the image, for progress (step "compact") */
    const struct uvm_observer *observer;
    struct bundle_sink sink; /* of the member's bytes */
};

struct bundle_encode_result {
    bool
        worthwhile; /* false: most clusters do not come out the same, or it would be larger than the
                         file, or over a limit; nothing, or a part, was written, and the image is
                         better carried as it is */
    uint64_t content;     /* bytes of the stored clusters of 64 KiB: what a volume of it takes */
    uint64_t base_blocks; /* taken from the base */
    struct bundle_blocks *blocks; /* its own, to be the base of others; the caller frees it. There
                                     whenever this is no failure */
};

/* Writes the member. Each deflated cluster is deflated again here and compared: what does not come out
 * the same is carried verbatim beside its content. Deterministic for one version of libzstd and zlib.
 * The caller must make sure that the file is the image (checksum) and stays as it is. */
bool bundle_encode(const struct bundle_encode_options *options,
                   struct bundle_encode_result *ret_result, struct uvm_error *err);

/* ---- decoding (compact-decode.c) ------------------------------------------------------------- */

struct bundle_decode_options {
    struct uvm_reader member;       /* its bytes, verified at their end */
    const struct bundle_base *base; /* NULL = none; UVM_CONTENT when the map wants one */
    uint64_t file_size;             /* what the manifest says of the image */
    uint64_t content;               /* and of its content */
    uint64_t max_virtual;
    /* A file that gets the whole content, block n at n * BUNDLE_BLOCK, holes for zeros: to be a base, or
     * to have the image's own bytes made of it. -1 = none. Borrowed. */
    int keep_fd;
    const struct uvm_observer *observer;
};

/* Reads head and map. A thread of its own decodes from here on; one or more read the base. */
struct bundle_decoder;
bool bundle_decoder_new(const struct bundle_decode_options *options,
                        struct bundle_decoder **ret_decoder, struct uvm_error *err);
void bundle_decoder_free(struct bundle_decoder *d);
/* Lets go of the member, after a failure. Nothing is to be read any more. *ret_base_changed: it is the base
 * that failed, and not the member. */
void bundle_decoder_stop(struct bundle_decoder *d, bool *ret_base_changed);
UVM_DEFINE_AUTO(struct bundle_decoder *, bundle_decoder_free)

/* The disk's content. Its end is reported when the member has ended, verified, and the blocks of the
 * base were the right ones (UVM_CONTENT says that the base was changed). Borrowed. */
const struct mirror_content *bundle_decoder_content(const struct bundle_decoder *d);

/* Instead of reading the content to its end: the image's own bytes, deflated again side by side. Wants
 * keep_fd; reads what is left of the content first. Its end means the same. The caller checks that the
 * bytes are the image. After the content's end has been read it is too late for this.
 *
 * That the image is the vendor's says nothing of the *content*: a hostile map may have more of it than the
 * image, or have it in another order. Who takes no site's word reads the content of the image itself
 * (mirror_disk). */
struct uvm_reader bundle_decoder_image(struct bundle_decoder *d);
