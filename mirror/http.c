/*
 * The network. One easy handle, one transfer at a time:
 *
 *     prepare() --options--> curl_easy_perform() --callbacks--> conclude()
 *
 * Everything that belongs to a transfer is in `struct transfer`; the callbacks and conclude() look
 * at nothing else.
 */
#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <strings.h>

#include "mirror/http.h"

#define HTTP_USER_AGENT      "uvmirror/" UVM_VERSION
#define HTTP_REDIRECTS       10L
#define HTTP_CONNECT_SECONDS 30L
#define HTTP_STALL_SECONDS   60L
#define HTTP_STALL_RATE      1000L /* bytes per second: below it for HTTP_STALL_SECONDS is a stall */
#define HTTP_BUFFER          (512L << 10)

#define HTTP_OK                  200
#define HTTP_PARTIAL             206
#define HTTP_NOT_FOUND           404
#define HTTP_GONE                410
#define HTTP_RANGE_NOT_SATISFIED 416

enum encoding {
    ENCODING_NONE, /* the bytes are the file */
    ENCODING_ANY,  /* libcurl may ask for compression and undoes it */
};

struct mirror_http {
    CURL *easy;
};

struct transfer {
    CURL *easy;
    const struct mirror_http_request *request;
    const struct mirror_sink *sink;
    uint64_t offset;       /* what is asked for in this attempt */
    bool started;          /* the sink's start was called */
    bool range_refused;    /* the answer does not continue at `offset` */
    bool over_tls;         /* the last request went over https */
    struct uvm_error *err; /* what a callback that stopped the transfer has to say */
    char detail[CURL_ERROR_SIZE];
};

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;

static void init_curl(void)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        abort();
}

struct mirror_http *mirror_http_new(void)
{
    pthread_once(&curl_once, init_curl);
    struct mirror_http *http = uvm_alloc(sizeof *http);
    http->easy = curl_easy_init();
    if (!http->easy)
        abort();
    return http;
}

void mirror_http_free(struct mirror_http *http)
{
    if (!http)
        return;
    curl_easy_cleanup(http->easy);
    free(http);
}

/* ---- what the answer says ---- */

static long status_of(CURL *easy)
{
    long status = 0;
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    return status;
}

/* A header of the last answer (not of a redirect before it), or NULL. */
static const char *header_of(CURL *easy, const char *name)
{
    struct curl_header *header = NULL;
    if (curl_easy_header(easy, name, 0, CURLH_HEADER, -1, &header) != CURLHE_OK)
        return NULL;
    return header->value;
}

static bool parse_number(const char **p, uint64_t *ret)
{
    uint64_t value = 0;
    const char *start = *p;
    for (; **p >= '0' && **p <= '9'; (*p)++)
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(**p - '0'), &value))
            return false;
    *ret = value;
    return *p > start;
}

/* True for "bytes <offset>-<size - 1>/<size>" (RFC 9110, section 14.4), also with "*" as the size.
 */
static bool range_fits(const char *range, uint64_t offset, uint64_t size)
{
    uint64_t first, last, total = size;
    if (!range || strncasecmp(range, "bytes ", 6) != 0)
        return false;
    const char *p = range + 6;
    if (!parse_number(&p, &first) || *p++ != '-' || !parse_number(&p, &last) || *p++ != '/')
        return false;
    if (*p == '*')
        p++;
    else if (!parse_number(&p, &total))
        return false;
    return *p == 0 && first == offset && total == size && last == size - 1;
}

static uint64_t announced_size(CURL *easy)
{
    const char *length = header_of(easy, "Content-Length");
    uint64_t size;
    if (!length || header_of(easy, "Transfer-Encoding") || !parse_number(&length, &size) || *length)
        return MIRROR_SIZE_UNKNOWN;
    return size;
}

