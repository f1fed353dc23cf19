/*
 * exchange.h: requests to web servers and their answers, several at once. Only exchange.c knows
 * libcurl. What is tried again, and when, is decided above (http.c).
 */
#pragma once

#include "mirror/mirror.h"
#include "mirror/transfer.h"

struct mirror_question {
    const char *url;       /* http or https, escaped, without user and password */
    const char *user;      /* NULL = none; sent to the URL's own host only */
    const char *password;  /* NULL = none */
    uint64_t offset;       /* first byte wanted */
    uint64_t size;         /* of the whole file; only looked at if `offset` is not 0 */
    const char *validator; /* of the version that `offset` belongs to; NULL = not known */
    bool text; /* may travel compressed; never waits for the gate, libcurl keeps to the rate */
};

/* How an exchange ended. */
struct mirror_outcome {
    struct uvm_error
        failure;          /* UVM_OK: the answer has ended as it should; the receiver may take it */
    bool passing;         /* the failure is of a kind that may be gone later */
    bool range_refused;   /* it fails because the server does not go on at `offset` */
    uint64_t retry_after; /* seconds that the server asks for, 0 = none */
};

/* Asked before bytes are handed to a sink: whether more may come now. If not, the exchange pauses. */
struct mirror_gate {
    bool (*open)(void *opaque);
    void *opaque;
};

/* Connections, which are kept between exchanges. `network` (cacert, stall_seconds, rate, jobs) must
 * outlive it. */
struct mirror_exchanges;
struct mirror_exchanges *mirror_exchanges_new(const struct mirror_network *network,
                                              const struct mirror_gate *gate);
void mirror_exchanges_free(struct mirror_exchanges *x); /* none may be under way */

/* Asks. The sink gets the answer's bytes; `end` is called from mirror_exchanges_step or
 * mirror_exchange_resume, once. The question is copied. Redirects and protocols as mirror_http_begin says. */
struct mirror_exchange;
struct mirror_exchange *
mirror_exchange_begin(struct mirror_exchanges *x, const struct mirror_question *question,
                      const struct mirror_sink *sink,
                      void (*end)(void *opaque, struct mirror_outcome *outcome), void *opaque);

/* Ends it, if it is still under way, without a call to `end`; must follow one, too. */
void mirror_exchange_free(struct mirror_exchange *e);

/* Lets one go on, until the gate is shut again. False when it has not paused. */
bool mirror_exchange_resume(struct mirror_exchange *e);

/* Moves all exchanges on, or waits up to `wait_ms` for something to happen. */
bool mirror_exchanges_step(struct mirror_exchanges *x, unsigned wait_ms, struct uvm_error *err);
