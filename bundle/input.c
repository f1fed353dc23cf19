/* The bytes of a bundle as they come: a file on a stick, a pipe, a data diode's receiver. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bundle/internal.h"

#define POLL_INTERVAL_MS                                                                           \
    200 /* how long a stalled pipe may keep us from noticing that we should stop */

/* ---- opening ---- */

static const char *type_name(mode_t mode)
{
    if (S_ISFIFO(mode))
        return "a FIFO";
    if (S_ISSOCK(mode))
        return "a socket";
    if (S_ISDIR(mode))
        return "a folder";
    return "a device";
}

static bool check_type(int fd, const char *path, struct uvm_error *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return uvm_fail_errno(err, UVM_FAILED, "%s", path);
    if (!S_ISREG(st.st_mode))
        return uvm_fail(err, UVM_FAILED,
                        "%s is %s, not a file (a stream is read as '-', from standard input)", path,
                        type_name(st.st_mode));
    return true;
}

static bool open_file(struct bundle_input *input, const char *path, struct uvm_error *err)
{
    /* O_NONBLOCK: opening a FIFO must not wait for a writer. It means nothing to a regular file. */
    uvm_auto_fd fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return uvm_fail_errno(err, UVM_FAILED, "%s", path);
    if (!check_type(fd, path, err))
        return false;
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    input->fd = uvm_steal_fd(&fd);
    input->name = uvm_printable(path);
    return true;
}

static bool open_stdin(struct bundle_input *input, struct uvm_error *err)
{
    if (isatty(STDIN_FILENO))
        return uvm_fail(err, UVM_USAGE, "standard input is a terminal: a bundle comes from a pipe");
    uvm_auto_fd fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return uvm_fail_errno(err, UVM_FAILED, "standard input");
    input->fd = uvm_steal_fd(&fd);
    input->name = uvm_strdup("standard input");
    return true;
}

bool bundle_input_open(struct bundle_input *input, const char *argument, struct uvm_error *err)
{
    return strcmp(argument, "-") == 0 ? open_stdin(input, err) : open_file(input, argument, err);
}

void bundle_input_open_set(struct bundle_input *input, struct bundle_set **set)
{
    input->set = UVM_STEAL(*set);
    input->name = uvm_strdup(bundle_set_title(input->set));
}

void bundle_input_clear(struct bundle_input *input)
{
    uvm_close_ptr(&input->fd);
    bundle_set_free(UVM_STEAL(input->set));
    free(UVM_STEAL(input->part_name));
    free(UVM_STEAL(input->name));
}

/* ---- reading ---- */

/* What is being read, for messages. */
static const char *present_name(const struct bundle_input *input)
{
    return input->part_name ? input->part_name : input->name;
}

/* Waits until a read would not block. */
static bool wait_readable(const struct bundle_input *input, const bool *quit, struct uvm_error *err)
{
    for (;;) {
        if (!uvm_go_on(input->observer, err))
            return false;
        if (__atomic_load_n(quit, __ATOMIC_RELAXED))
            return uvm_fail(err, UVM_INTERRUPTED, "%s: reading was stopped", input->name);
        struct pollfd wanted = {.fd = input->fd, .events = POLLIN};
        int n = poll(&wanted, 1, POLL_INTERVAL_MS);
        if (n > 0)
            return true;
        if (n < 0 && errno != EINTR)
            return uvm_fail_errno(err, UVM_FAILED, "reading %s", present_name(input));
    }
}

static bool read_file(const struct bundle_input *input, void *data, size_t len, const bool *quit,
                      size_t *ret_len, struct uvm_error *err)
{
    for (;;) {
        if (!wait_readable(input, quit, err))
            return false;
        ssize_t n = read(input->fd, data, len);
        if (n >= 0) {
            *ret_len = (size_t)n;
            return true;
        }
        if (errno != EINTR && errno != EAGAIN)
            return uvm_fail_errno(err, UVM_FAILED, "reading %s", present_name(input));
    }
}

/* A part that is done is closed before the next one is asked for: its medium may go. */
static bool next_part(struct bundle_input *input, const bool *quit, struct uvm_error *err)
{
    struct bundle_opened opened;
    uvm_close_ptr(&input->fd);
    if (!bundle_set_open(input->set, input->part + 1, quit, &opened, err))
        return false;
    input->part++;
    input->fd = opened.fd;
    input->left = opened.size;
    free(input->part_name);
    input->part_name = opened.name;
    if (opened.fd >= 0)
        posix_fadvise(opened.fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    return true;
}

static bool read_part(struct bundle_input *input, void *data, size_t len, const bool *quit,
                      size_t *ret_len, struct uvm_error *err)
{
    size_t want = len < input->left ? len : (size_t)input->left;
    if (!read_file(input, data, want, quit, ret_len, err))
        return false;
    if (*ret_len == 0)
        return uvm_fail(err, UVM_CONTENT, "%s: has become shorter while it was read",
                        input->part_name);
    input->left -= *ret_len;
    return true;
}

bool bundle_input_read(struct bundle_input *input, void *data, size_t len, const bool *quit,
                       size_t *ret_len, struct uvm_error *err)
{
    if (!input->set)
        return read_file(input, data, len, quit, ret_len, err);
    while (input->left == 0 && (input->part == 0 || input->fd >= 0))
        if (!next_part(input, quit, err))
            return false;
    if (input->fd >= 0)
        return read_part(input, data, len, quit, ret_len, err);
    *ret_len = 0;
    return true;
}

/* ---- what else it could be ---- */

static const struct {
    size_t offset;
    const char *bytes;
    size_t len;
    const char *kind;
} kinds[] = {
    {0, "\x1f\x8b", 2, "gzip data"},
    {0,
     "\xfd"
     "7zXZ\0",
     6, "xz data"},
    {0, "BZh", 3, "bzip2 data"},
    {0, "\x04\x22\x4d\x18", 4, "lz4 data"},
    {0, "PK", 2, "a zip archive"},
    {0, "7z\xbc\xaf\x27\x1c", 6, "a 7-Zip archive"},
    {0, "0707", 4, "a cpio archive"},
    {0, "\xc7\x71", 2, "a cpio archive"},
    {0, "\x71\xc7", 2, "a cpio archive"},
    {0, "QFI\xfb", 4, "a qcow2 image"},
    {0, "-----BEGIN PGP", 14, "an OpenPGP message"},
    {257, "ustar", 5, "an uncompressed tar archive"},
};

const char *bundle_input_kind(const void *head, size_t len)
{
    if (len == 0)
        return "an empty file";
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (len >= kinds[i].offset + kinds[i].len &&
            memcmp((const char *)head + kinds[i].offset, kinds[i].bytes, kinds[i].len) == 0)
            return kinds[i].kind;
    return "unknown data";
}
