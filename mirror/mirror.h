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

#define MIRROR_JSON_MAX        ((size_t)32 << 20)  /* an index or products file, as served */
#define MIRROR_JSON_MEMORY_MAX ((size_t)320 << 20) /* that its values may take, about */
#define MIRROR_KEYS_MAX        1024                /* keys of one product, version or item */
#define MIRROR_METADATA_MAX    ((size_t)64 << 10)  /* bytes of an image's flattened metadata */
#define MIRROR_PATH_MAX        1024                /* bytes of an image's path */
#define MIRROR_NAME_MAX        200 /* bytes of a product's, version's or item's name */
#define MIRROR_SIZE_MAX        ((uint64_t)1 << 50)  /* bytes of an image */
#define MIRROR_STREAMS_MAX     256                  /* streams followed from one index */
#define MIRROR_VIRTUAL_MAX     ((uint64_t)64 << 40) /* default limit of a qcow2's virtual size */

/* ---- JSON as simplestreams understands it ---------------------------------------------------- */

/* Parses a whole JSON text strictly: UTF-8, no duplicate key, nothing behind it, an object at the
 * top, at most MIRROR_JSON_MAX bytes, MIRROR_JSON_MEMORY_MAX and jansson's 2,048 levels;
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
 * these are missing, and the item's name when it is not "disk1.img"; printable, for messages. The
 * caller frees it. */
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
 * expanded. Deterministic JSON in lines that can be clear-signed, unless a single text in it is too
 * long for that; hardly larger than it is minified. Ends with a newline; the caller frees it. */
char *mirror_stream_reduce(const struct mirror_stream *s, const struct mirror_selection *selection);

/* The same, but with everything of each product of which something was chosen: what it takes to tell
 * that a view of a product is complete. */
char *mirror_stream_reduce_products(const struct mirror_stream *s,
                                    const struct mirror_selection *selection);

/* An index ("index:1.0") of `count` streams, whose products file stands at
 * "streams/v1/<content_id><suffix>". `updated` in it is `now`. Deterministic JSON, ends with a
 * newline. */
char *mirror_index_text(const struct mirror_stream *const *streams,
                        const struct mirror_selection *selections, size_t count, const char *suffix,
                        time_t now);

/* "Fri, 04 Oct 2024 09:30:00 +0000", as simplestreams prints times. */
char *mirror_stream_time(time_t t);

/* ---- sources --------------------------------------------------------------------------------- */

/* How a web server is asked. */
struct mirror_network {
    const char *cacert;     /* file of the authorities that may vouch for a server, instead of the
                           system's; NULL = SSL_CERT_FILE, else the system's */
    unsigned jobs;          /* downloads at once, 1 to MIRROR_JOBS_MAX */
    unsigned retries;       /* of one file in a row, without MIRROR_RETRY_PROGRESS between them */
    uint64_t rate;          /* bytes per second, of all downloads together; 0 = no limit */
    unsigned stall_seconds; /* fewer than MIRROR_STALL_RATE bytes per second for so long: given up
                               (and tried again); 0 = never */
    unsigned max_seconds;   /* of the use of this source as a whole; 0 = no limit */
};
#define MIRROR_NETWORK_DEFAULT                                                                     \
    {                                                                                              \
        .jobs = 4, .retries = 4, .stall_seconds = 60                                               \
    } /* to begin with */
#define MIRROR_JOBS_MAX       32
#define MIRROR_STALL_RATE     1000                /* bytes per second */
#define MIRROR_RETRY_PROGRESS ((uint64_t)1 << 20) /* bytes after which retries count anew */

/* Where streams and images come from: http(s)://, file://, or a folder. */
struct mirror_source_options {
    const char *url;  /* with or without trailing slash */
    const char *path; /* of the index or a products file, below it; "streams/v1/index.sjson" */
    struct uvm_verifier
        *verifier; /* vendor's keys; NULL = no authentication: nothing is verified */
    struct mirror_network network;
    const struct uvm_observer *observer;
};
struct mirror_source;

