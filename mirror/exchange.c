/*
 * The network: libcurl's multi interface. An exchange is an easy handle:
 *
 *     begin --options--> curl_multi_perform --callbacks--> conclude --> end
 *
 * Everything that belongs to it is in `struct mirror_exchange`; callbacks look at nothing else.
 * Connections belong to the multi handle and outlive it.
 */
#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <strings.h>

#include "mirror/exchange.h"
#include "mirror/header.h"

#define HTTP_USER_AGENT      "uvmirror/" UVM_VERSION
#define HTTP_REDIRECTS       10L
#define HTTP_CONNECT_SECONDS 30L
#define HTTP_HEADERS_MAX     ((size_t)256 << 10) /* libcurl keeps them all */
#define HTTP_BUFFER          (512L << 10)
#define HTTP_BUFFER_MIN      (4L << 10)

#define HTTP_OK                  200
#define HTTP_PARTIAL             206
#define HTTP_NOT_FOUND           404
#define HTTP_GONE                410
#define HTTP_RANGE_NOT_SATISFIED 416

struct mirror_exchanges {
    CURLM *multi;
    const struct mirror_network *network;
    struct mirror_gate gate;
};

struct mirror_exchange {
    struct mirror_exchanges *all;
    uint64_t offset, size; /* as asked for */
    char *validator;
    bool text;
    struct mirror_sink sink;
    void (*end)(void *opaque, struct mirror_outcome *outcome);
    void *opaque;
    CURL *easy;
    struct curl_slist *headers;
    size_t headers_len;       /* received so far, with those of redirects */
    bool answered;            /* the last request got a status line */
    bool paused;              /* libcurl keeps bytes until the gate opens */
    bool started;             /* the sink's start was called */
    bool range_refused;       /* the answer does not continue at `offset` */
    bool over_tls;            /* the last request went over https */
    struct uvm_error failure; /* what a callback that stopped it has to say */
    char detail[CURL_ERROR_SIZE];
};

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;

static void init_curl(void)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        abort();
}

struct mirror_exchanges *mirror_exchanges_new(const struct mirror_network *network,
                                              const struct mirror_gate *gate)
{
    pthread_once(&curl_once, init_curl);
    struct mirror_exchanges *x = uvm_alloc(sizeof *x);
    x->network = network;
    x->gate = *gate;
    x->multi = curl_multi_init();
    if (!x->multi)
        abort();
    return x;
}

void mirror_exchanges_free(struct mirror_exchanges *x)
{
    if (!x)
        return;
    curl_multi_cleanup(x->multi);
    free(x);
}

/* ---- what the answer says ---- */

static long status_of(CURL *easy)
{
    long status = 0;
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    return status;
}

/* A header of the last answer (not of a redirect before it), or NULL. Lent until the next call. */
static const char *header_of(CURL *easy, const char *name)
{
    struct curl_header *header = NULL;
    if (curl_easy_header(easy, name, 0, CURLH_HEADER, -1, &header) != CURLHE_OK)
        return NULL;
    return header->value;
}

static bool check_encoding(struct mirror_exchange *e)
{
    const char *encoding = header_of(e->easy, "Content-Encoding");
    if (!encoding || e->text || !*encoding || strcasecmp(encoding, "identity") == 0)
        return true;
    uvm_auto_free char *name = uvm_printable(encoding);
    return uvm_fail(&e->failure, UVM_SOURCE,
                    "the server sends it with Content-Encoding: %s, which was not asked for", name);
}

static bool start_whole(struct mirror_exchange *e)
{
    uvm_auto_free char *etag = uvm_strdup(header_of(e->easy, "ETag"));
    uvm_auto_free char *modified = uvm_strdup(header_of(e->easy, "Last-Modified"));
    bool chunked = header_of(e->easy, "Transfer-Encoding") != NULL;
    struct mirror_answer answer = {
        .total = mirror_header_length(chunked ? NULL : header_of(e->easy, "Content-Length")),
        .validator = mirror_header_validator(etag, modified),
    };
    return e->sink.start(e->sink.opaque, &answer, &e->failure);
}

/* A server that does not know If-Range goes on in whatever it has now; its tag tells. */
static bool is_other_version(struct mirror_exchange *e)
{
    const char *etag = header_of(e->easy, "ETag");
    return etag && mirror_header_validator_strong(e->validator) && strcmp(etag, e->validator) != 0;
}

