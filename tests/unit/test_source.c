/* Sources: where they are, what they serve, and what hostile ones try. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "mirror/location.h"
#include "mirror/mirror.h"
#include "scripted_server.h"

#define INDEX_PATH    "streams/v1/index.sjson"
#define PRODUCTS_PATH "streams/v1/org.example:released:download.sjson"
#define CONTENT_ID    "org.example:released:download"

/* A folder with a key of its own, shared by all tests. */
static char root[] = "/tmp/test-source-XXXXXX";
static char *keyring;
static struct uvm_signer *signer;
static struct uvm_verifier *verifier;

static const char products_json[] =
    "{\"format\": \"products:1.0\", \"content_id\": \"" CONTENT_ID "\",\n"
    "\"minus\":\n"
    "-1, \"products\": {}}\n"; /* a line that GnuPG must escape */

static char *index_json(const char *path)
{
    return uvm_format("{\"format\": \"index:1.0\", \"index\": {\n"
                      "\"" CONTENT_ID "\": {\"format\": \"products:1.0\",\n"
                      " \"datatype\": \"image-downloads\", \"path\": \"%s\"},\n"
                      "\"org.example:ids\": {\"format\": \"products:1.0\",\n"
                      " \"datatype\": \"image-ids\", \"path\": \"streams/v1/none.sjson\"},\n"
                      "\"org.example:new\": {\"format\": \"products:9.0\",\n"
                      " \"datatype\": \"image-downloads\", \"path\": \"streams/v1/none.sjson\"}\n"
                      "}}\n",
                      path);
}

/* ---- helpers ---- */

static void put(const char *dir, const char *name, const void *data, size_t len)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *path = uvm_format("%s/%s", dir, name);
    uvm_auto_free char *parent = uvm_dirname(path);
    assert_true(uvm_make_dirs(parent, 0755, &err));
    assert_true(uvm_file_replace(path, 0644, data, len, &err));
}

static void sign(const char *text, struct uvm_buf *ret)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    if (!uvm_signer_clearsigned(signer, text, strlen(text), ret, &err))
        fail_msg("%s", err.message);
}

static void put_signed(const char *dir, const char *name, const char *text)
{
    uvm_auto_buf armored = {0};
    sign(text, &armored);
    put(dir, name, armored.data, armored.len);
}

static char *new_dir(void)
{
    static int count;
    uvm_auto_error err = UVM_ERROR_INIT;
    char *dir = uvm_format("%s/%d", root, count++);
    assert_true(uvm_make_dirs(dir, 0755, &err));
    return dir;
}

static char *good_tree(void)
{
    char *dir = new_dir();
    uvm_auto_free char *index = index_json(PRODUCTS_PATH);
    put_signed(dir, INDEX_PATH, index);
    put_signed(dir, PRODUCTS_PATH, products_json);
    return dir;
}

struct result {
    bool ok;
    struct mirror_stream **streams;
    size_t count;
    struct uvm_error err;
};

static void result_clear(struct result *r)
{
    for (size_t i = 0; i < r->count; i++)
        mirror_stream_free(r->streams[i]);
    free(r->streams);
    uvm_error_clear(&r->err);
}
#define auto_result __attribute__((cleanup(result_clear))) struct result

static struct result load_watched(const char *url, const char *path, struct uvm_verifier *v,
                                  const char *filter, const struct uvm_observer *observer)
{
    struct result r = {0};
    UVM_AUTO(mirror_source_free) struct mirror_source *source = NULL;
    UVM_AUTO(mirror_filters_free) struct mirror_filters *filters = NULL;
    struct mirror_source_options options = {
        .url = url, .path = path, .verifier = v, .observer = observer};
    assert_true(mirror_filters_new(&filter, filter ? 1 : 0, "amd64", &filters, &r.err));
    r.ok = mirror_source_new(&options, &source, &r.err) &&
           mirror_source_streams(source, filters, &r.streams, &r.count, &r.err);
    return r;
}