/* Opens nothing yet. UVM_USAGE for a URL of another scheme, one with a query, a `cacert` that cannot
 * be read, or for a path that is unsigned (does not end in ".sjson") although a verifier is given. A
 * user and password in the URL are sent to its host; proxies are taken from the environment, as
 * curl(1) does.
 *
 * What is worth it (a connection that fails or breaks, a stall, a status of 408, 425, 429, 500, 502,
 * 503 or 504) is tried again after 1, 2, 4, ... seconds, or when a Retry-After says (at most 5
 * minutes), each time with a notice. */
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
 *     uvmirror/streams/...            which streams and images it holds, see below
 *     uvmirror/origins/...            the checksum files that added images came with
 *     uvmirror/bundles/<id>/...       the small members of the last bundles written
 *     uvmirror/compact/...            images as they were encoded for bundles (bundle/cache.h)
 */
struct mirror_tree;

/* Opens (makes) a mirror folder and takes its lock. UVM_BUSY when another run holds it. Partial
 * downloads that nobody came back for in 30 days are removed. UVM_FAILED when the folder cannot be
 * written, and then the message tells the way out. */
bool mirror_tree_open(const char *dir, struct mirror_tree **ret_tree, struct uvm_error *err);
/* Opens a mirror folder that is there without a lock, and changes nothing in it: for what only asks (has,
 * sha256, open_image, read, recall, superseded, held_streams, select, origin, kept). Another run may work
 * in it meanwhile: what that removes is gone, and an error. */
bool mirror_tree_look(const char *dir, struct mirror_tree **ret_tree, struct uvm_error *err);
void mirror_tree_free(struct mirror_tree *t);
UVM_DEFINE_AUTO(struct mirror_tree *, mirror_tree_free)
const char *mirror_tree_dir(const struct mirror_tree *t);

/* Whether the verified bytes of an image are in place. Looks at size, mtime, inode and the record,
 * not at the content. A downloaded file is not synced, for speed; its record counts until the
 * machine starts again, and then the next download hashes it. */
bool mirror_tree_has(const struct mirror_tree *t, const struct mirror_image *image);

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
/* Adds the ids of the bundles of which something is kept, in no order. */
bool mirror_tree_kept(const struct mirror_tree *t, struct uvm_strings *ret_ids,
                      struct uvm_error *err);
/* Removes what is kept of other bundles than these: of each all or nothing, whenever it is killed. */
bool mirror_tree_keep_only(struct mirror_tree *t, const struct uvm_strings *ids,
                           struct uvm_error *err);
/* Takes away what killed runs left of that: bundles that have no file `last`, which is kept last of all,
 * and half-written files beside the others'. As far as it can be done. */
void mirror_tree_drop_half_kept(struct mirror_tree *t, const char *last);

/* The folder uvmirror/compact, made when missing: what is in it is bundle/'s. The caller frees the path
 * and closes the descriptor. */
bool mirror_tree_compact_folder(const struct mirror_tree *t, char **ret_path, int *ret_fd,
                                struct uvm_error *err);

/* Whether a file with this checksum is on record, SHA-256 or SHA-512 as its length tells. */
bool mirror_tree_has_content(const struct mirror_tree *t, const char *hex);

/* ---- downloads ------------------------------------------------------------------------------- */

/* Images on their way into a tree, in a thread of its own, several at once. While it runs, the
 * observer is called from that thread too, and the tree may be asked (has, sha256, open_image,
 * read, origin) and keep what belongs to a bundle (next_serial, keep, kept, keep_only), but belongs to the download
 * otherwise, as the source does. */
struct mirror_download;

/* Starts to download those of `images` that the tree does not have, in this order, network.jobs at a
 * time. A file that is there without a record is hashed, and taken when it is the image. Size and
 * every signed checksum are computed while bytes arrive; only a file for which all hold gets its
 * final name. A partial download is kept, except when its bytes are wrong, and the next run goes on
 * from it: asked for with Range, and If-Range where the server named a version of the file. When an
 * image fails, the others go on. Of images of equal content one is downloaded; the others, and those
 * whose content the tree has at another path, are copied and hashed. `images` (the array and what it
 * points to), tree, source and observer must outlive it. */
struct mirror_download *mirror_download_start(struct mirror_tree *t, struct mirror_source *source,
                                              const struct mirror_image *const *images,
                                              size_t count, const struct uvm_observer *observer);

