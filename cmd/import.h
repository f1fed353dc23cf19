/* import.h: what import.c (the run), import-image.c (payloads) and import-result.c (what came of it)
 * share. */
#pragma once

#include "cmd/receipt.h"

struct import_options {
    struct cmd_common common;
    struct cmd_trust trust;
    struct cmd_host host;
    bool no_authentication, no_clean, keep_compressed, dry_run;
    unsigned max;
    uint64_t max_virtual;
    const char *report;
};

struct import {
    const struct import_options *options;
    const char *state_dir;
    struct cmd_bundle_input input;
    struct mirror_filters *filters;
    struct pool_source *sources;
    struct pool *pool;
    struct pool_import *plan;
    bool *needed;      /* of each image of the manifest: its payload must be read */
    uint64_t *fetched; /* and the bytes of this host's volume to which it refers */
    int base_fd;       /* the volume that the present difference refers to; -1 = none */
    struct mirror_disk *base;
    bool carried_out; /* all of it, or but for a part: its steps tell what was done */
};

/* Gives up what an import does not need for the rest of its run (see uvm_confine), before the connection
 * to the daemon is made. Makes the state folder, but for a dry run: what
 * keeps it from that is the only error. Where libvirt's client has to start
 * programs for the connection (ssh, the daemon of a session) nothing is given up: they would be confined,
 * too. */
bool cmd_import_confine(const struct import_options *o, const struct pool_options *pool,
                        struct uvm_error *err);

/* Of pool_import_options: whether what an image needs of bundle and host is there; that what all of them
 * need of this host is here; and what they take. */
bool cmd_import_obtainable(void *opaque, const struct pool_survey *survey,
                           const struct mirror_image *image);
bool cmd_import_approve(void *opaque, const struct pool_step *steps, size_t count,
                        struct uvm_error *err);
void cmd_import_forecast(void *opaque, const struct mirror_image *image, uint64_t *ret_content,
                         uint64_t *ret_spool);

/* Brings the images of the present payload into the pool, those that the plan wants. */
bool cmd_import_payload(struct import *i, const struct bundle_entry *entry, struct uvm_error *err);
/* What the last one referred to. To be called after the reader is gone, or went on. */
void cmd_import_drop_base(struct import *i);

/* A line for each step, and one for all. */
void cmd_import_print_steps(const struct import *i);
void cmd_import_print_summary(const struct import *i, const struct pool_cleaned *cleaned);
void cmd_import_print_cleaned(const struct import *i, const struct pool_cleaned *cleaned);

/* The parts of a receipt: what was asked, and, as far as the run came, what came of it. */
void cmd_import_describe_request(const struct import_options *o, const struct pool_options *pool,
                                 const struct uvm_strings *filters, json_t *receipt);
void cmd_import_describe(const struct import *i, const struct pool_cleaned *cleaned,
                         json_t *receipt);
