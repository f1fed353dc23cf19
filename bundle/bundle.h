/*
 * bundle.h: the transport. A bundle is one signed file that carries streams and images to a host
 * without network. docs/bundle-format.md describes it byte by byte; this is the shape:
 *
 *     zstd frame 1   tar members  uvmirror/manifest.json        the whole truth about the bundle
 *                                 uvmirror/manifest.json.sig    the site's detached signature of it
 *     zstd frame 2   tar members  uvmirror/origin/...           the vendor's signed stream files,
 *                                                               distributions' checksum files
 *                                 streams/v1/...                reduced streams, signed by the site
 *                                 <image paths>                 the payloads, in its order
 *                    end-of-archive marker
 *     trailer        CRC-32 of all bytes before it; nothing behind it
 *
 * Trust: nothing of a bundle is believed before the signature over the manifest holds. Frame 1
 * alone is decoded before that, within the limits below. After that every member must be exactly
 * the next one that the manifest lists (name, order, size, SHA-256), and a payload counts only when
 * its reader has reported its end.
 */
#pragma once

#include "mirror/mirror.h"

/* ---- limits ---------------------------------------------------------------------------------- */

#define BUNDLE_MANIFEST_MAX  ((size_t)16 << 20) /* bytes of the manifest */
#define BUNDLE_SIGNATURE_MAX ((size_t)64 << 10) /* bytes of its signature */
#define BUNDLE_MEMBER_MAX    ((size_t)64 << 20) /* bytes of any member that is not a payload */
#define BUNDLE_IMAGES_MAX    10000
#define BUNDLE_ORIGINS_MAX   1000 /* checksum files */
#define BUNDLE_WINDOW_LOG    27   /* zstd window: 128 MiB, what plain `zstd -d` takes; none above */

#define BUNDLE_PARTS_MAX  999                    /* of a split bundle: numbers of three digits */
#define BUNDLE_PART_MIN   ((uint64_t)64 << 10)   /* bytes */
#define BUNDLE_PART_FAT32 ((uint64_t)0xffffffff) /* the largest file of FAT32: 4 GiB - 1 */

#define BUNDLE_FORMAT         2 /* the newest format version that this reader understands */
#define BUNDLE_FORMAT_COMPACT 2 /* the first one that has compact payloads */

#define BUNDLE_COMPACT_LEVEL     8 /* of zstd, for compact payloads, unless asked otherwise */
#define BUNDLE_COMPACT_LEVEL_MAX 19

#define BUNDLE_MANIFEST_NAME  "uvmirror/manifest.json"
#define BUNDLE_SIGNATURE_NAME "uvmirror/manifest.json.sig"

/* ---- manifest -------------------------------------------------------------------------------- */

/* A stream that the bundle stands for. */
struct bundle_stream {
    char *content_id;
    char *source;               /* URL it was fetched from */
    char *path;                 /* of the products file below the source */
    char *updated;              /* as the vendor printed it; NULL when missing */
    time_t updated_at;          /* the same in seconds, 0 = unknown */
    struct uvm_strings filters; /* as given and implied */
    char *origin;               /* member that holds the vendor's file byte for byte */
    char *verified_by; /* fingerprint of the vendor's key, NULL after --no-authentication */
    struct mirror_selection selection; /* products and their images */
};

/* Whether a stream is the site's own (MIRROR_LOCAL_ID). No vendor vouches for that one: its origin
 * and `verified_by` are the site's. */
bool bundle_stream_is_local(const struct bundle_stream *s);

/* The word of a distribution for an image that the site added: the members that hold its checksum
 * file and the detached signature of that, if it has one; and the name of the image in it. */
struct bundle_checksums {
    char *member;    /* NULL: nobody vouches for the image */
    char *signature; /* the member right behind; NULL: clear-signed, or not signed */
    char *name;
};

/* How the payload of an image is encoded. A reader refuses what it does not know. */
enum bundle_encoding {
    BUNDLE_NOT_CARRIED, /* the receiver has it: no payload */
    BUNDLE_PLAIN,       /* the image's own bytes */
    BUNDLE_COMPACT,     /* its content, from which they can be made again (format 2; compact.h) */
};

/* The image whose content a compact payload refers to: of an earlier payload of this bundle, or a
 * volume of the receiver. */
