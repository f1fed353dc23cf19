/* Files and folders: reading, writing, making, removing, locking. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "mirror/base/base.h"

#define PIPE_WAIT_MS 200 /* between two looks at whether to stop */

/* ---- reading ---- */

bool uvm_read_some(int fd, void *data, size_t len, size_t *ret_len, struct uvm_error *err)
{
    ssize_t n;
    do
        n = read(fd, data, len);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return uvm_fail_errno(err, UVM_FAILED, "cannot read");
    *ret_len = (size_t)n;
    return true;
}

static bool read_all(int fd, const char *path, struct uvm_buf *buf, struct uvm_error *err)
{
    char block[16384];
    for (size_t len = 1; len > 0;)
        if (!uvm_read_some(fd, block, sizeof block, &len, err) ||
            !uvm_buf_add(buf, block, len, err))
            return uvm_prefix(err, "%s", path);
    return true;
}

bool uvm_file_read(const char *path, size_t max, struct uvm_buf *ret_buf, struct uvm_error *err)
{
    /* O_NONBLOCK: opening a FIFO must not wait for a writer. */
    uvm_auto_fd fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return uvm_fail_errno(err, UVM_FAILED, "%s", path);
    if (!S_ISREG(st.st_mode)) {
        errno = S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
        return uvm_fail_errno(err, UVM_FAILED, "%s", path);
    }
    uvm_auto_buf buf = {.max = max};
    if (!uvm_buf_add(&buf, "", 0, err) || !read_all(fd, path, &buf, err))
        return false;
    uvm_buf_move(ret_buf, &buf);
    return true;
}

bool uvm_write_all(int fd, const void *data, size_t len, struct uvm_error *err)
{
    const char *p = data;
    while (len > 0) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return uvm_fail_errno(err, UVM_FAILED, "write");
        p += n;
        len -= (size_t)n;
    }
    return true;
}

/* The same pipe, but writing does not wait; whoever else has `fd` is not to notice. -1 when there is no
 * way to that. */
static int open_again(int fd)
{
    struct stat st;
    uvm_auto_free char *path = uvm_format("/proc/self/fd/%d", fd);
    bool pipe = fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode);
    return pipe ? open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC) : -1;
}

/* A signal need not come to the thread that waits in write(2), nor while it does: nothing waits there.
 * What has room for anything has room for PIPE_BUF bytes. */
bool uvm_write_pipe(int fd, const void *data, size_t len, const struct uvm_observer *observer,
                    struct uvm_error *err)
{
    uvm_auto_fd own = open_again(fd);
    size_t most = own >= 0 ? SIZE_MAX : PIPE_BUF;
    for (const char *p = data; len > 0;) {
        struct pollfd wait = {.fd = fd, .events = POLLOUT};
        if (!uvm_go_on(observer, err))
            return false;
        if (poll(&wait, 1, PIPE_WAIT_MS) <= 0)
            continue;
        ssize_t n = write(own >= 0 ? own : fd, p, len < most ? len : most);
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return uvm_fail_errno(err, UVM_FAILED, "write");
        p += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
    }
    return true;
}

/* ---- folders ---- */

static bool make_dir(const char *path, mode_t mode, struct uvm_error *err)
{
    struct stat st;
    if (mkdir(path, mode) == 0 || (errno == EEXIST && stat(path, &st) == 0 && S_ISDIR(st.st_mode)))
        return true;
    return uvm_fail_errno(err, UVM_FAILED, "cannot make folder %s", path);
}

bool uvm_make_dirs(const char *path, mode_t mode, struct uvm_error *err)
{
    uvm_auto_free char *part = uvm_strdup(path);
    for (char *p = part + 1; *part && *p; p++) {
        if (*p != '/' || p[-1] == '/')
            continue;
        *p = 0;
        if (!make_dir(part, mode, err))
            return false;
        *p = '/';
    }
    return make_dir(path, mode, err);
}

