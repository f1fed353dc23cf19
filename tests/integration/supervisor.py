"""Runs uvmirror with each system call that changes a file, or sends something, held until it is decided
what becomes of it: it goes on, fails, or goes on after something else has happened.

The kernel does the holding (seccomp's user notification), in every thread and at full speed: so reports of
the sanitizers, leaks too, stay what they are, which they do not under a tracer.
"""

import ctypes
import dataclasses
import fcntl
import os
import platform
import select
import struct
import subprocess
import threading

from program import Result

assert platform.machine() == "x86_64", "the numbers below are x86_64's"

SYS_SECCOMP, SYS_PIDFD_OPEN, SYS_PIDFD_GETFD = 317, 434, 438
SET_MODE_FILTER, NEW_LISTENER = 1, 8
ALLOW, USER_NOTIF = 0x7fff0000, 0x7fc00000
NOTIF_RECV, NOTIF_SEND = 0xc0502100, 0xc0182101
GO_ON = 1
LISTENER = 100  # its file descriptor in the child
AT_FDCWD = 0xffffff9c
KILL = "kill"

LOAD, JUMP_EQUAL, JUMP_SET, RETURN = 0x20, 0x15, 0x45, 0x06
ARGUMENT = 16  # offset of the first in what a filter sees; eight bytes each


@dataclasses.dataclass(frozen=True)
class Kind:
    """How a system call says what it changes: by the argument that is a file descriptor, or by the one
    that is a path, with its folder's descriptor where there is one."""

    name: str
    fd: int = None
    path: int = None
    folder: int = None


CALLS = {
    1: Kind("write", fd=0), 18: Kind("pwrite64", fd=0), 20: Kind("writev", fd=0),
    40: Kind("sendfile", fd=0), 44: Kind("sendto", fd=0), 46: Kind("sendmsg", fd=0),
    74: Kind("fsync", fd=0), 75: Kind("fdatasync", fd=0), 76: Kind("truncate", path=0),
    77: Kind("ftruncate", fd=0), 82: Kind("rename", path=1), 83: Kind("mkdir", path=0),
    84: Kind("rmdir", path=0), 86: Kind("link", path=1), 87: Kind("unlink", path=0),
    88: Kind("symlink", path=1), 90: Kind("chmod", path=0), 91: Kind("fchmod", fd=0),
    92: Kind("chown", path=0), 93: Kind("fchown", fd=0),
    257: Kind("openat", path=1, folder=0), 258: Kind("mkdirat", path=1, folder=0),
    260: Kind("fchownat", path=1, folder=0), 263: Kind("unlinkat", path=1, folder=0),
    264: Kind("renameat", path=3, folder=2), 265: Kind("linkat", path=3, folder=2),
    266: Kind("symlinkat", path=2, folder=1), 268: Kind("fchmodat", path=1, folder=0),
    280: Kind("utimensat", path=1, folder=0), 285: Kind("fallocate", fd=0),
    296: Kind("pwritev", fd=0), 306: Kind("syncfs", fd=0),
    316: Kind("renameat2", path=3, folder=2), 326: Kind("copy_file_range", fd=2),
}
OPENAT = 257
MAKES_A_FILE = 0o100 | 0o20000000  # O_CREAT, and what O_TMPFILE has of its own

libc = ctypes.CDLL(None, use_errno=True)


@dataclasses.dataclass(frozen=True)
class Call:
    """One that is held. `target` is a path, "socket:[...]", "pipe:[...]" or "anon_inode:..."."""

    name: str
    target: str

    def __str__(self):
        return f"{self.name} of {self.target}"


# ---- the program's side -------------------------------------------------------------------------


class Filter(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("code", ctypes.c_char_p)]


def step(code, value, if_true=0, if_false=0):
    return struct.pack("HBBI", code, if_true, if_false, value)


