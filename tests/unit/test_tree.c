/* The mirror folder: downloads from good and hostile sources, the record, what stands on disk. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "mirror/mirror.h"
#include "scripted_server.h"

#define IMAGE_PATH "server/releases/noble/release-20241004/disk:1.img"
#define IMAGE_SIZE 300000

static char root[] = "/tmp/test-tree-XXXXXX";
static char content[IMAGE_SIZE];
static char sha256[UVM_DIGEST_HEX_MAX], sha512[UVM_DIGEST_HEX_MAX];

/* ---- helpers ---- */

static char *new_dir(void)
{
    static int count;
    uvm_auto_error err = UVM_ERROR_INIT;
    char *dir = uvm_format("%s/%d", root, count++);
    assert_true(uvm_make_dirs(dir, 0755, &err));
    return dir;
}

static void put(const char *dir, const char *name, const void *data, size_t len)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *path = uvm_format("%s/%s", dir, name);
    uvm_auto_free char *parent = uvm_dirname(path);
    assert_true(uvm_make_dirs(parent, 0755, &err));
    assert_true(uvm_file_replace(path, 0644, data, len, &err));
}

static bool there(const char *dir, const char *name)
{
    struct stat st;
    uvm_auto_free char *path = uvm_format("%s/%s", dir, name);
    return lstat(path, &st) == 0;
}

/* An image as its stream signs it; either sum may be NULL. */
static struct mirror_image image_of(uint64_t size, const char *hex256, const char *hex512)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    struct mirror_image image = {0};
    uvm_auto_free char *size_text = uvm_format("%llu", (unsigned long long)size);
    mirror_auto_json *metadata =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s*, s:s*}", "product_name",
                  "org.example:24.04:amd64", "version_name", "20241004", "item_name", "disk1.img",
                  "release", "noble", "arch", "amd64", "path", IMAGE_PATH, "size", size_text,
                  "sha256", hex256, "sha512", hex512);
    if (!mirror_image_from_metadata(metadata, IMAGE_PATH, &image, &err))
        fail_msg("%s", err.message);
    return image;
}
#define auto_image __attribute__((cleanup(mirror_image_clear))) struct mirror_image

static struct mirror_tree *open_tree(const char *dir)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    struct mirror_tree *tree = NULL;
    if (!mirror_tree_open(dir, &tree, &err))
        fail_msg("%s", err.message);
    return tree;
}

static bool fetch(struct mirror_tree *tree, const char *url, const struct mirror_image *image,
                  const struct uvm_observer *observer, struct uvm_error *err)
{
    UVM_AUTO(mirror_source_free) struct mirror_source *source = NULL;
    struct mirror_source_options options = {.url = url, .path = "streams/v1/index.json"};
    if (!mirror_source_new(&options, &source, err))
        return false;
    UVM_AUTO(mirror_download_free)
    struct mirror_download *download = mirror_download_start(tree, source, &image, 1, observer);
    return mirror_download_wait(download, err);
}

static void assert_fetch(struct mirror_tree *tree, const char *url,
                         const struct mirror_image *image)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    if (!fetch(tree, url, image, NULL, &err))
        fail_msg("%s", err.message);
    assert_true(mirror_tree_has(tree, image));
}

/* Refused with that code and words, and nothing stands at the image's path. */
static void assert_no_fetch(struct mirror_tree *tree, const char *url,
                            const struct mirror_image *image, enum uvm_code code, const char *words)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    assert_false(fetch(tree, url, image, NULL, &err));
    if (err.code != code || !strstr(err.message, words))
        fail_msg("code %d: %s", err.code, err.message);
    assert_false(mirror_tree_has(tree, image));
    assert_false(there(mirror_tree_dir(tree), image->path));
}

static bool has_partial(const char *dir)
{
    uvm_auto_free char *name = uvm_format("uvmirror/partial/%s", sha256);
    return there(dir, name);
}

static void put_partial(const char *dir, const void *data, size_t len)
{
    uvm_auto_free char *name = uvm_format("uvmirror/partial/%s", sha256);
    put(dir, name, data, len);
}

static char *good_source(void)
{
    char *dir = new_dir();
    put(dir, IMAGE_PATH, content, sizeof content);
    return dir;
}

/* ---- from a folder ---- */

static void test_fetch(void **state)
{
    uvm_auto_free char *source = good_source(), *dir = new_dir();
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_buf got = {0};
    auto_image image = image_of(IMAGE_SIZE, sha256, NULL);
    (void)state;
    UVM_AUTO(mirror_tree_free) struct mirror_tree *tree = open_tree(dir);
    assert_false(mirror_tree_has(tree, &image));
    assert_fetch(tree, source, &image);
    assert_false(has_partial(dir));
    uvm_auto_free char *path = uvm_format("%s/" IMAGE_PATH, dir);
    assert_true(uvm_file_read(path, 1 << 20, &got, &err));
    assert_int_equal(got.len, IMAGE_SIZE);
    assert_memory_equal(got.data, content, IMAGE_SIZE);
    uvm_auto_fd fd = -1;
    assert_true(mirror_tree_open_image(tree, &image, &fd, &err));
    assert_true(fd >= 0);
}