static bool start_range(struct mirror_exchange *e)
{
    struct mirror_answer answer = {.offset = e->offset, .total = e->size};
    const char *range = header_of(e->easy, "Content-Range");
    bool fits = mirror_header_range_fits(range, e->offset, e->size);
    e->range_refused = !fits || is_other_version(e);
    return !e->range_refused && e->sink.start(e->sink.opaque, &answer, &e->failure);
}

static bool start(struct mirror_exchange *e)
{
    long status = status_of(e->easy);
    e->started = true;
    if (!check_encoding(e))
        return false;
    if (status == HTTP_PARTIAL && e->offset > 0)
        return start_range(e);
    if (status != HTTP_OK)
        return uvm_fail(&e->failure, UVM_SOURCE, "HTTP status %ld", status);
    return start_whole(e);
}

/* ---- callbacks ---- */

static size_t on_body(char *data, size_t one, size_t len, void *opaque)
{
    struct mirror_exchange *e = opaque;
    const struct mirror_gate *gate = &e->all->gate;
    (void)one; /* always 1 */
    e->paused = !e->text && !gate->open(gate->opaque);
    if (e->paused)
        return CURL_WRITEFUNC_PAUSE;
    if (!e->started && !start(e))
        return CURL_WRITEFUNC_ERROR;
    return e->sink.write(e->sink.opaque, data, len, &e->failure) ? len : CURL_WRITEFUNC_ERROR;
}

static size_t on_header(char *data, size_t one, size_t len, void *opaque)
{
    struct mirror_exchange *e = opaque;
    (void)data, (void)one;
    e->answered = true;
    e->headers_len += len;
    if (e->headers_len <= HTTP_HEADERS_MAX)
        return len;
    uvm_fail(&e->failure, UVM_SOURCE, "the server sends more than %zu KiB of headers",
             HTTP_HEADERS_MAX >> 10);
    return CURL_WRITEFUNC_ERROR;
}

/* Between the connection and the request, for every redirect too. libcurl's list of protocols
 * cannot say "http, but not after https". */
static int before_request(void *opaque, char *to, char *from, int to_port, int from_port)
{
    struct mirror_exchange *e = opaque;
    (void)to, (void)from, (void)to_port, (void)from_port;
    const char *url = NULL;
    curl_easy_getinfo(e->easy, CURLINFO_EFFECTIVE_URL, &url);
    bool tls = url && strncasecmp(url, "https:", 6) == 0;
    if (e->over_tls && !tls) {
        uvm_fail(&e->failure, UVM_SOURCE, "redirected from https to http, which is refused");
        return CURL_PREREQFUNC_ABORT;
    }
    e->over_tls = tls;
    e->answered = false;
    return CURL_PREREQFUNC_OK;
}

/* ---- options ---- */

static void prepare_trust(CURL *easy, const struct mirror_network *network)
{
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(easy, CURLOPT_PROXY_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    /* Debian's libcurl has a fixed bundle of authorities; a site's own is named as for curl(1). */
    const char *authorities = network->cacert ? network->cacert : secure_getenv("SSL_CERT_FILE");
    if (network->cacert) { /* instead of the system's: not its folder of them either */
        curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
        curl_easy_setopt(easy, CURLOPT_PROXY_CAPATH, NULL);
    }
    if (!authorities || !*authorities)
        return;
    curl_easy_setopt(easy, CURLOPT_CAINFO, authorities);
    curl_easy_setopt(easy, CURLOPT_PROXY_CAINFO, authorities);
}

static void prepare_protocol(CURL *easy, const char *url)
{
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(easy, CURLOPT_MAXREDIRS, HTTP_REDIRECTS);
    curl_easy_setopt(easy, CURLOPT_FAILONERROR, 1L);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
    /* Rather a stream of a connection that is being made than another one. Without TLS there is no
     * HTTP/2 to wait for. */
    curl_easy_setopt(easy, CURLOPT_PIPEWAIT, strncasecmp(url, "https:", 6) == 0 ? 1L : 0L);
}

/* With a limit on the rate (of which one download may have `share`), a buffer must hold little of it:
 * while an exchange pauses libcurl keeps it, and takes all of it up again for each bite. Slowness that
 * was asked for is no stall. */
static void prepare_limits(CURL *easy, const struct mirror_network *network)
{
    uint64_t share = network->rate / (network->jobs ? network->jobs : 1);
    long buffer = HTTP_BUFFER, stall_rate = MIRROR_STALL_RATE;
    if (network->rate > 0 && share / 32 < (uint64_t)HTTP_BUFFER)
        buffer = share / 32 < (uint64_t)HTTP_BUFFER_MIN ? HTTP_BUFFER_MIN : (long)(share / 32);
    if (network->rate > 0 && share / 2 < (uint64_t)MIRROR_STALL_RATE)
        stall_rate = share / 2 > 0 ? (long)(share / 2) : 1;
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, buffer);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, HTTP_CONNECT_SECONDS);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, stall_rate);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)network->stall_seconds);
}

