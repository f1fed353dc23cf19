/*
 * Transfers. One is a file, which may take several exchanges with the server:
 *
 *     begin --> [waiting] --due--> exchange --> ended --> waiter
 *                   ^                             |
 *                   '--- later, or at once, from -'
 *                        where the sink is
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "mirror/exchange.h"
#include "mirror/header.h"
#include "mirror/http.h"
#include "mirror/pace.h"
#include "mirror/retry.h"

struct mirror_http {
    struct mirror_network network;
    char *cacert;
    struct mirror_exchanges *exchanges;
    struct mirror_pace pace;
    unsigned patience;
    uint64_t deadline; /* ms, 0 = none */
    struct transfer **transfers;
    size_t count;
    size_t turn; /* of them, whose turn it is when more may come */
};

struct transfer {
    struct mirror_http *http;
    char *title, *url, *user, *password;
    char *validator; /* of the version whose bytes the sink has; NULL = not known */
    uint64_t size;   /* of the whole file, signed or, if `learns_size`, as last announced */
    bool learns_size, text;
    const struct uvm_observer *observer;
    struct mirror_sink sink;
    struct mirror_waiter waiter;
    struct mirror_retry retry;
    uint64_t position;                /* in the file: how far the sink is */
    bool no_range;                    /* the server showed that it cannot go on in the middle */
    uint64_t due;                     /* ms: when the next exchange begins */
    struct mirror_exchange *exchange; /* under way; NULL = waiting */
};

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static bool may_come(void *opaque)
{
    struct mirror_http *http = opaque;
    return mirror_pace_wait(&http->pace, now_ms()) == 0;
}

struct mirror_http *mirror_http_new(const struct mirror_network *network)
{
    struct mirror_http *http = uvm_alloc(sizeof *http);
    uint64_t now = now_ms();
    http->network = *network;
    http->network.cacert = http->cacert = uvm_strdup(network->cacert);
    http->exchanges = mirror_exchanges_new(&http->network, &(struct mirror_gate){may_come, http});
    http->pace = (struct mirror_pace){.rate = network->rate, .at = now};
    http->patience = MIRROR_RETRY_MS;
    http->deadline = network->max_seconds ? now + network->max_seconds * UINT64_C(1000) : 0;
    return http;
}

void mirror_http_free(struct mirror_http *http)
{
    if (!http)
        return;
    mirror_http_drop(http);
    mirror_exchanges_free(http->exchanges);
    free(http->transfers);
    free(http->cacert);
    free(http);
}

void mirror_http_set_patience(struct mirror_http *http, unsigned ms)
{
    http->patience = ms;
}

/* ---- transfers ---- */

void mirror_http_begin(struct mirror_http *http, const struct mirror_http_request *request,
                       const struct mirror_sink *sink, const struct mirror_waiter *waiter)
{
    struct transfer *t = uvm_alloc(sizeof *t);
    *t = (struct transfer){
        .http = http,
        .title = request->title ? uvm_strdup(request->title) : uvm_printable(request->url),
        .url = uvm_strdup(request->url),
        .user = uvm_strdup(request->user),
        .password = uvm_strdup(request->password),
        .validator = uvm_strdup(request->validator),
        .size = request->size,
        .learns_size = request->size == MIRROR_SIZE_UNKNOWN,
        .text = request->text,
        .observer = request->observer,
        .sink = *sink,
        .waiter = *waiter,
        .retry = {.allowed = http->network.retries,
                  .patience = http->patience,
                  .furthest = request->offset},
        .position = request->offset,
    };
    http->transfers = uvm_grow(http->transfers, http->count + 1, sizeof(void *));
    http->transfers[http->count++] = t;
}

static void transfer_free(struct transfer *t)
{
    mirror_exchange_free(t->exchange);
    free(t->title);
    free(t->url);
    free(t->user);
    free(t->password);
    free(t->validator);
    free(t);
}

void mirror_http_drop(struct mirror_http *http)
{
    while (http->count > 0)
        transfer_free(http->transfers[--http->count]);
}

static void finish(struct transfer *t, struct uvm_error *failure)
{
    struct mirror_http *http = t->http;
    struct mirror_waiter waiter = t->waiter;
    if (failure->code != UVM_OK) {
        uvm_auto_free char *url = uvm_printable(t->url);
        uvm_prefix(failure, "%s", url);
    }
    size_t i = 0;
    while (http->transfers[i] != t)
        i++;
    http->transfers[i] = http->transfers[--http->count];
    transfer_free(t);
    waiter.end(waiter.opaque, failure);
}

