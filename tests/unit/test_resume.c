/* Downloads that go on where they broke off, in the same run and in the next. */
#include "download_stage.h"

/* ---- going on where it broke off ---- */

static const char *version_headers; /* of the file that the server has now */

static void breaks_once(struct stage *g, int fd, const char *request, int number)
{
    say_until(g, fd, request, number == 0 ? SMALL / 2 : SIZE_MAX, version_headers);
}

static void test_resume_names_the_version(void **state)
{
    static const struct {
        const char *headers, *condition;
    } cases[] = {
        {"ETag: \"v1\"\r\nLast-Modified: Fri, 04 Oct 2024 09:30:00 GMT\r\n",
         "\r\nIf-Range: \"v1\"\r\n"},
        {"ETag: W/\"v1\"\r\nLast-Modified: Fri, 04 Oct 2024 09:30:00 GMT\r\n",
         "\r\nIf-Range: Fri, 04 Oct 2024 09:30:00 GMT\r\n"},
        {"ETag: W/\"v1\"\r\n", NULL},
        {"ETag: \"v\"1\"\r\nLast-Modified: yesterday\r\n", NULL},
        {"", NULL},
    };
    (void)state;
    for (size_t i = 0; i < 2 * sizeof cases / sizeof *cases; i++) {
        struct stage g;
        bool same_run = i % 2;
        const char *condition = cases[i / 2].condition;
        version_headers = cases[i / 2].headers;
        open_small_stage(&g, breaks_once);
        g.network.retries = same_run ? 1 : 0;
        if (!same_run) {
            assert_bad(&g, UVM_SOURCE, "bytes remaining to read");
            assert_int_equal(partial_bytes(&g, ""), SMALL / 2);
            assert_int_equal(partial_bytes(&g, ".from") > 0, condition != NULL);
            close_tree_and_source(&g);
        }
        assert_good(&g);
        assert_int_equal(g.server.requests, 2);
        assert_int_equal(range_of(g.server.last), SMALL / 2);
        if (condition)
            assert_non_null(strstr(g.server.last, condition));
        else
            assert_null(strstr(g.server.last, "If-Range"));
        close_stage(&g);
    }
}

/* First half of an old file; then the new one, whole, since its version is not the old one. */
static void changes(struct stage *g, int fd, const char *request, int number)
{
    if (number == 0) {
        uvm_auto_free char *old = uvm_alloc(SMALL / 2);
        say_head(fd, 0, SMALL, "ETag: \"old\"\r\n");
        server_send(fd, old, SMALL / 2);
    } else if (strstr(request, "If-Range: \"old\"")) {
        say_until(g, fd, "GET /a HTTP", SIZE_MAX, "ETag: \"new\"\r\n");
    } else {
        say_until(g, fd, request, SIZE_MAX, "");
    }
}

static void test_changed_file_starts_over(void **state)
{
    (void)state;
    for (int same_run = 0; same_run < 2; same_run++) {
        struct stage g;
        open_small_stage(&g, changes);
        g.network.retries = same_run ? 1 : 0;
        if (!same_run)
            assert_bad(&g, UVM_SOURCE, "bytes remaining");
        assert_good(&g);
        assert_int_equal(g.server.requests, 2);
        close_stage(&g);
    }
}

/* A server that breaks off once, and then does not go on as it should. */
enum odd { WHOLE_FOR_RANGE, OTHER_RANGE, NO_RANGE_HEADER, NOT_SATISFIABLE, OTHER_BYTES, ODDS };

static void goes_on_oddly(struct stage *g, int fd, const char *request, int number)
{
    size_t from = range_of(request);
    if (number == 0)
        return say_until(g, fd, request, SMALL / 2, "");
    if (from == 0)
        return say_all(g, fd, request, number);
    switch ((enum odd)atomic_load(&g->step)) {
    case WHOLE_FOR_RANGE:
        return say_all(g, fd, "GET /a HTTP", number);
    case OTHER_RANGE:
        say_head(fd, from - 1, SMALL, "");
        return server_send(fd, g->contents[0] + from - 1, SMALL - from + 1);
    case NO_RANGE_HEADER:
        server_say(fd, "HTTP/1.1 206 Partial Content\r\nConnection: close\r\n\r\n");
        return server_send(fd, g->contents[0] + from, SMALL - from);
    case NOT_SATISFIABLE:
        return server_say(fd, "HTTP/1.1 416 No\r\nContent-Length: 0\r\n\r\n");
    default:
        say_head(fd, from, SMALL, "");
        return server_send(fd, g->contents[0], SMALL - from);
    }
}

