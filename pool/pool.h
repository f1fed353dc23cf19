/*
 * pool.h: the destination: uvtool's libvirt pool and metadata folder.
 *
 * uvtool knows an image by two things, each named "x-uvt-b64-" + base64("<product> <version>"): a
 * volume in the libvirt pool "uvtool", and a file of metadata. Their four states:
 *
 *     metadata  volume    state
 *     yes       yes       POOL_READY    new guests can be made from it
 *     no        yes       POOL_RETIRED  gone from view, a guest still uses it
 *                         POOL_UNUSED   gone from view, nobody uses it: the next cleanup deletes it
 *     yes       no        POOL_BROKEN   an error: import and clean erase the metadata
 *
 * Every step below keeps these states true at every instant: a volume is complete, checked and
 * durable before its metadata is linked, and metadata is gone before its volume is deleted.
 *
 * Volumes are reached through the libvirt API only. Nothing here knows bundles: an import is given
 * products (mirror.h) and readers of bytes.
 *
 * The state folder (one per host):
 *
 *     lock          one changing uvmirror at a time
 *     journal.json  the import that is under way: volume names, before they exist
 *     seen.json     highest stream `updated` and serial per content id and product, and the newest
 *                   bundle's `created`
 *     binding.json  which pool, by UUID, a metadata folder belongs to
 *     receipts/     of the last imports (cmd/receipt.h)
 *
 * While an import runs, the image that waits to be verified is there, too, without a name.
 */
#pragma once

#include "mirror/mirror.h"

#define POOL_DEFAULT_CONNECT  "qemu:///system"
#define POOL_DEFAULT_NAME     "uvtool"
#define POOL_DEFAULT_IMAGES   "/var/lib/uvtool/libvirt/images"
#define POOL_DEFAULT_METADATA "/var/lib/uvtool/libvirt/metadata"
#define POOL_METADATA_MAX     ((size_t)1 << 20) /* bytes of a metadata file */

/* ---- names and metadata ---------------------------------------------------------------------- */

/* "x-uvt-b64-" + base64 with '-' for '+' and '_' for '/', padding kept. The caller frees it. */
char *pool_volume_name(const char *product, const char *version);

/* The reverse. False when the name is not ours: it does not decode, holds no blank, an empty
 * product or version, or does not encode again to itself. */
bool pool_volume_parse(const char *name, char **ret_product, char **ret_version);

/* A metadata file's content: the pairs in their order, as Python 3's json.dump(indent=4) prints
 * them (non-ASCII as \uXXXX, no newline at the end). The caller frees it. */
char *pool_metadata_text(const json_t *metadata);

/* ---- opening --------------------------------------------------------------------------------- */

struct pool_options {
    const char *connect; /* libvirt URI */
    const char *name;    /* of the pool */
    const char *metadata_dir;
    const char *state_dir;
    const struct uvm_observer *observer;
};

struct pool;

/* Connects, finds the pool, checks that it is an active pool of folder type. Reads only.
 * UVM_LIBVIRT says what to do ('uvmirror init', 'virsh pool-start'). */
bool pool_open(const struct pool_options *options, struct pool **ret_pool, struct uvm_error *err);
void pool_free(struct pool *p);
UVM_DEFINE_AUTO(struct pool *, pool_free)

/* Takes the host's lock and finishes or undoes what a crashed run left (its journal). Needed before
 * pool_import_begin and pool_clean. UVM_BUSY; UVM_LIBVIRT when the metadata folder belongs to
 * another pool or the pool to another folder, or when the interrupted import was into another one. */
bool pool_lock(struct pool *p, struct uvm_error *err);

/* Makes what uvtool's package makes: metadata folder (2775 root:libvirt when the group exists),
 * image folder (of a pool other than uvtool's: "images" beside the metadata), pool (defined, autostart,
 * started), state folder (2770 root:libvirt: members of the group share it). What is there already
 * is left as it is, and said so by a notice; an empty folder is set up. */
bool pool_init(const struct pool_options *options, struct uvm_error *err);

/* ---- examination ----------------------------------------------------------------------------- */

