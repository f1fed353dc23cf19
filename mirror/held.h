/* held.h: the records of what a mirror holds, for the rest of this folder. */
#pragma once

#include "mirror/mirror.h"
#include "mirror/tree.h"

#define MIRROR_STREAMS_DIR   "uvmirror/streams"
#define MIRROR_RECORD_SUFFIX ".json"

/* What the mirror holds of one stream. Images are {"<product>/<version>/<item>": {"path", "size",
 * "sha256", "sha512"}}, which is what must be known of them without the stream. */
struct mirror_record {
    char *content_id;
    char *origin;       /* SHA-256 of the kept file; NULL until a fetch came to its end */
    char *source;       /* of the kept file, as the next three; NULL while there is none */
    char *path;         /* of it below the source */
    char *signer;       /* fingerprint; NULL = it was not verified */
    char *updated;      /* NULL = it says nothing */
    json_t *max;        /* {product: versions}; 0 = all */
    json_t *images;     /* held */
    json_t *awaits;     /* on their way */
    json_t *superseded; /* [path]: what the last hold was about to remove */
};
void mirror_record_init(struct mirror_record *r, const char *content_id);
void mirror_record_clear(struct mirror_record *r);
#define mirror_auto_record __attribute__((cleanup(mirror_record_clear))) struct mirror_record

/* Reads the record of a stream; where there is none, *ret holds nothing but empty containers.
 * UVM_CONTENT when it is damaged; UVM_FAILED when it cannot be read, or when a newer version wrote
 * it, and then it must stay as it is. */
bool mirror_record_load(const struct mirror_tree *t, const char *content_id,
                        struct mirror_record *ret, struct uvm_error *err);

/* Adds to an error about a damaged record or kept file what is to be done about it; returns false. */
bool mirror_record_advise(const char *content_id, struct uvm_error *err);

/* Replaces it atomically and durably. */
bool mirror_record_save(const struct mirror_tree *t, const struct mirror_record *r,
                        struct uvm_error *err);

bool mirror_record_equal(const struct mirror_record *a, const struct mirror_record *b);

/* Whether the record is of a stream that was updated later than this one. */
bool mirror_record_is_newer(const struct mirror_record *r, const struct mirror_stream *stream);

/* All records of a mirror. */
struct mirror_holdings {
    struct mirror_record own; /* of the stream in question */
    struct mirror_record *others;
    size_t count; /* of others */
    char *gap;    /* which of the others is damaged and what to do about it; NULL = none */
};
void mirror_holdings_clear(struct mirror_holdings *h);
#define mirror_auto_holdings __attribute__((cleanup(mirror_holdings_clear))) struct mirror_holdings

/* Reads them. A damaged record of `content_id` is told by a warning and taken as empty, since it is
 * about to be replaced. `content_id` NULL: all are others. UVM_FAILED when one cannot be read, or
 * is of a newer version. */
bool mirror_holdings_load(const struct mirror_tree *t, const char *content_id,
                          const struct uvm_observer *observer, struct mirror_holdings *ret,
                          struct uvm_error *err);

/* The content ids of all streams that have a record, sorted. */
bool mirror_record_ids(const struct mirror_tree *t, struct uvm_strings *ret, struct uvm_error *err);

/* "<product>/<version>/<item>": none of these names holds a '/'. The caller frees it. */
char *mirror_record_key(const char *product, const char *version, const char *item);

/* Adds an image, or those of a selection, to a record's images. */
void mirror_record_put(json_t *images, const struct mirror_image *image);
void mirror_record_put_all(json_t *images, const struct mirror_selection *selection);

/* An image with the fields that an entry knows: path, size and checksums. */
struct mirror_image mirror_record_image(const json_t *entry);

/* Makes the folder of records and kept files. */
bool mirror_kept_folder(const struct mirror_tree *t, struct uvm_error *err);

/* Keeps a stream's file, durably; *ret_name is its checksum, by which a record names it. The caller
 * frees it. */
bool mirror_kept_add(const struct mirror_tree *t, const struct mirror_stream *stream,
                     char **ret_name, struct uvm_error *err);

/* Removes every kept file that is not a key of `named`, and what a run that died left half
 * written. */
void mirror_kept_sweep(const struct mirror_tree *t, const json_t *named);

/* The stream as it is held; NULL, without error, when it is not. Errors as mirror_tree_held_streams.
 */
bool mirror_held_stream(const struct mirror_tree *t, const char *content_id,
                        struct mirror_stream **ret_stream, struct uvm_error *err);

/* mirror_tree_await, for a stream that is made here, too. */
bool mirror_held_await(struct mirror_tree *t, const struct mirror_stream *stream,
                       const struct mirror_selection *selection,
                       const struct uvm_observer *observer, struct uvm_error *err);

/* Records, durably, that the stream is held with exactly these images, which the tree has, and
 * removes what nothing holds any more, as mirror_tree_hold does; every product's `max` becomes "all".
 * For a stream that is made here; its source, path and origin are set. */
bool mirror_held_replace(struct mirror_tree *t, const struct mirror_stream *stream,
                         const struct mirror_selection *selection,
                         const struct uvm_observer *observer, struct mirror_removed *removed,
                         struct uvm_error *err);
