/*
 * cache.h: what the mirror keeps of images that were encoded, so that it is done once. In its folder
 * uvmirror/compact, names being the first 64 digits of checksums:
 *
 *     <image>.<base>.l<level>         the member; <base> is "full" where there is none
 *     <image>.<base>.l<level>.json    what came of it: written last, and alone where it was not worthwhile
 *     <image>.blocks                  which blocks the image holds (compact.h): it may yet be a base when
 *                                     it is gone from the mirror
 *
 * Of an image that the mirror holds, the BUNDLE_CACHE_MEMBERS members that were used last are kept; of all
 * images the last BUNDLE_CACHE_BLOCKS files of blocks.
 */
#pragma once

#include "bundle/compact.h"

#define BUNDLE_CACHE_MEMBERS 4
#define BUNDLE_CACHE_BLOCKS  64

/* Looked into by cache*.c alone. */
struct bundle_cache {
    const struct mirror_tree *tree; /* borrowed */
    char *path;
    int fd;
};

/* Opens the folder. Another process may be writing there: --again locks no mirror. What a killed one left goes
 * with the next bundle_cache_begin. */
bool bundle_cache_open(const struct mirror_tree *tree, struct bundle_cache **ret_cache,
                       struct uvm_error *err);
void bundle_cache_free(struct bundle_cache *c);
UVM_DEFINE_AUTO(struct bundle_cache *, bundle_cache_free)

/* What is encoded, and how. Checksums in lower-case hex. */
struct bundle_cache_key {
    const char *image;
    const char *base; /* NULL = none */
    int level;
};

/* What came of it. */
struct bundle_encoded {
    bool worthwhile; /* false: the image is better carried as it is, and the rest is 0 */
    uint64_t size;   /* of the member */
    char sha256[UVM_DIGEST_HEX_MAX];
    uint64_t content, base_bytes;
};

/* False when it is not there. What is damaged is not there. */
bool bundle_cache_find(const struct bundle_cache *c, const struct bundle_cache_key *key,
                       struct bundle_encoded *ret_encoded);

/* The file that a member is written to: `member` stands under its name only after
 * bundle_cache_keep, which is to be given the blocks, too. */
bool bundle_cache_begin(const struct bundle_cache *c, const struct bundle_cache_key *key,
                        struct uvm_outfile *ret_member, struct uvm_error *err);
bool bundle_cache_keep(const struct bundle_cache *c, const struct bundle_cache_key *key,
                       const struct bundle_encoded *encoded, const struct bundle_blocks *blocks,
                       struct uvm_outfile *member, struct uvm_error *err);

/* Whether the blocks of an image are known, and the blocks. NULL when they are not. */
bool bundle_cache_knows(const struct bundle_cache *c, const char *image);
struct bundle_blocks *bundle_cache_blocks(const struct bundle_cache *c, const char *image);

/* Encodes an image of the tree into the cache. The file must be the image, before and after. What is no
 * sound qcow2 is not worthwhile. `base` NULL = none. (cache-fill.c) */
bool bundle_cache_fill(const struct bundle_cache *c, const struct bundle_image *image,
                       const struct bundle_cache_key *key, const struct bundle_blocks *base,
                       const struct uvm_observer *observer, struct bundle_encoded *ret_encoded,
                       struct uvm_error *err);

/* Removes what is not to be kept. Failures do not matter: the next sweep tries again. */
void bundle_cache_sweep(const struct bundle_cache *c);

/* Bytes that may still be written there. */
bool bundle_cache_room(const struct bundle_cache *c, uint64_t *ret_bytes, struct uvm_error *err);
const char *bundle_cache_path(const struct bundle_cache *c);

/* ---- reading a member ------------------------------------------------------------------------ */

/* The payload of a compact image of a manifest, hashed on its way: its end is reported only when it is
 * what the manifest says. UVM_FAILED when the mirror has it no more. */
struct bundle_cached;
bool bundle_cached_open(const struct bundle_cache *c, const struct bundle_image *image,
                        struct bundle_cached **ret_cached, struct uvm_error *err);
struct uvm_reader bundle_cached_bytes(struct bundle_cached *cached);
void bundle_cached_free(struct bundle_cached *cached);
UVM_DEFINE_AUTO(struct bundle_cached *, bundle_cached_free)

/* ---- between cache.c, cache-read.c and cache-sweep.c ----------------------------------------- */

#define BUNDLE_CACHE_RECORD_END ".json"
#define BUNDLE_CACHE_BLOCKS_END ".blocks"

char *bundle_cache_member_name(const struct bundle_cache_key *key);
int bundle_cache_open_file(const struct bundle_cache *c, const char *name);
/* A record as it is; NULL when it is none. New reference. */
json_t *bundle_cache_record(const struct bundle_cache *c, const char *name);
