/*
 * mirror.h: what an image is and how it is obtained.
 *
 * A *source* serves a signed index, which names *streams* (products files). A stream lists
 * products, a product has versions, a version has items; an item that matches the filters is an
 * *image*. Images are downloaded into the mirror's *tree* on disk.
 *
 *     source --index, products--> stream --filters, max--> selection --download--> tree
 *
 * Format: simplestreams, "index:1.0" and "products:1.0" (lp:simplestreams, doc/README and the
 * Python implementation, whose behaviour is the reference where the text is silent).
 *
 * Trust: bytes of a stream are hostile until uvm_verifier_clearsigned() accepted them, and a signed
 * stream may still be wrong; mirror_stream_parse() checks every field it hands on, so that what is
 * in a struct mirror_image is safe to use as a path, a size or a checksum.
 */
#pragma once

#include <jansson.h>

#include "mirror/base/base.h"

/* ---- limits ---------------------------------------------------------------------------------- */

#define MIRROR_JSON_MAX        ((size_t)64 << 20) /* an index or products file, as served */
#define MIRROR_JSON_VALUES_MAX ((size_t)4 << 20)  /* values in it; each takes memory */
#define MIRROR_KEYS_MAX        1024               /* keys of one product, version or item */
#define MIRROR_METADATA_MAX    ((size_t)64 << 10) /* bytes of an image's flattened metadata */
#define MIRROR_PATH_MAX        1024               /* bytes of an image's path */
#define MIRROR_NAME_MAX        200 /* bytes of a product's, version's or item's name */
#define MIRROR_SIZE_MAX        ((uint64_t)1 << 50)  /* bytes of an image */
#define MIRROR_STREAMS_MAX     256                  /* streams followed from one index */
#define MIRROR_VIRTUAL_MAX     ((uint64_t)64 << 40) /* default limit of a qcow2's virtual size */

/* ---- JSON as simplestreams understands it ---------------------------------------------------- */

/* Parses a whole JSON text strictly: UTF-8, no duplicate key, nothing behind it, an object at the
 * top, at most MIRROR_JSON_MAX bytes, MIRROR_JSON_VALUES_MAX values and jansson's 2,048 levels;
 * integers beyond 64 bits are refused. UVM_CONTENT. The caller owns *ret. */
bool mirror_json_parse(const void *text, size_t len, json_t **ret, struct uvm_error *err);

/* A string, number or boolean as Python's str() prints it ("True", "1.5", "1e+16"); NULL for
 * anything else. The caller frees it. */
char *mirror_json_str(const json_t *value);

static inline void mirror_json_decref_(json_t **value)
{
    json_decref(*value);
}
#define mirror_auto_json __attribute__((cleanup(mirror_json_decref_))) json_t

/* ---- images ---------------------------------------------------------------------------------- */

/* One item with everything it inherits. Every field is checked (see mirror_image_from_metadata). */
struct mirror_image {
    char *product; /* "com.ubuntu.cloud:server:24.04:amd64" */
    char *version; /* "20241004" */
    char *item;    /* "disk1.img" */
    char *path;    /* relative to the source, safe (mirror_path_check) */
    uint64_t size;
    char *sha256;     /* lower-case hex, or NULL */
    char *sha512;     /* lower-case hex, or NULL; at least one of the two is there */
    json_t *metadata; /* the flattened pairs in their order, all values strings */
};
void mirror_image_clear(struct mirror_image *image);
void mirror_image_copy(struct mirror_image *to, const struct mirror_image *from);

/* The value of a metadata key, "" when it is missing. Borrowed from the image. */
const char *mirror_image_get(const struct mirror_image *image, const char *key);

/* "noble amd64 20241004" (release, arch, version), or the product's name and the version where
 * these are missing; printable, for messages. The caller frees it. */
char *mirror_image_title(const struct mirror_image *image);

/* Builds an image from a flattened metadata object (strings only; it is copied) and the item's own
 * path. Used for items of a stream and for a bundle's manifest. UVM_CONTENT when: product_name,
 * version_name or item_name is missing, empty, too long, not printable UTF-8 or holds a blank or
 * '/'; `path` is unsafe; size is not a decimal number in 0..MIRROR_SIZE_MAX; neither sha256 nor
 * sha512 is there (md5 alone is refused), or one of them is malformed (upper-case digits are folded
 * to lower); or metadata hold more than MIRROR_METADATA_MAX bytes or anything but strings. */
bool mirror_image_from_metadata(const json_t *metadata, const char *path,
                                struct mirror_image *ret_image, struct uvm_error *err);

/* The strongest checksum there is. */
enum uvm_digest_type mirror_image_digest(const struct mirror_image *image, const char **ret_hex);

