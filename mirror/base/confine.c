/*
 * What this process gives up before it reads what strangers wrote. It is for good, and for all that
 * is started afterwards:
 *
 *     no_new_privs   no setuid program gives back what is gone
 *     Landlock       changes below the given folders alone; no TCP; no signals and abstract sockets to
 *                    others
 *     seccomp        no sockets, or local ones alone; none of the kernel's wide doors
 *     capabilities   root keeps those that have to do with files
 *
 * Landlock says what may be written, which no filter of system calls can (it sees pointers, not
 * names). It does not govern who may connect to a daemon's socket, by which root has everything back:
 * that is what the filter is for. A list of what is allowed would break with every libc and GnuPG; this
 * one denies what nobody here needs.
 *
 * Both are the kernel's alone: raw system calls, and numbers of our own where a distribution's headers
 * are older than its kernel. What a kernel does not know is left out.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mirror/base/base.h"

/* ---- Landlock -------------------------------------------------------------------------------- */

#define LANDLOCK_CREATE  444 /* the same on all machines, as all newer system calls are */
#define LANDLOCK_ADD     445
#define LANDLOCK_CONFINE 446

#define ASK_VERSION  1u /* a flag of CREATE */
#define PATH_BENEATH 1  /* a type of rule */

/* Access to files, by bit. Reading and executing are left as they are: media are anywhere, and code that
 * somebody has brought in needs no program. */
#define WRITE_FILE (UINT64_C(1) << 1)
#define NAMES      (UINT64_C(0x1ff) << 4) /* removing, and making of all kinds */
#define REFER      (UINT64_C(1) << 13)    /* renaming across folders; since version 2 */
#define TRUNCATE   (UINT64_C(1) << 14)    /* since 3 */
#define IOCTL_DEV  (UINT64_C(1) << 15)    /* since 5, of devices that are opened afterwards */
#define OF_FILES   (WRITE_FILE | TRUNCATE | IOCTL_DEV)

#define TCP    UINT64_C(3) /* to bind and to connect; since 4 */
#define SCOPES UINT64_C(3) /* abstract sockets and signals; since 6 */

struct ruleset {
    uint64_t files, network, scopes;
};

struct rule {
    uint64_t access;
    int32_t parent;
} __attribute__((packed));

static uint64_t known_access(long version)
{
    return WRITE_FILE | NAMES | (version >= 2 ? REFER : 0) | (version >= 3 ? TRUNCATE : 0) |
           (version >= 5 ? IOCTL_DEV : 0);
}

/* Older kernels take the front part of the struct. */
static size_t known_size(long version)
{
    return version >= 6   ? sizeof(struct ruleset)
           : version >= 4 ? offsetof(struct ruleset, scopes)
                          : offsetof(struct ruleset, network);
}

/* What is not there, or cannot be opened, cannot be written to either. */
static void allow(int rules, const char *path, uint64_t access)
{
    uvm_auto_fd fd = open(path, O_PATH | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return;
    struct rule rule = {.access = S_ISDIR(st.st_mode) ? access : access & OF_FILES, .parent = fd};
    syscall(LANDLOCK_ADD, rules, PATH_BENEATH, &rule, 0);
}

static bool confine_files(const struct uvm_strings *writable)
{
    long version = syscall(LANDLOCK_CREATE, NULL, 0, ASK_VERSION);
    if (version < 1)
        return false;
    struct ruleset set = {known_access(version), TCP, SCOPES};
    uvm_auto_fd rules = (int)syscall(LANDLOCK_CREATE, &set, known_size(version), 0);
    if (rules < 0)
        return false;
    for (size_t i = 0; i < writable->count; i++)
        allow(rules, writable->items[i], set.files);
    allow(rules, uvm_temporary_folder(), set.files);
    allow(rules, "/dev/shm", set.files);             /* libraries' semaphores */
    allow(rules, "/dev/null", set.files & OF_FILES); /* GnuPG's standard output */
    return syscall(LANDLOCK_CONFINE, rules, 0) == 0;
}

/* ---- seccomp --------------------------------------------------------------------------------- */

#if defined(__x86_64__)
#define MACHINE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define MACHINE AUDIT_ARCH_AARCH64
#elif defined(__s390x__)
#define MACHINE AUDIT_ARCH_S390X
#elif defined(__powerpc64__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define MACHINE AUDIT_ARCH_PPC64LE
#elif defined(__riscv) && __riscv_xlen == 64
#define MACHINE AUDIT_ARCH_RISCV64
#endif

#ifdef MACHINE

#define X32_CALLS 0x40000000 /* of x86-64, from here on: the same calls under other numbers */

/* The half of socket()'s first argument that the kernel looks at. */
#define FAMILY                                                                                     \
    (offsetof(struct seccomp_data, args) + (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? 4 : 0))

/* io_uring does what a filter does not see, opening sockets for one. */
static const unsigned denied_calls[] = {
    SYS_io_uring_setup, SYS_bpf,         SYS_perf_event_open, SYS_userfaultfd, SYS_keyctl,
    SYS_add_key,        SYS_request_key, SYS_unshare,         SYS_setns,
};
#define DENIED_COUNT (sizeof denied_calls / sizeof *denied_calls)

struct program {
    struct sock_filter steps[4 * DENIED_COUNT];
    unsigned short count;
};

static void add(struct program *p, struct sock_filter step)
{
    if (p->count == sizeof p->steps / sizeof *p->steps)
        abort();
    p->steps[p->count++] = step;
}

static void load(struct program *p, size_t offset)
{
    add(p, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset));
}

