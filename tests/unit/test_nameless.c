/* test_nameless.c: a file without a name, also where the file system does not know such. */
#include "mirror/base/base.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "own_folder.h"

/* With files as large as they come, the C library's name for open(2) is this one. */
int __real_open64(const char *path, int flags, mode_t mode);
int __wrap_open64(const char *path, int flags, mode_t mode);

static bool knows_nameless;

int __wrap_open64(const char *path, int flags, mode_t mode)
{
    if ((flags & O_TMPFILE) == O_TMPFILE && !knows_nameless) {
        errno = EOPNOTSUPP;
        return -1;
    }
    return __real_open64(path, flags, mode);
}

static size_t count_names(void)
{
    DIR *dir = opendir(".");
    size_t count = 0;
    for (struct dirent *e; (e = readdir(dir));)
        count += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(dir);
    return count;
}

static void check_file(void)
{
    uvm_auto_error err = UVM_ERROR_INIT;
    uvm_auto_fd fd = -1;
    char back[5] = "";
    assert_true(uvm_nameless_file(".", &fd, &err));
    assert_int_equal(count_names(), 0);
    assert_true(uvm_write_all(fd, "bytes", 5, &err));
    assert_int_equal(pread(fd, back, sizeof(back), 0), 5);
    assert_memory_equal(back, "bytes", 5);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
}

static void test_file(void **state)
{
    (void)state;
    knows_nameless = true;
    check_file();
    knows_nameless = false;
    check_file();
}

static void test_no_folder(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    int fd = -1;
    assert_false(uvm_nameless_file("missing", &fd, &err));
    assert_int_equal(err.sys_errno, ENOENT);
    assert_non_null(strstr(err.message, "missing"));
    assert_int_equal(fd, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_no_folder),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