/* A range, not libcurl's "resume": that fails when the server sends the whole file. */
static void prepare_range(struct mirror_exchange *e, const char *validator)
{
    uvm_auto_free char *range = uvm_format("%llu-", (unsigned long long)e->offset);
    curl_easy_setopt(e->easy, CURLOPT_RANGE, range); /* copied */
    if (!validator)
        return;
    uvm_auto_free char *condition = uvm_format("If-Range: %s", validator);
    e->headers = curl_slist_append(NULL, condition); /* copied */
    if (!e->headers)
        abort();
    curl_easy_setopt(e->easy, CURLOPT_HTTPHEADER, e->headers);
}

/* It may grow by a thousand while it is unpacked: too much to keep while it pauses. */
static void prepare_text(CURL *easy, const struct mirror_network *network)
{
    curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, ""); /* all that libcurl undoes */
    if (network->rate > 0 && network->rate < (uint64_t)INT64_MAX)
        curl_easy_setopt(easy, CURLOPT_MAX_RECV_SPEED_LARGE, (curl_off_t)network->rate);
}

static void prepare(struct mirror_exchange *e, const struct mirror_question *q)
{
    CURL *easy = e->easy;
    prepare_trust(easy, e->all->network);
    prepare_protocol(easy, q->url);
    prepare_limits(easy, e->all->network);
    if (q->offset > 0)
        prepare_range(e, q->validator);
    if (q->text)
        prepare_text(easy, e->all->network);
    curl_easy_setopt(easy, CURLOPT_URL, q->url);
    curl_easy_setopt(easy, CURLOPT_USERNAME, q->user);
    curl_easy_setopt(easy, CURLOPT_PASSWORD, q->password);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, HTTP_USER_AGENT);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
#if LIBCURL_VERSION_NUM >= 0x075700
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT,
                     1L); /* a name server that is silent holds up nobody */
#endif
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, e->detail);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, e);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, e);
    curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, before_request);
    curl_easy_setopt(easy, CURLOPT_PREREQDATA, e);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, e);
}

/* ---- what became of it ---- */

static bool fail_status(long status, struct uvm_error *err)
{
    uvm_fail(err, UVM_SOURCE, "HTTP status %ld", status);
    if (status == HTTP_NOT_FOUND || status == HTTP_GONE)
        err->sys_errno = ENOENT;
    return false;
}

/* What libcurl says. It quotes the whole URL of a proxy that it cannot read, password and all. */
static char *detail_of(const struct mirror_exchange *e, CURLcode result)
{
    uvm_auto_free char *text = uvm_printable(e->detail[0] ? e->detail : curl_easy_strerror(result));
    char *quoted = strchr(text, '\''), *end = strrchr(text, '\'');
    if (!quoted || !strcasestr(text, "proxy"))
        return UVM_STEAL(text);
    return uvm_format("%.*s'...%s", (int)(quoted - text), text, end > quoted ? end : "");
}

static bool fail_exchange(const struct mirror_exchange *e, CURLcode result, struct uvm_error *err)
{
    uvm_auto_free char *detail = detail_of(e, result);
    switch (result) {
    case CURLE_TOO_MANY_REDIRECTS:
        return uvm_fail(err, UVM_SOURCE, "more than %ld redirects", HTTP_REDIRECTS);
    case CURLE_COULDNT_RESOLVE_PROXY:
        return uvm_fail(err, UVM_SOURCE,
                        "%s (the proxy is named by http_proxy, https_proxy or "
                        "all_proxy)",
                        detail);
    case CURLE_OUT_OF_MEMORY:
#if LIBCURL_VERSION_NUM >= 0x080600
    case CURLE_TOO_LARGE:
#endif
        return uvm_fail(err, UVM_SOURCE, "the server sends a header without end");
    case CURLE_UNSUPPORTED_PROTOCOL:
        if (!e->answered)
            return uvm_fail(err, UVM_SOURCE, "what answers there does not speak HTTP (%s)", detail);
        return uvm_fail(err, UVM_SOURCE, "redirected to something other than http or https (%s)",
                        detail);
    case CURLE_PEER_FAILED_VERIFICATION:
        return uvm_fail(err, UVM_SOURCE, "%s (--cacert names authorities of a site's own)", detail);
    default:
        return uvm_fail(err, UVM_SOURCE, "%s", detail);
    }
}