static void test_sha256_when_only_sha512_is_signed(void **state)
{
    uvm_auto_free char *source = good_source(), *dir = new_dir();
    uvm_auto_error err = UVM_ERROR_INIT;
    char hex[UVM_DIGEST_HEX_MAX] = "";
    auto_image image = image_of(IMAGE_SIZE, NULL, sha512);
    (void)state;
    UVM_AUTO(mirror_tree_free) struct mirror_tree *tree = open_tree(dir);
    assert_false(mirror_tree_sha256(tree, &image, hex, &err));
    assert_int_equal(err.code, UVM_FAILED);
    assert_fetch(tree, source, &image);
    uvm_error_clear(&err);
    assert_true(mirror_tree_sha256(tree, &image, hex, &err));
    assert_string_equal(hex, sha256);
    /* and from the record on disk */
    mirror_tree_free(tree);
    tree = open_tree(dir);
    memset(hex, 0, sizeof hex);
    assert_true(mirror_tree_sha256(tree, &image, hex, &err));
    assert_string_equal(hex, sha256);
}

static void test_both_sums_must_hold(void **state)
{
    uvm_auto_free char *source = good_source(), *dir = new_dir();
    char other[UVM_DIGEST_HEX_MAX];
    (void)state;
    uvm_digest_bytes(UVM_SHA256, "x", 1, other);
    auto_image image = image_of(IMAGE_SIZE, other, sha512);
    UVM_AUTO(mirror_tree_free) struct mirror_tree *tree = open_tree(dir);
    assert_no_fetch(tree, source, &image, UVM_CONTENT, "checksum");
}

static void test_empty_image(void **state)
{
    uvm_auto_free char *source = new_dir(), *dir = new_dir();
    char hex[UVM_DIGEST_HEX_MAX];
    (void)state;
    put(source, IMAGE_PATH, "", 0);
    uvm_digest_bytes(UVM_SHA256, "", 0, hex);
    auto_image image = image_of(0, hex, NULL);
    UVM_AUTO(mirror_tree_free) struct mirror_tree *tree = open_tree(dir);
    assert_fetch(tree, source, &image);
}

static void test_wrong_content(void **state)
{
    uvm_auto_free char *source = new_dir(), *dir = new_dir();
    auto_image image = image_of(IMAGE_SIZE, sha256, NULL);
    (void)state;
    UVM_AUTO(mirror_tree_free) struct mirror_tree *tree = open_tree(dir);
    assert_no_fetch(tree, source, &image, UVM_SOURCE, "cannot read"); /* not there */
    content[1000] ^= 1;
    put(source, IMAGE_PATH, content, sizeof content);
    content[1000] ^= 1;
    assert_no_fetch(tree, source, &image, UVM_CONTENT, "checksum");
    assert_false(has_partial(dir));
    put(source, IMAGE_PATH, content, sizeof content - 1);
    assert_no_fetch(tree, source, &image, UVM_SOURCE, "299999");
    auto_image small = image_of(IMAGE_SIZE - 2, sha256, NULL);
    assert_no_fetch(tree, source, &small, UVM_CONTENT, "299999");
}

static void test_source_is_a_fifo(void **state)
{
    uvm_auto_free char *source = good_source(), *dir = new_dir();
    uvm_auto_free char *path = uvm_format("%s/" IMAGE_PATH, source);
    auto_image image = image_of(IMAGE_SIZE, sha256, NULL);
    (void)state;
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0);
    UVM_AUTO(mirror_tree_free) struct mirror_tree *tree = open_tree(dir);
    assert_no_fetch(tree, source, &image, UVM_SOURCE, "not a regular file");
}

static void test_no_space(void **state)
{
    uvm_auto_free char *source = good_source(), *dir = new_dir();
    auto_image image = image_of(MIRROR_SIZE_MAX, sha256, NULL);
    (void)state;
    UVM_AUTO(mirror_tree_free) struct mirror_tree *tree = open_tree(dir);
    assert_no_fetch(tree, source, &image, UVM_SPACE, "1.13 PB");
    assert_false(has_partial(dir));
}

/* ---- the record ---- */

