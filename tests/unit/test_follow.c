/* Readers: of what is in the mirror, and of what is on its way there. */
#include <fcntl.h>

#include "download_stage.h"
#include "mirror/download.h"

static void stalls_once(struct stage *g, int fd, const char *request, int number)
{
    say_until(g, fd, request, number == 0 ? SMALL / 2 : SIZE_MAX, "");
    if (number == 0)
        server_wait(fd);
}

/* ---- readers ---- */

static enum uvm_code read_on(struct mirror_reader *reader, uint64_t until, uint64_t *done,
                             const char *content)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    struct uvm_reader bytes = mirror_reader_bytes(reader);
    size_t len = 1;
    while (*done < until && len > 0) {
        const void *data;
        if (!bytes.read(bytes.opaque, &data, &len, &err))
            return err.code;
        assert_memory_equal(data, content + *done, len);
        *done += len;
    }
    return UVM_OK;
}

static struct mirror_reader *reader_of(struct stage *g, struct mirror_download *d, size_t i)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    struct mirror_reader *reader = NULL;
    if (!mirror_download_read(d, &g->images[i], &reader, &err))
        fail_msg("%s", err.message);
    return reader;
}

static void await(struct stage *g, int step)
{
    for (int i = 0; i < 10000 && atomic_load(&g->step) < step; i++)
        usleep(1000);
}

static void half_and_half(struct stage *g, int fd, const char *request, int number)
{
    (void)request, (void)number;
    say_head(fd, 0, SMALL, "");
    server_send(fd, g->contents[0], SMALL / 2);
    await(g, 1); /* the test has read it */
    server_send(fd, g->contents[0] + SMALL / 2, SMALL / 2);
}

static void test_reader_follows(void **state)
{
    struct stage g;
    uvm_auto_error err = UVM_ERROR_INIT;
    uint64_t done = 0;
    (void)state;
    open_small_stage(&g, half_and_half);
    struct mirror_download *d = start(&g);
    struct mirror_reader *reader = reader_of(&g, d, 0);
    assert_int_equal(read_on(reader, SMALL / 2, &done, g.contents[0]), UVM_OK);
    assert_int_equal(done, SMALL / 2);
    assert_false(mirror_tree_has(g.tree, &g.images[0]));
    g.step = 1;
    assert_int_equal(read_on(reader, UINT64_MAX, &done, g.contents[0]), UVM_OK);
    assert_int_equal(done, SMALL);
    assert_true(mirror_tree_has(g.tree, &g.images[0]));
    assert_int_equal(read_on(reader, UINT64_MAX, &done, g.contents[0]), UVM_OK); /* the end stays */
    mirror_reader_free(reader);
    assert_true(mirror_download_wait(d, &err));
    mirror_download_free(d);
    close_stage(&g);
}

static void half_and_wrong(struct stage *g, int fd, const char *request, int number)
{
    (void)request, (void)number;
    uvm_auto_free char *zeros = uvm_alloc(SMALL);
    say_head(fd, 0, SMALL, "");
    server_send(fd, g->contents[0], SMALL / 2);
    await(g, 1);
    server_send(fd, zeros, SMALL / 2);
}