static struct result load(const char *url, const char *path, struct uvm_verifier *v)
{
    return load_watched(url, path, v, NULL, NULL);
}

#define assert_refused(r, want, words)                                                             \
    do {                                                                                           \
        assert_false((r).ok);                                                                      \
        if ((r).err.code != (want) || !strstr((r).err.message, words))                             \
            fail_msg("code %d, message: %s", (r).err.code, (r).err.message);                       \
        assert_int_equal((r).count, 0);                                                            \
    } while (0)

/* ---- locations ---- */

static void test_locations(void **state)
{
    static const struct {
        const char *text, *url, *folder, *user, *password;
    } good[] = {
        {"http://h", "http://h/", NULL, NULL, NULL},
        {"HTTPS://h:8443/a", "https://h:8443/a/", NULL, NULL, NULL},
        {"https://h/a/", "https://h/a/", NULL, NULL, NULL},
        {"https://h/a:b", "https://h/a:b/", NULL, NULL, NULL},
        {"http://[::1]:80/x", "http://[::1]:80/x/", NULL, NULL, NULL},
        {"http://[fe80::1%25eth0]", "http://[fe80::1%25eth0]/", NULL, NULL, NULL},
        {"https://joe:a%2Fp%40@h:8443/a", "https://h:8443/a/", NULL, "joe", "a/p@"},
        {"https://joe:s%40cret@h/a", "https://h/a/", NULL, "joe", "s@cret"},
        {"https://joe@h/a@b", "https://h/a@b/", NULL, "joe", ""},
        {"file:///no/such%20place", "file:///no/such%20place/", "/no/such place/", NULL, NULL},
        {"file://localhost/no/x", "file:///no/x/", "/no/x/", NULL, NULL},
        {"/no/such:place/", "file:///no/such%3Aplace/", "/no/such:place/", NULL, NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        uvm_auto_error err = UVM_ERROR_INIT;
        mirror_auto_location l = {0};
        assert_true(mirror_location_parse(good[i].text, &l, &err));
        assert_string_equal(l.url, good[i].url);
        assert_int_equal(!l.folder, !good[i].folder);
        if (l.folder)
            assert_string_equal(l.folder, good[i].folder);
        assert_int_equal(!l.user, !good[i].user);
        if (l.user) {
            assert_string_equal(l.user, good[i].user);
            assert_string_equal(l.password, good[i].password);
        }
    }
}

static void test_bad_locations(void **state)
{
    static const char *const bad[] = {
        "",
        "ftp://h/",
        "gopher://h/",
        "http://",
        "http:///a",
        "http://:80/",
        "http://u:p@/a",
        "http://h/a b",
        "http://h/\x1b",
        "http://h/?q=1",
        "http://h/#f",
        "file://host/a",
        "file:///a%zz",
        "file:///a%00b",
        "http://%zz:p@h/",
        "http://[::1/x",
        "http://[::1",
        "http://[]/x",
        "http://[::g]/x",
        "http://[::1]x/",
        "http://::1/x",
        "http://h]/x",
        "http://h%20/x",
        "http://h:/x",
        "http://h:99999/x",
        "http://h:8o/x",
        "http://joe:pa/ssp@h/x",
        "http://joe:/pa@ssp@h/x",
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        uvm_auto_error err = UVM_ERROR_INIT;
        mirror_auto_location l = {0};
        assert_false(mirror_location_parse(bad[i], &l, &err));
        assert_int_equal(err.code, UVM_USAGE);
        assert_null(l.url);
        assert_null(strstr(err.message, "p@")); /* no password in a message */
    }
}

static void test_paths_are_escaped(void **state)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    mirror_auto_location l = {0};
    (void)state;
    assert_true(mirror_location_parse("http://h/x", &l, &err));
    uvm_auto_free char *url = mirror_location_url(&l, "a:b/c d/%41\xc3\xa9?#&+~");
    assert_string_equal(url, "http://h/x/a%3Ab/c%20d/%2541%C3%A9%3F%23%26%2B~");
}

