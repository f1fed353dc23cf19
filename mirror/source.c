/* A source of streams and images: a web server, or a folder, which is read without libcurl. */
#include <string.h>
#include <unistd.h>

#include "mirror/folder.h"
#include "mirror/http.h"
#include "mirror/location.h"
#include "mirror/retry.h"
#include "mirror/source.h"

struct mirror_source {
    struct mirror_location location;
    char *path, *cacert;
    struct mirror_network network;
    struct uvm_verifier *verifier; /* borrowed */
    const struct uvm_observer *observer;
    unsigned patience;
    /* The one that fits, made when it is first needed. */
    struct mirror_http *http;
    struct mirror_folder *folder;
};

static bool ends_with(const char *s, const char *end)
{
    size_t len = strlen(s), end_len = strlen(end);
    return len >= end_len && strcmp(s + len - end_len, end) == 0;
}

/* A wrong name would show only when the first connection is made, as one more odd error of TLS. */
static bool check_cacert(const char *file, struct uvm_error *err)
{
    if (!file || access(file, R_OK) == 0)
        return true;
    uvm_auto_free char *name = uvm_printable(file);
    return uvm_fail_errno(err, UVM_USAGE, "--cacert %s: cannot read", name);
}

bool mirror_source_new(const struct mirror_source_options *options,
                       struct mirror_source **ret_source, struct uvm_error *err)
{
    if (!mirror_path_check(options->path, err)) {
        err->code = UVM_USAGE;
        return uvm_prefix(err, "--path");
    }
    if (options->verifier && !ends_with(options->path, ".sjson")) {
        uvm_auto_free char *path = uvm_printable(options->path);
        return uvm_fail(err, UVM_USAGE,
                        "%s is not signed: name the .sjson file (or ask for --no-authentication)",
                        path);
    }
    UVM_AUTO(mirror_source_free) struct mirror_source *s = uvm_alloc(sizeof *s);
    if (!mirror_location_parse(options->url, &s->location, err))
        return uvm_prefix(err, "--source");
    if (!s->location.folder && !check_cacert(options->network.cacert, err))
        return false;
    s->path = uvm_strdup(options->path);
    s->network = options->network;
    s->network.cacert = s->cacert = uvm_strdup(options->network.cacert);
    s->patience = MIRROR_RETRY_MS;
    s->verifier = options->verifier;
    s->observer = options->observer;
    *ret_source = UVM_STEAL(s);
    return true;
}

void mirror_source_free(struct mirror_source *s)
{
    if (!s)
        return;
    mirror_location_clear(&s->location);
    mirror_http_free(s->http);
    mirror_folder_free(s->folder);
    free(s->cacert);
    free(s->path);
    free(s);
}

const char *mirror_source_url(const struct mirror_source *s)
{
    return s->location.url;
}

const char *mirror_source_path(const struct mirror_source *s)
{
    return s->path;
}

struct uvm_verifier *mirror_source_verifier(const struct mirror_source *s)
{
    return s->verifier;
}

const struct uvm_observer *mirror_source_observer(const struct mirror_source *s)
{
    return s->observer;
}

void mirror_source_set_patience(struct mirror_source *s, unsigned ms)
{
    s->patience = ms;
}

char *mirror_source_file_url(const struct mirror_source *s, const char *path)
{
    return mirror_location_url(&s->location, path);
}

/* ---- transfers ---- */

unsigned mirror_source_jobs(const struct mirror_source *s)
{
    if (s->location.folder || s->network.jobs == 0)
        return 1; /* two files read at once are slower on a disk that turns */
    return s->network.jobs < MIRROR_JOBS_MAX ? s->network.jobs : MIRROR_JOBS_MAX;
}

static void begin_folder(struct mirror_source *s, const struct mirror_wanted *wanted,
                         const struct mirror_sink *sink, const struct mirror_waiter *waiter)
{
    uvm_auto_free char *file = mirror_location_file(&s->location, wanted->path);
    if (!s->folder)
        s->folder = mirror_folder_new();
    mirror_folder_begin(s->folder, file, wanted->offset, sink, waiter);
}

static struct mirror_http *http_of(struct mirror_source *s)
{
    if (!s->http)
        s->http = mirror_http_new(&s->network);
    mirror_http_set_patience(s->http, s->patience);
    return s->http;
}

static void begin_http(struct mirror_source *s, const struct mirror_wanted *wanted,
                       const struct mirror_sink *sink, const struct mirror_waiter *waiter,
                       const struct uvm_observer *observer)
{
    uvm_auto_free char *url = mirror_location_url(&s->location, wanted->path);
    struct mirror_http_request request = {
        .title = wanted->title,
        .url = url,
        .user = s->location.user,
        .password = s->location.password,
        .offset = wanted->offset,
        .size = wanted->size,
        .validator = wanted->validator,
        .text = wanted->text,
        .observer = observer,
    };
    mirror_http_begin(http_of(s), &request, sink, waiter);
}

void mirror_source_begin(struct mirror_source *s, const struct mirror_wanted *wanted,
                         const struct mirror_sink *sink, const struct mirror_waiter *waiter,
                         const struct uvm_observer *observer)
{
    if (s->location.folder)
        begin_folder(s, wanted, sink, waiter);
    else
        begin_http(s, wanted, sink, waiter, observer);
}

bool mirror_source_step(struct mirror_source *s, unsigned wait_ms, struct uvm_error *err)
{
    if (s->folder)
        mirror_folder_step(s->folder);
    return !s->http || mirror_http_step(s->http, wait_ms, err);
}

void mirror_source_drop(struct mirror_source *s)
{
    if (s->folder)
        mirror_folder_drop(s->folder);
    if (s->http)
        mirror_http_drop(s->http);
}

/* ---- one, and wait for it ---- */

struct waiting {
    bool ended;
    struct uvm_error failure;
};

static void end_waiting(void *opaque, struct uvm_error *failure)
{
    struct waiting *w = opaque;
    w->ended = true;
    w->failure = *failure;
    *failure = UVM_ERROR_INIT;
}

bool mirror_source_get(struct mirror_source *s, const struct mirror_wanted *wanted,
                       const struct mirror_sink *sink, const struct uvm_observer *observer,
                       struct uvm_error *err)
{
    struct waiting w = {0};
    mirror_source_begin(s, wanted, sink, &(struct mirror_waiter){end_waiting, &w}, observer);
    while (!w.ended) {
        if (!uvm_go_on(observer, err) || !mirror_source_step(s, MIRROR_STEP_MS, err)) {
            mirror_source_drop(s);
            return false;
        }
    }
    *err = w.failure;
    return err->code == UVM_OK;
}

/* ---- small texts ---- */

static bool text_start(void *opaque, const struct mirror_answer *answer, struct uvm_error *err)
{
    struct uvm_buf *text = opaque;
    (void)answer; /* the size may be that of the compressed text */
    text->len = 0;
    return uvm_buf_add(text, "", 0, err);
}

static bool text_write(void *opaque, const void *data, size_t len, struct uvm_error *err)
{
    return uvm_buf_add(opaque, data, len, err);
}

bool mirror_source_get_text(struct mirror_source *s, const char *path, size_t max,
                            struct uvm_buf *ret_text, struct uvm_error *err)
{
    uvm_auto_buf text = {.max = max};
    struct mirror_wanted wanted = {.path = path, .size = MIRROR_SIZE_UNKNOWN, .text = true};
    struct mirror_sink sink = {text_start, text_write, &text};
    if (!mirror_source_get(s, &wanted, &sink, s->observer, err))
        return false;
    uvm_buf_move(ret_text, &text);
    return true;
}
