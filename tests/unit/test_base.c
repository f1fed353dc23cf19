/* mirror/base: errors, text, buffers, digests, files. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "mirror/base/base.h"

static char *scratch;

static int make_scratch(void **state)
{
    (void)state;
    scratch = uvm_strdup("/tmp/uvmirror-test-XXXXXX");
    return mkdtemp(scratch) ? 0 : -1;
}

static int remove_scratch(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    bool ok = uvm_remove_tree(scratch, &err);
    free(scratch);
    return ok ? 0 : -1;
}

static char *in_scratch(const char *name)
{
    return uvm_format("%s/%s", scratch, name);
}

static void test_error_keeps_code_and_prefixes(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    assert_false(uvm_fail(&err, UVM_CONTENT, "bad %s", "thing"));
    assert_false(uvm_prefix(&err, "import %d", 7));
    assert_int_equal(err.code, UVM_CONTENT);
    assert_string_equal(err.message, "import 7: bad thing");
}

static void test_error_of_a_full_disk_is_space(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    errno = ENOSPC;
    assert_false(uvm_fail_errno(&err, UVM_FAILED, "x"));
    assert_int_equal(err.code, UVM_SPACE);
    assert_int_equal(err.sys_errno, ENOSPC);
    errno = EACCES;
    assert_false(uvm_fail_errno(&err, UVM_FAILED, "x"));
    assert_int_equal(err.code, UVM_FAILED);
}

static void test_utf8(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool valid;
    } table[] = {
        {"plain", true},
        {"gr\xc3\xbc\xc3\x9f", true},
        {"\xe2\x82\xac", true},
        {"\xf0\x9f\x98\x80", true},
        {"\xc0\x80", false},
        {"\xe0\x80\x80", false},
        {"\xed\xa0\x80", false},
        {"\xf4\x90\x80\x80", false},
        {"\xf8\x88\x80\x80\x80", false},
        {"cut \xe2\x82", false},
        {"\x80", false},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        assert_int_equal(uvm_utf8_valid(table[i].text, strlen(table[i].text)), table[i].valid);
    assert_false(uvm_utf8_valid("a\0b", 3));
}

static void test_printable_hides_escapes(void **state)
{
    (void)state;
    uvm_auto_free char *safe =
        uvm_printable("a\x1b[31mb\nc\xc2\x9b"
                      "d\xff"
                      "e\xe2\x80\xae"
                      "f\xef\xbb\xbfg\xe2\x80\x8bh\xc2\xadi\xf3\xa0\x81\x81j");
    assert_string_equal(safe, "a?[31mb?c?d?e?f?g?h?i?j");
    uvm_auto_free char *kept = uvm_printable("\xc2\xa0 \xc3\xa9 \xe2\x80\xa6 \xf0\x9f\x98\x80");
    assert_string_equal(kept, "\xc2\xa0 \xc3\xa9 \xe2\x80\xa6 \xf0\x9f\x98\x80");
    uvm_auto_free char *null = uvm_printable(NULL);
    assert_string_equal(null, "");
}

static void test_sizes_and_times(void **state)
{
    (void)state;
    static const struct {
        uint64_t bytes;
        const char *text;
    } table[] = {
        {0, "0 B"},          {999, "999 B"},        {1000, "1.00 kB"},      {999499, "999 kB"},
        {999500, "1.00 MB"}, {12345678, "12.3 MB"}, {UINT64_MAX, "18.4 EB"}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        uvm_auto_free char *text = uvm_size_text(table[i].bytes);
        assert_string_equal(text, table[i].text);
    }
    uvm_auto_free char *time = uvm_time_text(1728034200);
    assert_string_equal(time, "2024-10-04T09:30:00Z");
}

static void test_buffer_holds_its_limit(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_buf buf = {.max = 4};
    assert_true(uvm_buf_add(&buf, "abc", 3, &err));
    assert_false(uvm_buf_add(&buf, "de", 2, &err));
    assert_int_equal(err.code, UVM_SPACE);
    assert_string_equal(buf.data, "abc");
    assert_true(uvm_buf_add(&buf, "d", 1, &err));
    assert_string_equal(buf.data, "abcd");
}

/* FIPS 180-2, appendix B.1 and C.1 */
static void test_digests(void **state)
{
    (void)state;
    char hex[UVM_DIGEST_HEX_MAX];
    uvm_digest_bytes(UVM_SHA256, "abc", 3, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_true(uvm_digest_valid(UVM_SHA256, hex));
    assert_false(uvm_digest_valid(UVM_SHA512, hex));
    hex[0] = 'B';
    assert_false(uvm_digest_valid(UVM_SHA256, hex));
    uvm_digest_bytes(UVM_SHA512, "abc", 3, hex);
    assert_memory_equal(hex, "ddaf35a193617abacc417349ae204131", 32);
    assert_true(uvm_digest_valid(UVM_SHA512, hex));
}

static void test_outfile_is_whole_or_not_there(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *path = in_scratch("out");
    {
        uvm_auto_outfile file = UVM_OUTFILE_INIT;
        assert_true(uvm_outfile_open(&file, path, 0640, &err));
        assert_true(uvm_write_all(file.fd, "half", 4, &err));
        assert_int_equal(access(path, F_OK), -1);
    }
    assert_int_equal(rmdir(scratch), 0); /* nothing was left in it */
    assert_int_equal(mkdir(scratch, 0700), 0);
    assert_true(uvm_file_replace(path, 0640, "whole", 5, &err));
    assert_true(uvm_file_replace(path, 0640, "again", 5, &err));
    uvm_auto_buf buf = {0};
    assert_true(uvm_file_read(path, 5, &buf, &err));
    assert_string_equal(buf.data, "again");
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0640);
}