/* Waits for the end of all. What ends the whole is the error, if there was such a thing: UVM_SPACE,
 * UVM_INTERRUPTED, network.max_seconds (UVM_SOURCE), or a source that is down (UVM_SOURCE): when as
 * many images in a row as there are jobs, but at least four, have used up their retries, the others
 * are not tried. Else it is that of the first image, in their order, which failed: UVM_SOURCE
 * (network), UVM_CONTENT (other bytes than signed), UVM_FAILED (the folder). Images that failed beside
 * it are told by warnings; those that did not are in the tree. */
bool mirror_download_wait(struct mirror_download *d, struct uvm_error *err);

/* Stops what still runs (partial files stay) and waits for the thread. */
void mirror_download_free(struct mirror_download *d);
UVM_DEFINE_AUTO(struct mirror_download *, mirror_download_free)

/* The bytes of one image, whose end is reported only when they are the signed ones. */
struct mirror_reader;
struct uvm_reader mirror_reader_bytes(struct mirror_reader *r);
void mirror_reader_free(struct mirror_reader *r);
UVM_DEFINE_AUTO(struct mirror_reader *, mirror_reader_free)

/* Reads an image of the tree and hashes it on the way. UVM_CONTENT when it is not what was verified,
 * and its record is forgotten, so that the next fetch brings it anew. */
bool mirror_tree_read(const struct mirror_tree *t, const struct mirror_image *image,
                      struct mirror_reader **ret_reader, struct uvm_error *err);

/* Reads an image as its download goes on, which it waits for; any thread may, and must free the
 * reader before the download. What this download has hashed is not hashed again; an image that the
 * tree had before, or that mirror_download_start was not given, is read by mirror_tree_read. Fails
 * as the download of the image did, and with UVM_CONTENT when the source began to serve another
 * file: a download that starts over is not followed, but may come to a good end
 * (mirror_download_wait tells). */
bool mirror_download_read(struct mirror_download *d, const struct mirror_image *image,
                          struct mirror_reader **ret_reader, struct uvm_error *err);

/* ---- what a mirror holds --------------------------------------------------------------------- */

/* For each stream (by content_id) the mirror keeps the vendor's file of the last good fetch, and
 * which of its images that and earlier fetches chose. A fetch speaks about the products that it
 * chose from: of these, what it did not choose and its filters do not hide is superseded. Images of
 * other products, or hidden by its filters, stay held as long as the new file lists them unchanged.
 * A file of the mirror that no stream holds, or awaits, is removed.
 *
 *     uvmirror/streams/<content_id>.json        the record: source, path, signer, images, `max` of
 *                                               each product, and what a fetch still awaits
 *     uvmirror/streams/<sha256>                 the vendor's file, byte for byte
 */

/* What a removal was about; dry run: would be. Functions add to it, so that one can stand for
 * several streams. */
struct mirror_removed {
    struct uvm_strings paths;
    uint64_t bytes;
};
void mirror_removed_clear(struct mirror_removed *r);
#define mirror_auto_removed __attribute__((cleanup(mirror_removed_clear))) struct mirror_removed

/* Before the download: records durably that these images are awaited, so that what is downloaded of
 * them stays although the run may end early. UVM_CONTENT when a path of them clashes with what
 * another stream holds, naming that stream. Warns when the stream was held with a later `updated`,
 * and when its record is damaged, which is then replaced; notes when it came from another source.
 * UVM_CONTENT for a source's stream that calls itself MIRROR_LOCAL_ID. UVM_FAILED when a newer
 * version wrote a record of this mirror. */
bool mirror_tree_await(struct mirror_tree *t, const struct mirror_stream *stream,
                       const struct mirror_selection *selection,
                       const struct uvm_observer *observer, struct uvm_error *err);

/* What a fetch chose of a stream, and how. */
struct mirror_choice {
    const struct mirror_selection *selection;
    const struct mirror_filters *filters; /* it was made with */
    unsigned max;                         /* the same */
    bool allow_older; /* the stream counts although an `updated` that is later was held */
};

/* Takes those products out of a selection of which the tree lacks an image. */
void mirror_tree_drop_missing(const struct mirror_tree *t, struct mirror_selection *selection);

