/*
 * internal.h: what the files of bundle/ share with one another and with nobody else.
 *
 * Writing:  create.c -> write.c (tar, libarchive) -> stage.c (zstd) -> file descriptor
 * Reading:  open.c -> input.c -> unzstd.c (frames) -> ring.c (thread) -> read.c (tar, libarchive)
 */
#pragma once

#include <locale.h>

#include "bundle/bundle.h"

/* ---- the order of a bundle (plan.c) ---------------------------------------------------------- */

/* The members that follow the signature, in the order of the tar: small members as listed, then
 * each payload where an image first names it. Everything is borrowed from the manifest. */
struct bundle_plan_item {
    const char *path;
    uint64_t size;
    const char *sha256;
    const char *sha512; /* of a plain payload, where an image states it: else NULL */
    const struct bundle_image *const *images; /* a payload's; NULL for a small member */
    size_t image_count;
};
struct bundle_plan {
    struct bundle_plan_item *items;
    size_t count;
    uint64_t payload_bytes;
    const struct bundle_image **images_; /* what the items' `images` point into */
};
struct bundle_plan *bundle_plan_new(const struct bundle_manifest *m);
void bundle_plan_free(struct bundle_plan *plan);
UVM_DEFINE_AUTO(struct bundle_plan *, bundle_plan_free)

/* ---- a manifest's fields (manifest-field.c) -------------------------------------------------- */

/* Each takes the field `key` of an object. UVM_CONTENT, and the message names the field, when it is
 * missing, of another type or over its limit. Texts are borrowed from the JSON. */
bool bundle_field_text(const json_t *object, const char *key, const char **ret,
                       struct uvm_error *err);
bool bundle_field_text_or_null(const json_t *object, const char *key, const char **ret,
                               struct uvm_error *err);
bool bundle_field_texts(const json_t *object, const char *key, size_t max, struct uvm_strings *list,
                        struct uvm_error *err);
bool bundle_field_number(const json_t *object, const char *key, uint64_t max, uint64_t *ret,
                         struct uvm_error *err);
bool bundle_field_list(const json_t *object, const char *key, size_t max, const json_t **ret,
                       struct uvm_error *err);
bool bundle_field_sha256(const json_t *object, char ret[UVM_DIGEST_HEX_MAX], struct uvm_error *err);

/* Fails with: "key" is missing or not `wanted`. */
bool bundle_field_wrong(struct uvm_error *err, const char *key, const char *wanted);

bool bundle_is_fingerprint(const char *s);
bool bundle_parse_time(const char *s, time_t *ret); /* "2024-10-04T09:30:00Z" */

/* ---- a manifest's sanity (manifest-check.c) -------------------------------------------------- */

/* Times and serials end with the year 9999, so that they can always be printed. */
#define BUNDLE_TIME_MAX ((uint64_t)253402300799)

/* The checks that look at a whole manifest: payloads against images, names against each other. */
bool bundle_manifest_check(const struct bundle_manifest *m, struct uvm_error *err);

/* ---- zstd, writing (stage.c, trailer.c) ------------------------------------------------------ */

#define BUNDLE_TRAILER_SIZE  12
#define BUNDLE_TRAILER_CRC32 "crc32" /* in the manifest */
void bundle_trailer_make(unsigned char trailer[BUNDLE_TRAILER_SIZE], uint32_t crc);

/* Wraps content in zstd frames and writes it to a file descriptor. */
struct bundle_stage;

/* `fd` and `name` (for messages) are borrowed. */
struct bundle_stage *bundle_stage_new(int fd, const char *name);
bool bundle_stage_write(struct bundle_stage *stage, const void *data, size_t len,
                        struct uvm_error *err);
bool bundle_stage_end_frame(struct bundle_stage *stage, struct uvm_error *err);
/* After the last frame: writes the trailer. */
bool bundle_stage_end(struct bundle_stage *stage, struct uvm_error *err);
uint64_t bundle_stage_bytes(const struct bundle_stage *stage); /* that have been written to `fd` */
void bundle_stage_free(struct bundle_stage *stage);
UVM_DEFINE_AUTO(struct bundle_stage *, bundle_stage_free)

/* ---- where a bundle goes (output.c) ---------------------------------------------------------- */

/* The file that is to be written: in a folder it has the name that bundle_file_name gives it. */
char *bundle_output_path(const char *output, const struct bundle_manifest *m);

/* Removes what killed runs left in the folder of `path`: unfinished bundles that nobody holds a
 * lock on. Whoever writes one holds such a lock. */
void bundle_output_sweep(const char *path);

/* ---- names as bytes (locale.c) --------------------------------------------------------------- */

/* Puts the calling thread into the "C" locale until the end of the scope. */
struct bundle_locale {
    locale_t c, before;
};
struct bundle_locale bundle_locale_enter(void);
void bundle_locale_leave(struct bundle_locale *l);
#define bundle_auto_locale                                                                         \
    __attribute__((cleanup(bundle_locale_leave), unused)) struct bundle_locale

/* ---- tar, writing (write.c) ------------------------------------------------------------------ */

struct bundle_write_options {
    const struct bundle_manifest *manifest;
    const struct uvm_buf *text;      /* of the manifest */
    const struct uvm_buf *signature; /* over `text` */
    const struct uvm_buf *contents;  /* of manifest->members, one each */
    const struct mirror_tree *tree;  /* holds the payloads */
    const struct uvm_observer *observer;
    const char *name; /* of the output, for messages */
    int fd;
};
bool bundle_write(const struct bundle_write_options *options, uint64_t *ret_bytes,
                  struct uvm_error *err);