/* ---- one exchange ---- */

static bool start_bytes(void *opaque, const struct mirror_answer *answer, struct uvm_error *err)
{
    struct transfer *t = opaque;
    if (answer->offset == 0) {
        free(t->validator);
        t->validator = uvm_strdup(answer->validator);
        t->position = 0;
        if (t->learns_size)
            t->size = answer->total;
    }
    return t->sink.start(t->sink.opaque, answer, err);
}

static bool take_bytes(void *opaque, const void *data, size_t len, struct uvm_error *err)
{
    struct transfer *t = opaque;
    if (!t->text)
        mirror_pace_take(&t->http->pace, len);
    if (!t->sink.write(t->sink.opaque, data, len, err))
        return false;
    t->position += len;
    return true;
}

static bool try_later(struct transfer *t, struct mirror_outcome *outcome)
{
    uint64_t delay;
    if (!outcome->passing)
        return false;
    if (!mirror_retry_next(&t->retry, t->position, outcome->retry_after, &delay)) {
        outcome->failure.sys_errno = EHOSTDOWN;
        return false;
    }
    uvm_notice(t->observer, "%s: %s; trying again in %llu s (%u of %u)", t->title,
               outcome->failure.message, (unsigned long long)(delay + 500) / 1000,
               t->retry.failures, t->retry.allowed);
    t->due = now_ms() + delay;
    return true;
}

static bool try_from_start(struct transfer *t, const struct mirror_outcome *outcome)
{
    if (!outcome->range_refused)
        return false;
    t->no_range = true;
    t->due = 0;
    return true;
}

static void end_exchange(void *opaque, struct mirror_outcome *outcome)
{
    struct transfer *t = opaque;
    mirror_exchange_free(UVM_STEAL(t->exchange));
    bool again =
        outcome->failure.code != UVM_OK && (try_from_start(t, outcome) || try_later(t, outcome));
    if (!again)
        finish(t, &outcome->failure);
}

/* Where no checksum will tell what was put together of two versions, the server must. */
static bool starts_over(const struct transfer *t)
{
    return t->text || t->no_range || t->size == MIRROR_SIZE_UNKNOWN ||
           (t->learns_size && !mirror_header_validator_strong(t->validator));
}

static void begin_exchange(struct transfer *t)
{
    struct mirror_question question = {
        .url = t->url,
        .user = t->user,
        .password = t->password,
        .offset = starts_over(t) ? 0 : t->position,
        .size = t->size,
        .validator = t->validator,
        .text = t->text,
    };
    t->exchange =
        mirror_exchange_begin(t->http->exchanges, &question,
                              &(struct mirror_sink){start_bytes, take_bytes, t}, end_exchange, t);
}

/* ---- the loop's body ---- */

/* Begins the exchanges that are due. Shortens *wait_ms to the time until the next one is. */
static void begin_due(struct mirror_http *http, uint64_t now, uint64_t *wait_ms)
{
    for (size_t i = 0; i < http->count; i++) {
        struct transfer *t = http->transfers[i];
        if (!t->exchange && t->due <= now)
            begin_exchange(t);
        if (!t->exchange && t->due - now < *wait_ms)
            *wait_ms = t->due - now;
    }
}

static bool check_deadline(const struct mirror_http *http, uint64_t now, struct uvm_error *err)
{
    return http->deadline == 0 || now < http->deadline ||
           uvm_fail(err, UVM_SOURCE, "over the limit of --max-time (%u s)",
                    http->network.max_seconds);
}

/* Each in its turn, since the first one may take all that may come. */
static void resume_paused(struct mirror_http *http)
{
    size_t first = http->turn;
    for (size_t i = 0; i < http->count && may_come(http); i++) {
        struct transfer *t = http->transfers[(first + i) % http->count];
        if (t->exchange && mirror_exchange_resume(t->exchange))
            http->turn = first + i + 1;
    }
}

bool mirror_http_step(struct mirror_http *http, unsigned wait_ms, struct uvm_error *err)
{
    uint64_t now = now_ms(), wait = wait_ms;
    if (!check_deadline(http, now, err))
        return false;
    begin_due(http, now, &wait);
    resume_paused(http);
    uint64_t early = mirror_pace_wait(&http->pace, now_ms());
    if (early > 0 && early < wait)
        wait = early;
    return mirror_exchanges_step(http->exchanges, (unsigned)wait, err);
}