/* ---- streams of a folder ---- */

static void test_folder(void **state)
{
    uvm_auto_free char *dir = good_tree();
    (void)state;
    auto_result r = load(dir, INDEX_PATH, verifier);
    if (!r.ok)
        fail_msg("%s", r.err.message);
    assert_int_equal(r.count, 1);
    const struct mirror_stream *s = r.streams[0];
    assert_string_equal(s->content_id, CONTENT_ID);
    assert_string_equal(s->path, PRODUCTS_PATH);
    assert_string_equal(s->signer, uvm_signer_fingerprint(signer));
    uvm_auto_free char *url = uvm_format("file://%s/", dir);
    assert_string_equal(s->source, url);
    assert_memory_equal(s->origin.data, "-----BEGIN PGP SIGNED", 21); /* as served */
}

static void test_file_url_and_products_path(void **state)
{
    uvm_auto_free char *dir = good_tree();
    uvm_auto_free char *url = uvm_format("file://%s/", dir);
    (void)state;
    auto_result r = load(url, PRODUCTS_PATH, verifier);
    assert_true(r.ok);
    assert_int_equal(r.count, 1);
    assert_string_equal(r.streams[0]->path, PRODUCTS_PATH);
    assert_string_equal(r.streams[0]->source, url);
}

static void test_without_authentication(void **state)
{
    uvm_auto_free char *dir = good_tree();
    uvm_auto_free char *index = index_json("streams/v1/plain.json");
    (void)state;
    put(dir, "streams/v1/plain.json", products_json, strlen(products_json));
    put(dir, "streams/v1/index.json", index, strlen(index));
    static const char *const paths[] = {INDEX_PATH, "streams/v1/index.json"};
    for (int i = 0; i < 2; i++) {
        auto_result r = load(dir, paths[i], NULL);
        if (!r.ok)
            fail_msg("%s", r.err.message);
        assert_int_equal(r.count, 1);
        assert_null(r.streams[0]->signer);
        assert_non_null(json_object_get(r.streams[0]->tree, "products"));
    }
}

static void test_datatype_filter(void **state)
{
    uvm_auto_free char *dir = good_tree();
    (void)state;
    /* Filters on other keys do not hide a stream. */
    auto_result other = load_watched(dir, INDEX_PATH, verifier, "release=noble", NULL);
    assert_true(other.ok);
    assert_int_equal(other.count, 1);
    put_signed(
        dir, "streams/v1/none.sjson",
        "{\"format\":\"products:1.0\",\"content_id\":\"org.example:ids\",\"products\":{}}\n");
    auto_result ids = load_watched(dir, INDEX_PATH, verifier, "datatype=image-ids", NULL);
    assert_true(ids.ok);
    assert_int_equal(ids.count, 1);
    assert_string_equal(ids.streams[0]->content_id, "org.example:ids");
    auto_result none = load_watched(dir, INDEX_PATH, verifier, "datatype = nothing", NULL);
    assert_refused(none, UVM_SOURCE, "names no stream");
}

static void test_unsigned_path_wants_consent(void **state)
{
    uvm_auto_free char *dir = good_tree();
    (void)state;
    auto_result json = load(dir, "streams/v1/index.json", verifier);
    assert_refused(json, UVM_USAGE, "is not signed");
    auto_result outside = load(dir, "../index.sjson", verifier);
    assert_refused(outside, UVM_USAGE, "..");
}

static void test_every_file_must_be_signed(void **state)
{
    uvm_auto_free char *dir = good_tree();
    (void)state;
    put(dir, PRODUCTS_PATH, products_json, strlen(products_json));
    auto_result plain = load(dir, INDEX_PATH, verifier);
    assert_refused(plain, UVM_TRUST, PRODUCTS_PATH);
    uvm_auto_buf armored = {0};
    sign(products_json, &armored);
    *strchr(strstr(armored.data, "released"), 'l') = 'L';
    put(dir, PRODUCTS_PATH, armored.data, armored.len);
    auto_result changed = load(dir, INDEX_PATH, verifier);
    assert_refused(changed, UVM_TRUST, PRODUCTS_PATH);
}

