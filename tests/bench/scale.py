#!/usr/bin/python3
"""list and clean with 100 volumes and 100 guests, and with ten times as many: is the cost linear? Runs in
tests/lib/sandbox.sh, which tests/bench/run.sh starts. Nothing is asserted: a machine may be busy."""

import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time
import uuid

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS / "lib"), str(TESTS / "integration")]

# pylint: disable=wrong-import-position
import hypervisor  # noqa: E402
import uvtool_view  # noqa: E402
from sample_mirror import PRODUCT  # noqa: E402

UVMIRROR = os.environ.get("UVMIRROR", "uvmirror")
COUNTS = (100, 1000)
ROUNDS = 5
GOAL = 1.3


class Crowd:
    """Images, each with a guest on an overlay of it; every second image was retired."""

    def __init__(self, work):
        self.host = hypervisor.Hypervisor(work)
        self.host.make_uvtool_pool()
        self.disks = self.host.make_pool("disks")
        self.empty = os.path.join(work, "empty.qcow2")
        hypervisor.qemu_img("create", "-q", "-f", "qcow2", self.empty, "1M")
        self.count = 0

    def grow(self, count):
        for n in range(self.count, count):
            version = f"2024{n:06}"
            image = self._image(version)
            if n % 2:
                self.host.write_metadata(os.path.basename(image), {
                    "product_name": PRODUCT, "version_name": version, "release": "noble",
                    "arch": "amd64", "label": "release"})
            self._guest(f"web{n}", image)
        self.count = count

    def add_unused(self):
        """As many images that nobody needs."""
        for n in range(self.count):
            self._image(f"2023{n:06}")

    def _image(self, version):
        return shutil.copyfile(self.empty, os.path.join(hypervisor.IMAGES,
                                                        uvtool_view.encode(PRODUCT, version)))

    def _guest(self, name, image):
        overlay = self.host.overlay_file(image, os.path.join(self.disks, f"{name}.qcow"))
        disk = hypervisor.FILE_DISK.format(format="qcow2", path=overlay, dev="vda")
        self.host.libvirt.defineXML(hypervisor.DOMAIN_XML.format(
            name=name, uuid=uuid.uuid4(), devices=disk, os="", console="/dev/null"))


def seconds(*args):
    start = time.monotonic()
    subprocess.run([UVMIRROR, *args], check=True, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - start


def measure(crowd):
    """{step: the median of its times}"""
    times = {"list": [], "clean, dry run": [], "clean, all go": []}
    for _ in range(ROUNDS):
        times["list"].append(seconds("list"))
        crowd.add_unused()
        times["clean, dry run"].append(seconds("clean", "--dry-run"))
        times["clean, all go"].append(seconds("clean"))
    return {step: statistics.median(values) for step, values in times.items()}


def main():
    work = os.path.join(os.environ["UVMIRROR_SANDBOX"], "scale")
    os.mkdir(work)
    crowd = Crowd(work)
    results = []
    for count in COUNTS:
        crowd.grow(count)
        results.append(measure(crowd))
    small, large = COUNTS
    print(f"\nvolumes and guests, {small} and {large} of each; medians of {ROUNDS}\n")
    print(f"step              {small:>6}     {large:>6}   over ten times    goal")
    for step in results[0]:
        few, many = (result[step] for result in results)
        print(f"{step:15} {few:7.3f} s {many:8.3f} s {many / few / (large / small):16.2f}  "
              f"<= {GOAL:3.1f}", flush=True)
    crowd.host.reset()


if __name__ == "__main__":
    main()