/* Something that was looked at. */
enum pool_health { POOL_HEALTH_OK, POOL_HEALTH_WRONG };
struct pool_finding {
    enum pool_health health;
    const char *check; /* "libvirt", "pool", "metadata", "state", "space"; static */
    char *text;        /* what was found; printable */
    char *cure;        /* WRONG: the command, or the deed, that mends it */
};
struct pool_findings {
    struct pool_finding *items;
    size_t count;
    uint64_t
        newest; /* seconds: of the newest bundle or stream that this host has taken; 0 = none */
};
void pool_findings_clear(struct pool_findings *f);
#define pool_auto_findings __attribute__((cleanup(pool_findings_clear))) struct pool_findings

/* Adds one; `cure` NULL says that all is well. */
void pool_findings_add(struct pool_findings *f, const char *check, const char *cure,
                       const char *format, ...) __attribute__((format(printf, 4, 5)));

/* Looks at daemon, pool, metadata folder, state folder and space. Changes nothing, needs no lock, and
 * goes on as far as it can. */
void pool_examine(const struct pool_options *options, struct pool_findings *ret_findings);

/* ---- survey: what is there, and who uses it -------------------------------------------------- */

enum pool_state { POOL_READY, POOL_RETIRED, POOL_UNUSED, POOL_BROKEN, POOL_FOREIGN };
const char *pool_state_name(enum pool_state state); /* "ready", ... ; POOL_FOREIGN: "foreign" */

struct pool_entry {
    char *name;    /* of volume and metadata file */
    char *product; /* NULL for POOL_FOREIGN */
    char *version; /* NULL for POOL_FOREIGN */
    enum pool_state state;
    json_t *metadata; /* NULL without (sound) metadata */
    /* What is known of the product: the metadata, or that of another version of it on this host; NULL
     * when there is none. For people to read. */
    json_t *about;
    uint64_t allocation; /* bytes on disk */
    uint64_t capacity;   /* bytes a guest sees */
    /* Why it is kept: "guest web1", "guest web1 (snapshot s1) through web1.s1 -> web1.qcow", "volume
     * web2.qcow in pool fast". */
    struct uvm_strings users;
    struct uvm_strings names; /* the same in short, each once: "web1", "web2.qcow" */
};
/* "noble amd64 20241004", or product and version where nothing better is known. The caller frees
 * it. */
char *pool_entry_title(const struct pool_entry *entry);

struct pool_survey {
    struct pool_entry *entries; /* by product, then version, newest first; foreign ones last */
    size_t count;
    /* Non-empty: use could not be told for sure ("guest web1: /x/y.qcow2: Permission denied"), so
     * nothing may be deleted, and no entry is called POOL_UNUSED but POOL_RETIRED. */
    struct uvm_strings doubts;
    /* What could not be told, but keeps nothing: what only the content of a raw disk, which its guest
     * writes as it likes, speaks of; and everything about the guests that were to be ignored. */
    struct uvm_strings overlooked;
    struct uvm_strings folders; /* of every pool, where volumes were looked for */
    bool listed; /* the pool was refreshed: that a volume is missing can be believed */
};
void pool_survey_clear(struct pool_survey *s);
#define pool_auto_survey __attribute__((cleanup(pool_survey_clear))) struct pool_survey

/* Looks at volumes, metadata and every domain. Refreshes the folder pools first (libvirt knows only
 * what it saw at the last refresh). Changes nothing else. UVM_LIBVIRT when the daemon goes away or
 * does not answer, UVM_INTERRUPTED. */
bool pool_survey_take(struct pool *p, struct pool_survey *ret_survey, struct uvm_error *err);

/* Bytes that are free where the volumes are. */
bool pool_free_bytes(const struct pool *p, uint64_t *ret_bytes, struct uvm_error *err);

/* ---- time ------------------------------------------------------------------------------------ */

/* When the newest bundle was made that this host has taken, by the rollback record of a state folder;
 * 0 when none was, or when that cannot be read. A clock that shows less is behind. */
time_t pool_newest_created(const char *state_dir);
/* The highest serial among the bundles that it has taken; 0 as above. */
uint64_t pool_newest_serial(const char *state_dir);

/* ---- import ---------------------------------------------------------------------------------- */

/* One stream's worth of what a bundle stands for. */
struct pool_source {
    const char *content_id;
    time_t updated_at; /* of the stream, 0 = unknown */
    const struct mirror_selection *selection;
};