static void test_content_id_must_agree(void **state)
{
    uvm_auto_free char *dir = good_tree();
    (void)state;
    put_signed(
        dir, PRODUCTS_PATH,
        "{\"format\":\"products:1.0\",\"content_id\":\"org.example:old\",\"products\":{}}\n");
    auto_result r = load(dir, INDEX_PATH, verifier);
    assert_refused(r, UVM_CONTENT, "but the index calls it");
}

static void test_unsafe_products_path(void **state)
{
    static const char *const bad[] = {"../x.sjson", "/etc/passwd", "a//b",
                                      "a\\\\b",     "%2e%2e/x",    ""};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        uvm_auto_free char *dir = good_tree();
        uvm_auto_free char *index = index_json(bad[i]);
        put_signed(dir, INDEX_PATH, index);
        auto_result r = load(dir, INDEX_PATH, verifier);
        assert_refused(r, UVM_CONTENT, "index entry " CONTENT_ID);
    }
}

static void test_unknown_format(void **state)
{
    uvm_auto_free char *dir = good_tree();
    (void)state;
    put_signed(dir, INDEX_PATH, "{\"format\": \"index:2.0\", \"index\": {}}\n");
    auto_result r = load(dir, INDEX_PATH, verifier);
    assert_refused(r, UVM_CONTENT, "index:2.0");
}

static void test_too_many_streams(void **state)
{
    uvm_auto_free char *dir = new_dir();
    uvm_auto_buf text = {0};
    uvm_auto_error err = UVM_ERROR_INIT;
    (void)state;
    uvm_buf_add(&text, "{\"format\":\"index:1.0\",\"index\":{", 31, &err);
    for (int i = 0; i <= MIRROR_STREAMS_MAX; i++) {
        uvm_auto_free char *name = uvm_format("s%d.json", i);
        uvm_auto_free char *one =
            uvm_format("{\"format\":\"products:1.0\",\"content_id\":\"s%d\",\"products\":{}}", i);
        uvm_auto_free char *entry =
            uvm_format("%s\"s%d\":{\"format\":\"products:1.0\",\"datatype\":"
                       "\"image-downloads\",\"path\":\"%s\"}",
                       i ? "," : "", i, name);
        put(dir, name, one, strlen(one));
        uvm_buf_add(&text, entry, strlen(entry), &err);
    }
    uvm_buf_add(&text, "}}", 2, &err);
    put(dir, "index.json", text.data, text.len);
    auto_result r = load(dir, "index.json", NULL);
    assert_refused(r, UVM_SPACE, "more than");
}

static void test_odd_files(void **state)
{
    uvm_auto_free char *dir = new_dir();
    uvm_auto_free char *fifo = uvm_format("%s/index.sjson", dir);
    (void)state;
    auto_result missing = load(dir, "index.sjson", verifier);
    assert_refused(missing, UVM_SOURCE, "is --source the folder");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    auto_result pipe = load(dir, "index.sjson", verifier);
    assert_refused(pipe, UVM_SOURCE, "not a regular file");
    auto_result folder = load("/", "dev/null.sjson", verifier);
    assert_false(folder.ok);
    put(dir, "empty.json", "", 0);
    auto_result empty = load(dir, "empty.json", NULL);
    assert_refused(empty, UVM_CONTENT, "empty.json");
    auto_result signed_empty = load(dir, "empty.json", NULL);
    assert_false(signed_empty.ok);
}

/* ---- web servers ---- */