static void test_outfile_that_replaces_nothing(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *path = in_scratch("out");
    uvm_auto_buf buf = {0};
    for (int i = 0; i < 2; i++) {
        uvm_auto_outfile file = UVM_OUTFILE_INIT;
        assert_true(uvm_outfile_open(&file, path, 0640, &err));
        assert_true(uvm_write_all(file.fd, i == 0 ? "first" : "other", 5, &err));
        assert_int_equal(uvm_outfile_commit_new(&file, &err), i == 0);
    }
    assert_int_equal(err.code, UVM_FAILED);
    assert_non_null(strstr(err.message, "is not replaced"));
    uvm_error_clear(&err);
    assert_true(uvm_file_read(path, 5, &buf, &err));
    assert_string_equal(buf.data, "first");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(scratch), 0); /* nothing else was left in it */
    assert_int_equal(mkdir(scratch, 0700), 0);
}

static void test_file_read_refuses(void **state)
{
    (void)state;
    uvm_auto_free char *path = in_scratch("f"), *fifo = in_scratch("fifo");
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_buf buf = {0};
    assert_true(uvm_file_replace(path, 0600, "12345", 5, &err));
    assert_false(uvm_file_read(path, 4, &buf, &err));
    assert_int_equal(err.code, UVM_SPACE);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_false(uvm_file_read(fifo, 4, &buf, &err)); /* and does not hang */
    assert_false(uvm_file_read(scratch, 4, &buf, &err));
    assert_null(buf.data);
}

static void test_remove_tree_stays_inside(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *deep = in_scratch("t/a//b/c"), *tree = in_scratch("t"),
                       *keep = in_scratch("keep"), *link = in_scratch("t/a/link");
    assert_true(uvm_make_dirs(deep, 0755, &err));
    assert_true(uvm_make_dirs(deep, 0755, &err));
    assert_true(uvm_file_replace(keep, 0600, "x", 1, &err));
    assert_int_equal(symlink(scratch, link), 0);
    assert_true(uvm_remove_tree(tree, &err));
    assert_int_equal(access(tree, F_OK), -1);
    assert_int_equal(access(keep, F_OK), 0);
    assert_true(uvm_remove_tree(tree, &err)); /* absence is success */
}

static void test_dirname(void **state)
{
    (void)state;
    static const char *const table[][2] = {{"a/b", "a"},       {"b", "."},   {"/b", "/"},
                                           {"/a/b/c", "/a/b"}, {"//b", "/"}, {"a//b", "a"}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        uvm_auto_free char *dir = uvm_dirname(table[i][0]);
        assert_string_equal(dir, table[i][1]);
    }
}

static void test_lock_is_exclusive_between_processes(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_free char *path = in_scratch("lock");
    uvm_auto_fd fd = -1;
    assert_true(uvm_lock_file(path, &fd, &err));
    pid_t child = fork();
    if (child == 0) {
        struct uvm_error e = UVM_ERROR_INIT;
        int other = -1;
        _exit(uvm_lock_file(path, &other, &e) ? 1 : e.code == UVM_BUSY ? 0 : 2);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void test_stop_ends_a_run(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    atomic_bool stop = 0;
    struct uvm_observer o = {.stop = &stop};
    assert_true(uvm_go_on(&o, &err));
    assert_true(uvm_go_on(NULL, &err));
    stop = 1;
    assert_false(uvm_go_on(&o, &err));
    assert_int_equal(err.code, UVM_INTERRUPTED);
}

static void assert_body(const char *text, const char *expected)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_buf plain = {0};
    assert_true(uvm_cleartext_body(text, strlen(text), &plain, &err));
    assert_int_equal(plain.len, strlen(expected));
    assert_string_equal(plain.data, expected);
}

/* ---- pipes ---- */

#define STREAM ((size_t)1 << 20) /* more than a pipe or a socket takes */

struct reader {
    int fd;
    char *got;
    size_t len;
};

static void *read_to_end(void *opaque)
{
    struct reader *r = opaque;
    for (ssize_t n; (n = read(r->fd, r->got + r->len, STREAM - r->len)) > 0;)
        r->len += (size_t)n;
    return NULL;
}

static void *set_stop(void *opaque)
{
    usleep(20000);
    atomic_store((atomic_bool *)opaque, true);
    return NULL;
}

/* 0 = a pipe, 1 = a socket. */
static void open_ends(int kind, int ends[2])
{
    assert_int_equal(kind ? socketpair(AF_UNIX, SOCK_STREAM, 0, ends) : pipe(ends), 0);
}

static void test_pipe_takes_all(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        int ends[2];
        pthread_t thread;
        uvm_auto_error err = UVM_ERROR_INIT;
        uvm_auto_free char *sent = uvm_alloc(STREAM);
        for (size_t i = 0; i < STREAM; i++)
            sent[i] = (char)(i * 31 >> 7);
        open_ends(kind, ends);
        struct reader r = {.fd = ends[0], .got = uvm_alloc(STREAM)};
        assert_int_equal(pthread_create(&thread, NULL, read_to_end, &r), 0);
        assert_true(uvm_write_pipe(ends[1], sent, STREAM, NULL, &err));
        assert_int_equal(fcntl(ends[1], F_GETFL) & O_NONBLOCK, 0); /* others have it, too */
        close(ends[1]);
        pthread_join(thread, NULL);
        assert_int_equal(r.len, STREAM);
        assert_memory_equal(r.got, sent, STREAM);
        free(r.got);
        close(ends[0]);
    }
}