/* A path as design section 4 wants it: relative; no empty, "." or ".." segment; no NUL, backslash
 * or control character; no "%2e" or "%2f" in any case; valid UTF-8; at most MIRROR_PATH_MAX bytes
 * and 255 per segment (NAME_MAX). UVM_CONTENT, and the message holds the path in printable form. */
bool mirror_path_check(const char *path, struct uvm_error *err);

/* The same, and not below "uvmirror/" or "streams/", which belong to the mirror itself. */
bool mirror_image_path_check(const char *path, struct uvm_error *err);

/* True for what goes into uvtool's pool: item name and ftype "disk1.img", datatype
 * "image-downloads" (section 6). */
bool mirror_image_importable(const struct mirror_image *image);

/* ---- filters --------------------------------------------------------------------------------- */

struct mirror_filters;

/* Parses simplestreams filters (`arch=amd64`, `release~^(jammy|noble)$`, `label!=daily`): its
 * grammar, matched at the start as Python's re.match does: ([\w|\-]+)[ ]*([!]?[=~])[ ]*(.*)[ ]*$
 * Regular expressions are PCRE2's, the library closest to Python's re. UVM_USAGE names the filter
 * that is wrong. A regular expression that runs over the limits on a value, or a value that is
 * longer than MIRROR_METADATA_MAX, matches neither way: the item counts as hidden.
 *
 * The implied ones (`arch=<host_arch>`, `ftype=disk1.img`, `datatype=image-downloads`) are added,
 * each unless a filter names that key; `host_arch` NULL implies no arch. */
bool mirror_filters_new(const char *const *filters, size_t count, const char *host_arch,
                        struct mirror_filters **ret_filters, struct uvm_error *err);
void mirror_filters_free(struct mirror_filters *f);
UVM_DEFINE_AUTO(struct mirror_filters *, mirror_filters_free)

/* All filters hold for these flattened metadata; a missing key is the empty string. */
bool mirror_filters_match(const struct mirror_filters *f, const json_t *metadata);

/* The same, looking only at the implied filters. */
bool mirror_filters_match_implied(const struct mirror_filters *f, const json_t *metadata);

/* All of them as text, implied ones first, for the manifest. Borrowed. */
const struct uvm_strings *mirror_filters_text(const struct mirror_filters *f);

/* The Debian name of this machine's architecture ("amd64", "arm64", ...), from uname(2). Static. */
const char *mirror_host_arch(void);

/* ---- streams --------------------------------------------------------------------------------- */

/* A products file. */
struct mirror_stream {
    char *content_id;
    char *updated;     /* as printed in it; NULL when missing */
    time_t updated_at; /* the same in seconds (RFC 2822 date), 0 when missing or not understood */
    char *source;      /* the URL it came from (the mirror's base), for the record */
    char *path;        /* of the products file below the source */
    char *signer;      /* fingerprint of the vendor's key that signed it, or NULL: not verified */
    struct uvm_buf origin; /* the bytes as served */
    json_t *tree;          /* parsed, aliases expanded */
};

/* Parses a products file. `text` is the JSON (already verified and unwrapped, or not signed at
 * all). Fills content_id, updated, updated_at and tree; "_aliases" is gone from the tree, so that
 * what is made of it expands to nothing else. UVM_CONTENT when the format is not "products:1.0",
 * content_id is missing or unsafe as a file name, "products" is not an object of objects, or an
 * alias is used and not defined. Single items are checked when they are selected, so that an odd one
 * that nobody asked for does no harm. */
bool mirror_stream_parse(const void *text, size_t len, struct mirror_stream **ret_stream,
                         struct uvm_error *err);
void mirror_stream_free(struct mirror_stream *s);
UVM_DEFINE_AUTO(struct mirror_stream *, mirror_stream_free)

/* How much is in it. */
struct mirror_counts {
    size_t products, versions, items;
};
struct mirror_counts mirror_stream_count(const struct mirror_stream *s);

/* The flattened metadata of one item: top level, product, product_name, version, version_name,
 * item, item_name; later wins, a key keeps its first position; only strings, numbers and booleans.
 * Returns a new reference, NULL when there is no such item, or when it inherits from more than
 * MIRROR_KEYS_MAX keys of one level. */
json_t *mirror_stream_flatten(const struct mirror_stream *s, const char *product,
                              const char *version, const char *item);

/* The checked image of one item. UVM_CONTENT when it is not there or not sound, or when a key of it
 * or its version gives it another product's or version's name. */
bool mirror_stream_image(const struct mirror_stream *s, const char *product, const char *version,
                         const char *item, struct mirror_image *ret_image, struct uvm_error *err);

/* ---- selections ------------------------------------------------------------------------------ */