/* Serves a folder; a test puts `before` in front of it. */
static void serve_folder(struct server *s, int fd, const char *request, int number)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_buf body = {0};
    (void)number;
    char name[512] = "";
    sscanf(request, "GET /%500s ", name);
    for (char *colon; (colon = strstr(name, "%3A"));) {
        *colon = ':';
        memmove(colon + 1, colon + 3, strlen(colon + 3) + 1);
    }
    uvm_auto_free char *path = uvm_format("%s/%s", (const char *)s->opaque, name);
    if (uvm_file_read(path, 1 << 20, &body, &err))
        server_ok(fd, body.data, body.len);
    else
        server_say(fd,
                   "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnope");
}

static void test_http(void **state)
{
    uvm_auto_free char *dir = good_tree();
    struct server server = {.opaque = dir};
    (void)state;
    server_start(&server, serve_folder);
    auto_result r = load(server.url, INDEX_PATH, verifier);
    server_stop(&server);
    if (!r.ok)
        fail_msg("%s", r.err.message);
    assert_int_equal(r.count, 1);
    assert_int_equal(server.requests, 2); /* every file once */
    assert_non_null(strstr(server.last, "org.example%3Areleased%3Adownload.sjson"));
    assert_non_null(strstr(server.last, "User-Agent: uvmirror/" UVM_VERSION "\r\n"));
}

static void test_http_password(void **state)
{
    uvm_auto_free char *dir = good_tree();
    struct server server = {.opaque = dir};
    (void)state;
    server_start(&server, serve_folder);
    uvm_auto_free char *url = uvm_format("http://joe:secret@%s", server.url + 7);
    auto_result r = load(url, INDEX_PATH, verifier);
    auto_result missing = load(url, "none.sjson", verifier);
    server_stop(&server);
    assert_true(r.ok);
    assert_string_equal(r.streams[0]->source, server.url);
    assert_non_null(strstr(server.last, "Authorization: Basic am9lOnNlY3JldA==\r\n"));
    assert_refused(missing, UVM_SOURCE, "404");
    assert_null(strstr(missing.err.message, "secret"));
}

static void answer_by_path(struct server *s, int fd, const char *request, int number)
{
    (void)s, (void)number;
    if (strstr(request, "GET /500"))
        server_say(fd, "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n");
    else if (strstr(request, "GET /304"))
        server_say(fd, "HTTP/1.1 304 Same\r\n\r\n");
    else if (strstr(request, "GET /file"))
        server_say(fd, "HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n");
    else if (strstr(request, "GET /ftp"))
        server_say(fd, "HTTP/1.1 302 Found\r\nLocation: ftp://127.0.0.1/x\r\n\r\n");
    else if (strstr(request, "GET /loop"))
        server_say(fd, "HTTP/1.1 302 Found\r\nLocation: /loop.sjson\r\nContent-Length: 0\r\n"
                       "Connection: close\r\n\r\n");
    else if (strstr(request, "GET /short"))
        server_say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc");
    else if (strstr(request, "GET /garbage"))
        server_say(fd, "\x01\x02\x03 this is not HTTP");
    else if (strstr(request, "GET /control"))
        server_say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\x1b[2J");
    /* anything else: the connection is closed without a byte */
}

static void test_http_refusals(void **state)
{
    static const struct {
        const char *path, *words;
    } cases[] = {
        {"500.sjson", "HTTP status 500"},   {"304.sjson", "HTTP status 304"},
        {"file.sjson", "redirected to"},    {"ftp.sjson", "redirected to"},
        {"loop.sjson", "10 redirects"},     {"short.sjson", "short.sjson"},
        {"garbage.sjson", "garbage.sjson"}, {"empty.sjson", "empty.sjson"},
    };
    struct server server = {0};
    (void)state;
    server_start(&server, answer_by_path);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        auto_result r = load(server.url, cases[i].path, verifier);
        assert_refused(r, UVM_SOURCE, cases[i].words);
        assert_non_null(strstr(r.err.message, server.url)); /* names the URL */
    }
    int before = server.requests;
    auto_result loop = load(server.url, "loop.sjson", verifier);
    assert_int_equal(server.requests - before, 11); /* the first and ten redirects */
    assert_int_equal(loop.err.code, UVM_SOURCE);
    auto_result control = load(server.url, "control.sjson", verifier);
    assert_int_equal(control.err.code, UVM_TRUST);
    server_stop(&server);
    auto_result gone = load(server.url, INDEX_PATH, verifier); /* connection refused */
    assert_refused(gone, UVM_SOURCE, server.url);
}