static void test_record(void **state)
{
    uvm_auto_free char *source = good_source(), *dir = new_dir(), *nothing = new_dir();
    auto_image image = image_of(IMAGE_SIZE, sha256, NULL);
    char other[UVM_DIGEST_HEX_MAX];
    (void)state;
    UVM_AUTO(mirror_tree_free) struct mirror_tree *tree = open_tree(dir);
    assert_fetch(tree, source, &image);
    mirror_tree_free(tree);
    tree = open_tree(dir);
    assert_true(mirror_tree_has(tree, &image));
    uvm_digest_bytes(UVM_SHA256, "x", 1, other);
    auto_image changed = image_of(IMAGE_SIZE, other, NULL);
    assert_false(mirror_tree_has(tree, &changed)); /* the stream signs something else now */
    auto_image longer = image_of(IMAGE_SIZE + 1, sha256, NULL);
    assert_false(mirror_tree_has(tree, &longer));
    assert_fetch(tree, nothing, &image); /* and nothing is asked of the source */
}

static void test_damaged_record(void **state)
{
    static const char *const records[] = {
        "",
        "{",
        "[]",
        "{\"format\": 1}",
        "{\"format\": 1, \"files\": []}",
        "{\"format\": 2, \"files\": {}}",
        "{\"format\": 1, \"files\": {\"" IMAGE_PATH "\": 7, \"/etc/passwd\": {}, \"\": {}}}",
    };
    (void)state;
    for (size_t i = 0; i < sizeof records / sizeof *records; i++) {
        uvm_auto_free char *dir = good_source(), *nothing = new_dir();
        auto_image image = image_of(IMAGE_SIZE, sha256, sha512);
        put(dir, "uvmirror/verified.json", records[i], strlen(records[i]));
        UVM_AUTO(mirror_tree_free) struct mirror_tree *tree = open_tree(dir);
        assert_false(mirror_tree_has(tree, &image));
        assert_fetch(tree, nothing, &image); /* the file is hashed and adopted */
    }
}

static void test_record_of_another_boot(void **state)
{
    uvm_auto_free char *source = good_source(), *dir = new_dir(), *nothing = new_dir();
    uvm_auto_free char *path = uvm_format("%s/uvmirror/verified.json", dir);
    auto_image image = image_of(IMAGE_SIZE, sha256, NULL);
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_buf text = {0}, after = {0};
    (void)state;
    UVM_AUTO(mirror_tree_free) struct mirror_tree *tree = open_tree(dir);
    assert_fetch(tree, source, &image);
    mirror_tree_free(tree);
    assert_true(uvm_file_read(path, 1 << 20, &text, &err));
    char *boot = strstr(text.data, "\"boot\": \"");
    assert_non_null(boot);
    boot[9] = boot[9] == '0' ? '1' : '0';
    put(dir, "uvmirror/verified.json", text.data, text.len);
    tree = open_tree(dir);
    assert_false(mirror_tree_has(tree, &image));
    assert_fetch(tree, nothing, &image);
    mirror_tree_free(UVM_STEAL(tree));
    assert_true(uvm_file_read(path, 1 << 20, &after, &err));
    assert_null(strstr(after.data, "boot")); /* it was read from the disk and synced */
}

static void test_changed_file_is_fetched_again(void **state)
{
    uvm_auto_free char *source = good_source(), *dir = new_dir(), *nothing = new_dir();
    auto_image image = image_of(IMAGE_SIZE, sha256, NULL);
    uvm_auto_error err = UVM_ERROR_INIT;
    (void)state;
    UVM_AUTO(mirror_tree_free) struct mirror_tree *tree = open_tree(dir);
    assert_fetch(tree, source, &image);
    content[7] ^= 1;
    put(dir, IMAGE_PATH, content, sizeof content);
    content[7] ^= 1;
    assert_false(mirror_tree_has(tree, &image));
    assert_false(fetch(tree, nothing, &image, NULL, &err)); /* not adopted */
    assert_fetch(tree, source, &image);
    put(dir, IMAGE_PATH, content, 10);
    assert_false(mirror_tree_has(tree, &image));
    uvm_auto_fd fd = -1;
    uvm_error_clear(&err);
    assert_false(mirror_tree_open_image(tree, &image, &fd, &err));
    assert_int_equal(err.code, UVM_CONTENT);
    assert_fetch(tree, source, &image);
}

/* ---- symbolic links and other odd things on disk ---- */

static void test_links_are_not_followed(void **state)
{
    uvm_auto_free char *source = good_source(), *dir = new_dir(), *outside = new_dir();
    uvm_auto_free char *link = uvm_format("%s/server", dir);
    auto_image image = image_of(IMAGE_SIZE, sha256, NULL);
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_fd fd = -1;
    (void)state;
    put(outside, strchr(IMAGE_PATH, '/') + 1, content, sizeof content);
    assert_int_equal(symlink(outside, link), 0);
    UVM_AUTO(mirror_tree_free) struct mirror_tree *tree = open_tree(dir);
    assert_false(fetch(tree, source, &image, NULL, &err));
    assert_int_equal(err.code, UVM_FAILED);
    assert_non_null(strstr(err.message, "cannot make folder server"));
    assert_false(mirror_tree_has(tree, &image));
    uvm_error_clear(&err);
    assert_false(mirror_tree_open_image(tree, &image, &fd, &err));
    assert_int_equal(err.sys_errno, ELOOP);
}

