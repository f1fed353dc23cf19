/* A source of streams and images: a web server, or a folder, which is read without libcurl. */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mirror/location.h"
#include "mirror/source.h"

#define COPY_BLOCK ((size_t)512 << 10)

struct mirror_source {
    struct mirror_location location;
    char *path;
    struct uvm_verifier *verifier; /* borrowed */
    const struct uvm_observer *observer;
    struct mirror_http *http; /* made when it is first needed */
};

static bool ends_with(const char *s, const char *end)
{
    size_t len = strlen(s), end_len = strlen(end);
    return len >= end_len && strcmp(s + len - end_len, end) == 0;
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
    s->path = uvm_strdup(options->path);
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

/* ---- folders ---- */

static bool open_local(const char *file, int *ret_fd, struct stat *ret_st, struct uvm_error *err)
{
    /* O_NONBLOCK: opening a FIFO must not wait for a writer. */
    uvm_auto_fd fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, ret_st) < 0)
        return uvm_fail_errno(err, UVM_SOURCE, "cannot read");
    if (!S_ISREG(ret_st->st_mode))
        return uvm_fail(err, UVM_SOURCE, "not a regular file");
    *ret_fd = uvm_steal_fd(&fd);
    return true;
}

static bool copy_local(int fd, const struct uvm_observer *observer, const struct mirror_sink *sink,
                       struct uvm_error *err)
{
    uvm_auto_free char *block = uvm_alloc(COPY_BLOCK);
    while (uvm_go_on(observer, err)) {
        size_t len = 0;
        if (!uvm_read_some(fd, block, COPY_BLOCK, &len, err)) {
            err->code = UVM_SOURCE;
            return false;
        }
        if (len == 0)
            return true;
        if (!sink->write(sink->opaque, block, len, err))
            return false;
    }
    return false;
}

static bool get_local(const char *file, uint64_t offset, const struct uvm_observer *observer,
                      const struct mirror_sink *sink, struct uvm_error *err)
{
    uvm_auto_fd fd = -1;
    struct stat st;
    if (!open_local(file, &fd, &st, err))
        return false;
    if (offset > (uint64_t)st.st_size)
        offset = 0;
    if (lseek(fd, (off_t)offset, SEEK_SET) < 0)
        return uvm_fail_errno(err, UVM_SOURCE, "cannot read");
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    return sink->start(sink->opaque, offset, (uint64_t)st.st_size, err) &&
           copy_local(fd, observer, sink, err);
}

static bool get_file(const char *file, uint64_t offset, const struct uvm_observer *observer,
                     const struct mirror_sink *sink, struct uvm_error *err)
{
    if (get_local(file, offset, observer, sink, err))
        return true;
    uvm_auto_free char *name = uvm_printable(file);
    return uvm_prefix(err, "%s", name);
}

/* ---- both ---- */

static struct mirror_http *http_of(struct mirror_source *s)
{
    if (!s->http)
        s->http = mirror_http_new();
    return s->http;
}

static struct mirror_http_request request_of(const struct mirror_source *s, const char *url,
                                             const struct uvm_observer *observer)
{
    return (struct mirror_http_request){.url = url,
                                        .user = s->location.user,
                                        .password = s->location.password,
                                        .observer = observer};
}

bool mirror_source_get(struct mirror_source *s, const struct mirror_wanted *wanted,
                       const struct mirror_sink *sink, const struct uvm_observer *observer,
                       struct uvm_error *err)
{
    if (s->location.folder) {
        uvm_auto_free char *file = mirror_location_file(&s->location, wanted->path);
        return get_file(file, wanted->offset, observer, sink, err);
    }
    uvm_auto_free char *url = mirror_location_url(&s->location, wanted->path);
    struct mirror_http_request request = request_of(s, url, observer);
    request.offset = wanted->offset;
    request.size = wanted->size;
    return mirror_http_get(http_of(s), &request, sink, err);
}

bool mirror_source_get_text(struct mirror_source *s, const char *path, size_t max,
                            struct uvm_buf *ret_text, struct uvm_error *err)
{
    if (!s->location.folder) {
        uvm_auto_free char *url = mirror_location_url(&s->location, path);
        struct mirror_http_request request = request_of(s, url, s->observer);
        return mirror_http_get_text(http_of(s), &request, max, ret_text, err);
    }
    uvm_auto_buf text = {.max = max};
    struct mirror_sink sink = mirror_sink_to_buf(&text);
    uvm_auto_free char *file = mirror_location_file(&s->location, path);
    if (!get_file(file, 0, s->observer, &sink, err))
        return false;
    uvm_buf_move(ret_text, &text);
    return true;
}
