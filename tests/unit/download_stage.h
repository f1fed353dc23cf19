/*
 * download_stage.h: what the tests of downloads stand on: images, a server whose answers a script
 * writes, a mirror that is filled from it, and what was heard meanwhile.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "mirror/source.h"
#include "scripted_server.h"

#define IMAGES_MAX 8
#define SMALL      ((size_t)300000)
#define BIG        ((size_t)4 << 20)

static char root[] = "/tmp/test-download-XXXXXX";

struct stage;

struct stage {
    struct server server;
    void (*script)(struct stage *g, int fd, const char *request, int number);
    char *dir;
    struct mirror_tree *tree;
    struct mirror_source *source;
    struct mirror_network network;
    struct mirror_image images[IMAGES_MAX];
    char *contents[IMAGES_MAX];
    size_t count;
    unsigned patience;
    /* what was heard */
    pthread_mutex_t mutex;
    char heard[16384]; /* notices and warnings, a line each */
    atomic_bool stop;
    const char *stop_at; /* words in a notice that set `stop` */
    uint64_t stop_after; /* bytes of an image that do; 0 = none */
    struct uvm_observer observer;
    /* what a script and its test agree on */
    atomic_int step;
};

static inline void fill(char *data, size_t len, uint32_t seed)
{
    for (size_t i = 0; i < len; i++) {
        seed = seed * 1664525 + 1013904223;
        data[i] = (char)(seed >> 24);
    }
}

static inline void hear(void *opaque, const struct uvm_event *event)
{
    struct stage *g = opaque;
    if (event->kind == UVM_EVENT_PROGRESS && g->stop_after && event->done >= g->stop_after)
        g->stop = 1;
    if (event->kind != UVM_EVENT_NOTICE && event->kind != UVM_EVENT_WARNING)
        return;
    pthread_mutex_lock(&g->mutex);
    size_t len = strlen(g->heard);
    snprintf(g->heard + len, sizeof g->heard - len, "%s\n", event->text);
    if (g->stop_at && strstr(event->text, g->stop_at))
        g->stop = 1;
    pthread_mutex_unlock(&g->mutex);
}

static inline int times_heard(const struct stage *g, const char *words)
{
    int times = 0;
    for (const char *p = g->heard; (p = strstr(p, words)); p++)
        times++;
    return times;
}

static inline void run_script(struct server *s, int fd, const char *request, int number)
{
    struct stage *g = s->opaque;
    g->script(g, fd, request, number);
}

/* Adds an image; contents are told apart by `seed`. */
static inline void add_image(struct stage *g, const char *path, size_t size, uint32_t seed)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    char hex[UVM_DIGEST_HEX_MAX];
    uvm_auto_free char *size_text = uvm_format("%zu", size);
    uvm_auto_free char *version = uvm_format("2024100%zu", g->count + 1);
    char *content = g->contents[g->count] = uvm_alloc(size + 1);
    fill(content, size, seed);
    uvm_digest_bytes(UVM_SHA256, content, size, hex);
    mirror_auto_json *metadata =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "product_name", "org.example:24.04:amd64",
                  "version_name", version, "item_name", "disk1.img", "release", "noble", "arch",
                  "amd64", "size", size_text, "sha256", hex);
    if (!mirror_image_from_metadata(metadata, path, &g->images[g->count++], &err))
        fail_msg("%s", err.message);
}

static inline void open_stage(struct stage *g,
                              void (*script)(struct stage *, int, const char *, int))
{
    static int count;
    *g = (struct stage){.script = script, .patience = 1, .network = MIRROR_NETWORK_DEFAULT};
    g->server.opaque = g;
    g->observer = (struct uvm_observer){hear, g, &g->stop};
    g->dir = uvm_format("%s/%d", root, count++);
    pthread_mutex_init(&g->mutex, NULL);
    server_start(&g->server, run_script);
}

/* One image, "a". */
static inline void open_small_stage(struct stage *g,
                                    void (*script)(struct stage *, int, const char *, int))
{
    open_stage(g, script);
    add_image(g, "a", SMALL, 1);
}

static inline void open_tree_and_source(struct stage *g)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    struct mirror_source_options options = {.url = g->server.url,
                                            .path = "streams/v1/index.json",
                                            .network = g->network,
                                            .observer = &g->observer};
    if (!mirror_tree_open(g->dir, &g->tree, &err) || !mirror_source_new(&options, &g->source, &err))
        fail_msg("%s", err.message);
    mirror_source_set_patience(g->source, g->patience);
}