static bool is_passing_status(long status)
{
    switch (status) {
    case 408: /* Request Timeout */
    case 425: /* Too Early */
    case 429: /* Too Many Requests */
    case 500: /* Internal Server Error */
    case 502: /* Bad Gateway */
    case 503: /* Service Unavailable */
    case 504: /* Gateway Timeout */
        return true;
    default:
        return false;
    }
}

/* A connection that cannot be made, breaks, or stalls. Wrong certificates and refused redirects
 * will be the same next time. */
static bool is_passing(const struct mirror_exchange *e, CURLcode result)
{
    switch (result) {
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_PARTIAL_FILE:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
        return true;
    case CURLE_HTTP_RETURNED_ERROR:
        return is_passing_status(status_of(e->easy));
    default:
        return false;
    }
}

/* Sets e->failure, unless all went well or a callback that stopped it has done so. */
static bool judge(struct mirror_exchange *e, CURLcode result)
{
    if (e->failure.code != UVM_OK)
        return false;
    if (e->range_refused)
        return uvm_fail(&e->failure, UVM_SOURCE, "another range than asked for");
    if (result == CURLE_HTTP_RETURNED_ERROR) {
        long status = status_of(e->easy);
        e->range_refused = e->offset > 0 && status == HTTP_RANGE_NOT_SATISFIED;
        return fail_status(status, &e->failure);
    }
    if (result != CURLE_OK)
        return fail_exchange(e, result, &e->failure);
    return e->started || start(e); /* no byte came */
}

static void conclude(struct mirror_exchange *e, CURLcode result)
{
    curl_off_t retry_after = 0;
    struct mirror_outcome outcome = {.passing = e->failure.code == UVM_OK && is_passing(e, result)};
    judge(e, result);
    curl_easy_getinfo(e->easy, CURLINFO_RETRY_AFTER, &retry_after);
    outcome.retry_after = retry_after > 0 ? (uint64_t)retry_after : 0;
    outcome.range_refused = e->range_refused;
    outcome.failure = e->failure;
    e->failure = UVM_ERROR_INIT;
    e->end(e->opaque, &outcome);
    uvm_error_clear(&outcome.failure);
}

/* ---- from outside ---- */

struct mirror_exchange *
mirror_exchange_begin(struct mirror_exchanges *x, const struct mirror_question *question,
                      const struct mirror_sink *sink,
                      void (*end)(void *opaque, struct mirror_outcome *outcome), void *opaque)
{
    struct mirror_exchange *e = uvm_alloc(sizeof *e);
    *e = (struct mirror_exchange){
        .all = x,
        .offset = question->offset,
        .size = question->size,
        .validator = uvm_strdup(question->validator),
        .text = question->text,
        .sink = *sink,
        .end = end,
        .opaque = opaque,
    };
    e->easy = curl_easy_init();
    if (!e->easy)
        abort();
    prepare(e, question);
    if (curl_multi_add_handle(x->multi, e->easy) != CURLM_OK)
        abort();
    return e;
}

void mirror_exchange_free(struct mirror_exchange *e)
{
    if (!e)
        return;
    curl_multi_remove_handle(e->all->multi, e->easy);
    curl_easy_cleanup(e->easy);
    curl_slist_free_all(e->headers);
    free(e->validator);
    uvm_error_clear(&e->failure);
    free(e);
}

bool mirror_exchange_resume(struct mirror_exchange *e)
{
    if (!e->paused)
        return false;
    e->paused = false;
    CURLcode result = curl_easy_pause(e->easy, CURLPAUSE_CONT); /* hands on what was kept */
    if (result != CURLE_OK)
        conclude(e, result);
    return true;
}

/* Tells whether any has come to its end. */
static bool conclude_some(struct mirror_exchanges *x)
{
    bool some = false;
    int left;
    for (CURLMsg *message; (message = curl_multi_info_read(x->multi, &left)); some = true) {
        CURLcode result = message->data.result;
        char *exchange = NULL;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &exchange);
        conclude((struct mirror_exchange *)(void *)exchange, result);
    }
    return some;
}

bool mirror_exchanges_step(struct mirror_exchanges *x, unsigned wait_ms, struct uvm_error *err)
{
    int running;
    CURLMcode code = curl_multi_perform(x->multi, &running);
    if (code == CURLM_OK && !conclude_some(x) && wait_ms > 0)
        code = curl_multi_poll(x->multi, NULL, 0, (int)wait_ms, NULL);
    return code == CURLM_OK || uvm_fail(err, UVM_FAILED, "%s", curl_multi_strerror(code));
}