static void test_link_in_place_of_the_image(void **state)
{
    uvm_auto_free char *source = good_source(), *dir = new_dir(), *outside = new_dir();
    uvm_auto_free char *victim = uvm_format("%s/victim", outside);
    uvm_auto_free char *link = uvm_format("%s/" IMAGE_PATH, dir);
    uvm_auto_free char *parent = uvm_dirname(link);
    auto_image image = image_of(IMAGE_SIZE, sha256, NULL);
    uvm_auto_error err = UVM_ERROR_INIT;
    struct stat st;
    (void)state;
    put(outside, "victim", "keep me", 7);
    assert_true(uvm_make_dirs(parent, 0755, &err));
    assert_int_equal(symlink(victim, link), 0);
    UVM_AUTO(mirror_tree_free) struct mirror_tree *tree = open_tree(dir);
    assert_fetch(tree, source, &image);
    assert_int_equal(lstat(link, &st), 0);
    assert_true(S_ISREG(st.st_mode));
    assert_int_equal(stat(victim, &st), 0);
    assert_int_equal(st.st_size, 7);
}

static void test_link_in_place_of_the_partial(void **state)
{
    uvm_auto_free char *source = good_source(), *dir = new_dir(), *outside = new_dir();
    uvm_auto_free char *victim = uvm_format("%s/victim", outside);
    uvm_auto_free char *link = uvm_format("%s/uvmirror/partial/%s", dir, sha256);
    auto_image image = image_of(IMAGE_SIZE, sha256, NULL);
    struct stat st;
    (void)state;
    put(outside, "victim", "keep me", 7);
    UVM_AUTO(mirror_tree_free) struct mirror_tree *tree = open_tree(dir);
    assert_int_equal(symlink(victim, link), 0);
    assert_no_fetch(tree, source, &image, UVM_FAILED, "uvmirror/partial");
    assert_int_equal(unlink(link), 0);
    assert_int_equal(linkat(AT_FDCWD, victim, AT_FDCWD, link, 0), 0);
    assert_no_fetch(tree, source, &image, UVM_FAILED, "not a plain file");
    assert_int_equal(stat(victim, &st), 0);
    assert_int_equal(st.st_size, 7);
}

static void test_lock(void **state)
{
    uvm_auto_free char *dir = new_dir();
    uvm_auto_error err = UVM_ERROR_INIT;
    struct mirror_tree *second = NULL;
    (void)state;
    UVM_AUTO(mirror_tree_free) struct mirror_tree *tree = open_tree(dir);
    assert_false(mirror_tree_open(dir, &second, &err));
    assert_int_equal(err.code, UVM_BUSY);
    assert_non_null(strstr(err.message, dir));
    mirror_tree_free(tree);
    tree = open_tree(dir);
}

static void test_old_partials_go(void **state)
{
    uvm_auto_free char *dir = new_dir();
    uvm_auto_free char *path = uvm_format("%s/uvmirror/partial/old", dir);
    struct timespec times[2] = {{.tv_sec = time(NULL) - 40L * 24 * 3600},
                                {.tv_sec = time(NULL) - 40L * 24 * 3600}};
    (void)state;
    put(dir, "uvmirror/partial/old", "x", 1);
    put(dir, "uvmirror/partial/new", "x", 1);
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    UVM_AUTO(mirror_tree_free) struct mirror_tree *tree = open_tree(dir);
    assert_false(there(dir, "uvmirror/partial/old"));
    assert_true(there(dir, "uvmirror/partial/new"));
}

/* ---- from hostile servers ---- */

enum trick {
    SEND_ALL,
    SEND_LONGER,
    SEND_LONGER_UNANNOUNCED,
    SEND_SHORTER,
    SEND_SHORTER_UNANNOUNCED,
    SEND_BROKEN_OFF,
    SEND_HALF_AND_WAIT,
    SEND_ERROR_PAGE,
    SEND_REDIRECT_TO_FILE,
    RANGE_IGNORED,
    RANGE_OF_ANOTHER_START,
    RANGE_OF_ANOTHER_SIZE,
    RANGE_REFUSED,
    RANGE_UNASKED,
    RANGE_OF_OTHER_BYTES,
};

static void send_head(int fd, const char *status, long long length, const char *more)
{
    uvm_auto_free char *head =
        length < 0
            ? uvm_format("HTTP/1.1 %s\r\nConnection: close\r\n%s\r\n", status, more)
            : uvm_format("HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: %lld\r\n%s\r\n",
                         status, length, more);
    server_say(fd, head);
}

