/* mirror/base/confine.c: what a process can still do afterwards, tried by a child that was confined. What
 * a kernel does not offer is not asked for. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/capability.h>

#include <cmocka.h>

#include "mirror/base/base.h"

/* A folder with "inside" and "temporary", which may be written to, and "outside", which may not. */
static char *scratch;

static int make_scratch(void **state)
{
    (void)state;
    scratch = uvm_strdup("/tmp/uvmirror-test-XXXXXX");
    if (!mkdtemp(scratch) || chdir(scratch) < 0 || mkdir("temporary", 0700) < 0)
        return -1;
    uvm_auto_free char *temporary = uvm_format("%s/temporary", scratch);
    if (setenv("TMPDIR", temporary, 1) < 0)
        return -1;
    uvm_auto_error err = UVM_ERROR_INIT;
    return uvm_make_dirs("inside/folder", 0755, &err) &&
                   uvm_make_dirs("outside/folder", 0755, &err) &&
                   uvm_file_replace("inside/file", 0644, "x", 1, &err) &&
                   uvm_file_replace("outside/file", 0644, "x", 1, &err)
               ? 0
               : -1;
}

static int remove_scratch(void **state)
{
    (void)state;
    uvm_auto_error err = UVM_ERROR_INIT;
    bool ok = chdir("/") == 0 && uvm_remove_tree(scratch, &err);
    free(scratch);
    return ok ? 0 : -1;
}

/* The line of the first thing that is not as it should be; 0 = all is. */
#define EXPECT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return __LINE__;                                                                       \
    } while (0)
#define DENIED(call) EXPECT((call) < 0 && (errno == EACCES || errno == EXDEV))