static bool remove_entry(int dir_fd, const char *name, struct uvm_error *err)
{
    if (unlinkat(dir_fd, name, 0) == 0 || errno == ENOENT)
        return true;
    if (errno != EISDIR && errno != EPERM)
        return uvm_fail_errno(err, UVM_FAILED, "%s", name);
    uvm_auto_fd fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return uvm_fail_errno(err, UVM_FAILED, "%s", name);
    if (!uvm_remove_below(fd, err))
        return uvm_prefix(err, "%s", name);
    if (unlinkat(dir_fd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
        return uvm_fail_errno(err, UVM_FAILED, "%s", name);
    return true;
}

static void close_dir(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

bool uvm_remove_below(int dir_fd, struct uvm_error *err)
{
    uvm_auto_fd fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    __attribute__((cleanup(close_dir))) DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir)
        return uvm_fail_errno(err, UVM_FAILED, "cannot read folder");
    uvm_steal_fd(&fd); /* the DIR owns it now */
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (!remove_entry(dir_fd, entry->d_name, err))
            return false;
    }
    return true;
}

bool uvm_remove_tree(const char *path, struct uvm_error *err)
{
    if (!remove_entry(AT_FDCWD, path, err))
        return uvm_prefix(err, "cannot remove");
    return true;
}

char *uvm_dirname(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return uvm_strdup(".");
    while (slash > path && slash[-1] == '/')
        slash--;
    return slash == path ? uvm_strdup("/") : uvm_strndup(path, (size_t)(slash - path));
}

const char *uvm_temporary_folder(void)
{
    const char *tmp = getenv("TMPDIR");
    return tmp && tmp[0] == '/' ? tmp : "/tmp";
}

bool uvm_sync_dir_of(const char *path, struct uvm_error *err)
{
    uvm_auto_free char *dir = uvm_dirname(path);
    uvm_auto_fd fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* Some file systems (FUSE) cannot sync a folder; there is nothing more to do about it then. */
    if (fd < 0 || (fsync(fd) < 0 && errno != EINVAL && errno != ENOSYS))
        return uvm_fail_errno(err, UVM_FAILED, "cannot sync folder %s", dir);
    return true;
}

bool uvm_free_space(const char *path, uint64_t *ret_bytes, struct uvm_error *err)
{
    struct statvfs st;
    if (statvfs(path, &st) < 0)
        return uvm_fail_errno(err, UVM_FAILED, "%s", path);
    *ret_bytes = st.f_blocks ? (uint64_t)st.f_bavail * st.f_frsize : UINT64_MAX;
    return true;
}

/* ---- files without a name ---- */

bool uvm_nameless_file(const char *dir, int *ret_fd, struct uvm_error *err)
{
    uvm_auto_free char *path = uvm_format("%s/.spool.XXXXXX", dir);
    uvm_auto_fd fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) {
        fd = mkostemp(path, O_CLOEXEC);
        if (fd < 0)
            return uvm_fail_errno(err, UVM_FAILED, "cannot write in folder %s", dir);
        if (unlink(path) < 0)
            return uvm_fail_errno(err, UVM_FAILED, "%s", path);
    }
    *ret_fd = uvm_steal_fd(&fd);
    return true;
}

/* ---- locks ---- */

void uvm_claim(int fd, int lock)
{
    while (flock(fd, lock) < 0 && errno == EINTR)
        ;
}

bool uvm_lock_file(const char *path, int *ret_fd, struct uvm_error *err)
{
    uvm_auto_fd fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0660);
    if (fd < 0)
        return uvm_fail_errno(err, UVM_FAILED, "cannot open lock %s", path);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno == EWOULDBLOCK)
            return uvm_fail(err, UVM_BUSY, "another uvmirror is running (lock %s)", path);
        return uvm_fail_errno(err, UVM_FAILED, "cannot lock %s", path);
    }
    *ret_fd = uvm_steal_fd(&fd);
    return true;
}
