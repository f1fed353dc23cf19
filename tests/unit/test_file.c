/* test_file.c: which file stands under a name, and whether anybody has it open. */
#include "pool/internal.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "own_folder.h"

/* Longer than the clock of any file system takes for a step. */
#define TICK_US 50000

static void make(const char *name)
{
    uvm_auto_fd fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
}

static void a_file_that_is_open_is_not_idle(void **state)
{
    (void)state;
    static const int ways[] = {O_WRONLY, O_RDWR, O_RDONLY};
    make("x");
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        uvm_auto_error err = UVM_ERROR_INIT;
        uvm_auto_fd fd = open("x", ways[i] | O_CLOEXEC);
        assert_true(fd >= 0);
        assert_false(pool_file_idle("x", &err));
        assert_int_equal(err.code, UVM_BUSY);
    }
}

static void a_file_that_nobody_has_open_is_idle(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    make("x");
    assert_true(pool_file_idle("x", &err));
    assert_true(pool_file_idle("gone", &err));
    /* The lease is let go of: this would wait for it. */
    uvm_auto_fd fd = open("x", O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    assert_true(fd >= 0);
}

static void what_cannot_be_told_is_not_idle(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    assert_int_equal(symlink("x", "x"), 0);
    assert_false(pool_file_idle("x", &err));
    assert_int_equal(err.code, UVM_FAILED);
}

static void tells_a_file_from_the_next_of_its_name(void **state)
{
    (void)state;
    make("x");
    uvm_auto_free char *identity = pool_file_identity("x");
    assert_non_null(identity);
    assert_int_equal(truncate("x", 4096), 0);
    assert_int_equal(rename("x", "y"), 0);
    assert_true(pool_file_is("y", identity));

    usleep(TICK_US);
    assert_int_equal(unlink("y"), 0);
    make("y");
    assert_false(pool_file_is("y", identity));
    assert_true(pool_file_is("y", NULL));
    assert_null(pool_file_identity("x"));
    assert_false(pool_file_is("x", NULL));
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, enter_folder, leave_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_file_that_is_open_is_not_idle),
        CASE(a_file_that_nobody_has_open_is_idle),
        CASE(what_cannot_be_told_is_not_idle),
        CASE(tells_a_file_from_the_next_of_its_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