static void test_odd_ranges_start_over(void **state)
{
    (void)state;
    for (int odd = 0; odd < ODDS; odd++) {
        struct stage g;
        open_small_stage(&g, goes_on_oddly);
        g.step = odd;
        assert_good(&g);
        assert_int_equal(g.server.requests, odd == WHOLE_FOR_RANGE ? 2 : 3);
        assert_int_equal(range_of(g.server.last) > 0, odd == WHOLE_FOR_RANGE);
        assert_int_equal(times_heard(&g, "trying again"), 1); /* only for the break */
        close_stage(&g);
    }
}

static void always_other_bytes(struct stage *g, int fd, const char *request, int number)
{
    (void)number;
    size_t from = range_of(request);
    say_head(fd, from, SMALL, "");
    server_send(fd, g->contents[0], SMALL - from - 1);
    server_say(fd, "x");
}

/* Once more from the start, but not for ever. */
static void test_wrong_bytes(void **state)
{
    struct stage g;
    (void)state;
    open_small_stage(&g, breaks_once);
    version_headers = "";
    g.network.retries = 0;
    assert_bad(&g, UVM_SOURCE, "bytes remaining");
    g.script = always_other_bytes;
    assert_bad(&g, UVM_CONTENT, "its checksum is not the signed one");
    assert_int_equal(g.server.requests, 3);
    assert_int_equal(partial_bytes(&g, ""), 0);
    assert_int_equal(partial_bytes(&g, ".from"), 0);
    close_stage(&g);
}

/* What stands in ".from" is believed only as far as it makes sense. */
static void test_odd_from(void **state)
{
    (void)state;
    for (int i = 0; i < 9; i++) {
        struct stage g;
        uvm_auto_error err = UVM_ERROR_INIT;
        open_small_stage(&g, say_all);
        open_tree_and_source(&g);
        const char *u = g.server.url;
        char *texts[] = {
            uvm_format("%sa\n\"v1\"\n", u),         /* this one is good */
            uvm_format("%sa\n\"v1\"", u),           /* torn */
            uvm_format("%sa\n\"v1", u),             /* torn */
            uvm_format("%sb\n\"v1\"\n", u),         /* of another file */
            uvm_format("%sa\nW/\"v1\"\n", u),       /* weak */
            uvm_format("%sa\n\"v1\"\nX: y\n", u),   /* more */
            uvm_format("%sa\n\"v1\r\"\n", u),       /* a control character */
            uvm_format("%sa\n\n", u),               /* nothing */
            uvm_format("%sa\n\"%01000d\"\n", u, 1), /* long */
        };
        uvm_auto_free char *partial =
            uvm_format("%s/uvmirror/partial/%s", g.dir, g.images[0].sha256);
        uvm_auto_free char *from = uvm_format("%s.from", partial);
        assert_true(uvm_file_replace(partial, 0644, g.contents[0], 1000, &err));
        assert_true(uvm_file_replace(from, 0644, texts[i], strlen(texts[i]), &err));
        assert_good(&g);
        assert_int_equal(range_of(g.server.last), 1000);
        assert_int_equal(strstr(g.server.last, "If-Range") != NULL, i == 0);
        for (size_t j = 0; j < sizeof texts / sizeof *texts; j++)
            free(texts[j]);
        close_stage(&g);
    }
}

static void test_from_is_not_followed(void **state)
{
    struct stage g;
    uvm_auto_error err = UVM_ERROR_INIT;
    struct stat st;
    (void)state;
    open_small_stage(&g, breaks_once);
    version_headers = "ETag: \"v1\"\r\n";
    open_tree_and_source(&g);
    uvm_auto_free char *victim = uvm_format("%s/victim", g.dir);
    uvm_auto_free char *from = uvm_format("%s/uvmirror/partial/%s.from", g.dir, g.images[0].sha256);
    assert_true(uvm_file_replace(victim, 0644, "keep me", 7, &err));
    assert_int_equal(symlink(victim, from), 0);
    assert_good(&g);
    assert_int_equal(stat(victim, &st), 0);
    assert_int_equal(st.st_size, 7);
    close_stage(&g);
}

