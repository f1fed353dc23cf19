/* source.h: getting single files of a source, for the rest of this folder. A source is used by one
 * thread at a time. */
#pragma once

#include "mirror/mirror.h"
#include "mirror/transfer.h"

/* A file that is wanted. */
struct mirror_wanted {
    const char *path; /* checked */
    uint64_t offset;  /* first byte wanted */
    uint64_t size;    /* of the whole file, as signed, or MIRROR_SIZE_UNKNOWN */
    const char
        *validator;    /* of the version that the bytes before `offset` are of; NULL = unknown */
    const char *title; /* printable, for notices; NULL = the URL */
    bool text;         /* may travel compressed, and is always read from the start */
};

/* Hands the bytes of a file to a sink, from `offset` on when the source can, else from the start;
 * mirror_sink says what the sink must be ready for. The observer is asked whether to stop, and hears
 * of retries; reporting progress is the sink's business. Errors as mirror_http_begin and _step, or
 * UVM_INTERRUPTED; a local file that is missing, not readable or not a regular file is UVM_SOURCE as
 * well. */
bool mirror_source_get(struct mirror_source *s, const struct mirror_wanted *wanted,
                       const struct mirror_sink *sink, const struct uvm_observer *observer,
                       struct uvm_error *err);

/* Reads a small text of at most `max` bytes. sys_errno is ENOENT when it is not there. */
bool mirror_source_get_text(struct mirror_source *s, const char *path, size_t max,
                            struct uvm_buf *ret_text, struct uvm_error *err);

/* ---- several at once ---- */

/* How many transfers may be under way. */
unsigned mirror_source_jobs(const struct mirror_source *s);

/* Begins a transfer; what `wanted` points to is copied. Nothing happens before the next step. */
void mirror_source_begin(struct mirror_source *s, const struct mirror_wanted *wanted,
                         const struct mirror_sink *sink, const struct mirror_waiter *waiter,
                         const struct uvm_observer *observer);

#define MIRROR_STEP_MS 200 /* a loop that asks more rarely whether to stop is too slow */

/* Moves all transfers on, or waits up to `wait_ms` for something to happen. On failure (as
 * mirror_http_step) the transfers are still there. */
bool mirror_source_step(struct mirror_source *s, unsigned wait_ms, struct uvm_error *err);

/* Ends all transfers without telling their waiters. */
void mirror_source_drop(struct mirror_source *s);

/* ---- what it was made with ---- */

/* The URL of a path below it. The caller frees it. */
char *mirror_source_file_url(const struct mirror_source *s, const char *path);

const char *mirror_source_path(const struct mirror_source *s);
struct uvm_verifier *mirror_source_verifier(const struct mirror_source *s); /* NULL = none */
const struct uvm_observer *mirror_source_observer(const struct mirror_source *s);

/* For tests, which have no time: milliseconds before the first retry, instead of 1,000. */
void mirror_source_set_patience(struct mirror_source *s, unsigned ms);