struct bundle_base_name {
    char *product; /* NULL: it stands alone */
    char *version;
    char *sha256;   /* of the image's file, lower-case hex, or NULL */
    char *sha512;   /* at least one is there */
    uint64_t bytes; /* of the content that are taken from it */
    /* The image of this manifest whose payload brings it; NULL: it is the receiver's. Set by
     * bundle_manifest_parse. */
    const struct bundle_image *image;
};

/* An image and where its payload is. Several images may share one payload (plain: same path and bytes;
 * compact: same bytes). */
struct bundle_image {
    const struct bundle_stream *stream; /* borrowed from the manifest */
    const struct mirror_image *image;   /* borrowed from the stream's selection */
    enum bundle_encoding encoding;
    char *member; /* name of the payload's member; NULL when not carried */
    uint64_t size;
    char sha256[UVM_DIGEST_HEX_MAX];
    uint64_t content; /* COMPACT: bytes of the clusters of 64 KiB that a volume of it stores */
    struct bundle_base_name base;      /* COMPACT */
    struct bundle_checksums checksums; /* images of the local stream alone have one */
};

/* Any other member: origin files and streams. */
struct bundle_member {
    char *path;
    uint64_t size;
    char sha256[UVM_DIGEST_HEX_MAX];
};

struct bundle_manifest {
    unsigned format;
    char *id;        /* unique: "uvmirror-20241004T093000Z-1f2e3d4c" */
    uint64_t serial; /* creation time in seconds, above every earlier one of its mirror */
    time_t created;
    char *tool;   /* "uvmirror 0.1.0" */
    bool trailer; /* the file ends with a checksum of all its bytes */
    char *signer; /* fingerprint of the site's key, for the record: the signature decides */
    struct bundle_stream **streams;
    size_t stream_count;
    struct bundle_image *images; /* in the order of their payloads */
    size_t image_count;
    struct bundle_member *members; /* in the order of the tar */
    size_t member_count;
};

struct bundle_manifest *bundle_manifest_new(void);
void bundle_manifest_free(struct bundle_manifest *m);
UVM_DEFINE_AUTO(struct bundle_manifest *, bundle_manifest_free)

/* Deterministic JSON, ends with a newline; the caller frees it. */
char *bundle_manifest_text(const struct bundle_manifest *m);

/* Parses and checks a manifest whose signature holds (it may still be wrong). UVM_CONTENT: unknown
 * format version or a name in "critical" that this reader does not know; a missing or ill-typed
 * field; an unsafe path; a payload without image, two members of one name, a member below a
 * payload's name; any mirror_image_from_metadata error; numbers over their limits. Unknown
 * non-critical fields are ignored. */
bool bundle_manifest_parse(const void *text, size_t len, struct bundle_manifest **ret_manifest,
                           struct uvm_error *err);

/* "uvmirror-20241004T093000Z.tar.zst": the name under which a bundle is written into a folder. The
 * time is the serial, so that no two bundles of one mirror share a name; nor do those of several
 * mirrors in one folder, since bundle_create takes a later serial when the name is taken. */
char *bundle_file_name(const struct bundle_manifest *m);

/* Bytes of all payloads, each counted once. */
uint64_t bundle_payload_bytes(const struct bundle_manifest *m);

/* For each image of a parsed manifest whether its payload must be read so that those which are wanted
 * can be had: theirs, and the earlier ones that these refer to. The caller frees the array. */
bool *bundle_manifest_needs(const struct bundle_manifest *m,
                            bool (*wants)(void *opaque, const struct bundle_image *image),
                            void *opaque);

/* ---- inventories: what receivers have -------------------------------------------------------- */

#define BUNDLE_INVENTORY_MAX  ((size_t)16 << 20) /* bytes of the file */
#define BUNDLE_INVENTORY_TYPE "uvmirror-inventory"

/* An image that a receiver has ready: volume and metadata. */
struct bundle_stock {
    char *product;
    char *version;
    char *sha256; /* of the image's file, as its metadata says; lower-case hex, or NULL */
    char *sha512; /* or NULL; where both are missing, it is no base, and counts as missing */
};

/* What one receiver has, as it said itself (docs/inventory.md). Nobody signs it: it is read by a person
 * before it leaves the site, and can make a bundle useless, never wrong: import compares whatever it
 * takes from its own volumes with what the site signed. */