/* What was chosen of one product. */
struct mirror_product {
    char *name;
    /* The view of this product is the whole: no filter beyond the implied ones and no gap hid one
     * of its importable versions. Only then may a receiver retire versions that are not listed. */
    bool complete;
    struct uvm_strings versions; /* every importable version that was seen, newest first */
    struct mirror_image *images; /* chosen, newest version first, then in the stream's order */
    size_t image_count;
};
struct mirror_selection {
    struct mirror_product *products; /* in the stream's order, only those with an image */
    size_t count;
};
void mirror_selection_clear(struct mirror_selection *s);
#define mirror_auto_selection                                                                      \
    __attribute__((cleanup(mirror_selection_clear))) struct mirror_selection

/* Chooses from a stream: of each product the newest `max_versions` (code-point order of the
 * version's name) that still have a matching item. max_versions 0 = all. Versions and items that
 * are not objects are skipped. UVM_CONTENT when a chosen item is not a sound image, or when one
 * path would come with two different sizes or checksums (or with two that cannot be compared), or
 * be the folder of another. */
bool mirror_stream_select(const struct mirror_stream *s, const struct mirror_filters *filters,
                          unsigned max_versions, struct mirror_selection *ret_selection,
                          struct uvm_error *err);

/* Checks paths across several selections (streams of one mirror) for the same two clashes. */
bool mirror_selections_check(const struct mirror_selection *selections, size_t count,
                             struct uvm_error *err);

/* Version names as simplestreams orders them: by code point. Like strcmp. */
int mirror_version_compare(const char *a, const char *b);

/* The products file reduced to a selection: all keys kept at every level and in their order, since
 * that of flattened metadata follows from it; other products, versions and items left out, aliases
 * expanded. Deterministic JSON, ends with a newline; the caller frees it. */
char *mirror_stream_reduce(const struct mirror_stream *s, const struct mirror_selection *selection);

/* An index ("index:1.0") of `count` streams, whose products file stands at
 * "streams/v1/<content_id><suffix>". `updated` in it is `now`. Deterministic JSON, ends with a
 * newline. */
char *mirror_index_text(const struct mirror_stream *const *streams,
                        const struct mirror_selection *selections, size_t count, const char *suffix,
                        time_t now);

/* "Fri, 04 Oct 2024 09:30:00 +0000", as simplestreams prints times. */
char *mirror_stream_time(time_t t);

/* ---- sources --------------------------------------------------------------------------------- */

/* Where streams and images come from: http(s)://, file://, or a folder. */
struct mirror_source_options {
    const char *url;  /* with or without trailing slash */
    const char *path; /* of the index or a products file, below it; "streams/v1/index.sjson" */
    struct uvm_verifier
        *verifier; /* vendor's keys; NULL = no authentication: nothing is verified */
    const struct uvm_observer *observer;
};
struct mirror_source;

/* Opens nothing yet. UVM_USAGE for a URL of another scheme, one with a query, or for a path that is
 * unsigned (does not end in ".sjson") although a verifier is given. A user and password in the URL
 * are sent to its host; proxies and SSL_CERT_FILE are taken from the environment, as curl(1)
 * does. */
bool mirror_source_new(const struct mirror_source_options *options,
                       struct mirror_source **ret_source, struct uvm_error *err);
void mirror_source_free(struct mirror_source *s);
UVM_DEFINE_AUTO(struct mirror_source *, mirror_source_free)

/* The base URL in the form that is recorded: with a trailing slash, without user and password; a
 * folder becomes a file:// URL. */
const char *mirror_source_url(const struct mirror_source *s);

/* Fetches and verifies the index and each products file that it names with format "products:1.0"
 * and a datatype that `filters` accept ("image-downloads" when they name none); or the one products
 * file, when the path is one. With a verifier every file must be clear-signed by one of its keys.
 * The content_id of a products file must equal its key in the index. When the index is good and a
 * file that it names is not there or not sound, all is read once more: the source may be in the
 * middle of an update. UVM_SOURCE, UVM_TRUST, UVM_CONTENT, UVM_SPACE (over a limit). Each element
 * of *ret_streams is owned by the caller. */
bool mirror_source_streams(struct mirror_source *s, const struct mirror_filters *filters,
                           struct mirror_stream ***ret_streams, size_t *ret_count,
                           struct uvm_error *err);

/* ---- the tree on disk ------------------------------------------------------------------------ */

/* The mirror folder:
 *
 *     <path of an image>              a verified image, at its simplestreams path
 *     uvmirror/lock                   one writer at a time
 *     uvmirror/verified.json          which files were verified: size, mtime, inode, checksums
 *     uvmirror/partial/<hex>          downloads that are not complete, named by their checksum
 *     uvmirror/serial                 the last bundle's serial
 *     uvmirror/bundles/<id>/...       the small members of every bundle written
 */
