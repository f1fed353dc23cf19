"""An import that can be looked at half way."""

import os
import subprocess
import time

import hypervisor


class SlowImport:
    """An import that waits for the second half of its bundle, on standard input."""

    def __init__(self, uvmirror, bundle, *options):
        data = bundle.read_bytes()
        self.rest = data[len(data) // 2:]
        self.process = uvmirror.start("import", *options, "-", stdin=subprocess.PIPE)
        self.process.stdin.write(data[:len(data) // 2])
        self.process.stdin.flush()
        # It holds the lock once its journal is there.
        self.wait_for(lambda: os.path.exists(os.path.join(hypervisor.STATE, "journal.json")))

    def wait_for(self, condition):
        end = time.monotonic() + 20
        while not condition():
            assert self.process.poll() is None and time.monotonic() < end
            time.sleep(0.02)

    def finish(self):
        return self.process.communicate(self.rest, timeout=60), self.process.returncode