/* After it: the tree has all images of the selection. Records that the stream is held so, durably,
 * and removes what was superseded. When the stream was held with a later `updated`, which may be
 * somebody's way to bring old images back, nothing of this is done unless allowed. A file that cannot be removed is told by a warning and tried again by the next call; when
 * the record of another stream is damaged, which may hold any file, nothing is removed. UVM_FAILED
 * when a newer version wrote a record of this mirror. */
bool mirror_tree_hold(struct mirror_tree *t, const struct mirror_stream *stream,
                      const struct mirror_choice *choice, const struct uvm_observer *observer,
                      struct mirror_removed *removed, struct uvm_error *err);

/* What mirror_tree_hold would remove; a path that is in *removed already is not added again. Changes
 * nothing. */
bool mirror_tree_superseded(const struct mirror_tree *t, const struct mirror_stream *stream,
                            const struct mirror_choice *choice, struct mirror_removed *removed,
                            struct uvm_error *err);

/* The streams that are held, by content_id: parsed from the kept files, with source, path and signer
 * from the record. Each element is owned by the caller. UVM_CONTENT names a damaged one. */
bool mirror_tree_held_streams(const struct mirror_tree *t, struct mirror_stream ***ret_streams,
                              size_t *ret_count, struct uvm_error *err);

/* As mirror_stream_select, among the held images alone. max_versions 0 = as many as each product was
 * fetched with; more than that is not asked of any. A product of which one of the newest so many
 * importable versions is not held is not complete. */
bool mirror_tree_select(const struct mirror_tree *t, const struct mirror_stream *stream,
                        const struct mirror_filters *filters, unsigned max_versions,
                        struct mirror_selection *ret_selection, struct uvm_error *err);

/* Hashes those held images that are there but not on record, as after a start of the machine, so
 * that mirror_tree_has knows them: to be called before mirror_tree_select. What turns out bad stays
 * unknown. UVM_INTERRUPTED, UVM_FAILED when a file cannot be read. */
bool mirror_tree_recall(struct mirror_tree *t, const struct uvm_observer *observer,
                        struct uvm_error *err);

/* Hashes every held image again, whatever the record of verified files says. UVM_INTERRUPTED;
 * UVM_FAILED when a file cannot be read, which may yet be good; UVM_CONTENT when a record is
 * damaged. */
struct mirror_checked {
    size_t good;
    struct uvm_strings bad; /* paths; forgotten and removed: the next fetch downloads them again */
    uint64_t bytes;
};
void mirror_checked_clear(struct mirror_checked *c);
bool mirror_tree_check(struct mirror_tree *t, const struct uvm_observer *observer,
                       struct mirror_checked *ret_checked, struct uvm_error *err);

/* ---- images of the site's own ---------------------------------------------------------------- */

/* The mirror's own stream holds what no vendor lists: golden images of the site, and cloud images of
 * other distributions. It is made here, unsigned; a bundle signs it as its origin. */
#define MIRROR_LOCAL_ID "uvmirror:local"

#define MIRROR_CHECKSUMS_MAX ((size_t)1 << 20)  /* bytes of a checksum file */
#define MIRROR_SIGNATURE_MAX ((size_t)64 << 10) /* of its detached signature */

/* The distribution's own word for an added image: its checksum file. */
struct mirror_origin {
    struct uvm_buf checksums; /* SHA256SUMS, SHA512SUMS or CHECKSUM, perhaps clear-signed */
    struct uvm_buf signature; /* detached; empty when it is clear-signed, or not signed */
    char *name;               /* of the image in it */
    char *signer;             /* fingerprint, NULL = not verified */
};
void mirror_origin_clear(struct mirror_origin *o);
#define mirror_auto_origin __attribute__((cleanup(mirror_origin_clear))) struct mirror_origin

/* The checksum that a checksum file gives for `name`: lines of sha256sum(1) or sha512sum(1)
 * ("<hex>  name", "<hex> *name") or of BSD ("SHA256 (name) = <hex>"); "./" before a name is passed
 * over, other lines too. *ret_type says which. UVM_CONTENT when the name is not in it, or is in it
 * with two different sums of one type; the strongest type counts. `text` is as trusted as its
 * signature. */
bool mirror_checksums_find(const void *text, size_t len, const char *name,
                           enum uvm_digest_type *ret_type, char ret_hex[UVM_DIGEST_HEX_MAX],
                           struct uvm_error *err);

