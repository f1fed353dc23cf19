"""An import that can be looked at half way."""

import os
import subprocess
import time

import hypervisor


def has_image_waiting(process):
    """Whether it has a file without a name open in the state folder: an image is on its way."""
    folder = f"/proc/{process.pid}/fd"
    for fd in os.listdir(folder):
        try:
            if os.readlink(os.path.join(folder, fd)).startswith(f"{hypervisor.STATE}/#"):
                return True
        except FileNotFoundError:
            pass
    return False


def is_image(name):
    """Whether the pool has a file of that name that QEMU takes for a qcow2."""
    path = os.path.join(hypervisor.IMAGES, name)
    if not os.path.exists(path):
        return False
    with open(path, "rb") as file:
        return file.read(4) == b"QFI\xfb"


class SlowImport:
    """An import that waits for the second half of its bundle, on standard input."""

    def __init__(self, uvmirror, bundle, *options):
        data = bundle.read_bytes()
        self.rest = data[len(data) // 2:]
        self.process = uvmirror.start("import", *options, "-", stdin=subprocess.PIPE)
        self.process.stdin.write(data[:len(data) // 2])
        self.process.stdin.flush()
        self.wait_for(lambda: has_image_waiting(self.process))

    def wait_for(self, condition):
        end = time.monotonic() + 20
        while not condition():
            assert self.process.poll() is None and time.monotonic() < end
            time.sleep(0.02)

    def finish(self):
        return self.process.communicate(self.rest, timeout=60), self.process.returncode
