/* import.h: what the files of an import share: import.c (plan and commit), space.c (what fits), claim.c
 * (names), payload.c (an image's bytes), put.c (volumes), prove.c (a volume that is there), sight.c (what
 * a guest sees) and spool.c (files that wait). */
#pragma once

#include "pool/internal.h"

struct pool_import {
    struct pool *pool; /* borrowed */
    unsigned flags;
    uint64_t max_virtual;
    struct pool_plan plan;
    struct uvm_strings volumes; /* made by this run, as journaled */
    json_t *files;            /* name of a volume that is made or proven -> identity of its file */
    struct pool_cleaned room; /* what was deleted before, to make room */
    bool journaled;
    bool committed;
};

/* Whether it is an image that gets a volume. */
bool pool_step_is_new(const struct pool_step *step);
/* Whether its image's bytes are needed: it is to be made, or compared. */
bool pool_step_wants_bytes(const struct pool_step *step);

/* The step that wants this image's bytes; NULL when none does (any more). */
struct pool_step *pool_import_step(const struct pool_import *i, const struct mirror_image *image);

/* ---- space (space.c) ------------------------------------------------------------------------- */

/* Whether all that the plan wants will fit, as far as that is known now. UVM_SPACE. */
bool pool_space_check_plan(struct pool_import *i, const struct pool_import_options *options,
                           struct uvm_error *err);
/* Whether so much more fits into the pool, and into the state folder. UVM_SPACE. */
bool pool_space_in_pool(const struct pool *p, uint64_t need, struct uvm_error *err);
bool pool_space_in_state(const struct pool *p, uint64_t need, struct uvm_error *err);

/* ---- names (claim.c) ------------------------------------------------------------------------- */

/* Makes the name free, and journals it. The volume is to be made right after. */
bool pool_import_claim(struct pool_import *i, const char *name, struct uvm_error *err);
/* Takes the newest name out again: the volume that bears it is another program's. */
void pool_import_disown_last(struct pool_import *i);
/* From here on only this file is the volume that is verified, whatever bears its name. */
void pool_import_remember(struct pool_import *i, const char *name);
/* Whether it is still there. UVM_LIBVIRT: another program deleted or replaced it. */
bool pool_import_has(struct pool_import *i, const char *name, struct uvm_error *err);

/* ---- files that wait (spool.c) --------------------------------------------------------------- */

/* An unlinked file of the state folder for `need` bytes, or about as many. UVM_SPACE when they do not
 * fit. */
bool pool_spool_new(const struct pool *p, uint64_t need, int *ret_fd, struct uvm_error *err);

/* Fills one with what a reader yields up to its verified end: `size` bytes. */
bool pool_spool_image(const struct pool *p, struct uvm_reader data, uint64_t size, int *ret_fd,
                      struct uvm_error *err);

/* Fills one with a volume's file as it is, holes left out, all of which `digest` (NULL = none) gets to
 * see. Emits progress (`step`, `subject`). *ret_fd is -1 when there is no such volume. */
struct pool_spool_volume {
    const char *name; /* of the volume */
    const char *step, *subject;
    struct uvm_digest *digest;
};
bool pool_spool_volume(const struct pool *p, const struct pool_spool_volume *volume, int *ret_fd,
                       uint64_t *ret_size, struct uvm_error *err);

/* ---- volumes (put.c) ------------------------------------------------------------------------- */

/* A file that becomes a volume, or several. */
struct pool_file {
    uint64_t size;
    const void *front; /* its first bytes, MIRROR_QCOW2_HEAD at least, or all that it has */
    size_t front_len;
    struct uvm_reader body; /* what is behind the front, verified at its end */
};

/* Makes a volume for each of these steps, of which there is one at least. */
bool pool_put(struct pool_import *i, struct pool_step *const *steps, size_t count,
              const struct pool_file *file, struct uvm_error *err);

/* ---- what a guest sees (sight.c) ------------------------------------------------------------- */

/* Looks at a content while it passes to somebody else, and makes a digest of all blocks that hold more
 * than zeros, each with its place: it does not matter how a file stores them. */
struct pool_sight;
struct pool_sight *pool_sight_new(const struct mirror_content *content); /* borrowed */
void pool_sight_free(struct pool_sight *s);
UVM_DEFINE_AUTO(struct pool_sight *, pool_sight_free)

/* To be read to its end instead of the one that is looked at. */
const struct mirror_content *pool_sight_content(const struct pool_sight *s);
void pool_sight_finish(struct pool_sight *s, char ret_hex[UVM_DIGEST_HEX_MAX]);

/* The same of a content, or a disk, all of which is read here. Emits progress (step "compare",
 * `subject`). */
bool pool_sight_read(const struct mirror_content *content, const char *subject,
                     const struct uvm_observer *observer, char ret_hex[UVM_DIGEST_HEX_MAX],
                     struct uvm_error *err);
bool pool_sight_disk(struct mirror_disk *disk, const char *subject,
                     const struct uvm_observer *observer, char ret_hex[UVM_DIGEST_HEX_MAX],
                     struct uvm_error *err);

/* ---- proof (prove.c) ------------------------------------------------------------------------- */

/* What is known of an image that was verified. */
struct pool_known {
    uint64_t virtual_size;
    char sight[UVM_DIGEST_HEX_MAX];
};

/* Whether the volume of that name in the pool, which another program uses, is this image: it has the
 * image's own bytes; or it is a sound qcow2 that stands alone, and a guest sees the same in it.
 * *ret_why is NULL then, else what is against it; the caller frees it. An error means that this could
 * not be found out. */
bool pool_prove(struct pool_import *i, const struct pool_step *step, const struct pool_known *known,
                char **ret_why, struct uvm_error *err);