/* ---- an answer that is not the file ---- */

static void say_chunk(int fd, const void *data, size_t len)
{
    char size[32];
    snprintf(size, sizeof size, "%zx\r\n", len);
    server_say(fd, size);
    server_send(fd, data, len);
    server_say(fd, "\r\n");
}

/* After a break: a page of the network's own, then the file, whose length nobody announces. */
static void captive(struct stage *g, int fd, const char *request, int number)
{
    static const char page[] = "<html>Welcome to our hotel</html>";
    size_t size = 0;
    const char *content = content_of(g, request, &size);
    if (number == 0)
        return say_until(g, fd, request, SMALL / 2, "");
    server_say(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
    say_chunk(fd, number == 1 ? page : content, number == 1 ? strlen(page) : size);
    server_say(fd, "0\r\n\r\n");
}

static void test_a_page_takes_nothing_away(void **state)
{
    struct stage g;
    (void)state;
    open_small_stage(&g, captive);
    g.network.retries = 0;
    assert_bad(&g, UVM_SOURCE, "bytes remaining");
    assert_bad(&g, UVM_SOURCE, "it ended after 33 of 300000 bytes");
    assert_int_equal(partial_bytes(&g, ""), SMALL / 2);
    assert_good(&g);
    assert_int_equal(g.server.requests, 3);
    close_stage(&g);
}

/* ---- what nobody has signed ---- */

static bool start_unsigned(void *opaque, const struct mirror_answer *answer, struct uvm_error *err)
{
    struct uvm_buf *got = opaque;
    assert_true(answer->offset == 0 || answer->offset == got->len);
    got->len = answer->offset;
    return uvm_buf_add(got, "", 0, err);
}

static bool write_unsigned(void *opaque, const void *data, size_t len, struct uvm_error *err)
{
    return uvm_buf_add(opaque, data, len, err);
}

/* Half of another version, then the present one. */
static void breaks_and_changes(struct stage *g, int fd, const char *request, int number)
{
    uvm_auto_free char *old = uvm_alloc(SMALL / 2);
    if (number > 0)
        return say_until(g, fd, request, SIZE_MAX, "ETag: \"new\"\r\n"); /* If-Range is ignored */
    say_head(fd, 0, SMALL, version_headers);
    server_send(fd, old, SMALL / 2);
}

/* Two versions are never put together, and one is not downloaded twice. */
static void test_unsigned_file(void **state)
{
    static const struct {
        const char *headers;
        bool same;
        int requests;
    } cases[] = {
        {"", false, 2},
        {"Last-Modified: Fri, 04 Oct 2024 09:30:00 GMT\r\n", false, 2},
        {"ETag: W/\"v\"\r\nLast-Modified: Fri, 04 Oct 2024 09:30:00 GMT\r\n", false, 2},
        {"ETag: \"old\"\r\n", false, 3},
        {"ETag: \"v\"\r\n", true, 2},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct stage g;
        uvm_auto_error err = UVM_ERROR_INIT;
        uvm_auto_buf got = {0};
        struct mirror_wanted wanted = {.path = "a", .size = MIRROR_SIZE_UNKNOWN};
        struct mirror_sink sink = {start_unsigned, write_unsigned, &got};
        version_headers = cases[i].headers;
        open_small_stage(&g, cases[i].same ? breaks_once : breaks_and_changes);
        open_tree_and_source(&g);
        if (!mirror_source_get(g.source, &wanted, &sink, &g.observer, &err))
            fail_msg("%s", err.message);
        assert_int_equal(got.len, SMALL);
        assert_memory_equal(got.data, g.contents[0], SMALL);
        assert_int_equal(g.server.requests, cases[i].requests);
        assert_int_equal(range_of(g.server.last), cases[i].same ? SMALL / 2 : 0);
        close_stage(&g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resume_names_the_version),
        cmocka_unit_test(test_changed_file_starts_over),
        cmocka_unit_test(test_odd_ranges_start_over),
        cmocka_unit_test(test_wrong_bytes),
        cmocka_unit_test(test_odd_from),
        cmocka_unit_test(test_from_is_not_followed),
        cmocka_unit_test(test_a_page_takes_nothing_away),
        cmocka_unit_test(test_unsigned_file),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
