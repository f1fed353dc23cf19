/* Downloads: several at once, and on lines that break. */
#include <fcntl.h>

#include "download_stage.h"

/* ---- trying again ---- */

static void fails_in_four_ways(struct stage *g, int fd, const char *request, int number)
{
    static const size_t half = SMALL / 2;
    switch (number) {
    case 0:
        return server_say(fd, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
    case 1:
        return; /* not a byte */
    case 2:
        say_until(g, fd, request, half, "");
        return server_reset(fd);
    case 3:
        return say_until(g, fd, request, half + 1000, ""); /* too few */
    default:
        return say_all(g, fd, request, number);
    }
}

static void test_retries(void **state)
{
    struct stage g;
    (void)state;
    open_small_stage(&g, fails_in_four_ways);
    assert_good(&g);
    assert_int_equal(g.server.requests, 5);
    assert_int_equal(times_heard(&g, "noble amd64 20241001: HTTP status 503; trying again in"), 1);
    assert_int_equal(times_heard(&g, "(1 of 4)"), 1);
    assert_int_equal(times_heard(&g, "(4 of 4)"), 1);
    assert_int_equal(times_heard(&g, "\n"), 4);
    assert_true(range_of(g.server.last) > 0); /* it went on */
    close_stage(&g);
}

static void always_busy(struct stage *g, int fd, const char *request, int number)
{
    (void)g, (void)request, (void)number;
    server_say(fd, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
}

static void test_retries_exhausted(void **state)
{
    struct stage g;
    (void)state;
    open_small_stage(&g, always_busy);
    g.network.retries = 2;
    assert_bad(&g, UVM_SOURCE, "noble amd64 20241001: http://127.0.0.1");
    assert_int_equal(g.server.requests, 3);
    assert_int_equal(times_heard(&g, "\n"), 2);
    assert_int_equal(partial_bytes(&g, ""), 0);
    close_stage(&g);
}

/* A kilobyte of them, and of a single one. */
static char many_headers[1025], long_header[1025];

static void refuses_by_path(struct stage *g, int fd, const char *request, int number)
{
    (void)number;
    char status[4];
    memcpy(status, request + strlen("GET /"), 3);
    status[3] = 0;
    uvm_auto_free char *head =
        uvm_format("HTTP/1.1 %s No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", status);
    if (*status == 'g')
        say_until(g, fd, request, SIZE_MAX, "Content-Encoding: gzip\r\n");
    else if (*status == 'h')
        for (int i = 0; i < 1000; i++)
            server_say(fd, i ? many_headers : "HTTP/1.1 200 OK\r\n");
    else if (*status == 'l')
        for (int i = 0; i < 1000; i++)
            server_say(fd, i ? long_header : "HTTP/1.1 200 OK\r\nX: ");
    else if (*status == 'm')
        server_say(fd, "\x01\x02 this is not HTTP");
    else
        server_say(fd, head);
}

static void test_not_worth_a_retry(void **state)
{
    static const struct {
        const char *path, *words;
    } cases[] = {
        {"404", "HTTP status 404"},
        {"403", "HTTP status 403"},
        {"410", "HTTP status 410"},
        {"501", "HTTP status 501"},
        {"gzip", "Content-Encoding: gzip"},
        {"mud", "what answers there does not speak HTTP"},
        {"headers", "more than 256 KiB of headers"},
        {"long", "a header without end"},
    };
    (void)state;
    memset(long_header, 'x', sizeof long_header - 1);
    memset(many_headers, 'x', sizeof many_headers - 1);
    memcpy(many_headers, "X: ", 3);
    memcpy(many_headers + sizeof many_headers - 3, "\r\n", 2);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct stage g;
        open_stage(&g, refuses_by_path);
        add_image(&g, cases[i].path, SMALL, 1);
        assert_bad(&g, UVM_SOURCE, cases[i].words);
        assert_int_equal(g.server.requests, 1);
        assert_string_equal(g.heard, "");
        close_stage(&g);
    }
}

static void busy_for_a_second(struct stage *g, int fd, const char *request, int number)
{
    if (number == 0)
        server_say(fd, "HTTP/1.1 429 Slow down\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n");
    else
        say_all(g, fd, request, number);
}

static void test_retry_after(void **state)
{
    struct stage g;
    (void)state;
    open_small_stage(&g, busy_for_a_second);
    assert_good(&g);
    assert_int_equal(times_heard(&g, "HTTP status 429; trying again in 1 s (1 of 4)"), 1);
    close_stage(&g);
}

static void one_waits_the_other_does_not(struct stage *g, int fd, const char *request, int number)
{
    if (strstr(request, "GET /a ") && atomic_load(&g->step) == 0)
        server_say(fd, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
    else
        say_all(g, fd, request, number);
}

/* "a" would wait for ten minutes; "b" and "c" are there long before. */
static void test_waiting_blocks_nobody(void **state)
{
    struct stage g;
    uvm_auto_error err = UVM_ERROR_INIT;
    (void)state;
    open_small_stage(&g, one_waits_the_other_does_not);
    add_image(&g, "b", SMALL, 2);
    add_image(&g, "c", SMALL, 3);
    g.network.jobs = 2;
    g.patience = 600000;
    struct mirror_download *d = start(&g);
    while (!mirror_tree_has(g.tree, &g.images[1]) || !mirror_tree_has(g.tree, &g.images[2]))
        usleep(1000);
    g.stop = 1; /* and the wait ends at once */
    assert_false(mirror_download_wait(d, &err));
    assert_int_equal(err.code, UVM_INTERRUPTED);
    mirror_download_free(d);
    assert_false(mirror_tree_has(g.tree, &g.images[0]));
    g.stop = 0;
    g.step = 1;
    assert_good(&g);
    close_stage(&g);
}

static void breaks_after_a_while(struct stage *g, int fd, const char *request, int number)
{
    (void)number;
    say_until(g, fd, request, range_of(request) + MIRROR_RETRY_PROGRESS + 100000, "");
}

static void test_progress_counts_retries_anew(void **state)
{
    struct stage g;
    (void)state;
    open_stage(&g, breaks_after_a_while);
    add_image(&g, "a", BIG, 1);
    g.network.retries = 1;
    assert_good(&g);
    assert_int_equal(g.server.requests, 4);
    assert_int_equal(times_heard(&g, "(1 of 1)"), 3);
    close_stage(&g);
}

static void breaks_and_starts_over(struct stage *g, int fd, const char *request, int number)
{
    (void)request, (void)number;
    say_until(g, fd, "GET /a HTTP", MIRROR_RETRY_PROGRESS + 100000, "");
}

/* The same bytes again are no progress, or it would never end. */
static void test_no_progress(void **state)
{
    struct stage g;
    (void)state;
    open_stage(&g, breaks_and_starts_over);
    add_image(&g, "a", BIG, 1);
    g.network.retries = 2;
    assert_bad(&g, UVM_SOURCE, "bytes remaining to read");
    assert_int_equal(g.server.requests, 3);
    close_stage(&g);
}

/* ---- limits of time and rate ---- */

static void stalls_once(struct stage *g, int fd, const char *request, int number)
{
    say_until(g, fd, request, number == 0 ? SMALL / 2 : SIZE_MAX, "");
    if (number == 0)
        server_wait(fd);
}

/* So early that it is slow after a second, not after the five that libcurl looks back. */
static void stalls_early(struct stage *g, int fd, const char *request, int number)
{
    say_until(g, fd, request, number == 0 ? 500 : SIZE_MAX, "");
    if (number == 0)
        server_wait(fd);
}

static void test_stall(void **state)
{
    struct stage g;
    (void)state;
    open_small_stage(&g, stalls_early);
    g.network.stall_seconds = 1;
    assert_good(&g);
    assert_int_equal(g.server.requests, 2);
    assert_int_equal(range_of(g.server.last), 500);
    assert_int_equal(times_heard(&g, "too slow"), 1);
    close_stage(&g);
}

static void says_nothing(struct stage *g, int fd, const char *request, int number)
{
    (void)g, (void)request, (void)number;
    server_wait(fd);
}

static void test_silence_is_a_stall(void **state)
{
    struct stage g;
    (void)state;
    open_small_stage(&g, says_nothing);
    g.network.stall_seconds = 1;
    g.network.retries = 0;
    assert_bad(&g, UVM_SOURCE, "too slow");
    close_stage(&g);
}

static void test_max_time(void **state)
{
    struct stage g;
    (void)state;
    open_small_stage(&g, stalls_once);
    add_image(&g, "b", SMALL, 2);
    add_image(&g, "c", SMALL, 3);
    g.network.jobs = 1;
    g.network.max_seconds = 1;
    assert_bad(&g, UVM_SOURCE, "over the limit of --max-time (1 s)");
    assert_int_equal(g.server.requests, 1); /* it is for all of them */
    assert_int_equal(partial_bytes(&g, ""), SMALL / 2);
    assert_string_equal(g.heard, "");
    close_tree_and_source(&g);
    assert_good(&g);
    close_stage(&g);
}

static void test_rate_limit(void **state)
{
    struct stage g;
    (void)state;
    open_small_stage(&g, say_all);
    add_image(&g, "b", SMALL, 2);
    g.network.rate = 2000000;
    g.network.stall_seconds = 1;
    assert_good(&g);
    assert_string_equal(g.heard, "");
    close_stage(&g);
}

/* However much the server sends at once: what comes in the first moment is next to nothing. */
static void test_rate_limit_from_the_first_byte(void **state)
{
    struct stage g;
    (void)state;
    open_stage(&g, say_all);
    add_image(&g, "a", BIG, 1);
    g.network.rate = 10000;
    g.stop_after = 1;
    assert_bad(&g, UVM_INTERRUPTED, "interrupted");
    assert_in_range(partial_bytes(&g, ""), 1, 100000);
    close_stage(&g);
}

/* ---- a source that is down ---- */

static void add_images(struct stage *g, const char *const *paths)
{
    for (uint32_t i = 0; i < IMAGES_MAX; i++)
        add_image(g, paths[i], SMALL, i);
}

static void test_source_is_down(void **state)
{
    static const char *const paths[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
    struct stage g;
    (void)state;
    open_stage(&g, always_busy);
    add_images(&g, paths);
    g.network.jobs = 1;
    g.network.retries = 1;
    assert_bad(&g, UVM_SOURCE, "gave up after 4 images in a row, 4 were not tried: ");
    assert_int_equal(g.server.requests, 8);
    assert_int_equal(times_heard(&g, "trying again"), 4);
    assert_int_equal(times_heard(&g, "\n"), 4); /* no line for each image */
    close_stage(&g);
}

static void busy_but_for_d(struct stage *g, int fd, const char *request, int number)
{
    if (strstr(request, "GET /d "))
        server_say(fd, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    else
        always_busy(g, fd, request, number);
}

/* One answer in between, and it is not down. */
static void test_source_is_not_down(void **state)
{
    static const char *const paths[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
    struct stage g;
    (void)state;
    open_stage(&g, busy_but_for_d);
    add_images(&g, paths);
    g.network.jobs = 1;
    g.network.retries = 0;
    assert_bad(&g, UVM_SOURCE, "HTTP status 503");
    assert_int_equal(g.server.requests, IMAGES_MAX);
    assert_int_equal(times_heard(&g, "noble amd64"), IMAGES_MAX - 1);
    close_stage(&g);
}

/* ---- several ---- */

/* Answers when three are waiting. */
static void waits_for_three(struct stage *g, int fd, const char *request, int number)
{
    atomic_fetch_add(&g->step, 1);
    for (int i = 0; i < 5000 && atomic_load(&g->step) < 3; i++)
        usleep(1000);
    say_all(g, fd, request, number);
}

static void test_several_at_once(void **state)
{
    static const char *const paths[] = {"a", "b", "c", "d", "e", "f"};
    struct stage g;
    (void)state;
    open_stage(&g, waits_for_three);
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        add_image(&g, paths[i], SMALL, (uint32_t)i);
    g.network.jobs = 3;
    assert_good(&g);
    assert_int_equal(g.server.requests, 6);
    assert_int_equal(g.server.most_open, 3);
    close_stage(&g);
}

static void test_one_at_a_time(void **state)
{
    struct stage g;
    (void)state;
    open_small_stage(&g, say_all);
    add_image(&g, "b", SMALL, 2);
    add_image(&g, "c", SMALL, 3);
    g.network.jobs = 1;
    assert_good(&g);
    assert_int_equal(g.server.most_open, 1);
    close_stage(&g);
}

static void lacks_two(struct stage *g, int fd, const char *request, int number)
{
    if (strstr(request, "GET /b ") || strstr(request, "GET /d "))
        server_say(fd, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    else
        say_all(g, fd, request, number);
}

static void test_one_that_fails_stops_no_other(void **state)
{
    static const char *const paths[] = {"a", "b", "c", "d", "e"};
    struct stage g;
    (void)state;
    open_stage(&g, lacks_two);
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        add_image(&g, paths[i], SMALL, (uint32_t)i);
    assert_bad(&g, UVM_SOURCE, "noble amd64 20241002: ");
    for (size_t i = 0; i < g.count; i += 2)
        assert_has(&g, i);
    assert_int_equal(times_heard(&g, "noble amd64 20241004: "), 1);
    assert_int_equal(times_heard(&g, "\n"), 1);
    close_stage(&g);
}

static void test_no_space_stops_all(void **state)
{
    struct stage g;
    (void)state;
    open_small_stage(&g, say_all);
    add_image(&g, "b", SMALL, 2);
    g.images[0].size = MIRROR_SIZE_MAX;
    g.network.jobs = 1;
    assert_bad(&g, UVM_SPACE, "1.13 PB");
    assert_int_equal(g.server.requests, 0);
    assert_string_equal(g.heard, "");
    close_stage(&g);
}

/* Two paths of one content must not fill one partial file, and are one download. */
static void test_equal_contents(void **state)
{
    struct stage g;
    (void)state;
    open_small_stage(&g, say_all);
    add_image(&g, "b", SMALL, 1);
    add_image(&g, "c", SMALL, 3);
    add_image(&g, "a", SMALL, 1); /* two items may share a path */
    assert_good(&g);
    assert_int_equal(g.server.requests, 2);
    add_image(&g, "d", SMALL, 3);
    close_tree_and_source(&g);
    assert_good(&g); /* nor is what an earlier run brought */
    assert_int_equal(g.server.requests, 2);
    close_stage(&g);
}

/* It is on record as good, and its time does not tell. */
static void damage(const char *path, long offset)
{
    struct stat before;
    FILE *file = fopen(path, "r+");
    assert_non_null(file);
    assert_int_equal(fstat(fileno(file), &before), 0);
    fseek(file, offset, SEEK_SET);
    int c = fgetc(file);
    fseek(file, offset, SEEK_SET);
    fputc(c ^ 1, file);
    fclose(file);
    assert_int_equal(
        utimensat(AT_FDCWD, path, (struct timespec[]){before.st_atim, before.st_mtim}, 0), 0);
}

static void test_equal_content_is_damaged(void **state)
{
    struct stage g;
    (void)state;
    open_small_stage(&g, say_all);
    assert_good(&g);
    uvm_auto_free char *path = uvm_format("%s/a", g.dir);
    damage(path, 1000);
    g.contents[0][1000] ^= 1;
    add_image(&g, "b", SMALL, 1);
    assert_good(&g);
    assert_int_equal(g.server.requests, 2);
    assert_int_equal(range_of(g.server.last), 0);
    close_stage(&g);
}

static void test_had_needs_no_server(void **state)
{
    struct stage g;
    (void)state;
    open_small_stage(&g, say_all);
    add_image(&g, "empty", 0, 2);
    assert_good(&g);
    int before = g.server.requests;
    assert_good(&g);
    close_tree_and_source(&g);
    assert_good(&g);
    assert_int_equal(g.server.requests, before);
    close_stage(&g);
}

static void test_no_images(void **state)
{
    struct stage g;
    (void)state;
    open_stage(&g, say_all);
    open_tree_and_source(&g);
    uvm_auto_error err = UVM_ERROR_INIT;
    struct mirror_download *d = mirror_download_start(g.tree, g.source, NULL, 0, NULL);
    assert_true(mirror_download_wait(d, &err));
    mirror_download_free(d);
    close_stage(&g);
}

/* ---- given up ---- */

static void test_interrupted_while_waiting(void **state)
{
    struct stage g;
    (void)state;
    open_small_stage(&g, always_busy);
    g.patience = 600000;
    g.stop_at = "trying again in";
    assert_bad(&g, UVM_INTERRUPTED, "interrupted");
    assert_int_equal(g.server.requests, 1);
    close_stage(&g);
}

static void test_freed_before_the_end(void **state)
{
    struct stage g;
    (void)state;
    open_small_stage(&g, stalls_once);
    struct mirror_download *d = start(&g);
    while (partial_bytes(&g, "") < SMALL / 2)
        usleep(1000);
    mirror_download_free(d);
    assert_int_equal(partial_bytes(&g, ""), SMALL / 2);
    assert_good(&g);
    assert_int_equal(range_of(g.server.last), SMALL / 2);
    close_stage(&g);
}

static void test_missing_cacert(void **state)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    struct mirror_source *source = NULL;
    struct mirror_source_options options = {.url = "https://127.0.0.1:1/",
                                            .path = "streams/v1/index.json",
                                            .network = {.cacert = "/no/such/file.pem"}};
    (void)state;
    assert_false(mirror_source_new(&options, &source, &err));
    assert_int_equal(err.code, UVM_USAGE);
    assert_non_null(strstr(err.message, "--cacert /no/such/file.pem: "));
    assert_null(source);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_retries),
        cmocka_unit_test(test_retries_exhausted),
        cmocka_unit_test(test_not_worth_a_retry),
        cmocka_unit_test(test_retry_after),
        cmocka_unit_test(test_waiting_blocks_nobody),
        cmocka_unit_test(test_progress_counts_retries_anew),
        cmocka_unit_test(test_no_progress),
        cmocka_unit_test(test_stall),
        cmocka_unit_test(test_silence_is_a_stall),
        cmocka_unit_test(test_max_time),
        cmocka_unit_test(test_rate_limit),
        cmocka_unit_test(test_rate_limit_from_the_first_byte),
        cmocka_unit_test(test_source_is_down),
        cmocka_unit_test(test_source_is_not_down),
        cmocka_unit_test(test_several_at_once),
        cmocka_unit_test(test_one_at_a_time),
        cmocka_unit_test(test_one_that_fails_stops_no_other),
        cmocka_unit_test(test_no_space_stops_all),
        cmocka_unit_test(test_equal_contents),
        cmocka_unit_test(test_equal_content_is_damaged),
        cmocka_unit_test(test_had_needs_no_server),
        cmocka_unit_test(test_no_images),
        cmocka_unit_test(test_interrupted_while_waiting),
        cmocka_unit_test(test_freed_before_the_end),
        cmocka_unit_test(test_missing_cacert),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