static bool start(struct transfer *t)
{
    long status = status_of(t->easy);
    t->started = true;
    if (status == HTTP_PARTIAL && t->offset > 0) {
        t->range_refused =
            !range_fits(header_of(t->easy, "Content-Range"), t->offset, t->request->size);
        return !t->range_refused &&
               t->sink->start(t->sink->opaque, t->offset, t->request->size, t->err);
    }
    if (status != HTTP_OK)
        return uvm_fail(t->err, UVM_SOURCE, "HTTP status %ld", status);
    return t->sink->start(t->sink->opaque, 0, announced_size(t->easy), t->err);
}

/* ---- callbacks ---- */

static size_t on_body(char *data, size_t one, size_t len, void *opaque)
{
    struct transfer *t = opaque;
    (void)one; /* always 1 */
    if (!t->started && !start(t))
        return CURL_WRITEFUNC_ERROR;
    return t->sink->write(t->sink->opaque, data, len, t->err) ? len : CURL_WRITEFUNC_ERROR;
}

static int on_progress(void *opaque, curl_off_t dl_total, curl_off_t dl_now, curl_off_t ul_total,
                       curl_off_t ul_now)
{
    struct transfer *t = opaque;
    (void)dl_total, (void)dl_now, (void)ul_total, (void)ul_now;
    return uvm_go_on(t->request->observer, t->err) ? 0 : 1;
}

/* Between the connection and the request, for every redirect too. libcurl's list of protocols
 * cannot say "http, but not after https". */
static int before_request(void *opaque, char *to, char *from, int to_port, int from_port)
{
    struct transfer *t = opaque;
    (void)to, (void)from, (void)to_port, (void)from_port;
    const char *url = NULL;
    curl_easy_getinfo(t->easy, CURLINFO_EFFECTIVE_URL, &url);
    bool tls = url && strncasecmp(url, "https:", 6) == 0;
    if (t->over_tls && !tls) {
        uvm_fail(t->err, UVM_SOURCE, "redirected from https to http, which is refused");
        return CURL_PREREQFUNC_ABORT;
    }
    t->over_tls = tls;
    return CURL_PREREQFUNC_OK;
}

/* ---- one transfer ---- */

static void prepare_limits(CURL *easy)
{
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(easy, CURLOPT_MAXREDIRS, HTTP_REDIRECTS);
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, HTTP_CONNECT_SECONDS);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, HTTP_STALL_RATE);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, HTTP_STALL_SECONDS);
    curl_easy_setopt(easy, CURLOPT_FAILONERROR, 1L);
    /* Debian's libcurl has a fixed bundle of authorities; a site's own is named as for curl(1). */
    const char *authorities = secure_getenv("SSL_CERT_FILE");
    if (authorities && *authorities)
        curl_easy_setopt(easy, CURLOPT_CAINFO, authorities);
}

static void prepare_request(struct transfer *t, enum encoding encoding)
{
    const struct mirror_http_request *request = t->request;
    CURL *easy = t->easy;
    curl_easy_setopt(easy, CURLOPT_URL, request->url);
    curl_easy_setopt(easy, CURLOPT_USERNAME, request->user);
    curl_easy_setopt(easy, CURLOPT_PASSWORD, request->password);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, HTTP_USER_AGENT);
    curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, encoding == ENCODING_ANY ? "" : NULL);
    /* A range, not libcurl's "resume": that fails when the server sends the whole file. */
    uvm_auto_free char *range =
        t->offset > 0 ? uvm_format("%llu-", (unsigned long long)t->offset) : NULL;
    curl_easy_setopt(easy, CURLOPT_RANGE, range); /* copied */
}

static void prepare(struct transfer *t, enum encoding encoding)
{
    CURL *easy = t->easy;
    curl_easy_reset(easy); /* options only; connections stay */
    prepare_limits(easy);
    prepare_request(t, encoding);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, HTTP_BUFFER);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, t->detail);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(easy, CURLOPT_XFERINFODATA, t);
    curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, before_request);
    curl_easy_setopt(easy, CURLOPT_PREREQDATA, t);
}