/* Where an origin comes from. Each is a file, or an http(s) URL. */
enum mirror_origin_flag {
    MIRROR_ORIGIN_SIGNED = 1, /* a signature must be found: where none is named and the file is not
                                 clear-signed, beside it, as .gpg, .sign, .asc or .sig */
};
struct mirror_origin_request {
    const char *checksums;
    const char *signature; /* detached; NULL = none is named */
    const char *image;     /* its file name is the one to look for */
    unsigned flags;        /* enum mirror_origin_flag */
    struct mirror_network network;
    const struct uvm_observer *observer;
};

/* Reads or downloads the parts of an origin, and believes nothing of them. UVM_SOURCE, UVM_SPACE
 * (over a limit), UVM_USAGE, UVM_TRUST when a signature must be found and is not. */
bool mirror_origin_get(const struct mirror_origin_request *request,
                       struct mirror_origin *ret_origin, struct uvm_error *err);

/* What an origin says of its name. With a verifier its signature must be good (UVM_TRUST), and
 * *ret_sig, which may be NULL, says whose it is; without one nothing is verified. UVM_CONTENT as
 * mirror_checksums_find. */
bool mirror_origin_read(const struct mirror_origin *origin, struct uvm_verifier *verifier,
                        enum uvm_digest_type *ret_type, char ret_hex[UVM_DIGEST_HEX_MAX],
                        struct uvm_signature *ret_sig, struct uvm_error *err);

/* Verifies an origin: its signature by a key of `verifier` (clear-signed, or detached), and that it
 * gives exactly this image's checksum for its name. UVM_TRUST. */
bool mirror_origin_check(const struct mirror_origin *origin, const struct mirror_image *image,
                         struct uvm_verifier *verifier, struct uvm_signature *ret_sig,
                         struct uvm_error *err);

struct mirror_addition {
    const char *image;      /* a file, or an http(s) URL */
    const json_t *metadata; /* KEY=VALUE pairs as strings: release, arch, version at least */
    const char *sha256;     /* expected, lower-case hex; NULL = not known */
    const struct mirror_origin *origin; /* NULL = none; its checksum must hold */
    struct uvm_verifier *verifier;      /* of who signed the origin; NULL = it is not verified */
    uint64_t max_virtual;               /* 0 = MIRROR_VIRTUAL_MAX */
    struct mirror_network network;
    const struct uvm_observer *observer;
};

/* Takes an image into the mirror: copied or downloaded, hashed, its head checked as
 * mirror_qcow2_check does, put at "local/<release>/<arch>/<version>/<file name>", and listed in the
 * local stream, whose `updated` becomes `now` (or a second more than it was). `product` and `label`
 * among the metadata have defaults ("local:<release>:<arch>", "local"); `version_name`, when it is
 * there, names the version instead of `version`. The same product and version again with the same
 * bytes replaces the metadata, and the origin when there is one; with other bytes it is UVM_CONTENT.
 * UVM_USAGE for metadata that make no sound image, or a product's name of a mirrored stream;
 * UVM_TRUST for the origin's signature; UVM_CONTENT when it is no qcow2 image or not the expected
 * bytes; UVM_SOURCE, UVM_SPACE, UVM_INTERRUPTED, UVM_FAILED as a download. Nothing is left of an
 * image that was not taken. */
bool mirror_tree_add(struct mirror_tree *t, const struct mirror_addition *addition, time_t now,
                     struct mirror_image *ret_image, struct uvm_error *err);

/* Takes added images that the filters let through out of the mirror again. UVM_FAILED when there is
 * none. */
bool mirror_tree_add_remove(struct mirror_tree *t, const struct mirror_filters *filters, time_t now,
                            const struct uvm_observer *observer, struct mirror_removed *ret_removed,
                            struct uvm_error *err);

/* The origin that an added image came with. False, without error (UVM_OK), when it has none. */
bool mirror_tree_origin(const struct mirror_tree *t, const struct mirror_image *image,
                        struct mirror_origin *ret_origin, struct uvm_error *err);

/* ---- publishing: a tree for a web server ------------------------------------------------------ */