def filter_code():
    """Number by number; of the many files that are opened, only those that are made."""
    code = [step(LOAD, 0)]
    for number in CALLS:
        if number != OPENAT:
            code += [step(JUMP_EQUAL, number, 0, 1), step(RETURN, USER_NOTIF)]
    code += [step(JUMP_EQUAL, OPENAT, 0, 3), step(LOAD, ARGUMENT + 8 * 2),
             step(JUMP_SET, MAKES_A_FILE, 0, 1), step(RETURN, USER_NOTIF), step(RETURN, ALLOW)]
    return b"".join(code)


CODE = filter_code()
FILTER = Filter(len(CODE) // 8, CODE)


def hold_calls():
    """In the child, before it becomes the program."""
    listener = libc.syscall(SYS_SECCOMP, SET_MODE_FILTER, NEW_LISTENER, ctypes.byref(FILTER))
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    os.dup2(listener, LISTENER)


# ---- our side -----------------------------------------------------------------------------------


def checked(value):
    if value < 0:
        raise OSError(ctypes.get_errno(), "system call")
    return value


def take_listener(process):
    pidfd = checked(libc.syscall(SYS_PIDFD_OPEN, process.pid, 0))
    try:
        return checked(libc.syscall(SYS_PIDFD_GETFD, pidfd, LISTENER, 0))
    finally:
        os.close(pidfd)


def target_of(thread, kind, arguments):
    """What the call changes; "" when it is over already."""
    try:
        if kind.fd is not None:
            return os.readlink(f"/proc/{thread}/fd/{arguments[kind.fd]}")
        with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
            memory.seek(arguments[kind.path])
            path = os.fsdecode(memory.read(4096).split(b"\0")[0])
        folder = AT_FDCWD if kind.folder is None else arguments[kind.folder] & 0xffffffff
        base = f"/proc/{thread}/cwd" if folder == AT_FDCWD else f"/proc/{thread}/fd/{folder}"
        return os.path.join(os.readlink(base), path)
    except OSError:
        return ""


class Supervisor:
    """Decides about the calls of one process; those of the programs that it starts go on."""

    def __init__(self, process, decide):
        self.process, self.decide = process, decide
        self.listener = take_listener(process)
        self.failed = None
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _is_own(self, thread):
        return os.path.exists(f"/proc/{self.process.pid}/task/{thread}")

    def _ask(self, number, thread, arguments):
        """What `decide` says; a failure of its own is kept, and the rest goes on undisturbed."""
        if self.failed or not self._is_own(thread):
            return None
        try:
            kind = CALLS[number]
            return self.decide(Call(kind.name, target_of(thread, kind, arguments)))
        except BaseException as error:  # pylint: disable=broad-except
            self.failed = error
            return None

    def _hold_one(self):
        held = bytearray(80)
        try:
            fcntl.ioctl(self.listener, NOTIF_RECV, held)
            cookie, thread, _, number, _, _, *arguments = struct.unpack("QIIiIQ6Q", held)
            said = self._ask(number, thread, arguments)
            if said == KILL:
                self.process.kill()
            fails = isinstance(said, int)
            fcntl.ioctl(self.listener, NOTIF_SEND, bytearray(
                struct.pack("Qqii", cookie, 0, -said if fails else 0, 0 if fails else GO_ON)))
            if callable(said):
                said()
        except FileNotFoundError:
            pass  # it was killed meanwhile

    def _run(self):
        poll = select.poll()
        poll.register(self.listener, select.POLLIN)
        while not self.over.is_set():
            for _, event in poll.poll(100):
                if not event & select.POLLIN:
                    return
                self._hold_one()

    def close(self):
        self.over.set()
        self.thread.join()
        os.close(self.listener)
        if self.failed:
            raise self.failed


def supervised(uvmirror, *args, decide, code=None, timeout=120):
    """Like uvmirror(*args), with decide(call) asked about every call. It says None to let it go on; an
    errno; KILL, which ends the program; or a function, to be called as soon as the call is on its way."""
    process = uvmirror.start(*args, preexec_fn=hold_calls, close_fds=False)
    supervisor = Supervisor(process, decide)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"it did not end within {timeout} seconds; it said: {err.decode()}") from None
    finally:
        supervisor.close()
    return uvmirror.judge(Result(process.args, subprocess.CompletedProcess(
        process.args, process.returncode, out, err)), code)
