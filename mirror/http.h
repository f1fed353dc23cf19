/*
 * http.h: getting the bytes of one URL. Only http.c knows libcurl.
 *
 * A transfer hands its bytes to a sink, front to back. Trust: whatever a server answers is hostile;
 * the sink decides what becomes of it, and how much of it is too much.
 */
#pragma once

#include "mirror/base/base.h"

#define MIRROR_SIZE_UNKNOWN UINT64_MAX

/* Where the bytes of a file go. Both functions may refuse, which ends the transfer at once. */
struct mirror_sink {
    /* Called once before the first byte, also when there is none: the bytes that come stand at
     * `offset` of the file, which is the one asked for, or 0 when the source cannot go on there.
     * `total` is the size of the whole file as announced, or MIRROR_SIZE_UNKNOWN; it is a promise,
     * not a fact. */
    bool (*start)(void *opaque, uint64_t offset, uint64_t total, struct uvm_error *err);
    bool (*write)(void *opaque, const void *data, size_t len, struct uvm_error *err);
    void *opaque;
};

/* A sink that fills a buffer, up to the buffer's limit (UVM_SPACE). */
struct mirror_sink mirror_sink_to_buf(struct uvm_buf *buf);

struct mirror_http_request {
    const char *url;                     /* http or https, escaped, without user and password */
    const char *user;                    /* NULL = none; sent to the URL's own host only */
    const char *password;                /* NULL = none */
    uint64_t offset;                     /* first byte wanted */
    uint64_t size;                       /* of the whole file; needed when `offset` is not 0 */
    const struct uvm_observer *observer; /* asked whether to stop */
};

/* Connections that are kept between transfers. */
struct mirror_http;
struct mirror_http *mirror_http_new(void);
void mirror_http_free(struct mirror_http *http);
UVM_DEFINE_AUTO(struct mirror_http *, mirror_http_free)

/* Gets a file without any Content-Encoding. Follows at most 10 redirects, to http and https only
 * and never from https to http. A source that ignores the range, or answers with another one, is
 * read from the start. UVM_SOURCE for everything that the network or the server does (sys_errno
 * ENOENT for a status that says the file is not there), UVM_INTERRUPTED, or what the sink said. */
bool mirror_http_get(struct mirror_http *http, const struct mirror_http_request *request,
                     const struct mirror_sink *sink, struct uvm_error *err);

/* Gets a small text of at most `max` bytes (UVM_SPACE), which may travel compressed. */
bool mirror_http_get_text(struct mirror_http *http, const struct mirror_http_request *request,
                          size_t max, struct uvm_buf *ret_text, struct uvm_error *err);