/*
 * A simplestreams tree that any web server can serve while it changes:
 *
 *     streams/v1/index.sjson, index.json        replaced last, each at once
 *     streams/v1/<content id>.<hex>.sjson, .json products files, named by their content
 *     <paths of the images>
 *     index.html                                the same for people
 *     .uvmirror/                                lock, record of all files made here, incoming images
 *
 * Whatever an index names was there, complete and durable, before the index was; and stays for a time
 * after the last index that named it. Files that were not made here are never touched.
 */
struct mirror_publish_options {
    const char *dir;           /* made when missing */
    struct uvm_signer *signer; /* of index and products */
    time_t now;
    unsigned max;           /* versions of each product that stay; 0 = all */
    unsigned grace_seconds; /* that a file stays once no index names it */
    bool allow_older;       /* take what is older than what was published, and go on from there */
    const struct uvm_observer *observer;
};

/* What of a stream is published: what a bundle says of it. */
struct mirror_release {
    const char *content_id;
    time_t updated_at;                        /* of the stream, 0 = unknown */
    uint64_t serial;                          /* of the bundle */
    const struct mirror_selection *selection; /* products, their versions and images */
};

/* Opens a tree and takes its lock. UVM_BUSY; UVM_CONTENT when its record makes no sense. */
struct mirror_publisher;
bool mirror_publisher_open(const struct mirror_publish_options *options,
                           struct mirror_publisher **ret_publisher, struct uvm_error *err);
void mirror_publisher_free(struct mirror_publisher *p);
UVM_DEFINE_AUTO(struct mirror_publisher *, mirror_publisher_free)

/* Begins a change: which images are new. Releases are borrowed until its end. Products that are older
 * than what was published of them are passed over with a warning; UVM_TRUST when nothing else is left.
 * UVM_CONTENT when a product and version, or a path, is here with another content, when a path is the tree's
 * own, or when the index that is here is somebody else's. */
bool mirror_publisher_begin(struct mirror_publisher *p, const struct mirror_release *releases,
                            size_t count, struct uvm_error *err);

/* Whether the bytes of this image are wanted. */
bool mirror_publisher_wants(const struct mirror_publisher *p, const struct mirror_image *image);

/* Takes them in, verified at their end, where nobody sees them yet. UVM_SPACE. */
bool mirror_publisher_image(struct mirror_publisher *p, const struct mirror_image *image,
                            struct uvm_reader bytes, struct uvm_error *err);

/* Another image that is wanted has the bytes of one that was taken in. UVM_CONTENT when its checksums say
 * otherwise. */
bool mirror_publisher_same(struct mirror_publisher *p, const struct mirror_image *image,
                           const struct mirror_image *other, struct uvm_error *err);

/* The products file of a release's stream, reduced to its images (mirror_stream_reduce), verified. */
bool mirror_publisher_products(struct mirror_publisher *p, const char *content_id, const void *text,
                               size_t len, struct uvm_error *err);

/* The file of a disk image that is published; -1 when there is none. The caller closes it. */
int mirror_publisher_open_image(const struct mirror_publisher *p, const char *product,
                                const char *version);

/* What a change did. */
struct mirror_published {
    size_t added, dropped,
        removed;   /* images that are new, that no index names any more; files gone */
    size_t images; /* that the index names now */
};

/* Ends it: every image in place, then products, then the index. Of each product that a release names
 * completely the newest `max` versions that it lists stay, of others the newest `max`; products that it
 * does not name are left alone. Then files go whose time of grace is over. Nothing changed with UVM_CONTENT,
 * when an image that is named never came; UVM_TRUST, when a products file is not what its release says;
 * UVM_SPACE, when a file would be over MIRROR_JSON_MAX. */
bool mirror_publisher_commit(struct mirror_publisher *p, struct mirror_published *ret_published,
                             struct uvm_error *err);

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
    unsigned refcount_order; /* a refcount has 2^refcount_order bits */
    unsigned compression;    /* 0 = deflate, 1 = zstd */
};

/* Bytes from the start of a file that mirror_qcow2_check wants, or the whole file when shorter. */
#define MIRROR_QCOW2_HEAD ((size_t)64 << 10)

