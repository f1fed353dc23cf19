/*
 * file.c: a volume's file as the kernel knows it: which one it is, and whether anybody has it open.
 *
 * libvirt knows neither: it knows names, and its own marks of what is at work go with each refresh.
 */
#include "pool/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <linux/magic.h>

/* An inode's number comes back soon after its file was deleted, its time of birth does not. The
 * device is left out: after a reboot it may have another number. */
char *pool_file_identity(const char *path)
{
    struct statx st;
    if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_INO | STATX_BTIME, &st) != 0)
        return NULL;
    bool born = st.stx_mask & STATX_BTIME;
    return uvm_format("%" PRIu64 ":%" PRIi64 ".%09u", (uint64_t)st.stx_ino,
                      born ? (int64_t)st.stx_btime.tv_sec : 0, born ? st.stx_btime.tv_nsec : 0);
}

bool pool_file_is(const char *path, const char *identity)
{
    uvm_auto_free char *now = pool_file_identity(path);
    if (!now)
        return errno != ENOENT;
    return !identity || strcmp(now, identity) == 0;
}

/* There a lease is refused by whoever does not have the server's leave, used or not. */
static bool leases_mean_nothing(int fd)
{
    struct statfs fs;
    if (fstatfs(fd, &fs) != 0)
        return false;
    return fs.f_type == NFS_SUPER_MAGIC || fs.f_type == CIFS_SUPER_MAGIC ||
           fs.f_type == SMB2_SUPER_MAGIC;
}

bool pool_file_idle(const char *path, struct uvm_error *err)
{
    uvm_auto_fd fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 && errno == ENOENT)
        return true;
    if (fd < 0)
        return uvm_fail_errno(err, UVM_FAILED, "open");
    if (leases_mean_nothing(fd))
        return true;
    /* The signal for who opens the file in this instant would be SIGIO, which ends the process;
     * SIGURG is ignored unless somebody asks for it. */
    if (fcntl(fd, F_SETSIG, SIGURG) == 0 && fcntl(fd, F_SETLEASE, F_WRLCK) == 0) {
        fcntl(fd, F_SETLEASE, F_UNLCK);
        return true;
    }
    if (errno == EAGAIN)
        return uvm_fail(err, UVM_BUSY, "is open in another program");
    if (errno == EINVAL || errno == ENOLCK || errno == EOPNOTSUPP)
        return true;
    return uvm_fail_errno(err, UVM_FAILED, "whether it is open elsewhere cannot be told");
}

bool pool_file_is_older(const char *path, time_t age)
{
    struct statx st;
    time_t limit = time(NULL) - age;
    if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_BTIME, &st) != 0 ||
        !S_ISREG(st.stx_mode))
        return false;
    bool born_late = (st.stx_mask & STATX_BTIME) && st.stx_btime.tv_sec > limit;
    return !born_late && st.stx_mtime.tv_sec <= limit && st.stx_ctime.tv_sec <= limit;
}