struct bundle_inventory {
    char *host;
    time_t created;
    char *architecture;         /* Debian's name: "amd64" */
    unsigned format;            /* the newest bundle format that it reads */
    uint64_t free_bytes;        /* in its pool */
    uint64_t serial;            /* of the newest bundle that it has taken; 0 = none */
    struct uvm_strings trusted; /* fingerprints of the bundle signers that it accepts */
    struct bundle_stock *stock;
    size_t stock_count;
};
void bundle_inventory_clear(struct bundle_inventory *i);

/* Deterministic JSON for people to read, ends with a newline; the caller frees it. */
char *bundle_inventory_text(const struct bundle_inventory *i);
/* Strict, as bundle_manifest_parse is; the file is hostile. The stock is sorted. UVM_CONTENT. */
bool bundle_inventory_parse(const void *text, size_t len, struct bundle_inventory *ret_inventory,
                            struct uvm_error *err);

/* All receivers of a bundle. */
struct bundle_have {
    struct bundle_inventory *inventories;
    size_t count;
};
void bundle_have_clear(struct bundle_have *h);

/* Whether every receiver that the image is for (by its `arch`) has it: then it need not be carried. */
bool bundle_have_everywhere(const struct bundle_have *h, const struct mirror_image *image);

/* The newest other version of the image's product that all receivers have that lack the image, and of
 * which `knows` says that the mirror knows its blocks. Borrowed; NULL when there is none. */
const struct bundle_stock *
bundle_have_base(const struct bundle_have *h, const struct mirror_image *image,
                 bool (*knows)(void *opaque, const struct bundle_stock *stock), void *opaque);

/* ---- writing --------------------------------------------------------------------------------- */

/* Whether what was written is read back from the medium, and compared. */
enum bundle_read_back {
    BUNDLE_READ_BACK_MEDIA, /* on another file system than the mirror's, if that is not in memory */
    BUNDLE_READ_BACK_ALWAYS,
    BUNDLE_READ_BACK_NEVER,
};

struct bundle_create_options {
    struct mirror_tree *tree; /* holds every image of the selections */
    /* Images that are still on their way into the tree: they are bundled while they arrive. It was
     * started with every image of the selections, of which each must have a signed SHA-256 or be in
     * the tree. NULL = all are there. */
    struct mirror_download *download;
    /* What the site added is the stream of MIRROR_LOCAL_ID that has no signer and is from no URL: it
     * is signed here. */
    const struct mirror_stream *const *streams;
    const struct mirror_selection *selections; /* one per stream */
    size_t stream_count;
    const struct uvm_strings *filters; /* for the record; may be NULL */
    struct uvm_signer *signer;
    time_t now;
    const char *output; /* a file, a folder ("." = here), or "-" for standard output */
    /* Cuts a bundle that is larger into parts of so many bytes (PATH.001, PATH.002, ...), from
     * BUNDLE_PART_MIN on, and signs their sums (PATH.sums). 0 = one file. Not for standard output. */
    uint64_t part_size;
    enum bundle_read_back read_back;
    /* Images are carried compact where that is worthwhile: 0 = no, else the level of zstd. Not beside
     * `download`: an image is encoded when it is whole. */
    int compact_level;
    const struct bundle_have *have; /* what the receivers have; NULL = nothing is known */
    const struct uvm_observer *observer;
};

/* What was written. */
struct bundle_created {
    char *path;     /* NULL for standard output; without number when it was split */
    size_t parts;   /* 0: it is one file */
    bool read_back; /* every byte was read back from the medium */
    uint64_t bytes;
    struct bundle_manifest *manifest;
};
void bundle_created_clear(struct bundle_created *created);

/* Writes a bundle of all selected images: takes a serial, builds manifest, reduced and re-signed
 * streams, signs, and writes tar and zstd in one pass. An image is hashed again on its way unless
 * the download has just done so; a file of the mirror that changed is UVM_CONTENT. The output has its
 * final name only when it is complete and synced; on any failure nothing is left. A file that is given
 * as output is replaced; in a folder nothing is: UVM_FAILED when another one got the name first. The
 * small members are kept in the tree. */
bool bundle_create(const struct bundle_create_options *options, struct bundle_created *ret_created,
                   struct uvm_error *err);

