/*
 * survey.h: what the three parts of a survey share.
 *
 *     survey.c           entries, metadata, states
 *     survey-volumes.c   what stands in the pools, and on what
 *     survey-guests.c    what guests need of it
 *
 * One pass over the pools' volumes, one over the domains, each file's header read once: the cost
 * grows with their number, not with its square.
 */
#pragma once

#include "pool/chain.h"
#include "pool/internal.h"

#define POOL_NO_NODE SIZE_MAX

/* A volume of any pool, which may be an overlay. */
struct pool_scanned {
    size_t node;
    char *user; /* "volume foo in pool default" */
};

struct pool_look {
    struct pool *pool;
    struct pool_survey survey;
    size_t *nodes; /* per entry of the survey, its file */
    struct pool_scanned *scanned;
    size_t scanned_count;
    struct pool_stores stores;
    struct pool_chains chains;
    struct uvm_strings ignored; /* names of guests */
    struct uvm_strings met;     /* those of them that are there */
};

/* A new entry: POOL_FOREIGN, or POOL_UNUSED as long as nothing speaks for it. */
struct pool_entry *pool_look_add_entry(struct pool_look *l, const char *name);
/* Adds "<who>: <reason>" to the doubts. */
void pool_look_doubt(struct pool_look *l, const char *who, const char *reason);

/* Refreshes the pools and looks at all their volumes. */
bool pool_look_volumes(struct pool_look *l, struct uvm_error *err);
/* Marks what the volumes stand on that belong to no guest. */
void pool_look_overlays(struct pool_look *l);
/* Marks what the guests need. */
bool pool_look_guests(struct pool_look *l, struct uvm_error *err);