static void answer_torn(struct server *s, int fd, const char *request, int number)
{
    if (number == 1) /* the first products file is an unsigned one of an update under way */
        server_ok(fd, products_json, strlen(products_json));
    else
        serve_folder(s, fd, request, number);
}

static void count_notices(void *opaque, const struct uvm_event *event)
{
    *(int *)opaque += event->kind == UVM_EVENT_NOTICE;
}

static void test_torn_source_is_read_again(void **state)
{
    uvm_auto_free char *dir = good_tree();
    struct server server = {.opaque = dir};
    int notices = 0;
    struct uvm_observer observer = {count_notices, &notices, NULL};
    (void)state;
    server_start(&server, answer_torn);
    auto_result r = load_watched(server.url, INDEX_PATH, verifier, NULL, &observer);
    server_stop(&server);
    assert_true(r.ok);
    assert_int_equal(r.count, 1);
    assert_int_equal(server.requests, 4);
    assert_int_equal(notices, 1);
}

static atomic_bool stop;

static void answer_stall(struct server *s, int fd, const char *request, int number)
{
    (void)s, (void)request, (void)number;
    server_say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc");
    stop = 1;
    server_wait(fd);
}

static void test_interrupted(void **state)
{
    struct server server = {0};
    struct uvm_observer observer = {NULL, NULL, &stop};
    (void)state;
    server_start(&server, answer_stall);
    auto_result r = load_watched(server.url, INDEX_PATH, verifier, NULL, &observer);
    server_stop(&server);
    assert_refused(r, UVM_INTERRUPTED, "interrupted");
}

/* ---- set-up ---- */

static int set_up(void **state)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    char fingerprint[UVM_FINGERPRINT_MAX];
    uvm_auto_buf armored = {0};
    uvm_auto_strings keyrings = {0};
    (void)state;
    if (!mkdtemp(root))
        return -1;
    uvm_auto_free char *home = uvm_format("%s/gnupg", root);
    keyring = uvm_format("%s/key.asc", root);
    uvm_strings_add(&keyrings, keyring);
    if (!uvm_key_generate(home, "Test <test@example.org>", 0, fingerprint, &err) ||
        !uvm_key_export(home, fingerprint, &armored, &err) ||
        !uvm_file_replace(keyring, 0644, armored.data, armored.len, &err) ||
        !uvm_signer_new(home, NULL, &signer, &err) ||
        !uvm_verifier_new(&keyrings, &verifier, &err)) {
        print_error("%s\n", err.message);
        return -1;
    }
    return 0;
}

static int tear_down(void **state)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    (void)state;
    uvm_verifier_free(verifier);
    uvm_signer_free(signer);
    free(keyring);
    return uvm_remove_tree(root, &err) ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_locations),
        cmocka_unit_test(test_bad_locations),
        cmocka_unit_test(test_paths_are_escaped),
        cmocka_unit_test(test_folder),
        cmocka_unit_test(test_file_url_and_products_path),
        cmocka_unit_test(test_without_authentication),
        cmocka_unit_test(test_datatype_filter),
        cmocka_unit_test(test_unsigned_path_wants_consent),
        cmocka_unit_test(test_every_file_must_be_signed),
        cmocka_unit_test(test_content_id_must_agree),
        cmocka_unit_test(test_unsafe_products_path),
        cmocka_unit_test(test_unknown_format),
        cmocka_unit_test(test_too_many_streams),
        cmocka_unit_test(test_odd_files),
        cmocka_unit_test(test_http),
        cmocka_unit_test(test_http_password),
        cmocka_unit_test(test_http_refusals),
        cmocka_unit_test(test_torn_source_is_read_again),
        cmocka_unit_test(test_interrupted),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
