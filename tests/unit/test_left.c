/* mirror/base: left.c and outfile.c: what killed processes left, and what only looks like it. */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "own_folder.h"

#define NOBODY 65534

static bool exists(const char *name)
{
    return faccessat(AT_FDCWD, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static void make_file(const char *name, const char *content)
{
    uvm_auto_fd fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, content, strlen(content)), strlen(content));
}

static void make_folder(const char *name)
{
    uvm_auto_free char *inner = uvm_format("%s/below", name);
    uvm_auto_free char *file = uvm_format("%s/below/file", name);
    assert_int_equal(mkdir(name, 0700), 0);
    assert_int_equal(mkdir(inner, 0700), 0);
    make_file(file, "x");
}

static void make_old(const char *name)
{
    assert_int_equal(utimensat(AT_FDCWD, name, (struct timespec[2]){{0}, {0}}, 0), 0);
}

/* Whether it is gone then. */
static bool removes(const char *name)
{
    uvm_auto_fd here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    uvm_remove_left(here, name);
    return !exists(name);
}

/* ---- what goes, what stays ---- */

static void what_has_content_and_no_lock_goes(void **state)
{
    (void)state;
    make_file("file", "x");
    make_folder("folder");
    assert_true(removes("file"));
    assert_true(removes("folder"));
}

/* Its maker may be about to lock it. */
static void what_is_empty_goes_when_it_is_old(void **state)
{
    (void)state;
    make_file("file", "");
    assert_int_equal(mkdir("folder", 0700), 0);
    assert_false(removes("file"));
    assert_false(removes("folder"));
    make_old("file");
    make_old("folder");
    assert_true(removes("file"));
    assert_true(removes("folder"));
}

static void what_is_locked_stays(void **state)
{
    (void)state;
    static const int locks[] = {LOCK_SH, LOCK_EX};
    make_file("file", "x");
    make_folder("folder");
    make_old("file");
    make_old("folder");
    for (size_t i = 0; i < 2; i++) {
        uvm_auto_fd file = open("file", O_RDONLY | O_CLOEXEC);
        uvm_auto_fd folder = open("folder", O_RDONLY | O_CLOEXEC);
        uvm_claim(file, locks[i]);
        uvm_claim(folder, locks[i]);
        assert_false(removes("file"));
        assert_false(removes("folder"));
        assert_true(exists("folder/below/file"));
    }
    assert_true(removes("file"));
    assert_true(removes("folder"));
}

static void links_are_not_followed(void **state)
{
    (void)state;
    make_folder("target");
    make_folder("left");
    assert_int_equal(symlink("target", "to-folder"), 0);
    assert_int_equal(symlink("target/below/file", "to-file"), 0);
    assert_int_equal(symlink("../target", "left/link"), 0);
    assert_false(removes("to-folder"));
    assert_false(removes("to-file"));
    assert_true(removes("left"));
    assert_true(exists("target/below/file"));
}

static void what_is_neither_file_nor_folder_stays(void **state)
{
    (void)state;
    assert_int_equal(mkfifo("fifo", 0600), 0);
    make_old("fifo");
    assert_false(removes("fifo"));
    assert_true(removes("not there"));
}

static void what_belongs_to_another_user_stays(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip(); /* who cannot make such a thing */
    make_file("file", "x");
    make_folder("folder");
    assert_int_equal(chown("file", NOBODY, NOBODY), 0);
    assert_int_equal(chown("folder", NOBODY, NOBODY), 0);
    assert_false(removes("file"));
    assert_false(removes("folder"));
    assert_true(exists("folder/below/file"));
}

/* ---- files that are whole or not there ---- */

/* A process that has half written a file. */
static pid_t start_writer(const char *path)
{
    int pipe_fds[2];
    char ready = 0;
    assert_int_equal(pipe(pipe_fds), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct uvm_error err = UVM_ERROR_INIT;
        struct uvm_outfile file = UVM_OUTFILE_INIT;
        if (uvm_outfile_open(&file, path, 0600, &err) && uvm_write_all(file.fd, "half", 4, &err) &&
            write(pipe_fds[1], "x", 1) == 1)
            pause();
        _exit(1);
    }
    close(pipe_fds[1]);
    assert_int_equal(read(pipe_fds[0], &ready, 1), 1);
    close(pipe_fds[0]);
    return pid;
}

static void end_writer(pid_t pid)
{
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static size_t count_entries(void)
{
    struct dirent **entries;
    int count = scandir(".", &entries, NULL, NULL);
    for (int i = 0; i < count; i++)
        free(entries[i]);
    free(entries);
    return (size_t)count - 2; /* . and .. */
}

static void a_killed_writers_file_goes_with_the_next_one(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    pid_t writer = start_writer("out");
    assert_true(uvm_file_replace("out", 0600, "one", 3, &err));
    assert_int_equal(count_entries(), 2); /* it lives */
    end_writer(writer);
    assert_int_equal(count_entries(), 2);
    assert_true(uvm_file_replace("out", 0600, "two", 3, &err));
    assert_int_equal(count_entries(), 1);
}

/* Names that an editor, a backup or rsync gives. */
static void other_hidden_files_stay(void **state)
{
    (void)state;
    static const char *const names[] = {".out.AbC123",      ".out.backup",    "out.uvm-AbC123",
                                        ".out.uvm-AbC1234", ".out.uvm-AbC12", ".out.uvx-AbC123",
                                        ".uvm-AbC123"};
    static const size_t count = sizeof names / sizeof *names;
    uvm_auto_error err = UVM_ERROR_INIT;
    for (size_t i = 0; i < count; i++)
        make_file(names[i], "x");
    make_file(".out.uvm-AbC123", "x");
    assert_true(uvm_file_replace("out", 0600, "one", 3, &err));
    for (size_t i = 0; i < count; i++)
        assert_true(exists(names[i]));
    assert_false(exists(".out.uvm-AbC123"));
}

#define test(f) cmocka_unit_test_setup_teardown(f, enter_folder, leave_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(what_has_content_and_no_lock_goes),
        test(what_is_empty_goes_when_it_is_old),
        test(what_is_locked_stays),
        test(links_are_not_followed),
        test(what_is_neither_file_nor_folder_stays),
        test(what_belongs_to_another_user_stays),
        test(a_killed_writers_file_goes_with_the_next_one),
        test(other_hidden_files_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