static void send_range(int fd, long long first, long long last, long long total)
{
    uvm_auto_free char *range =
        uvm_format("Content-Range: bytes %lld-%lld/%lld\r\n", first, last, total);
    send_head(fd, "206 Partial Content", last - first + 1, range);
}

static void answer(struct server *s, int fd, const char *request, int number)
{
    enum trick trick = *(enum trick *)s->opaque;
    const char *range = strstr(request, "Range: bytes=");
    long long from = range ? atoll(range + strlen("Range: bytes=")) : 0;
    (void)number;
    if (range && trick == RANGE_REFUSED)
        return send_head(fd, "416 Range Not Satisfiable", 0, "");
    if (range && trick == RANGE_OF_ANOTHER_START) {
        send_range(fd, from - 1, IMAGE_SIZE - 1, IMAGE_SIZE);
        return server_send(fd, content + from - 1, (size_t)(IMAGE_SIZE - from + 1));
    }
    if (range && trick == RANGE_OF_ANOTHER_SIZE) {
        send_range(fd, from, IMAGE_SIZE + 99, IMAGE_SIZE + 100);
        return server_send(fd, content + from, (size_t)(IMAGE_SIZE - from));
    }
    if (range && trick == RANGE_OF_OTHER_BYTES) {
        send_range(fd, from, IMAGE_SIZE - 1, IMAGE_SIZE);
        return server_send(fd, content, (size_t)(IMAGE_SIZE - from));
    }
    if ((range && trick != RANGE_IGNORED) || trick == RANGE_UNASKED) {
        send_range(fd, from, IMAGE_SIZE - 1, IMAGE_SIZE);
        return server_send(fd, content + from, (size_t)(IMAGE_SIZE - from));
    }
    switch (trick) {
    case SEND_LONGER:
        send_head(fd, "200 OK", IMAGE_SIZE + 1, "");
        server_send(fd, content, IMAGE_SIZE);
        return server_say(fd, "x");
    case SEND_LONGER_UNANNOUNCED:
        send_head(fd, "200 OK", -1, "");
        for (int i = 0; i < 1000; i++) /* 300 MB, if somebody takes them */
            server_send(fd, content, IMAGE_SIZE);
        return;
    case SEND_SHORTER:
        return server_ok(fd, content, IMAGE_SIZE - 1);
    case SEND_SHORTER_UNANNOUNCED:
        send_head(fd, "200 OK", -1, "");
        return server_send(fd, content, IMAGE_SIZE - 1);
    case SEND_BROKEN_OFF:
        send_head(fd, "200 OK", IMAGE_SIZE, "");
        return server_send(fd, content, IMAGE_SIZE / 2);
    case SEND_HALF_AND_WAIT:
        send_head(fd, "200 OK", IMAGE_SIZE, "");
        server_send(fd, content, IMAGE_SIZE / 2);
        return (void)recv(fd, &(char){0}, 1, 0); /* until the client goes */
    case SEND_ERROR_PAGE:
        return server_ok(fd, "<html>Sign in to this network</html>", 36);
    case SEND_REDIRECT_TO_FILE:
        return send_head(fd, "302 Found", 0, "Location: file:///etc/hostname\r\n");
    default:
        return server_ok(fd, content, IMAGE_SIZE);
    }
}

static void test_hostile_bodies(void **state)
{
    static const struct {
        enum trick trick;
        enum uvm_code code;
        const char *words;
        bool keeps_partial;
    } cases[] = {
        {SEND_LONGER, UVM_CONTENT, "300001", false},
        {SEND_LONGER_UNANNOUNCED, UVM_CONTENT, "more than", false},
        {SEND_SHORTER, UVM_SOURCE, "299999", false},
        {SEND_SHORTER_UNANNOUNCED, UVM_SOURCE, "ended after 299999", true},
        {SEND_BROKEN_OFF, UVM_SOURCE, "http://127.0.0.1", true},
        {SEND_ERROR_PAGE, UVM_SOURCE, "36 bytes", false},
        {SEND_REDIRECT_TO_FILE, UVM_SOURCE, "redirected", false},
        {RANGE_UNASKED, UVM_SOURCE, "HTTP status 206", false},
    };
    auto_image image = image_of(IMAGE_SIZE, sha256, NULL);
    enum trick trick;
    struct server server = {.opaque = &trick};
    (void)state;
    server_start(&server, answer);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uvm_auto_free char *dir = new_dir();
        trick = cases[i].trick;
        UVM_AUTO(mirror_tree_free) struct mirror_tree *tree = open_tree(dir);
        assert_no_fetch(tree, server.url, &image, cases[i].code, cases[i].words);
        assert_int_equal(has_partial(dir), cases[i].keeps_partial);
        trick = SEND_ALL; /* the next run recovers */
        assert_fetch(tree, server.url, &image);
        assert_false(has_partial(dir));
    }
    server_stop(&server);
    assert_non_null(strstr(server.last, "disk%3A1.img"));
}

