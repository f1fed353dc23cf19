/* import.h: what import.c (plan and commit), claim.c (names), payload.c (bytes) and prove.c (a volume
 * that is there) share. */
#pragma once

#include "pool/internal.h"

struct pool_import {
    struct pool *pool; /* borrowed */
    unsigned flags;
    uint64_t max_virtual;
    struct pool_plan plan;
    struct uvm_strings volumes; /* made by this run, as journaled */
    struct pool_store *stage;   /* NULL until it is needed */
    json_t *files;            /* name of a volume that is made or proven -> identity of its file */
    struct pool_cleaned room; /* what was deleted before, to make room */
    bool journaled;
    bool committed;
};

/* Whether its image's bytes are needed: it is to be made, or compared. */
bool pool_step_wants_bytes(const struct pool_step *step);

/* The step that wants this image's bytes; NULL when none does (any more). */
struct pool_step *pool_import_step(const struct pool_import *i, const struct mirror_image *image);

/* UVM_SPACE when the file system of `dir`, of which `available` bytes are free, has no room for
 * `need` more; `least` says that more will be needed. */
enum pool_need { POOL_NEED_AT_LEAST, POOL_NEED_UP_TO };
bool pool_check_room(const char *dir, uint64_t need, enum pool_need how, uint64_t available,
                     struct uvm_error *err);

/* ---- names (claim.c) ------------------------------------------------------------------------- */

/* Writes the names of `volumes` down. */
bool pool_import_journal(struct pool_import *i, struct uvm_error *err);
/* Makes the name free, and journals it. The volume is to be made right after. */
bool pool_import_claim(struct pool_import *i, const char *name, struct uvm_error *err);
/* Takes the newest name out again: the volume that bears it is another program's. */
void pool_import_disown_last(struct pool_import *i);
/* From here on only this file is the volume that is verified, whatever bears its name. */
void pool_import_remember(struct pool_import *i, const char *name);

/* ---- proof (prove.c) ------------------------------------------------------------------------- */

/* An image that is verified, in the staging pool. */
struct pool_staged {
    const char *name;
    const struct mirror_image *image;
    uint64_t virtual_size;
    uint64_t content; /* bytes that its content takes uncompressed, about */
};

/* Whether the volume of that name in the pool, which another program uses, holds what the staged
 * image holds: it is a sound qcow2 that stands alone, and has the image's own bytes, or a guest sees
 * the same in both. *ret_why is NULL then, else what is against it; the caller frees it. An error
 * means that this could not be found out. */
bool pool_prove(struct pool_import *i, const char *name, const struct pool_staged *staged,
                char **ret_why, struct uvm_error *err);