/* ---- raw bytes (input.c) --------------------------------------------------------------------- */

/* A bundle's bytes as they lie in a file or come through a pipe. A read that waits (a pipe whose
 * writer is slow) looks every now and then whether it should still wait. */
struct bundle_input {
    int fd; /* owned */
    char *name;
    const struct uvm_observer *observer;
};

/* Opens a file, or standard input for "-". Whatever is not a regular file is refused, except on
 * standard input. */
bool bundle_input_open(struct bundle_input *input, const char *argument, struct uvm_error *err);
void bundle_input_clear(struct bundle_input *input);

/* Up to `len` bytes; *ret_len 0 is the end. *quit, which another thread may set, is another
 * reason to stop waiting. */
bool bundle_input_read(const struct bundle_input *input, void *data, size_t len, const bool *quit,
                       size_t *ret_len, struct uvm_error *err);

/* "gzip data", "a zip archive", ...: what the first bytes of a file look like. Static. */
const char *bundle_input_kind(const void *head, size_t len);
#define BUNDLE_KIND_HEAD 512 /* bytes that bundle_input_kind wants, or all there are */

/* ---- zstd, reading (unzstd.c) ---------------------------------------------------------------- */

/* What stands behind the last frame. */
enum bundle_ending { BUNDLE_ENDS_PLAIN, BUNDLE_ENDS_WITH_TRAILER };

/* A decoder that knows where a frame ends and never hands out bytes of two frames in one call. Only
 * frames of zstd proper are taken: no skippable frames, no legacy formats, no dictionaries, no
 * window above BUNDLE_WINDOW_LOG. */
struct bundle_unzstd;

/* `input` and `quit` are borrowed. */
struct bundle_unzstd *bundle_unzstd_new(const struct bundle_input *input, const bool *quit);
void bundle_unzstd_free(struct bundle_unzstd *u);
UVM_DEFINE_AUTO(struct bundle_unzstd *, bundle_unzstd_free)

/* The compressed bytes that come next, without taking them: at least `want`, or all that are left.
 */
bool bundle_unzstd_peek(struct bundle_unzstd *u, size_t want, const void **ret_data,
                        size_t *ret_len, struct uvm_error *err);

/* Begins a frame. UVM_CONTENT when there is none, or when it is a skippable one. */
bool bundle_unzstd_begin(struct bundle_unzstd *u, struct uvm_error *err);

/* Decodes up to `len` bytes of the present frame; *ret_len 0 is the frame's end. */
bool bundle_unzstd_read(struct bundle_unzstd *u, void *data, size_t len, size_t *ret_len,
                        struct uvm_error *err);

/* Compressed bytes taken so far. */
uint64_t bundle_unzstd_taken(const struct bundle_unzstd *u);

/* After the last frame: the input must end here, with its trailer before if it is to have one. */
bool bundle_unzstd_end(struct bundle_unzstd *u, enum bundle_ending ending, struct uvm_error *err);

/* ---- reading ahead (ring.c) ------------------------------------------------------------------ */

/* A thread that decodes the second frame into a ring of blocks, while the caller hashes. It owns
 * the decoder from _new to _free. */
struct bundle_ring;
bool bundle_ring_new(struct bundle_unzstd *u, enum bundle_ending ending, bool *quit,
                     const struct uvm_observer *observer, struct bundle_ring **ret_ring,
                     struct uvm_error *err);
/* Stops the thread, whatever it is doing. */
void bundle_ring_free(struct bundle_ring *ring);
UVM_DEFINE_AUTO(struct bundle_ring *, bundle_ring_free)

/* The next block, valid until the next call. *ret_len 0 is the end, and means that the frame was
 * whole and the last thing in the input but for its trailer. */
bool bundle_ring_next(struct bundle_ring *ring, const void **ret_data, size_t *ret_len,
                      struct uvm_error *err);

/* ---- the reader's inside (head.c, read.c) ---------------------------------------------------- */

/* Decodes the first frame and takes it apart: exactly the manifest and its signature. Nothing is
 * verified yet. */
bool bundle_head_read(struct bundle_unzstd *u, struct uvm_buf *ret_manifest,
                      struct uvm_buf *ret_signature, struct uvm_error *err);

/* Opens one file (or "-") as a reader whose manifest is verified. */
bool bundle_reader_open(const char *path, struct uvm_verifier *verifier,
                        const struct uvm_observer *observer, struct bundle_reader **ret_reader,
                        struct uvm_error *err);

/* ---- libarchive, reading (untar.c) ----------------------------------------------------------- */

/* A tar read through a block function, strictly: regular files only. */
struct bundle_untar;
struct bundle_untar *bundle_untar_new(struct uvm_reader source);
void bundle_untar_free(struct bundle_untar *t);
UVM_DEFINE_AUTO(struct bundle_untar *, bundle_untar_free)

/* Moves to the next member; *ret_path NULL is the end of the archive. Borrowed until the next call.
 */
bool bundle_untar_next(struct bundle_untar *t, const char **ret_path, uint64_t *ret_size,
                       struct uvm_error *err);

/* The next block of the present member; *ret_len 0 is its end. */
bool bundle_untar_read(struct bundle_untar *t, const void **ret_data, size_t *ret_len,
                       struct uvm_error *err);

/* After the end of the archive: reads the source to its end, and makes sure that it ended with two
 * blocks of zeros, and nothing but zeros up to the end of a record. */
bool bundle_untar_finish(struct bundle_untar *t, struct uvm_error *err);