static void test_resume(void **state)
{
    static const struct {
        enum trick trick;
        int requests;
        bool good_partial;
    } cases[] = {
        {SEND_ALL, 1, true},
        {SEND_ALL, 2, false}, /* the sum is wrong: once more from the start */
        {RANGE_IGNORED, 1, true},
        {RANGE_IGNORED, 1, false},
        {RANGE_OF_ANOTHER_START, 2, true},
        {RANGE_OF_ANOTHER_SIZE, 2, true},
        {RANGE_REFUSED, 2, true},
        {RANGE_OF_OTHER_BYTES, 2, true},
    };
    auto_image image = image_of(IMAGE_SIZE, sha256, NULL);
    enum trick trick;
    struct server server = {.opaque = &trick};
    char *bad = uvm_alloc(IMAGE_SIZE);
    (void)state;
    server_start(&server, answer);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uvm_auto_free char *dir = new_dir();
        trick = cases[i].trick;
        put_partial(dir, cases[i].good_partial ? content : bad, IMAGE_SIZE / 3);
        UVM_AUTO(mirror_tree_free) struct mirror_tree *tree = open_tree(dir);
        int before = server.requests;
        assert_fetch(tree, server.url, &image);
        assert_int_equal(server.requests - before, cases[i].requests);
        assert_false(has_partial(dir));
        if (cases[i].requests == 1)
            assert_non_null(strstr(server.last, "Range: bytes=100000-\r\n"));
        else
            assert_null(strstr(server.last, "Range:"));
    }
    server_stop(&server);
    free(bad);
}

static void test_whole_or_oversized_partial(void **state)
{
    auto_image image = image_of(IMAGE_SIZE, sha256, NULL);
    enum trick trick = SEND_ALL;
    struct server server = {.opaque = &trick};
    uvm_auto_free char *dir = new_dir(), *bad = uvm_alloc(IMAGE_SIZE + 1);
    (void)state;
    server_start(&server, answer);
    put_partial(dir, content, IMAGE_SIZE);
    UVM_AUTO(mirror_tree_free) struct mirror_tree *tree = open_tree(dir);
    assert_fetch(tree, server.url, &image);
    assert_int_equal(server.requests, 0);
    uvm_auto_free char *path = uvm_format("%s/" IMAGE_PATH, dir);
    for (int extra = 0; extra < 2; extra++) {
        assert_int_equal(unlink(path), 0);
        put_partial(dir, bad, (size_t)(IMAGE_SIZE + extra));
        assert_fetch(tree, server.url, &image);
        assert_int_equal(server.requests, 1 + extra);
    }
    server_stop(&server);
}

static void test_resume_from_a_folder(void **state)
{
    uvm_auto_free char *source = good_source(), *dir = new_dir();
    auto_image image = image_of(IMAGE_SIZE, sha256, NULL);
    (void)state;
    put_partial(dir, content, 12345);
    UVM_AUTO(mirror_tree_free) struct mirror_tree *tree = open_tree(dir);
    assert_fetch(tree, source, &image);
}

/* ---- interruption and progress ---- */

struct watch {
    atomic_bool stop;
    uint64_t last, total;
    int done;
};

static void watch_event(void *opaque, const struct uvm_event *event)
{
    struct watch *w = opaque;
    if (event->kind == UVM_EVENT_DONE)
        w->done++;
    if (event->kind != UVM_EVENT_PROGRESS)
        return;
    assert_true(event->done >= w->last);
    assert_string_equal(event->subject, "noble amd64 20241004");
    w->last = event->done;
    w->total = event->total;
}

static void watch_and_stop(void *opaque, const struct uvm_event *event)
{
    struct watch *w = opaque;
    w->stop |= event->kind == UVM_EVENT_PROGRESS;
}

static void test_progress(void **state)
{
    uvm_auto_free char *source = good_source(), *dir = new_dir();
    auto_image image = image_of(IMAGE_SIZE, sha256, NULL);
    struct watch w = {0};
    struct uvm_observer observer = {watch_event, &w, &w.stop};
    uvm_auto_error err = UVM_ERROR_INIT;
    (void)state;
    UVM_AUTO(mirror_tree_free) struct mirror_tree *tree = open_tree(dir);
    assert_true(fetch(tree, source, &image, &observer, &err));
    assert_int_equal(w.last, IMAGE_SIZE);
    assert_int_equal(w.total, IMAGE_SIZE);
    assert_int_equal(w.done, 1);
}