static void test_pipe_whose_reader_sleeps(void **state)
{
    uvm_auto_free char *data = uvm_alloc(STREAM);
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        int ends[2];
        pthread_t thread;
        atomic_bool stop = false;
        struct uvm_observer observer = {.stop = &stop};
        uvm_auto_error err = UVM_ERROR_INIT;
        open_ends(kind, ends);
        assert_int_equal(pthread_create(&thread, NULL, set_stop, &stop), 0);
        assert_false(uvm_write_pipe(ends[1], data, STREAM, &observer, &err));
        assert_int_equal(err.code, UVM_INTERRUPTED);
        pthread_join(thread, NULL);
        close(ends[0]);
        close(ends[1]);
    }
}

static void test_pipe_whose_reader_has_gone(void **state)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    int ends[2];
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    open_ends(0, ends);
    close(ends[0]);
    assert_false(uvm_write_pipe(ends[1], "x", 1, NULL, &err));
    assert_int_equal(err.sys_errno, EPIPE);
    close(ends[1]);
}

static void test_cleartext_body(void **state)
{
    (void)state;
    assert_body("", "");
    assert_body("{}", "{}");
    assert_body("\n-----BEGIN PGP SIGNED MESSAGE-----\n", "\n-----BEGIN PGP SIGNED MESSAGE-----\n");
    assert_body("-----BEGIN PGP SIGNED MESSAGE-----\r\nHash: SHA512\r\n\r\n{\r\n- -1\r\n}\r\n"
                "-----BEGIN PGP SIGNATURE-----\r\n\r\nAAAA\r\n",
                "{\n-1\n}\n");
    assert_body("-----BEGIN PGP SIGNED MESSAGE-----\n\n\n{}", "\n{}\n");
    assert_body("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n", "");
    assert_body("-----BEGIN PGP SIGNED MESSAGE-----", "");
}

/* A number that was closed is soon another file's. */
static void test_close_leaves_nothing_to_close(void **state)
{
    (void)state;
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    int number = fd;
    uvm_close_ptr(&fd);
    assert_int_equal(fd, -1);
    uvm_auto_fd again = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_int_equal(again, number);
    uvm_close_ptr(&fd);
    assert_true(fcntl(again, F_GETFD) >= 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error_keeps_code_and_prefixes),
        cmocka_unit_test(test_error_of_a_full_disk_is_space),
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_printable_hides_escapes),
        cmocka_unit_test(test_sizes_and_times),
        cmocka_unit_test(test_buffer_holds_its_limit),
        cmocka_unit_test(test_digests),
        cmocka_unit_test(test_pipe_takes_all),
        cmocka_unit_test(test_pipe_whose_reader_sleeps),
        cmocka_unit_test(test_pipe_whose_reader_has_gone),
        cmocka_unit_test_setup_teardown(test_outfile_that_replaces_nothing, make_scratch,
                                        remove_scratch),
        cmocka_unit_test_setup_teardown(test_outfile_is_whole_or_not_there, make_scratch,
                                        remove_scratch),
        cmocka_unit_test_setup_teardown(test_file_read_refuses, make_scratch, remove_scratch),
        cmocka_unit_test_setup_teardown(test_remove_tree_stays_inside, make_scratch,
                                        remove_scratch),
        cmocka_unit_test(test_dirname),
        cmocka_unit_test_setup_teardown(test_lock_is_exclusive_between_processes, make_scratch,
                                        remove_scratch),
        cmocka_unit_test(test_stop_ends_a_run),
        cmocka_unit_test(test_cleartext_body),
        cmocka_unit_test(test_close_leaves_nothing_to_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