/* Writes parts of a bundle again, byte for byte, from what the mirror keeps of it. */
struct bundle_again_options {
    struct mirror_tree *tree; /* still holds every image of the bundle */
    const char *id;           /* of the bundle */
    const unsigned *parts;    /* their numbers */
    size_t part_count;
    const char *output; /* a folder */
    enum bundle_read_back read_back;
    const struct uvm_observer *observer;
};
/* *ret_paths gets the files. UVM_FAILED when the mirror does not know the bundle; UVM_USAGE when it
 * was not split or has no such part; UVM_CONTENT when the parts do not come out as they were signed,
 * such as with another version of libzstd. Nothing is left then. */
bool bundle_again(const struct bundle_again_options *options, struct uvm_strings *ret_paths,
                  struct uvm_error *err);

/* Whether a bundle may be written there, as far as can be told before anything is downloaded:
 * UVM_USAGE for a terminal, a device, or a place in the mirror itself; UVM_FAILED for a folder that
 * is missing or may not be written to. */
bool bundle_output_check(const char *output, const struct mirror_tree *tree, struct uvm_error *err);

/* The folder that will hold the bundle, NULL for standard output. The caller frees it. */
char *bundle_output_folder(const char *output);

/* Bytes of the largest file that a folder's file system takes; UINT64_MAX when nothing is known of
 * a limit. */
uint64_t bundle_output_file_max(const char *folder);

/* Bytes that the bundle will have at most, before it is written. Of the options it looks at streams,
 * selections and `have`: an image that is carried compact has no more bytes than a plain one. */
uint64_t bundle_estimate(const struct bundle_create_options *options);

/* ---- reading --------------------------------------------------------------------------------- */

struct bundle_reader;

/* Somebody who can bring the medium of a part that is missing. `what` names it, printable. Sets
 * *ret_folder when a folder was named (the caller frees it), else the known ones are looked into
 * again. Called by any thread; *quit, which another one may set, is a reason to stop waiting.
 * UVM_INTERRUPTED when there is no answer. */
struct bundle_ask {
    bool (*ask)(void *opaque, const char *what, const bool *quit, char **ret_folder,
                struct uvm_error *err);
    void *opaque;
};

/* What a reader is for. */
enum bundle_purpose {
    BUNDLE_READ,  /* to its end: parts must all be there, or somebody to ask for them */
    BUNDLE_LOOK,  /* its beginning: other parts may be elsewhere */
    BUNDLE_CHECK, /* as READ; when it is damaged, all parts are read again to say which ones are */
};

struct bundle_open_options {
    struct uvm_verifier *verifier; /* of the site's signature */
    enum bundle_purpose purpose;
    struct bundle_ask ask; /* `ask` NULL: nobody is there */
    const struct uvm_observer *observer;
};

/* Opens the one bundle that the arguments name: a file; "-" (standard input); parts of a split one
 * and its sums, or the folders that hold them, in any order; a folder, of which the newest bundle is
 * taken: the highest serial among those whose signature verifies. Decodes frame 1, verifies its
 * signature, parses the manifest. The sums of parts are believed only after their own signature was
 * verified, by the same keys; without sums, parts are taken by their numbers. UVM_TRUST, UVM_CONTENT,
 * UVM_FAILED (cannot be read, a part is missing), UVM_USAGE (more than one bundle). Front to back,
 * never a seek. What the options point to must outlive the reader. */
bool bundle_reader_new(const struct uvm_strings *arguments,
                       const struct bundle_open_options *options, struct bundle_reader **ret_reader,
                       struct uvm_error *err);
void bundle_reader_free(struct bundle_reader *r);
UVM_DEFINE_AUTO(struct bundle_reader *, bundle_reader_free)

/* The file that was opened (the one taken of a folder), "standard input" for "-"; printable.
 * Borrowed. */
const char *bundle_reader_name(const struct bundle_reader *r);
const struct bundle_manifest *bundle_reader_manifest(const struct bundle_reader *r);
/* Who signed the manifest; this, not manifest->signer, is verified. */
const struct uvm_signature *bundle_reader_signature(const struct bundle_reader *r);

enum bundle_entry_kind {
    BUNDLE_ENTRY_MEMBER,  /* a small member */
    BUNDLE_ENTRY_PAYLOAD, /* one or more images */
    BUNDLE_ENTRY_END,     /* the end of the bundle, verified: marker there, nothing behind it */
};
struct bundle_entry {
    enum bundle_entry_kind kind;
    const char *path;
    uint64_t size;
    const struct bundle_image *const *images; /* PAYLOAD: those that share it, in manifest order */
    size_t image_count;
};