static void test_interrupted_download_goes_on(void **state)
{
    auto_image image = image_of(IMAGE_SIZE, sha256, NULL);
    enum trick trick = SEND_HALF_AND_WAIT;
    struct server server = {.opaque = &trick};
    uvm_auto_free char *dir = new_dir();
    struct watch w = {0};
    struct uvm_observer observer = {watch_and_stop, &w, &w.stop};
    uvm_auto_error err = UVM_ERROR_INIT;
    (void)state;
    server_start(&server, answer);
    UVM_AUTO(mirror_tree_free) struct mirror_tree *tree = open_tree(dir);
    assert_false(fetch(tree, server.url, &image, &observer, &err));
    assert_int_equal(err.code, UVM_INTERRUPTED);
    assert_true(has_partial(dir));
    trick = SEND_ALL;
    assert_fetch(tree, server.url, &image);
    server_stop(&server);
    assert_non_null(strstr(server.last, "Range: bytes="));
}

static void test_interrupted_at_once_keeps_the_partial(void **state)
{
    uvm_auto_free char *source = good_source(), *dir = new_dir();
    auto_image image = image_of(IMAGE_SIZE, sha256, NULL);
    struct watch w = {.stop = 1};
    struct uvm_observer observer = {NULL, NULL, &w.stop};
    uvm_auto_error err = UVM_ERROR_INIT;
    (void)state;
    put_partial(dir, content, 12345);
    UVM_AUTO(mirror_tree_free) struct mirror_tree *tree = open_tree(dir);
    assert_false(fetch(tree, source, &image, &observer, &err));
    assert_int_equal(err.code, UVM_INTERRUPTED);
    assert_true(has_partial(dir));
}

/* ---- bundles ---- */

static uint64_t serial(struct mirror_tree *tree, time_t now)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uint64_t got = 0;
    if (!mirror_tree_next_serial(tree, now, &got, &err))
        fail_msg("%s", err.message);
    return got;
}

static void test_serials(void **state)
{
    uvm_auto_free char *dir = new_dir();
    (void)state;
    UVM_AUTO(mirror_tree_free) struct mirror_tree *tree = open_tree(dir);
    assert_int_equal(serial(tree, 1000), 1000);
    assert_int_equal(serial(tree, 1000), 1001);
    assert_int_equal(serial(tree, 10), 1002); /* the clock went back */
    mirror_tree_free(tree);
    tree = open_tree(dir);
    assert_int_equal(serial(tree, 0), 1003);
    assert_int_equal(serial(tree, 5000), 5000);
    static const char *const damaged[] = {"", "x", "-5\n", "99999999999999999999\n", "12junk"};
    for (size_t i = 0; i < sizeof damaged / sizeof *damaged; i++) {
        put(dir, "uvmirror/serial", damaged[i], strlen(damaged[i]));
        assert_int_equal(serial(tree, 7000), 7000);
    }
}

static void test_keep(void **state)
{
    uvm_auto_free char *dir = new_dir(), *outside = new_dir();
    uvm_auto_free char *link = uvm_format("%s/uvmirror/bundles/id/evil", dir);
    uvm_auto_error err = UVM_ERROR_INIT;
    static const char *const bad[][2] = {{"id", "../x"}, {"..", "x"}, {"a/b", "x"},    {"id", "/x"},
                                         {"", "x"},      {"id", ""},  {"id", "evil/x"}};
    (void)state;
    UVM_AUTO(mirror_tree_free) struct mirror_tree *tree = open_tree(dir);
    assert_true(mirror_tree_keep(tree, "id", "streams/v1/index.json", "{}", 2, &err));
    assert_true(there(dir, "uvmirror/bundles/id/streams/v1/index.json"));
    assert_true(mirror_tree_keep(tree, "id", "streams/v1/index.json", "{ }", 3, &err));
    assert_int_equal(symlink(outside, link), 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(mirror_tree_keep(tree, bad[i][0], bad[i][1], "x", 1, &err));
        uvm_error_clear(&err);
    }
    assert_false(there(outside, "x"));
    assert_false(there(dir, "uvmirror/bundles/x"));
    assert_false(mirror_tree_keep(tree, ".id", "x", "x", 1, &err));
}

static void test_keep_only(void **state)
{
    uvm_auto_free char *dir = new_dir(), *outside = new_dir();
    uvm_auto_free char *link = uvm_format("%s/uvmirror/bundles/b/evil", dir);
    uvm_auto_free char *folder = uvm_format("%s/uvmirror/bundles/link", dir);
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_strings none = {0}, ids = {0}, stay = {0};
    (void)state;
    put(outside, "x", "x", 1);
    UVM_AUTO(mirror_tree_free) struct mirror_tree *tree = open_tree(dir);
    assert_true(mirror_tree_kept(tree, &ids, &err) && ids.count == 0);
    assert_true(mirror_tree_keep_only(tree, &none, &err));
    for (const char *id = "a\0b\0c\0"; *id; id += 2)
        assert_true(mirror_tree_keep(tree, id, "streams/v1/index.json", "{}", 2, &err));
    put(dir, "uvmirror/bundles/.killed/streams/x", "x", 1);
    assert_int_equal(symlink(outside, link), 0);
    assert_int_equal(symlink(outside, folder), 0);
    assert_true(mirror_tree_kept(tree, &ids, &err));
    assert_int_equal(ids.count, 4); /* and the link */
    uvm_strings_add(&stay, "a");
    uvm_strings_add(&stay, "not there");
    assert_true(mirror_tree_keep_only(tree, &stay, &err));
    assert_true(there(dir, "uvmirror/bundles/a/streams/v1/index.json"));
    assert_false(there(dir, "uvmirror/bundles/b") || there(dir, "uvmirror/bundles/c"));
    assert_false(there(dir, "uvmirror/bundles/.b") || there(dir, "uvmirror/bundles/.killed"));
    assert_true(there(outside, "x"));
}

