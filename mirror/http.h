/*
 * http.h: getting files of web servers, several at once, and not giving up easily.
 *
 * Transfers are begun, and moved on by mirror_http_step, which a loop of the caller calls until
 * their waiters have been told. All of it belongs to one thread at a time.
 */
#pragma once

#include "mirror/mirror.h"
#include "mirror/transfer.h"

struct mirror_http_request {
    const char *title;    /* printable, for notices; NULL = the URL */
    const char *url;      /* http or https, escaped, without user and password */
    const char *user;     /* NULL = none; sent to the URL's own host only */
    const char *password; /* NULL = none */
    uint64_t offset;      /* first byte wanted */
    uint64_t size; /* of the whole file, or MIRROR_SIZE_UNKNOWN; known if `offset` is not 0 */
    const char *validator; /* of the version that `offset` belongs to; NULL = not known */
    bool text;             /* may travel compressed; always read from the start */
    const struct uvm_observer *observer; /* hears of retries */
};

/* Connections, which are kept between transfers, and the transfers under way. */
struct mirror_http;

/* The clock of network.max_seconds starts here. */
struct mirror_http *mirror_http_new(const struct mirror_network *network);
void mirror_http_free(struct mirror_http *http);
UVM_DEFINE_AUTO(struct mirror_http *, mirror_http_free)

/* Milliseconds before the first retry; each further one waits twice as long. 1,000 unless a test
 * has no time. */
void mirror_http_set_patience(struct mirror_http *http, unsigned ms);

/* Begins to get a file, without any Content-Encoding. The request is copied. Follows at most 10
 * redirects, to http and https only and never from https to http. A server that ignores the range,
 * or answers with another one, is read from the start. What breaks off goes on, and what is worth it
 * is tried again, as mirror_source_new says. Of a file whose size is not known (which is not signed
 * then) two transfers make one only when a strong validator says that it is the same version.
 *
 * The failure that the waiter gets names the URL. UVM_SOURCE for everything that the network or the
 * server does (sys_errno ENOENT for a status that says the file is not there, EHOSTDOWN when all
 * that was worth a retry was tried), or what the sink said. */
void mirror_http_begin(struct mirror_http *http, const struct mirror_http_request *request,
                       const struct mirror_sink *sink, const struct mirror_waiter *waiter);

/* Moves all transfers on, or waits up to `wait_ms` for something to happen. UVM_SOURCE when
 * network.max_seconds are over; the transfers are still there then. */
bool mirror_http_step(struct mirror_http *http, unsigned wait_ms, struct uvm_error *err);

/* Ends all transfers without telling their waiters. */
void mirror_http_drop(struct mirror_http *http);