static void end(struct program *p, uint32_t verdict)
{
    add(p, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, verdict));
}

/* What is loaded decides: the next step is taken, or it is passed over. */
static void take_next_if_equal(struct program *p, uint32_t value)
{
    add(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1));
}

static void pass_next_if_equal(struct program *p, uint32_t value)
{
    add(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 1, 0));
}

static bool confine_calls(enum uvm_sockets sockets)
{
    static const uint32_t deny = SECCOMP_RET_ERRNO | EPERM;
    struct program p = {.count = 0};
    load(&p, offsetof(struct seccomp_data, arch));
    pass_next_if_equal(&p, MACHINE);
    end(&p, deny);
    load(&p, offsetof(struct seccomp_data, nr));
#ifdef __x86_64__
    add(&p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_CALLS, 0, 1));
    end(&p, deny);
#endif
    for (size_t i = 0; i < DENIED_COUNT; i++) {
        take_next_if_equal(&p, denied_calls[i]);
        end(&p, deny);
    }
    pass_next_if_equal(&p, SYS_socket);
    end(&p, SECCOMP_RET_ALLOW);
    load(&p, FAMILY);
    if (sockets == UVM_SOCKETS_LOCAL) {
        take_next_if_equal(&p, AF_UNIX);
        end(&p, SECCOMP_RET_ALLOW);
    }
    end(&p, deny);
    struct sock_fprog filter = {p.count, p.steps};
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0) == 0;
}

#else

/* Its numbers are not known here. */
static bool confine_calls(enum uvm_sockets sockets)
{
    (void)sockets;
    return false;
}

#endif

/* ---- capabilities ---------------------------------------------------------------------------- */

/* Files of others may be read and written (Landlock says where), keep their group's bit, and tell who
 * has them open: an image belongs to QEMU's user once a guest has run on it. All of these are in the
 * first word. */
#define KEPT                                                                                       \
    (UINT32_C(1) << CAP_DAC_OVERRIDE | UINT32_C(1) << CAP_DAC_READ_SEARCH |                        \
     UINT32_C(1) << CAP_FSETID | UINT32_C(1) << CAP_LEASE)

static void drop_capabilities(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {0};
    if (syscall(SYS_capget, &head, sets) < 0)
        return;
    uint32_t kept = sets[0].permitted & KEPT;
    memset(sets, 0, sizeof sets);
    sets[0].permitted = sets[0].effective = kept;
    syscall(SYS_capset, &head, sets);
}

/* ---- all of it ------------------------------------------------------------------------------- */

unsigned uvm_confine(const struct uvm_strings *writable, enum uvm_sockets sockets)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return 0;
    unsigned confined = confine_files(writable) ? UVM_CONFINED_FILES : 0;
    if (confine_calls(sockets))
        confined |= UVM_CONFINED_CALLS;
    drop_capabilities();
    return confined;
}
