/*
 * internal.h: what the files of bundle/ share with one another and with nobody else.
 *
 * Writing:  create.c -> compose.c (manifest) -> members.c (what is small)
 *                                            -> carry.c (how images are carried) -> cache.c
 *                    -> write.c (tar, libarchive) -> stage.c (zstd) -> media.c (a file), parts.c
 * Reading:  open.c -> input.c (a file, or parts by set.c) -> unzstd.c (frames) -> ring.c (thread)
 *                    -> read.c (tar, libarchive) -> image.c (compact payloads)
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
    const struct bundle_plan_item
        *base; /* the payload that it refers to; NULL = none of this bundle */
};
#define BUNDLE_PLAN_NOWHERE SIZE_MAX
struct bundle_plan {
    struct bundle_plan_item *items;
    size_t count;
    size_t
        *item_of; /* for each image of the manifest, BUNDLE_PLAN_NOWHERE when it is not carried */
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
/* Of a product or a version; *ret is the caller's, as the next one is. */
bool bundle_field_name(const json_t *object, const char *key, char **ret, struct uvm_error *err);
/* The fields "sha256" and "sha512", of which each may be null. */
bool bundle_field_digests(const json_t *object, char **ret_sha256, char **ret_sha512,
                          struct uvm_error *err);

/* Fails with: "key" is missing or not `wanted`. */
bool bundle_field_wrong(struct uvm_error *err, const char *key, const char *wanted);

bool bundle_is_id(const char *s); /* of a bundle; usable as a file name */
bool bundle_is_fingerprint(const char *s);
bool bundle_parse_time(const char *s, time_t *ret); /* "2024-10-04T09:30:00Z" */

/* ---- a manifest's sanity (manifest-check.c) -------------------------------------------------- */

#define BUNDLE_ORIGIN_FOLDER "uvmirror/origin/"

/* Times and serials end with the year 9999, so that they can always be printed. */
#define BUNDLE_TIME_MAX ((uint64_t)253402300799)

/* The checks that look at a whole manifest: payloads against images, names against each other. */
bool bundle_manifest_check(struct bundle_manifest *m, struct uvm_error *err);

/* ---- where images are (manifest-payload.c) --------------------------------------------------- */

#define BUNDLE_COMPACT_FOLDER "uvmirror/compact/"

/* The checksum by which an image's content is named. Borrowed. */
const char *bundle_image_digest(const struct mirror_image *image);
/* The member of its compact payload. The caller frees it. */
char *bundle_compact_member(const struct mirror_image *image);

/* Whether two files are the same by all checksums that are known of both; one must be. */
bool bundle_same_file(const char *sha256, const char *sha512, const char *other_sha256,
                      const char *other_sha512);

void bundle_payload_clear(struct bundle_image *image);

/* The "payload" of an image: a new object or null. */
json_t *bundle_payload_json(const struct bundle_image *image);

/* The reverse; `image` is the object that holds it. UVM_CONTENT. */
bool bundle_payload_parse(const json_t *image, unsigned format, struct bundle_image *ret,
                          struct uvm_error *err);

/* Finds the images that others refer to, and makes sure that payloads are what their images say. */
bool bundle_payloads_sound(struct bundle_manifest *m, const struct bundle_plan *plan,
                           struct uvm_error *err);

/* ---- images with checksum files (manifest-checksums.c) --------------------------------------- */

void bundle_checksums_clear(struct bundle_checksums *c);

/* The "origin" of an image: a new object, NULL when it has none. */
json_t *bundle_checksums_json(const struct bundle_checksums *c);

/* The reverse; `image` is the object that holds it. UVM_CONTENT. */
bool bundle_checksums_parse(const json_t *image, struct bundle_checksums *ret,
                            struct uvm_error *err);

/* That all images' checksum files and signatures stand where they should, and serve no other end. */
bool bundle_checksums_sound(const struct bundle_manifest *m, struct uvm_error *err);

/* ---- zstd, writing (stage.c, trailer.c) ------------------------------------------------------ */

#define BUNDLE_TRAILER_SIZE  12
#define BUNDLE_TRAILER_CRC32 "crc32" /* in the manifest */
void bundle_trailer_make(unsigned char trailer[BUNDLE_TRAILER_SIZE], uint32_t crc);

/* What the bytes of a bundle depend on, beside its members and libzstd's version. */
#define BUNDLE_ZSTD_LEVEL   3 /* zstd's own choice */
#define BUNDLE_ZSTD_WORKERS 1

/* Where bytes go. */
struct bundle_sink {
    bool (*write)(void *opaque, const void *data, size_t len, struct uvm_error *err);
    void *opaque;
};

/* Wraps content in zstd frames and hands it to a sink. */
struct bundle_stage;

struct bundle_stage *bundle_stage_new(struct bundle_sink sink);
/* The same for a compact payload: all of the window that readers take, and no thread: without one, it
 * takes a third of the memory, and finds more. */
struct bundle_stage *bundle_stage_new_long(struct bundle_sink sink, int level);
bool bundle_stage_write(struct bundle_stage *stage, const void *data, size_t len,
                        struct uvm_error *err);
bool bundle_stage_end_frame(struct bundle_stage *stage, struct uvm_error *err);
/* After the last frame: writes the trailer. */
bool bundle_stage_end(struct bundle_stage *stage, struct uvm_error *err);
uint64_t bundle_stage_bytes(const struct bundle_stage *stage); /* that the sink has taken */
void bundle_stage_free(struct bundle_stage *stage);
UVM_DEFINE_AUTO(struct bundle_stage *, bundle_stage_free)

/* ---- files on media (media.c) ---------------------------------------------------------------- */

/* A file that is being written; its write is a bundle_sink's. `fd` and `name` are borrowed. What is
 * hashed can be read back. Writing over the limit of the file system is UVM_SPACE. */
enum bundle_hashing { BUNDLE_UNHASHED, BUNDLE_HASHED };
struct bundle_file {
    int fd;
    const char *name;          /* for messages */
    struct uvm_digest *digest; /* SHA-256 */
    uint64_t bytes;
    uint64_t pushed; /* of `bytes`, what the kernel was told to start writing to the medium */
    bool can_push;   /* a regular file */
    const struct uvm_observer
        *observer; /* whether to wait on for the reader of a pipe; may be NULL */
};
void bundle_file_init(struct bundle_file *file, int fd, const char *name,
                      enum bundle_hashing hashing);
bool bundle_file_write(void *opaque, const void *data, size_t len, struct uvm_error *err);
/* Makes it durable; `ret_sha256` is set when it was hashed. */
bool bundle_file_sync(struct bundle_file *file, char ret_sha256[UVM_DIGEST_HEX_MAX],
                      struct uvm_error *err);
void bundle_file_clear(struct bundle_file *file);

/* What a file should be. */
struct bundle_check {
    const char *step, *name; /* for events and messages */
    uint64_t size;
    const char *sha256;
};
/* Reads a file from its begin to its end, with progress. */
bool bundle_check_file(int fd, const struct bundle_check *check,
                       const struct uvm_observer *observer, bool *ret_same, struct uvm_error *err);
/* The same for one that was just synced, from the medium. UVM_CONTENT when it is not that. */
bool bundle_file_read_back(int fd, const struct bundle_check *check,
                           const struct uvm_observer *observer, struct uvm_error *err);

/* Makes the names in the folder of `path` durable; on a medium that is read back, everything. */
bool bundle_sync_folder_of(const char *path, enum bundle_read_back read_back,
                           struct uvm_error *err);

/* ALWAYS or NEVER, as was asked for and is fit for the place. */
enum bundle_read_back bundle_read_back_for(enum bundle_read_back asked, const char *output,
                                           const struct mirror_tree *tree);

/* ---- the sums of a split bundle (sums.c) ----------------------------------------------------- */

#define BUNDLE_SUMS_SUFFIX ".sums"
#define BUNDLE_SUMS_NAME   "uvmirror/parts.sums" /* in the mirror, beside the manifest */

/* ---- what the mirror keeps of bundles (keep.c) ----------------------------------------------- */

/* Of the newest so many, split ones and others counted apart, and of all that were made in the last so
 * many days before the newest. */
#define BUNDLE_KEPT_MIN  8
#define BUNDLE_KEPT_DAYS 30

/* Where a small member of a bundle is kept; the caller frees it. */
char *bundle_kept_path(const struct mirror_tree *tree, const char *id, const char *name);
/* Removes what is kept of others. What cannot be removed is told by a warning. */
void bundle_keep_newest(struct mirror_tree *tree, const struct uvm_observer *observer);
/* Whether a bundle of which nothing is kept is older than one of which something is. */
bool bundle_is_swept(const struct mirror_tree *tree, const char *id);
#define BUNDLE_SUMS_MAX  ((size_t)1 << 20) /* bytes of the text */
#define BUNDLE_PART_HEAD ((size_t)4096)

struct bundle_part {
    uint64_t size;
    char sha256[UVM_DIGEST_HEX_MAX];
    char head[UVM_DIGEST_HEX_MAX]; /* SHA-256 of its first BUNDLE_PART_HEAD bytes, or of all */
};
struct bundle_sums {
    char *name; /* NAME.tar.zst: the parts are called NAME.tar.zst.001 and so on */
    char *id;   /* of the bundle */
    uint64_t serial;
    char *encoder; /* what has compressed it; for the record */
    struct bundle_part *parts;
    size_t count; /* 1 to BUNDLE_PARTS_MAX; all but the last have one size */
};
void bundle_sums_clear(struct bundle_sums *s);
struct bundle_part *bundle_sums_add(struct bundle_sums *s); /* a new one, all zero */

/* "NAME.003". The caller frees it. */
char *bundle_part_name(const char *name, size_t number);
/* Whether a file of that name may be split. */
bool bundle_sums_name_fits(const char *name);
/* "libzstd 1.5.4, level 3, 1 worker": what compresses here. The caller frees it. */
char *bundle_encoder_text(void);

/* The text that is signed, and the file around it when it is. */
bool bundle_sums_text(const struct bundle_sums *s, struct uvm_buf *ret_text, struct uvm_error *err);
bool bundle_sums_wrap(const struct uvm_buf *signed_text, struct uvm_buf *ret_file,
                      struct uvm_error *err);
/* The reverse. What is not exactly as it is written is UVM_CONTENT. */
bool bundle_sums_unwrap(const struct uvm_buf *file, struct uvm_buf *ret_signed,
                        struct uvm_error *err);
bool bundle_sums_parse(const void *text, size_t len, struct bundle_sums *ret_sums,
                       struct uvm_error *err);
/* Reads a sums file; nothing of it is looked at before its signature verifies. */
bool bundle_sums_read(const char *path, struct uvm_verifier *verifier, struct bundle_sums *ret_sums,
                      struct uvm_error *err);

/* ---- writing parts (parts.c) ----------------------------------------------------------------- */

struct bundle_parts_options {
    uint64_t part_size;
    enum bundle_read_back read_back; /* ALWAYS or NEVER */
    const unsigned *only;            /* numbers of the parts to be written; NULL = all */
    size_t only_count;
    bool named; /* by bundle_file_name: nothing that is there is replaced or removed */
    const struct uvm_observer *observer;
};
struct bundle_parts;

/* `path` is the name of the bundle that is split. The options are borrowed. */
bool bundle_parts_new(const char *path, const struct bundle_parts_options *options,
                      struct bundle_parts **ret_parts, struct uvm_error *err);
/* What was not committed is gone. */
void bundle_parts_free(struct bundle_parts *p);
UVM_DEFINE_AUTO(struct bundle_parts *, bundle_parts_free)

struct bundle_sink bundle_parts_sink(struct bundle_parts *p);
/* Behind the last byte: every part is synced and, if asked, was read back. *ret_sums (borrowed) has
 * a name and parts, of which those that were not written have no sums. */
bool bundle_parts_finish(struct bundle_parts *p, const struct bundle_sums **ret_sums,
                         struct uvm_error *err);
/* Gives the parts their names and then the sums, if there are any. A single part gets the plain
 * name, unless it was asked for by number. A bundle of that name is replaced, with all its parts,
 * unless the name was generated: then UVM_FAILED, and it is as it was. */
bool bundle_parts_commit(struct bundle_parts *p, const struct uvm_buf *sums_file,
                         struct uvm_error *err);

/* ---- where a bundle goes (output.c) ---------------------------------------------------------- */

/* A name in a folder. The caller frees it. */
char *bundle_path_in(const char *folder, const char *name);

/* The file that is to be written: in a folder it has the name that bundle_file_name gives it. */
char *bundle_output_path(const char *output, const struct bundle_manifest *m);

/* Whether that name is generated and some file has it already: a bundle, its parts or sums, or one
 * that is being written. */
bool bundle_output_is_taken(const char *output, const struct bundle_manifest *m);

/* ---- names as bytes (locale.c) --------------------------------------------------------------- */

/* Puts the calling thread into the "C" locale until the end of the scope. */
struct bundle_locale {
    locale_t c, before;
};
struct bundle_locale bundle_locale_enter(void);
void bundle_locale_leave(struct bundle_locale *l);
#define bundle_auto_locale                                                                         \
    __attribute__((cleanup(bundle_locale_leave), unused)) struct bundle_locale

/* ---- all but the payloads (compose.c, members.c) --------------------------------------------- */

struct bundle_draft {
    struct bundle_manifest *manifest;
    struct uvm_buf *contents; /* of manifest->members, one each */
    struct uvm_buf text;      /* of the manifest */
    struct uvm_buf signature; /* over `text` */
};
/* Fills an empty draft; what it holds after a failure is to be cleared, too. */
bool bundle_draft_compose(struct bundle_draft *d, const struct bundle_create_options *o,
                          struct uvm_error *err);
void bundle_draft_clear(struct bundle_draft *d);

/* The streams of which something was chosen: no other one is in the bundle. Borrowed from the
 * options. */
struct bundle_chosen {
    const struct mirror_stream **streams;
    struct mirror_selection *selections; /* shallow: not to be cleared */
    size_t count;
};

/* Says how each image of a manifest is carried, whose images are all plain so far, and encodes those that
 * are to be compact (carry.c). */
bool bundle_carry(struct bundle_manifest *m, const struct bundle_create_options *o,
                  struct uvm_error *err);

/* Adds the small members to a draft whose manifest names all streams and images, and to the images
 * the names of their checksum files. */
bool bundle_members_compose(struct bundle_draft *d, const struct bundle_chosen *chosen,
                            const struct bundle_create_options *o, struct uvm_error *err);

/* Whether a stream is what this site added. One of that name with a signer, or from a URL, is another
 * site's: this site does not vouch for it by signing it as its own. */
bool bundle_is_own(const struct mirror_stream *stream);

/* The member that holds a stream's origin. The caller frees it. */
char *bundle_origin_path(const struct mirror_stream *stream);

/* ---- tar, writing (write.c) ------------------------------------------------------------------ */

struct bundle_write_options {
    const struct bundle_manifest *manifest;
    const struct uvm_buf *text;       /* of the manifest */
    const struct uvm_buf *signature;  /* over `text` */
    const struct uvm_buf *contents;   /* of manifest->members, one each */
    const struct mirror_tree *tree;   /* holds the payloads */
    struct mirror_download *download; /* or brings them; NULL: all are there */
    const struct uvm_observer *observer;
    const char *name; /* of the output, for messages */
    struct bundle_sink sink;
};
bool bundle_write(const struct bundle_write_options *options, uint64_t *ret_bytes,
                  struct uvm_error *err);

/* ---- the parts of a split bundle, wherever they are (set.c) ---------------------------------- */

/* The number of a part by its name, 0 when it has no such name. *ret_base (may be NULL) is the path
 * without the number; the caller frees it. */
size_t bundle_part_number(const char *path, char **ret_base);

struct bundle_set_places {
    struct uvm_strings folders; /* at least one */
    struct uvm_strings files;   /* each must be a part */
    char *name;                 /* NAME.tar.zst, where there are no sums */
};

/* Parts that may be anywhere in these places. With sums (which are moved), those that are these; else
 * those that have consecutive names. */
struct bundle_set;
bool bundle_set_new(const struct bundle_set_places *places, struct bundle_sums *sums,
                    const struct bundle_open_options *options, struct bundle_set **ret_set,
                    struct uvm_error *err);
void bundle_set_free(struct bundle_set *set);
UVM_DEFINE_AUTO(struct bundle_set *, bundle_set_free)

const char *bundle_set_title(const struct bundle_set *set); /* printable */

/* Before anything is read: that every file that was named is a part and, when all will be read and
 * nobody can be asked, that all are there. UVM_FAILED names those that are missing, UVM_CONTENT those
 * that are damaged. */
bool bundle_set_check(const struct bundle_set *set, struct uvm_error *err);

/* That the sums are of this bundle. */
bool bundle_set_is_of(const struct bundle_set *set, const struct bundle_manifest *m,
                      struct uvm_error *err);

/* Opens a part, wherever it is; asks for it if need be. `fd` -1 when there is no such number. */
struct bundle_opened {
    int fd;
    char *name; /* printable; owned */
    uint64_t size;
};
bool bundle_set_open(struct bundle_set *set, size_t number, const bool *quit,
                     struct bundle_opened *ret_opened, struct uvm_error *err);

/* Content was refused: reads all parts, and makes *err name those that are damaged or missing. Leaves
 * it when there are none, or no sums. Returns false. */
enum bundle_depth { BUNDLE_A_GLANCE, BUNDLE_EVERY_BYTE };
bool bundle_set_explain(const struct bundle_set *set, struct uvm_error *err);

/* ---- raw bytes (input.c) --------------------------------------------------------------------- */

/* A bundle's bytes as they lie in a file or in parts, or come through a pipe. A read that waits (a
 * pipe whose writer is slow) looks every now and then whether it should still wait. */
struct bundle_input {
    int fd; /* owned; -1 between parts */
    char *name;
    const struct uvm_observer *observer;
    struct bundle_set *set; /* owned; NULL: one file */
    size_t part;            /* the number of the present one */
    char *part_name;
    uint64_t left; /* of the present one */
};

/* Opens a file, or standard input for "-". Whatever is not a regular file is refused, except on
 * standard input. */
bool bundle_input_open(struct bundle_input *input, const char *argument, struct uvm_error *err);
/* The same for parts; takes the set over. */
void bundle_input_open_set(struct bundle_input *input, struct bundle_set **set);
void bundle_input_clear(struct bundle_input *input);

/* Up to `len` bytes; *ret_len 0 is the end. *quit, which another thread may set, is another
 * reason to stop waiting. */
bool bundle_input_read(struct bundle_input *input, void *data, size_t len, const bool *quit,
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
struct bundle_unzstd *bundle_unzstd_new(struct bundle_input *input, const bool *quit);
/* The same of any reader's bytes. */
struct bundle_unzstd *bundle_unzstd_of(struct uvm_reader bytes);
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

#define BUNDLE_RING_BLOCK ((size_t)256 << 10)

/* A thread that decodes the second frame into a ring of blocks, while the caller hashes. It owns
 * the decoder from _new to _free. */
struct bundle_ring;
bool bundle_ring_new(struct bundle_unzstd *u, enum bundle_ending ending, bool *quit,
                     const struct uvm_observer *observer, struct bundle_ring **ret_ring,
                     struct uvm_error *err);

/* What else may fill such a ring: `block` has room for BUNDLE_RING_BLOCK bytes; *ret_len 0 is the end. */
struct bundle_filler {
    bool (*fill)(void *opaque, void *block, size_t *ret_len, struct uvm_error *err);
    void *opaque;
};
bool bundle_ring_start(struct bundle_filler filler, bool *quit, const struct uvm_observer *observer,
                       struct bundle_ring **ret_ring, struct uvm_error *err);

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

/* Opens one file (or "-"), or parts (which are taken over), as a reader whose manifest is verified.
 */
bool bundle_reader_open(const char *path, const struct bundle_open_options *options,
                        struct bundle_reader **ret_reader, struct uvm_error *err);
bool bundle_reader_open_set(struct bundle_set **set, const struct bundle_open_options *options,
                            struct bundle_reader **ret_reader, struct uvm_error *err);

/* What image.c asks of a reader. The present item is NULL between members. */
const struct bundle_plan *bundle_reader_plan(const struct bundle_reader *r);
const struct bundle_plan_item *bundle_reader_item(const struct bundle_reader *r);
struct bundle_images *bundle_reader_images(struct bundle_reader *r);
/* Whether the bundle was refused, and making it so: nothing more comes of it. Returns false. */
bool bundle_reader_refused(const struct bundle_reader *r);
bool bundle_reader_refuse(struct bundle_reader *r, struct uvm_error *err);

/* ---- images of a reader (image.c) ------------------------------------------------------------ */

/* What of a reader has to do with compact payloads. */
struct bundle_images;
struct bundle_images *bundle_images_new(struct bundle_reader *r,
                                        const struct uvm_observer *observer);
void bundle_images_free(struct bundle_images *im);
/* The present payload is over: whoever reads it in the background stops. */
void bundle_images_end(struct bundle_images *im);

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