struct mirror_tree;

/* Opens (makes) a mirror folder and takes its lock. UVM_BUSY when another run holds it. Partial
 * downloads that nobody came back for in 30 days are removed. */
bool mirror_tree_open(const char *dir, struct mirror_tree **ret_tree, struct uvm_error *err);
void mirror_tree_free(struct mirror_tree *t);
UVM_DEFINE_AUTO(struct mirror_tree *, mirror_tree_free)
const char *mirror_tree_dir(const struct mirror_tree *t);

/* Whether the verified bytes of an image are in place. Looks at size, mtime, inode and the record,
 * not at the content. A downloaded file is not synced, for speed; its record counts until the
 * machine starts again, and then the next mirror_tree_fetch hashes it. */
bool mirror_tree_has(const struct mirror_tree *t, const struct mirror_image *image);

/* Downloads one image, or does nothing when the tree has it. A file that is there without a record
 * is hashed, and taken when it is the image. Size and every signed checksum are computed while
 * bytes arrive; only a file for which all hold gets its final name. UVM_SOURCE (network),
 * UVM_CONTENT (other bytes than signed), UVM_SPACE, UVM_INTERRUPTED, UVM_FAILED (the folder). A
 * partial download is kept, except after UVM_CONTENT, and the next call goes on from it when the
 * source can. */
bool mirror_tree_fetch(struct mirror_tree *t, struct mirror_source *source,
                       const struct mirror_image *image, const struct uvm_observer *observer,
                       struct uvm_error *err);

/* The SHA-256 of an image in the tree: what its stream signs, else from the record of the download,
 * which computes both. `hex` as in uvm_digest_finish. */
bool mirror_tree_sha256(const struct mirror_tree *t, const struct mirror_image *image,
                        char hex[UVM_DIGEST_HEX_MAX], struct uvm_error *err);

/* Opens an image of the tree for reading, without following symbolic links anywhere below the
 * mirror folder. The size is checked against the image's. */
bool mirror_tree_open_image(const struct mirror_tree *t, const struct mirror_image *image,
                            int *ret_fd, struct uvm_error *err);

/* A serial for a new bundle: `now`, or one more than the last if that is higher. Recorded durably
 * before it is returned. A damaged record of the last one counts as none. */
bool mirror_tree_next_serial(struct mirror_tree *t, time_t now, uint64_t *ret_serial,
                             struct uvm_error *err);

/* Keeps a small file of bundle `id` under uvmirror/bundles/<id>/<name>; `name` may hold folders. */
bool mirror_tree_keep(struct mirror_tree *t, const char *id, const char *name, const void *data,
                      size_t len, struct uvm_error *err);

/* ---- qcow2 ----------------------------------------------------------------------------------- */

/* What a qcow2's header says (QEMU, docs/interop/qcow2.txt). */
struct mirror_qcow2 {
    unsigned version; /* 2 or 3 */
    unsigned cluster_bits;
    uint64_t virtual_size;
    uint64_t l1_offset;
    uint32_t l1_entries;
    uint64_t refcount_offset;
    uint32_t refcount_clusters;
    unsigned compression; /* 0 = deflate, 1 = zstd */
};

/* Bytes from the start of a file that mirror_qcow2_check wants, or the whole file when shorter. */
#define MIRROR_QCOW2_HEAD ((size_t)64 << 10)

/* Checks the head of a qcow2 file before anything else touches it (section 6, "qcow2 safety"):
 * version 2 or 3; no backing file, external data file, encryption or internal snapshot; no
 * incompatible feature but compression type (dirty and corrupt are refused too); cluster bits 9-21;
 * virtual size from 1 to `max_virtual`; L1 and refcount tables aligned, inside the file, and the L1
 * table no smaller than the virtual size wants; header extensions well-formed and none of them an
 * external data file or encryption. `head` is hostile. UVM_CONTENT with the reason. */
bool mirror_qcow2_check(const void *head, size_t len, uint64_t file_size, uint64_t max_virtual,
                        struct mirror_qcow2 *ret_info, struct uvm_error *err);

/* The backing file's name in the header of a qcow or qcow2 file that is already on this host (a
 * guest's overlay): where it lies. *ret_len is 0 when there is none, or when this is no such file.
 * `head` holds the first `len` bytes; the caller reads the name itself. UVM_CONTENT when the header
 * makes no sense; the caller must then assume the worst. */
bool mirror_qcow2_backing(const void *head, size_t len, uint64_t *ret_offset, uint32_t *ret_len,
                          struct uvm_error *err);
