"""Media for the tests: small file systems, and sticks that are broken in one way or another.

    python3 media.py BEHIND STICK FAULT SIZE      mounts the folder BEHIND as a stick with a fault

A machine without FUSE gets a fault that strace brings into the program instead."""

import contextlib
import errno
import os
import subprocess
import sys
import time

FUSE = "/dev/fuse"


def visible(stick):
    """The names in a folder that a bundle may have."""
    return sorted(path.name for path in stick.iterdir()
                  if not path.name.startswith(".") and path.name != "lost+found")


def everything(folder):
    return sorted(path.name for path in folder.rglob("*"))


def inject(calls, what, when=1):
    """In front of a command: from the n-th of these calls on, this happens."""
    # GnuPG and its agent have calls of their own; they are not followed.
    return ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-e",
            f"inject={calls}:{what}:when={when}+"]


# ---- file systems -------------------------------------------------------------------------------


def run(*command):
    done = subprocess.run([*map(str, command)], capture_output=True, check=False)
    return done.returncode == 0


@contextlib.contextmanager
def mounted(stick):
    try:
        yield stick
    finally:
        subprocess.run(["umount", stick], check=True)


def ext4(stick, size):
    image = stick.with_suffix(".ext4")
    with open(image, "wb") as out:
        out.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", "-m", "0", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, stick], check=True)
    return mounted(stick)


def fat(stick, size=64 << 20):
    """A real FAT32: the kernel's, or else in user space."""
    image = stick.with_suffix(".fat")
    with open(image, "wb") as out:
        out.truncate(size)
    # The smallest clusters: user space reads zeros where a file is smaller than one.
    subprocess.run(["mkfs.vfat", "-F", "32", "-s", "1", image], check=True,
                   stdout=subprocess.DEVNULL)
    if not run("mount", "-t", "vfat", "-o", "loop", image, stick):
        make_fuse_device()
        subprocess.run(["fusefat", "-o", "rw+", image, stick], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return mounted(stick)


# ---- broken sticks ------------------------------------------------------------------------------


def make_fuse_device():
    if not os.path.exists(FUSE):
        run("mknod", FUSE, "c", "10", "229")


STAND_INS = {"full": "error=ENOSPC", "dies": "error=EIO", "small-files": "error=EFBIG",
             "lies": "error=EIO", "stalls": "delay_exit=500000"}


@contextlib.contextmanager
def bad_stick(behind, stick, fault, size):
    """Yields what has to stand in front of the command: nothing, where there is FUSE."""
    make_fuse_device()
    process = subprocess.Popen(
        ["/usr/bin/python3", os.path.abspath(__file__), behind, stick, fault, str(size)],
        stdin=subprocess.DEVNULL)
    while not os.path.ismount(stick) and process.poll() is None:
        time.sleep(0.02)
    if process.poll() is not None:
        yield inject("fsync", STAND_INS[fault], 6)
        return
    try:
        yield []
    finally:
        subprocess.run(["umount", stick], check=True)
        process.wait(timeout=30)


def serve(behind, stick, fault, size):
    try:
        import fusepy as fuse  # pylint: disable=import-outside-toplevel
    except ImportError:
        import fuse  # pylint: disable=import-outside-toplevel

    class Stick(fuse.Operations):
        written = 0
        broken = False

        def path(self, path):
            if self.broken:
                raise fuse.FuseOSError(errno.EIO)
            return os.path.join(behind, path.lstrip("/"))

        def getattr(self, path, fh=None):
            info = os.lstat(self.path(path))
            return {key: getattr(info, key) for key in (
                "st_mode", "st_size", "st_nlink", "st_uid", "st_gid", "st_mtime")}

        def readdir(self, path, fh):
            return [".", "..", *os.listdir(self.path(path))]

        def statfs(self, path):
            return {"f_bsize": 4096, "f_frsize": 4096, "f_blocks": 1 << 20, "f_bfree": 1 << 20,
                    "f_bavail": 1 << 20}

        def open(self, path, flags):
            return os.open(self.path(path), flags)

        def create(self, path, mode, fi=None):
            return os.open(self.path(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

        def write(self, path, data, offset, fh):
            self.path(path)
            self.written += len(data)
            if self.written > size:
                if fault == "full":
                    raise fuse.FuseOSError(errno.ENOSPC)
                if fault == "dies":
                    self.broken = True
                    self.path(path)
                if fault == "stalls":
                    time.sleep(2)
                    self.written -= 1 << 40
            if fault == "small-files" and offset + len(data) > size:
                raise fuse.FuseOSError(errno.EFBIG)
            return os.pwrite(fh, data, offset)

        def read(self, path, length, offset, fh):
            self.path(path)
            data = os.pread(fh, length, offset)
            if fault == "lies" and offset == 0 and data:
                data = bytes([data[0] ^ 1]) + data[1:]
            return data

        def truncate(self, path, length, fh=None):
            os.truncate(self.path(path), length)

        def fsync(self, path, datasync, fh):
            self.path(path)
            os.fsync(fh)

        def release(self, path, fh):
            os.close(fh)

        def rename(self, old, new):
            os.rename(self.path(old), self.path(new))

        def unlink(self, path):
            os.unlink(self.path(path))

        def mkdir(self, path, mode):
            os.mkdir(self.path(path), mode)

        def rmdir(self, path):
            os.rmdir(self.path(path))

        def chmod(self, path, mode):
            os.chmod(self.path(path), mode)

        def utimens(self, path, times=None):
            os.utime(self.path(path), times)

    fuse.FUSE(Stick(), stick, foreground=True, nothreads=True)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
