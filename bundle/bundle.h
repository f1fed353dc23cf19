/*
 * bundle.h: the transport. A bundle is one signed file that carries streams and images to a host
 * without network. docs/bundle-format.md describes it byte by byte; this is the shape:
 *
 *     zstd frame 1   tar members  uvmirror/manifest.json        the whole truth about the bundle
 *                                 uvmirror/manifest.json.sig    the site's detached signature of it
 *     zstd frame 2   tar members  uvmirror/origin/...           the vendor's signed stream files
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
#define BUNDLE_WINDOW_LOG    27 /* zstd window: 128 MiB, what plain `zstd -d` takes; none above */

#define BUNDLE_FORMAT 1 /* the newest format version that this reader understands */

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

/* How the payload of an image is encoded. A reader refuses what it does not know. */
enum bundle_encoding {
    BUNDLE_NOT_CARRIED, /* the receiver has it: no payload */
    BUNDLE_PLAIN,       /* the image's own bytes */
};

/* An image and where its payload is. Several images may share one payload (same path, same bytes).
 */
struct bundle_image {
    const struct bundle_stream *stream; /* borrowed from the manifest */
    const struct mirror_image *image;   /* borrowed from the stream's selection */
    enum bundle_encoding encoding;
    char *member; /* name of the payload's member; NULL when not carried */
    uint64_t size;
    char sha256[UVM_DIGEST_HEX_MAX];
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
 * time is the serial, so that no two bundles of one mirror share a name. */
char *bundle_file_name(const struct bundle_manifest *m);

/* Bytes of all payloads, each counted once. */
uint64_t bundle_payload_bytes(const struct bundle_manifest *m);

/* ---- writing --------------------------------------------------------------------------------- */

struct bundle_create_options {
    struct mirror_tree *tree; /* holds every image of the selections */
    const struct mirror_stream *const *streams;
    const struct mirror_selection *selections; /* one per stream */
    size_t stream_count;
    const struct uvm_strings *filters; /* for the record; may be NULL */
    struct uvm_signer *signer;
    time_t now;
    const char *output; /* a file, a folder ("." = here), or "-" for standard output */
    const struct uvm_observer *observer;
};

/* What was written. */
struct bundle_created {
    char *path; /* NULL for standard output */
    uint64_t bytes;
    struct bundle_manifest *manifest;
};
void bundle_created_clear(struct bundle_created *created);

/* Writes a bundle of all selected images: takes a serial, builds manifest, reduced and re-signed
 * streams, signs, and writes tar and zstd in one pass. Every image is hashed again on its way; a
 * file of the mirror that changed is UVM_CONTENT. The output has its final name only when it is
 * complete and synced; on any failure nothing is left. The small members are kept in the tree. */
bool bundle_create(const struct bundle_create_options *options, struct bundle_created *ret_created,
                   struct uvm_error *err);

/* Whether a bundle may be written there, as far as can be told before anything is downloaded:
 * UVM_USAGE for a terminal, a device, or a place in the mirror itself; UVM_FAILED for a folder that
 * is missing or may not be written to. */
bool bundle_output_check(const char *output, const struct mirror_tree *tree, struct uvm_error *err);

/* The folder that will hold the bundle, NULL for standard output. The caller frees it. */
char *bundle_output_folder(const char *output);

/* Bytes that the bundle will have at most, before it is written. */
uint64_t bundle_estimate(const struct mirror_stream *const *streams,
                         const struct mirror_selection *selections, size_t count);

/* ---- reading --------------------------------------------------------------------------------- */

struct bundle_reader;

/* Opens the bundle that an argument names: a file, "-" (standard input) or a folder, of which the
 * newest bundle is taken: the highest serial among those whose manifest verifies. Decodes frame 1,
 * verifies its signature, parses the manifest. UVM_TRUST, UVM_CONTENT, UVM_FAILED (cannot be read).
 * Front to back, never a seek. */
bool bundle_reader_new(const char *argument, struct uvm_verifier *verifier,
                       const struct uvm_observer *observer, struct bundle_reader **ret_reader,
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

/* Reads the rest of a small member into memory, verified. */
bool bundle_reader_slurp(struct bundle_reader *r, struct uvm_buf *ret_buf, struct uvm_error *err);

/* ---- the origin: the vendor's own signature -------------------------------------------------- */

/* Checks one stream of a manifest against the vendor's signed file that the bundle carries: the
 * signature must be by a key of `vendor`, and every image that the manifest lists for the stream
 * must stand in it with equal product, version, item, path, size, checksums and flattened metadata;
 * its `updated` must be the manifest's; a product called complete must list every importable
 * version of it. `origin` is the member's content, verified only against the site's manifest.
 * UVM_TRUST. */
bool bundle_origin_check(const struct bundle_stream *stream, const void *origin, size_t len,
                         struct uvm_verifier *vendor, struct uvm_signature *ret_sig,
                         struct uvm_error *err);