/* Confines a child and lets it try. */
static void confined(enum uvm_sockets sockets, int (*try)(unsigned confined))
{
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        uvm_auto_strings writable = {0};
        uvm_strings_add(&writable, "inside");
        uvm_strings_add(&writable, "missing");
        int line = try(uvm_confine(&writable, sockets));
        _exit(write(pipes[1], &line, sizeof line) != sizeof line);
    }
    close(pipes[1]);
    int line = -1, status = 0;
    assert_int_equal(read(pipes[0], &line, sizeof line), sizeof line);
    close(pipes[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (line)
        fail_msg("line %d", line);
}

static int make_file(const char *path)
{
    uvm_auto_fd fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    return fd < 0 ? -1 : 0;
}

static int open_file(const char *path, int flags)
{
    uvm_auto_fd fd = open(path, flags | O_CLOEXEC);
    return fd < 0 ? -1 : 0;
}

/* ---- files ---- */

static int try_outside(unsigned confined)
{
    if (!(confined & UVM_CONFINED_FILES))
        return 0;
    DENIED(make_file("outside/new"));
    DENIED(make_file("new"));
    DENIED(make_file("missing"));
    DENIED(open_file("outside/file", O_WRONLY));
    DENIED(open_file("outside/file", O_RDWR));
    DENIED(open_file("outside", O_TMPFILE | O_WRONLY));
    DENIED(unlink("outside/file"));
    DENIED(rmdir("outside/folder"));
    DENIED(mkdir("outside/new", 0755));
    DENIED(symlink("file", "outside/new"));
    DENIED(mkfifo("outside/new", 0644));
    DENIED(rename("outside/file", "outside/new"));
    DENIED(rename("inside/file", "outside/file"));
    DENIED(link("outside/file", "inside/new"));
    EXPECT(open_file("outside/file", O_RDONLY) == 0);
    return 0;
}

static void test_nothing_changes_outside(void **state)
{
    (void)state;
    confined(UVM_SOCKETS_NONE, try_outside);
    struct stat st;
    assert_int_equal(stat("outside/file", &st), 0);
    assert_int_equal(st.st_size, 1);
    assert_true(access("outside/new", F_OK) < 0);
}

static int try_inside(unsigned confined)
{
    (void)confined;
    uvm_auto_error err = UVM_ERROR_INIT;
    EXPECT(uvm_file_replace("inside/file", 0600, "more", 4, &err));
    EXPECT(mkdir("inside/new", 0755) == 0);
    EXPECT(make_file("inside/new/file") == 0);
    EXPECT(link("inside/new/file", "inside/new/other") == 0);
    EXPECT(truncate("inside/new/file", 0) == 0);
    EXPECT(uvm_remove_tree("inside/new", &err));
    EXPECT(open_file("/dev/null", O_RDWR) == 0);
    uvm_auto_free char *temporary = uvm_format("%s/uvmirror-test-XXXXXX", uvm_temporary_folder());
    EXPECT(mkdtemp(temporary));
    EXPECT(rmdir(temporary) == 0);
    return 0;
}

static void test_all_is_well_inside(void **state)
{
    (void)state;
    confined(UVM_SOCKETS_NONE, try_inside);
}

static int try_programs(unsigned confined)
{
    if (!(confined & UVM_CONFINED_FILES))
        return 0;
    pid_t child = fork();
    if (child == 0) {
        execl("/bin/sh", "sh", "-c",
              "echo inside >inside/by-sh && exec 2>/dev/null; echo >outside/by-sh", NULL);
        _exit(127);
    }
    int status = 0;
    EXPECT(waitpid(child, &status, 0) == child && WIFEXITED(status));
    EXPECT(WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != 127);
    EXPECT(access("inside/by-sh", F_OK) == 0 && access("outside/by-sh", F_OK) < 0);
    return 0;
}

static void test_what_it_starts_is_confined(void **state)
{
    (void)state;
    confined(UVM_SOCKETS_NONE, try_programs);
}

/* ---- calls ---- */

static bool opens(int family)
{
    uvm_auto_fd fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd >= 0;
}

static bool makes_pair(void)
{
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return false;
    close(fds[0]);
    close(fds[1]);
    return true;
}

static int try_no_sockets(unsigned confined)
{
    if (!(confined & UVM_CONFINED_CALLS))
        return 0;
    EXPECT(!opens(AF_INET) && errno == EPERM);
    EXPECT(!opens(AF_INET6) && errno == EPERM);
    EXPECT(!opens(AF_UNIX) && errno == EPERM);
    EXPECT(makes_pair());
    return 0;
}

static int try_local_sockets(unsigned confined)
{
    if (!(confined & UVM_CONFINED_CALLS))
        return 0;
    EXPECT(!opens(AF_INET) && errno == EPERM);
    EXPECT(!opens(AF_NETLINK) && errno == EPERM);
    EXPECT(opens(AF_UNIX));
    return 0;
}

static int try_wide_doors(unsigned confined)
{
    if (!(confined & UVM_CONFINED_CALLS))
        return 0;
    EXPECT(unshare(CLONE_NEWUSER) < 0 && errno == EPERM);
    EXPECT(syscall(SYS_io_uring_setup, 1, NULL) < 0 && errno == EPERM);
    return 0;
}

static void test_sockets(void **state)
{
    (void)state;
    confined(UVM_SOCKETS_NONE, try_no_sockets);
    confined(UVM_SOCKETS_LOCAL, try_local_sockets);
    confined(UVM_SOCKETS_LOCAL, try_wide_doors);
}

/* ---- capabilities ---- */

static int try_capabilities(unsigned confined)
{
    (void)confined;
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {0};
    uint32_t kept =
        1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH | 1u << CAP_FSETID | 1u << CAP_LEASE;
    EXPECT(syscall(SYS_capget, &head, sets) == 0);
    EXPECT((sets[0].effective & ~kept) == 0 && (sets[0].permitted & ~kept) == 0);
    EXPECT(sets[0].effective == sets[0].permitted && sets[1].permitted == 0);
    return 0;
}

static void test_capabilities_are_gone(void **state)
{
    (void)state;
    confined(UVM_SOCKETS_LOCAL, try_capabilities);
}

/* ---- what is in force ---- */

static int try_status(unsigned confined)
{
    bool landlock = syscall(444, NULL, 0, 1) >= 1; /* its version; 444 is landlock_create_ruleset */
    EXPECT(landlock == !!(confined & UVM_CONFINED_FILES));
#ifdef __x86_64__
    EXPECT(!!(confined & UVM_CONFINED_CALLS) == (prctl(PR_GET_SECCOMP) == 2));
    EXPECT(access("/proc/sys/kernel/seccomp", F_OK) < 0 || (confined & UVM_CONFINED_CALLS));
#endif
    EXPECT(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
    return 0;
}

static void test_it_says_what_is_in_force(void **state)
{
    (void)state;
    confined(UVM_SOCKETS_LOCAL, try_status);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_changes_outside),
        cmocka_unit_test(test_all_is_well_inside),
        cmocka_unit_test(test_what_it_starts_is_confined),
        cmocka_unit_test(test_sockets),
        cmocka_unit_test(test_capabilities_are_gone),
        cmocka_unit_test(test_it_says_what_is_in_force),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