static inline struct mirror_download *start(struct stage *g)
{
    static const struct mirror_image *list[IMAGES_MAX];
    if (!g->tree)
        open_tree_and_source(g);
    for (size_t i = 0; i < g->count; i++)
        list[i] = &g->images[i];
    return mirror_download_start(g->tree, g->source, list, g->count, &g->observer);
}

/* As if the program had ended and begun again. */
static inline void close_tree_and_source(struct stage *g)
{
    mirror_tree_free(UVM_STEAL(g->tree));
    mirror_source_free(UVM_STEAL(g->source));
}

static inline void close_stage(struct stage *g)
{
    close_tree_and_source(g);
    server_stop(&g->server);
    for (size_t i = 0; i < g->count; i++) {
        mirror_image_clear(&g->images[i]);
        free(g->contents[i]);
    }
    free(g->dir);
    pthread_mutex_destroy(&g->mutex);
}

static inline enum uvm_code run(struct stage *g, struct uvm_error *err)
{
    struct mirror_download *d = start(g);
    mirror_download_wait(d, err);
    mirror_download_free(d);
    return err->code;
}

static inline void assert_has(struct stage *g, size_t i)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_buf got = {0};
    uvm_auto_free char *path = uvm_format("%s/%s", g->dir, g->images[i].path);
    assert_true(mirror_tree_has(g->tree, &g->images[i]));
    if (!uvm_file_read(path, 2 * BIG, &got, &err))
        fail_msg("%s", err.message);
    assert_int_equal(got.len, g->images[i].size);
    assert_memory_equal(got.data, g->contents[i], got.len);
}

static inline size_t partial_bytes(const struct stage *g, const char *suffix)
{
    struct stat st;
    uvm_auto_free char *path =
        uvm_format("%s/uvmirror/partial/%s%s", g->dir, g->images[0].sha256, suffix);
    return stat(path, &st) == 0 ? (size_t)st.st_size : 0;
}

/* All are in the tree, and nothing else is left. */
static inline void assert_good(struct stage *g)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    if (run(g, &err) != UVM_OK)
        fail_msg("%s", err.message);
    for (size_t i = 0; i < g->count; i++)
        assert_has(g, i);
    assert_int_equal(partial_bytes(g, ""), 0);
    assert_int_equal(partial_bytes(g, ".from"), 0);
}

static inline void assert_bad(struct stage *g, enum uvm_code code, const char *words)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    if (run(g, &err) != code || !strstr(err.message, words))
        fail_msg("code %d: %s", err.code, err.message);
}

/* ---- what scripts say ---- */

static inline const char *content_of(const struct stage *g, const char *request, size_t *ret_size)
{
    for (size_t i = 0; i < g->count; i++) {
        uvm_auto_free char *line = uvm_format("GET /%s HTTP", g->images[i].path);
        if (strncmp(request, line, strlen(line)) == 0) {
            *ret_size = g->images[i].size;
            return g->contents[i];
        }
    }
    return NULL;
}

static inline size_t range_of(const char *request)
{
    const char *range = strstr(request, "\r\nRange: bytes=");
    return range ? (size_t)strtoull(strchr(range, '=') + 1, NULL, 10) : 0;
}

static inline void say_head(int fd, size_t from, size_t size, const char *headers)
{
    uvm_auto_free char *range =
        from ? uvm_format("Content-Range: bytes %zu-%zu/%zu\r\n", from, size - 1, size)
             : uvm_strdup("");
    uvm_auto_free char *head =
        uvm_format("HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: %zu\r\n%s%s\r\n",
                   from ? "206 Partial Content" : "200 OK", size - from, range, headers);
    server_say(fd, head);
}

/* Up to byte `until` of what is asked for, and with more headers. */
static inline void say_until(struct stage *g, int fd, const char *request, size_t until,
                             const char *headers)
{
    size_t size = 0, from = range_of(request);
    const char *content = content_of(g, request, &size);
    if (!content)
        return server_say(fd, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    say_head(fd, from, size, headers);
    server_send(fd, content + from, (until < size ? until : size) - from);
}

static inline void say_all(struct stage *g, int fd, const char *request, int number)
{
    (void)number;
    say_until(g, fd, request, SIZE_MAX, "");
}

static inline int set_up(void **state)
{
    (void)state;
    return mkdtemp(root) ? 0 : -1;
}

static inline int tear_down(void **state)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    (void)state;
    return uvm_remove_tree(root, &err) ? 0 : -1;
}