/* What a run was keeping when it was killed goes; what is whole stays, and so do links to elsewhere. */
static void test_half_kept(void **state)
{
    (void)state;
    static const char last[] = "uvmirror/manifest.json";
    uvm_auto_free char *dir = new_dir(), *outside = new_dir();
    uvm_auto_free char *link = uvm_format("%s/uvmirror/bundles/link", dir);
    uvm_auto_free char *elsewhere = uvm_format("%s/file", outside);
    uvm_auto_error err = UVM_ERROR_INIT;
    UVM_AUTO(mirror_tree_free) struct mirror_tree *tree = open_tree(dir);
    mirror_tree_drop_half_kept(tree, last); /* there is nothing yet */
    assert_true(mirror_tree_keep(tree, "uvmirror-whole", "streams/v1/index.json", "{}", 2, &err));
    assert_true(mirror_tree_keep(tree, "uvmirror-whole", last, "{}", 2, &err));
    assert_true(
        mirror_tree_keep(tree, "uvmirror-whole", "uvmirror/.parts.sums.uvm-AbC123", "x", 1, &err));
    assert_true(mirror_tree_keep(tree, "uvmirror-half", "streams/v1/index.json", "{}", 2, &err));
    assert_true(
        mirror_tree_keep(tree, "uvmirror-half", "streams/v1/.p.json.uvm-AbC123", "x", 1, &err));
    assert_true(uvm_file_replace(elsewhere, 0600, "x", 1, &err));
    assert_int_equal(symlink(outside, link), 0);
    mirror_tree_drop_half_kept(tree, last);
    assert_true(there(dir, "uvmirror/bundles/uvmirror-whole/streams/v1/index.json"));
    assert_true(there(dir, "uvmirror/bundles/uvmirror-whole/uvmirror/manifest.json"));
    assert_false(there(dir, "uvmirror/bundles/uvmirror-whole/uvmirror/.parts.sums.uvm-AbC123"));
    assert_false(there(dir, "uvmirror/bundles/uvmirror-half"));
    assert_true(there(outside, "file"));
}

/* ---- set-up ---- */

static int set_up(void **state)
{
    uint32_t x = 1;
    (void)state;
    for (size_t i = 0; i < sizeof content; i++) {
        x = x * 1664525 + 1013904223;
        content[i] = (char)(x >> 24);
    }
    uvm_digest_bytes(UVM_SHA256, content, sizeof content, sha256);
    uvm_digest_bytes(UVM_SHA512, content, sizeof content, sha512);
    return mkdtemp(root) ? 0 : -1;
}

static int tear_down(void **state)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    (void)state;
    return uvm_remove_tree(root, &err) ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fetch),
        cmocka_unit_test(test_sha256_when_only_sha512_is_signed),
        cmocka_unit_test(test_both_sums_must_hold),
        cmocka_unit_test(test_empty_image),
        cmocka_unit_test(test_wrong_content),
        cmocka_unit_test(test_source_is_a_fifo),
        cmocka_unit_test(test_no_space),
        cmocka_unit_test(test_record),
        cmocka_unit_test(test_damaged_record),
        cmocka_unit_test(test_record_of_another_boot),
        cmocka_unit_test(test_changed_file_is_fetched_again),
        cmocka_unit_test(test_links_are_not_followed),
        cmocka_unit_test(test_link_in_place_of_the_image),
        cmocka_unit_test(test_link_in_place_of_the_partial),
        cmocka_unit_test(test_lock),
        cmocka_unit_test(test_old_partials_go),
        cmocka_unit_test(test_hostile_bodies),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_whole_or_oversized_partial),
        cmocka_unit_test(test_resume_from_a_folder),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_interrupted_download_goes_on),
        cmocka_unit_test(test_interrupted_at_once_keeps_the_partial),
        cmocka_unit_test(test_serials),
        cmocka_unit_test(test_keep),
        cmocka_unit_test(test_keep_only),
        cmocka_unit_test(test_half_kept),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