enum pool_import_flags {
    POOL_IMPORT_ALLOW_OLDER =
        1 << 0, /* an older stream, serial or `created` is taken, and the record lowered */
    POOL_IMPORT_KEEP_COMPRESSED = 1 << 1, /* volumes get the image's own bytes */
    POOL_IMPORT_DRY_RUN = 1 << 2,         /* plan only */
    POOL_IMPORT_NO_CLEAN = 1 << 3,        /* unused volumes are not deleted, first or last */
};

struct pool_step;

struct pool_import_options {
    const struct pool_source *sources;
    size_t source_count;
    uint64_t serial;                      /* of the bundle */
    time_t created;                       /* of the bundle; 0 = unknown */
    const struct mirror_filters *filters; /* of the import's command line; NULL = all */
    unsigned max_versions;                /* per product; 0 = all */
    uint64_t max_virtual;                 /* 0 = MIRROR_VIRTUAL_MAX */
    unsigned flags;                       /* enum pool_import_flags */
    /* How an image will come, as far as that is known; NULL = nothing is. Sets *ret_content to the bytes
     * that its volume will take, 0 = unknown; and *ret_spool to what must be stored beside it meanwhile. */
    void (*forecast)(void *opaque, const struct mirror_image *image, uint64_t *ret_content,
                     uint64_t *ret_spool);
    /* Whether an image can be had, from the bundle and what this host has; NULL = each can. What cannot,
     * and is not of this host's architecture, is for other hosts: it is left out. */
    bool (*obtainable)(void *opaque, const struct pool_survey *survey,
                       const struct mirror_image *image);
    /* Looks at the plan before anything is touched, and may refuse it; NULL = whatever it is. */
    bool (*approve)(void *opaque, const struct pool_step *steps, size_t count,
                    struct uvm_error *err);
    void *opaque;
};

enum pool_action {
    POOL_SKIP,   /* not importable, filtered, for hosts of another architecture, older than --max
                    wants, of an older stream, or its volume is here without metadata, in use, and
                    not this image */
    POOL_KEEP,   /* already there: nothing to do */
    POOL_ADD,    /* a new volume and its metadata */
    POOL_ADOPT,  /* the volume is there without (sound) metadata and unused: it is replaced */
    POOL_RELINK, /* the volume is there without (sound) metadata, and may be in use: it is compared
                    with the image, and gets its metadata when it is the same */
    POOL_RETIRE, /* of the plan only: metadata goes, the volume when nobody uses it */
};

/* A line of the plan. */
struct pool_step {
    enum pool_action action;
    char *name;                       /* of the volume */
    char *title;                      /* "noble amd64 20241004" */
    const struct mirror_image *image; /* NULL for POOL_RETIRE; borrowed from the sources */
    const char *reason;               /* SKIP, KEEP: why; static; may be NULL */
    bool done;
};

struct pool_import;

/* Makes the plan: what is new, what is there, what is retired (section 6: of each complete product
 * the newest `max_versions` that it lists stay or come, every other version on the host is
 * retired). Volumes that are already unused are deleted first, then the space for all that is new
 * is checked. UVM_TRUST when everything is older than what this host has seen; UVM_CONTENT when a
 * product and version is here with another checksum; UVM_SPACE. A dry run changes nothing. */
bool pool_import_begin(struct pool *p, const struct pool_import_options *options,
                       struct pool_import **ret_import, struct uvm_error *err);

const struct pool_step *pool_import_steps(const struct pool_import *i, size_t *ret_count);

/* Whether the bytes of this image are wanted. */
bool pool_import_wants(const struct pool_import *i, const struct mirror_image *image);

/* Makes the volumes of the `count` images, which share these bytes: a qcow2 file. It is gathered in an
 * unlinked file of the state folder until the reader has reported its verified end, and all of its
 * structure is checked, before anything is sent; then its content goes into a volume for each, as
 * pool_import_content says (with POOL_IMPORT_KEEP_COMPRESSED: its own bytes do, in the same way). */
bool pool_import_image(struct pool_import *i, const struct mirror_image *const *images,
                       size_t count, struct uvm_reader data, struct uvm_error *err);