static void half_and_gone(struct stage *g, int fd, const char *request, int number)
{
    if (number > 0)
        return server_say(fd, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    say_until(g, fd, request, SMALL / 2, "");
    await(g, 1);
}

static void half_and_another(struct stage *g, int fd, const char *request, int number)
{
    if (number > 0)
        return say_all(g, fd, "GET /a HTTP", 0);
    say_until(g, fd, request, SMALL / 2, "");
    await(g, 1);
}

/* Never an end to what is not good. */
static void test_reader_fails(void **state)
{
    static const struct {
        void (*script)(struct stage *, int, const char *, int);
        enum uvm_code reader, download;
    } cases[] = {
        {half_and_wrong, UVM_CONTENT, UVM_CONTENT},
        {half_and_gone, UVM_SOURCE, UVM_SOURCE},
        {half_and_another, UVM_CONTENT, UVM_OK}, /* started over: not followed */
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct stage g;
        uvm_auto_error err = UVM_ERROR_INIT;
        uvm_auto_free char *expected = uvm_alloc(SMALL);
        uint64_t done = 0;
        open_small_stage(&g, cases[i].script);
        memcpy(expected, g.contents[0], cases[i].script == half_and_wrong ? SMALL / 2 : SMALL);
        struct mirror_download *d = start(&g);
        struct mirror_reader *reader = reader_of(&g, d, 0);
        assert_int_equal(read_on(reader, SMALL / 2, &done, expected), UVM_OK);
        g.step = 1;
        assert_int_equal(read_on(reader, UINT64_MAX, &done, expected), cases[i].reader);
        mirror_reader_free(reader);
        mirror_download_wait(d, &err);
        assert_int_equal(err.code, cases[i].download);
        mirror_download_free(d);
        close_stage(&g);
    }
}

static void test_reader_of_what_started_over_before(void **state)
{
    struct stage g;
    uint64_t done = 0;
    (void)state;
    open_small_stage(&g, half_and_another);
    struct mirror_download *d = start(&g);
    struct mirror_reader *reader = reader_of(&g, d, 0);
    g.step = 1; /* not a byte was read of the first try, perhaps */
    while (!mirror_tree_has(g.tree, &g.images[0]))
        usleep(1000);
    assert_int_equal(read_on(reader, UINT64_MAX, &done, g.contents[0]), UVM_OK);
    assert_int_equal(done, SMALL);
    mirror_reader_free(reader);
    mirror_download_free(d);
    close_stage(&g);
}

static void test_reader_is_interrupted(void **state)
{
    struct stage g;
    uint64_t done = 0;
    (void)state;
    open_small_stage(&g, stalls_once);
    struct mirror_download *d = start(&g);
    struct mirror_reader *reader = reader_of(&g, d, 0);
    assert_int_equal(read_on(reader, SMALL / 2, &done, g.contents[0]), UVM_OK);
    g.stop = 1;
    assert_int_equal(read_on(reader, UINT64_MAX, &done, g.contents[0]), UVM_INTERRUPTED);
    mirror_reader_free(reader);
    mirror_download_free(d);
    close_stage(&g);
}

/* What a reader would have found when the download of the first image failed. */
struct failure {
    struct mirror_download *download;
    int times, fd;
    uint64_t bytes;
};

static void look_at_failure(void *opaque, const struct uvm_event *event)
{
    struct failure *f = opaque;
    if (event->kind != UVM_EVENT_FAILED)
        return;
    pthread_mutex_lock(&f->download->mutex);
    f->times++;
    f->fd = f->download->jobs[0].fd;
    f->bytes = f->download->jobs[0].bytes;
    pthread_mutex_unlock(&f->download->mutex);
}

/* Its partial file is closed by then, and its number may be another file's. */
static void test_what_failed_is_hidden(void **state)
{
    struct stage g;
    uvm_auto_error err = UVM_ERROR_INIT;
    struct failure failure = {0};
    (void)state;
    open_small_stage(&g, half_and_gone);
    g.observer = (struct uvm_observer){look_at_failure, &failure, &g.stop};
    g.network.retries = 0;
    failure.download = start(&g);
    g.step = 1;
    assert_false(mirror_download_wait(failure.download, &err));
    assert_int_equal(failure.times, 1);
    assert_int_equal(failure.fd, -1);
    assert_int_equal(failure.bytes, 0);
    mirror_download_free(failure.download);
    close_stage(&g);
}

static void test_reader_of_what_others_cut_off(void **state)
{
    struct stage g;
    uint64_t done = 0;
    (void)state;
    open_small_stage(&g, half_and_half);
    struct mirror_download *d = start(&g);
    struct mirror_reader *reader = reader_of(&g, d, 0);
    while (partial_bytes(&g, "") < SMALL / 2)
        usleep(1000);
    uvm_auto_free char *path = uvm_format("%s/uvmirror/partial/%s", g.dir, g.images[0].sha256);
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(read_on(reader, UINT64_MAX, &done, g.contents[0]), UVM_CONTENT);
    assert_int_equal(done, 0);
    g.step = 1;
    mirror_reader_free(reader);
    mirror_download_free(d);
    close_stage(&g);
}

/* Between its last byte and its end. */
static void test_reader_of_what_others_change(void **state)
{
    struct stage g;
    uint64_t done = 0;
    (void)state;
    open_small_stage(&g, half_and_half);
    struct mirror_download *d = start(&g);
    struct mirror_reader *reader = reader_of(&g, d, 0);
    assert_int_equal(read_on(reader, SMALL / 2, &done, g.contents[0]), UVM_OK);
    g.step = 1;
    assert_int_equal(read_on(reader, SMALL, &done, g.contents[0]), UVM_OK);
    while (!mirror_tree_has(g.tree, &g.images[0]))
        usleep(1000);
    uvm_auto_free char *path = uvm_format("%s/a", g.dir);
    assert_int_equal(truncate(path, SMALL + 1), 0);
    assert_int_equal(read_on(reader, UINT64_MAX, &done, g.contents[0]), UVM_CONTENT);
    mirror_reader_free(reader);
    mirror_download_free(d);
    close_stage(&g);
}

/* Before, of this download after its end, and of the tree alone: the same bytes. */
static void test_reader_of_what_is_there(void **state)
{
    struct stage g;
    uvm_auto_error err = UVM_ERROR_INIT;
    (void)state;
    open_small_stage(&g, say_all);
    add_image(&g, "empty", 0, 2);
    for (int round = 0; round < 3; round++) {
        struct mirror_download *d = round < 2 ? start(&g) : NULL;
        assert_true(!d || mirror_download_wait(d, &err));
        for (size_t i = 0; i < g.count; i++) {
            uint64_t done = 0;
            struct mirror_reader *reader = NULL;
            if (d)
                reader = reader_of(&g, d, i);
            else
                assert_true(mirror_tree_read(g.tree, &g.images[i], &reader, &err));
            assert_int_equal(read_on(reader, UINT64_MAX, &done, g.contents[i]), UVM_OK);
            assert_int_equal(done, g.images[i].size);
            mirror_reader_free(reader);
        }
        mirror_download_free(d);
    }
    close_stage(&g);
}

static void test_reader_of_a_damaged_file(void **state)
{
    struct stage g;
    (void)state;
    for (int longer = 0; longer < 3; longer++) {
        uvm_auto_error err = UVM_ERROR_INIT;
        uint64_t done = 0;
        struct mirror_reader *reader = NULL;
        open_small_stage(&g, say_all);
        assert_good(&g);
        assert_true(mirror_tree_read(g.tree, &g.images[0], &reader, &err));
        uvm_auto_free char *path = uvm_format("%s/a", g.dir);
        FILE *file = fopen(path, "r+");
        struct stat before;
        assert_int_equal(fstat(fileno(file), &before), 0);
        fseek(file, 1000, SEEK_SET);
        fputc(g.contents[0][1000] ^= 1, file);
        if (longer)
            assert_int_equal(ftruncate(fileno(file), longer == 1 ? SMALL + 1 : SMALL - 1), 0);
        fclose(file);
        /* Nor does its time tell. */
        assert_int_equal(
            utimensat(AT_FDCWD, path, (struct timespec[]){before.st_atim, before.st_mtim}, 0), 0);
        uvm_auto_free char *expected = uvm_alloc(SMALL + 1);
        memcpy(expected, g.contents[0], SMALL);
        assert_int_equal(read_on(reader, UINT64_MAX, &done, expected), UVM_CONTENT);
        mirror_reader_free(reader);
        close_stage(&g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reader_follows),
        cmocka_unit_test(test_reader_fails),
        cmocka_unit_test(test_reader_of_what_started_over_before),
        cmocka_unit_test(test_reader_is_interrupted),
        cmocka_unit_test(test_what_failed_is_hidden),
        cmocka_unit_test(test_reader_of_what_others_cut_off),
        cmocka_unit_test(test_reader_of_what_others_change),
        cmocka_unit_test(test_reader_of_what_is_there),
        cmocka_unit_test(test_reader_of_a_damaged_file),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
