/* source.h: getting single files of a source, for the rest of this folder. */
#pragma once

#include "mirror/http.h"
#include "mirror/mirror.h"

/* A file that is wanted. */
struct mirror_wanted {
    const char *path; /* checked */
    uint64_t offset;  /* first byte wanted */
    uint64_t size;    /* of the whole file, as signed */
};

/* Hands the bytes of a file to a sink, from `offset` on when the source can, else from the start.
 * The observer is asked whether to stop; reporting progress is the sink's business. Errors as
 * mirror_http_get; a local file that is missing, not readable or not a regular file is UVM_SOURCE
 * as well. */
bool mirror_source_get(struct mirror_source *s, const struct mirror_wanted *wanted,
                       const struct mirror_sink *sink, const struct uvm_observer *observer,
                       struct uvm_error *err);

/* Reads a small text of at most `max` bytes. sys_errno is ENOENT when it is not there. */
bool mirror_source_get_text(struct mirror_source *s, const char *path, size_t max,
                            struct uvm_buf *ret_text, struct uvm_error *err);

const char *mirror_source_path(const struct mirror_source *s);
struct uvm_verifier *mirror_source_verifier(const struct mirror_source *s); /* NULL = none */
const struct uvm_observer *mirror_source_observer(const struct mirror_source *s);