/* Checks the head of a qcow2 file before anything else touches it (section 6, "qcow2 safety"):
 * version 2 or 3; no backing file, external data file, encryption or internal snapshot; no
 * incompatible feature but compression type (dirty and corrupt are refused too); no dirty bitmaps
 * that count; cluster bits 9-21;
 * virtual size from 1 to `max_virtual`; L1 and refcount tables aligned, inside the file, and the L1
 * table no smaller than the virtual size wants; header extensions well-formed and none of them an
 * external data file or encryption. `head` is hostile. UVM_CONTENT with the reason. */
bool mirror_qcow2_check(const void *head, size_t len, uint64_t file_size, uint64_t max_virtual,
                        struct mirror_qcow2 *ret_info, struct uvm_error *err);

/* The structure behind the head: L1 and L2 tables, refcount table and blocks, and which cluster serves
 * what. mirror_disk_open (below) refuses with UVM_CONTENT:
 *
 * - a table or a cluster that is not aligned or not inside the file (a last data cluster may be cut
 *   off by the file's end, as QEMU leaves it);
 * - a cluster that serves two masters; compressed clusters alone may share one among themselves;
 * - reserved bits that are set, and flags that contradict each other;
 * - a refcount below the number of references, or above one where an entry is marked as `copied`.
 *   Refcounts that are too high waste space and harm nobody;
 *
 * and with UVM_SPACE a file of more clusters than this: */
#define MIRROR_QCOW2_CLUSTERS_MAX ((uint64_t)8 << 20) /* 512 GiB in clusters of 64 KiB */

/* ---- the content of a disk ------------------------------------------------------------------- */

/* What a guest sees of an image, without regard to how its file stores that. Content is handled in
 * clusters of MIRROR_CLUSTER bytes, of which those that are known to hold nothing but zeros are left
 * out. */
#define MIRROR_CLUSTER ((size_t)64 << 10)

struct mirror_extent {
    uint64_t first, count; /* clusters */
};
#define MIRROR_EXTENTS_MAX ((size_t)1 << 20) /* of a content: 16 MiB */

/* The content of a disk, front to back, once. `data` yields the bytes of all extents, one after the
 * other, whole clusters each (what is behind virtual_size is zeros), and nothing else; as with every
 * reader, only an end that was reported makes the bytes believable. */
struct mirror_content {
    uint64_t virtual_size;               /* bytes */
    const struct mirror_extent *extents; /* ascending, none empty, none touching the next */
    size_t extent_count;
    struct uvm_reader data;
};

/* Bytes that `data` will yield. */
uint64_t mirror_content_bytes(const struct mirror_content *content);

/* A qcow2 file that can be read anywhere: an image of the mirror, one that waits to be imported, a
 * volume that was fetched from its pool. Nothing is kept in memory but the L1 table (32 MiB at most)
 * and a few clusters. */
struct mirror_disk;

/* Checks all of its structure first, head and tables, of which nothing else is read: the file is
 * hostile, and nobody may write it meanwhile. `fd` is borrowed. UVM_CONTENT, UVM_SPACE (too many
 * clusters). Memory meanwhile: 2 bytes for each cluster of the file, and the L1 table. */
bool mirror_disk_open(int fd, uint64_t file_size, uint64_t max_virtual,
                      const struct uvm_observer *observer, struct mirror_disk **ret_disk,
                      struct uvm_error *err);
void mirror_disk_free(struct mirror_disk *d);
UVM_DEFINE_AUTO(struct mirror_disk *, mirror_disk_free)

const struct mirror_qcow2 *mirror_disk_info(const struct mirror_disk *d);

/* Reads what a guest sees at `offset`: zeros where nothing is stored, and behind the disk's end. For
 * one thread; quick where it goes on near its last place. */
bool mirror_disk_read(struct mirror_disk *d, uint64_t offset, void *data, size_t len,
                      struct uvm_error *err);

/* A cluster of the disk that is stored, and where. */
struct mirror_disk_cluster {
    uint64_t index;  /* in the disk, in clusters of the file's own size */
    uint64_t offset; /* in the file, bytes */
    uint32_t bytes;  /* in the file: less than a cluster where the file ends in it; of a compressed
                        one, how many it has at most */
    bool compressed;
};

/* Walks the stored clusters in the disk's order, those that read as zeros left out. Set `*walk` to
 * zeros first. *ret_end: there is none. Any number of walks may be under way. */