/* The same, where the content is at hand already (not with POOL_IMPORT_KEEP_COMPRESSED). Journal; a raw
 * volume for each image; everything but the file's front (mirror_layout), as it comes; and when the
 * content has ended, verified, the front. Before that the volume is nothing that anybody could use.
 * No metadata yet. A volume that is to be linked again is compared instead, with its file's checksum
 * where that is known to be the image's, else by what a guest sees; when it is another one, a warning
 * says so, its step becomes POOL_SKIP, and what it would have superseded is kept. */
bool pool_import_content(struct pool_import *i, const struct mirror_image *const *images,
                         size_t count, const struct mirror_content *content, struct uvm_error *err);

/* Fetches the volume of a product's version from the pool, whoever made it, into an unlinked file of
 * the state folder: the base of a difference. Nothing of it is checked. *ret_fd is -1, without error,
 * when there is none; the caller closes it. */
bool pool_fetch_volume(struct pool *p, const char *product, const char *version, int *ret_fd,
                       uint64_t *ret_size, struct uvm_error *err);

/* After the bundle's end was verified: makes the volumes durable, looks each up again, links the
 * metadata of all, records what was seen, retires what is superseded. UVM_CONTENT, and nothing was
 * done, when the bytes of an image that is wanted never came. UVM_PARTIAL when everything was done
 * but for an image whose volume is here without metadata, in use, and another one (its step says
 * POOL_SKIP, a warning named it), or whose volume another program deleted at the last moment. */
bool pool_import_commit(struct pool_import *i, struct uvm_error *err);

/* Without commit: deletes the volumes that this run made, and the journal. */
void pool_import_free(struct pool_import *i);
UVM_DEFINE_AUTO(struct pool_import *, pool_import_free)

/* ---- cleanup --------------------------------------------------------------------------------- */

enum pool_clean_flags {
    POOL_CLEAN_DRY_RUN = 1 << 0,
    POOL_CLEAN_NO_VOLUMES = 1 << 1, /* erase metadata without volume, delete no volume */
    POOL_CLEAN_FOREIGN = 1 << 2,    /* volumes with other names, too */
};

#define POOL_FOREIGN_AGE     (24 * 60 * 60L) /* seconds */
#define POOL_FOREIGN_ANY_AGE (-1L)

struct pool_clean_options {
    unsigned flags; /* enum pool_clean_flags */
    /* A volume with another name goes when it was neither made nor changed in any way for as long:
     * who makes a guest makes its disks first, and its definition after that. Seconds; 0 =
     * POOL_FOREIGN_AGE. */
    time_t foreign_age;
    /* Names of guests. What cannot be told of their files does not keep everything (a guest whose
     * disk is gone for good); what can, keeps what it needs as ever. */
    const struct uvm_strings *ignored_guests; /* NULL = none */
};

struct pool_cleaned {
    struct uvm_strings deleted; /* titles of volumes deleted (dry run: that would be) */
    struct uvm_strings erased;  /* names of metadata files without volume, erased */
    struct uvm_strings kept;    /* "<title>: guest web1", "<title>: is open in another program" */
    struct uvm_strings doubts;  /* as in a survey; nothing was deleted since */
    struct uvm_strings overlooked; /* as in a survey */
    size_t foreign; /* volumes with other names that nobody uses, and that were left alone */
    uint64_t freed; /* bytes */
};
void pool_cleaned_clear(struct pool_cleaned *c);
#define pool_auto_cleaned __attribute__((cleanup(pool_cleaned_clear))) struct pool_cleaned

/* Erases metadata without volume, then deletes the volumes of ours that have no metadata, that no
 * guest needs, directly or through any chain of backing files, and that no program has open. Use is
 * looked at once for the list, once more before the first deletion, and again whenever something
 * changed meanwhile: what does not hold still is left to the next cleanup. UVM_PARTIAL when a volume
 * could not be deleted (a warning names each), UVM_LIBVIRT when the daemon went away; *ret_cleaned is
 * set with any error, and tells what was done before. What is overlooked is a warning, ahead of all. */
bool pool_clean(struct pool *p, const struct pool_clean_options *options,
                struct pool_cleaned *ret_cleaned, struct uvm_error *err);

/* The cleanup of an import, after its commit or what came of it. It tells also what was deleted
 * before, to make room; in a dry run, what would be deleted once the plan was carried out. Errors
 * as in pool_clean, but what was done is told with any of them. */
bool pool_import_clean(struct pool_import *i, struct pool_cleaned *ret_cleaned,
                       struct uvm_error *err);
