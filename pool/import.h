/* import.h: what import.c (plan and commit) and payload.c (bytes) share. */
#pragma once

#include "pool/internal.h"

struct pool_import {
    struct pool *pool; /* borrowed */
    unsigned flags;
    uint64_t max_virtual;
    struct pool_plan plan;
    struct uvm_strings volumes; /* made by this run, as journaled */
    struct pool_store *stage;   /* NULL until it is needed */
    json_t *files;              /* name of a volume that is made -> identity of its file */
    struct pool_cleaned room;   /* what was deleted before, to make room */
    bool journaled;
    bool committed;
};

/* The step that wants this image's bytes; NULL when none does (any more). */
struct pool_step *pool_import_step(const struct pool_import *i, const struct mirror_image *image);