struct mirror_disk_walk {
    uint64_t next; /* index of the cluster to be looked at next */
};
bool mirror_disk_next(struct mirror_disk *d, struct mirror_disk_walk *walk,
                      struct mirror_disk_cluster *ret_cluster, bool *ret_end,
                      struct uvm_error *err);

/* Reads one whole cluster (1 << cluster_bits bytes), inflated when it is compressed. *ret_used is how
 * many bytes of the file it really takes. For any thread: each has its own codec. UVM_CONTENT when it
 * does not inflate to a whole cluster; what a deflate stream has beyond that does not count, as with
 * QEMU. */
struct mirror_codec;
struct mirror_codec *mirror_codec_new(void);
void mirror_codec_free(struct mirror_codec *c);
UVM_DEFINE_AUTO(struct mirror_codec *, mirror_codec_free)
bool mirror_disk_cluster_read(const struct mirror_disk *d,
                              const struct mirror_disk_cluster *cluster, struct mirror_codec *codec,
                              void *data, size_t *ret_used, struct uvm_error *err);

/* Deflates a cluster as QEMU does: raw deflate, window of 12 bits, memLevel 9, default level. Returns
 * its length, 0 when it would not be below `len`, which `ret_data` has room for. */
size_t mirror_codec_deflate(struct mirror_codec *c, const void *data, size_t len, void *ret_data);
/* The zlib that does so: "1.2.13". Static. */
const char *mirror_codec_version(void);

/* The content of a disk, clusters inflated side by side by all processors. Left out is what its tables
 * say is zeros; zeros that are stored are content, in small clusters also those around the stored ones.
 * `d` is borrowed, and must not be used otherwise meanwhile. The content lives as long as the reader.
 * UVM_SPACE when it has more than MIRROR_QCOW2_CLUSTERS_MAX clusters, or MIRROR_EXTENTS_MAX extents: a
 * small file can claim very much, so look at mirror_content_bytes before reading. */
struct mirror_disk_reader;
bool mirror_disk_reader_new(struct mirror_disk *d, const struct uvm_observer *observer,
                            struct mirror_disk_reader **ret_reader, struct uvm_error *err);
void mirror_disk_reader_free(struct mirror_disk_reader *r);
UVM_DEFINE_AUTO(struct mirror_disk_reader *, mirror_disk_reader_free)
const struct mirror_content *mirror_disk_reader_content(const struct mirror_disk_reader *r);

/* The file that is made of a content: an uncompressed qcow2 of version 3 with clusters of 64 KiB and
 * refcounts of 16 bits, as 'qemu-img convert' makes it:
 *
 *     front   header | refcount table | refcount blocks | L1 table
 *     body    L2 table | its data clusters, ascending | next L2 table | ...
 *
 * Without its front it is nothing that QEMU would take. */
struct mirror_layout;

/* `content` is borrowed, its data not touched. UVM_SPACE when the file would have too many clusters
 * (MIRROR_QCOW2_CLUSTERS_MAX); UVM_CONTENT when its extents are not as they should be, or its virtual
 * size is 0 or over 2 PiB, where QEMU's L1 table ends. Memory: the front (2 bytes for each cluster, 8 for
 * each 512 MiB of virtual size). */
bool mirror_layout_new(const struct mirror_content *content, struct mirror_layout **ret_layout,
                       struct uvm_error *err);
void mirror_layout_free(struct mirror_layout *l);
UVM_DEFINE_AUTO(struct mirror_layout *, mirror_layout_free)

uint64_t mirror_layout_file_size(const struct mirror_layout *l);
/* Borrowed; whole clusters. */
const void *mirror_layout_front(const struct mirror_layout *l, size_t *ret_len);
/* Reads the content's data, and yields the body. Its end means that the data ended, verified, and
 * was neither shorter nor longer. */
struct uvm_reader mirror_layout_body(struct mirror_layout *l);

/* The backing file's name in the header of a qcow or qcow2 file that is already on this host (a
 * guest's overlay): where it lies. *ret_len is 0 when there is none, or when this is no such file.
 * `head` holds the first `len` bytes; the caller reads the name itself. UVM_CONTENT when the header
 * makes no sense; the caller must then assume the worst. */
bool mirror_qcow2_backing(const void *head, size_t len, uint64_t *ret_offset, uint32_t *ret_len,
                          struct uvm_error *err);