static bool fail_status(long status, struct uvm_error *err)
{
    uvm_fail(err, UVM_SOURCE, "HTTP status %ld", status);
    if (status == HTTP_NOT_FOUND || status == HTTP_GONE)
        err->sys_errno = ENOENT;
    return false;
}

static bool fail_transfer(const struct transfer *t, CURLcode result, struct uvm_error *err)
{
    uvm_auto_free char *detail =
        uvm_printable(t->detail[0] ? t->detail : curl_easy_strerror(result));
    switch (result) {
    case CURLE_TOO_MANY_REDIRECTS:
        return uvm_fail(err, UVM_SOURCE, "more than %ld redirects", HTTP_REDIRECTS);
    case CURLE_UNSUPPORTED_PROTOCOL:
        return uvm_fail(err, UVM_SOURCE, "redirected to something other than http or https (%s)",
                        detail);
    default:
        return uvm_fail(err, UVM_SOURCE, "%s", detail);
    }
}

/* What became of a transfer. */
static bool conclude(struct transfer *t, CURLcode result)
{
    if (t->err->code != UVM_OK) /* a callback stopped it */
        return false;
    if (result == CURLE_HTTP_RETURNED_ERROR) {
        long status = status_of(t->easy);
        t->range_refused = t->offset > 0 && status == HTTP_RANGE_NOT_SATISFIED;
        return fail_status(status, t->err);
    }
    if (result != CURLE_OK)
        return fail_transfer(t, result, t->err);
    return t->started || start(t); /* no byte came */
}

/* Sets *ret_range_refused when it failed only because the source cannot go on at `offset`. */
static bool attempt(struct mirror_http *http, const struct mirror_http_request *request,
                    uint64_t offset, enum encoding encoding, const struct mirror_sink *sink,
                    bool *ret_range_refused, struct uvm_error *err)
{
    struct transfer t = {
        .easy = http->easy, .request = request, .sink = sink, .offset = offset, .err = err};
    prepare(&t, encoding);
    bool ok = conclude(&t, curl_easy_perform(http->easy));
    *ret_range_refused = t.range_refused;
    curl_easy_reset(http->easy); /* it must not point into this frame any more */
    return ok;
}

static bool get(struct mirror_http *http, const struct mirror_http_request *request,
                enum encoding encoding, const struct mirror_sink *sink, struct uvm_error *err)
{
    bool range_refused = false;
    if (attempt(http, request, request->offset, encoding, sink, &range_refused, err))
        return true;
    if (range_refused) {
        uvm_error_clear(err);
        if (attempt(http, request, 0, encoding, sink, &range_refused, err))
            return true;
    }
    uvm_auto_free char *url = uvm_printable(request->url);
    return uvm_prefix(err, "%s", url);
}

bool mirror_http_get(struct mirror_http *http, const struct mirror_http_request *request,
                     const struct mirror_sink *sink, struct uvm_error *err)
{
    return get(http, request, ENCODING_NONE, sink, err);
}

/* ---- small texts ---- */

static bool buf_start(void *opaque, uint64_t offset, uint64_t total, struct uvm_error *err)
{
    (void)offset, (void)total; /* the size may be that of the compressed text */
    return uvm_buf_add(opaque, "", 0, err);
}

static bool buf_write(void *opaque, const void *data, size_t len, struct uvm_error *err)
{
    return uvm_buf_add(opaque, data, len, err);
}

struct mirror_sink mirror_sink_to_buf(struct uvm_buf *buf)
{
    return (struct mirror_sink){buf_start, buf_write, buf};
}

bool mirror_http_get_text(struct mirror_http *http, const struct mirror_http_request *request,
                          size_t max, struct uvm_buf *ret_text, struct uvm_error *err)
{
    uvm_auto_buf text = {.max = max};
    struct mirror_sink sink = mirror_sink_to_buf(&text);
    if (!get(http, request, ENCODING_ANY, &sink, err))
        return false;
    uvm_buf_move(ret_text, &text);
    return true;
}