/* Moves to the next member. What was not read of the present one is read and verified first, so
 * that calling this until BUNDLE_ENTRY_END is a full check. Pointers in *ret_entry live until the
 * next call. */
bool bundle_reader_next(struct bundle_reader *r, struct bundle_entry *ret_entry,
                        struct uvm_error *err);

/* A reader of the present member's bytes; its end is reported only when size and SHA-256 are right.
 * Valid until the next bundle_reader_next. */
struct uvm_reader bundle_reader_data(struct bundle_reader *r);

/* Where the blocks of a base are read from: the content of its disk, anywhere. */
struct bundle_base {
    bool (*read)(void *opaque, uint64_t offset, void *data, size_t len, struct uvm_error *err);
    void *opaque;
};

/* How the present payload, which must be an image's, is to be had as that image. */
struct bundle_image_options {
    /* Finds the base of `image` on this host; it is used until the next payload. UVM_CONTENT names what
     * is missing. NULL: there is none. Not asked for what this bundle itself brought. */
    bool (*find_base)(void *opaque, const struct bundle_image *image, struct bundle_base *ret_base,
                      struct uvm_error *err);
    /* Whether a later image will be asked for: the content that it refers to is kept for it. NULL = all. */
    bool (*wants)(void *opaque, const struct bundle_image *image);
    void *opaque;
    const char *spool_dir; /* where unlinked temporary files go */
    uint64_t max_virtual;
};

/* The content of the present payload's image, when that is compact; what it needs of an earlier payload
 * must have been read as content or image, too. Valid until the next bundle_reader_next. UVM_CONTENT
 * also when a base is missing or was changed. */
bool bundle_reader_content(struct bundle_reader *r, const struct bundle_image_options *options,
                           const struct mirror_content **ret_content, struct uvm_error *err);

/* The present payload's image as its own bytes, whatever the encoding; their end is reported only when
 * they have the image's size and checksum. The rest as above. */
bool bundle_reader_image(struct bundle_reader *r, const struct bundle_image_options *options,
                         struct uvm_reader *ret_bytes, struct uvm_error *err);

/* For a payload that is not asked for: when a later one that `wants` names refers to it, its content is
 * read and kept; else nothing happens. The rest as above. */
bool bundle_reader_pass(struct bundle_reader *r, const struct bundle_image_options *options,
                        struct uvm_error *err);

/* Reads the rest of a small member into memory, verified. */
bool bundle_reader_slurp(struct bundle_reader *r, struct uvm_buf *ret_buf, struct uvm_error *err);

/* ---- the origin: the vendor's own signature -------------------------------------------------- */

/* For a receiver that wants a vendor's word for every image: none of the site's own may be without
 * a checksum file, or of a product whose name does not begin with "local:", which only the site can
 * have meant. UVM_TRUST names the image. */
bool bundle_local_check(const struct bundle_manifest *m, struct uvm_error *err);

/* Checks an image of the local stream against the content of its checksum file and of the signature
 * (empty when it has none), which are verified only against the site's manifest: a key of `vendor`
 * must have signed that the image's bytes have this name. That says nothing about the image's
 * product, version and metadata, which the site made up. UVM_TRUST. */
bool bundle_checksums_check(const struct bundle_image *image, const struct uvm_buf *checksums,
                            const struct uvm_buf *signature, struct uvm_verifier *vendor,
                            struct uvm_signature *ret_sig, struct uvm_error *err);

/* Checks one stream of a manifest against the vendor's signed file that the bundle carries: the
 * signature must be by a key of `vendor`, and every image that the manifest lists for the stream
 * must stand in it with equal product, version, item, path, size, checksums and flattened metadata;
 * its `updated` must be the manifest's; a product called complete must list every importable
 * version of it. `origin` is the member's content, verified only against the site's manifest. Not
 * for the local stream, which no vendor knows. UVM_TRUST. */
bool bundle_origin_check(const struct bundle_stream *stream, const void *origin, size_t len,
                         struct uvm_verifier *vendor, struct uvm_signature *ret_sig,
                         struct uvm_error *err);
