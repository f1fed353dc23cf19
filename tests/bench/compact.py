"""Compact bundles of realistic images (images.sh): how small they are, what it costs to make them, and how
fast they are imported."""

import json
import os
import pathlib

import hypervisor
from fetch import Source
from host import Host
from tools import MEGA, compare, print_heading

OLD, NEW = "20241004", "20241018"
MEMORY_GOAL = 320
SMALL_LEVEL = 19
# Sizes in relation to the qcow2 files; and speed, in MB of content per second and core.
ALONE, ALONE_SMALL, BOTH, DIFFERENCE, SPEED = 0.78, 0.68, 0.55, 0.35, 20
PLAIN_IMPORT, COMPACT_IMPORT, UPLOAD = 0.45, 0.35, 1.5


def content_of(image):
    """Bytes that a guest sees, but for holes and zeros."""
    extents = json.loads(hypervisor.qemu_img("map", "--output=json", image))
    return sum(extent["length"] for extent in extents if extent["data"])


class Builds:
    """A mirror with two builds of one product, and bundles of it."""

    def __init__(self, work, keys, name, images):
        self.source, self.keys, self.images = Source(work, keys, name), keys, images
        for version, image in images.items():
            self.source.add(version, image)
        self.source.publish()
        self.source.fetch("--max", len(images), "arch=amd64")
        self.work, self.meter = self.source.work, self.source.meter

    def bundle(self, name, *args):
        path = self.work / f"{name}.tar.zst"
        path.unlink(missing_ok=True)
        self.meter.peak = 0
        self.meter("bundle", "--quiet", "--mirror", self.work / "mirror", "--state-dir",
                   self.keys.state, "-o", path, *args)
        return path

    def alone(self, version, *args):
        return self.bundle(f"alone-{version}{''.join(args)}", "--compact", *args,
                           f"version_name={version}")


# ---- sizes and speed --------------------------------------------------------------------------------


def print_size_heading():
    print(f"\n{'compact bundle':34}    size   of qcow2    goal   per core    goal    peak memory     "
          "goal", flush=True)


def tell(name, builds, bundle, versions, goal, speed_goal=None):
    """A row for the bundle that was made last; without a goal for its speed, there was little to
    encode."""
    images = [builds.images[version] for version in versions]
    size = bundle.stat().st_size
    ratio = size / sum(image.stat().st_size for image in images)
    speed = sum(map(content_of, images)) / MEGA / builds.meter.cpu
    fast = f"{speed:5.0f} MB/s {speed_goal:6}" if speed_goal is not None else ""
    print(f"{name:34} {size / MEGA:4.0f} MB {ratio:9.2f}  <= {goal:4.2f} {fast:17} "
          f"{builds.meter.peak:10.0f} MiB   <= {MEMORY_GOAL}", flush=True)


def tell_sizes(builds, title):
    for version in builds.images:
        bundle = builds.alone(version)
        tell(f"{title}, {version}", builds, bundle, [version], ALONE, f">= {SPEED}")
    for version in builds.images:
        bundle = builds.alone(version, f"--compress-level={SMALL_LEVEL}")
        tell(f"  level {SMALL_LEVEL}, {version}", builds, bundle, [version], ALONE_SMALL, "")


def tell_both(builds):
    bundle = builds.bundle("both", "--compact", "--max", 2)
    tell("  both in one", builds, bundle, [OLD, NEW], BOTH)


def tell_difference(builds, receiver):
    """What a host that has the older build needs; returns the two bundles."""
    old, inventory = builds.alone(OLD), builds.work / "inventory"
    receiver.empty()
    receiver.take(old)
    receiver.meter("inventory", "-o", inventory)
    bundle = builds.bundle("difference", "--compact", "--max", 1, "--have", inventory)
    tell("  the second for who has the first", builds, bundle, [NEW], DIFFERENCE)
    return old, bundle


# ---- import -----------------------------------------------------------------------------------------


def check(receiver, bundle, image):
    """Whatever is measured is right."""
    receiver.empty()
    receiver.take(bundle)
    for volume in receiver.host.volumes():
        hypervisor.qemu_img("compare", image, receiver.host.volume_path(volume))


def compare_imports(receiver, builds, rounds):
    compact = builds.alone(NEW)
    check(receiver, compact, receiver.image)
    print()
    print_heading()
    beside = {f"virsh vol-upload, <= {UPLOAD}": receiver.upload}
    compare("import, plain", receiver.meter, rounds, PLAIN_IMPORT, MEMORY_GOAL,
            receiver.importing(receiver.bundle), receiver.import_by_hand, beside)
    compare("import, compact", receiver.meter, rounds, COMPACT_IMPORT, MEMORY_GOAL,
            receiver.importing(compact), receiver.import_by_hand, beside)


def compare_update(receiver, old, difference, rounds):
    compare("import, difference", receiver.meter, rounds, COMPACT_IMPORT, MEMORY_GOAL,
            receiver.importing(difference, old), receiver.import_by_hand)


def run(work, keys, _image, rounds):
    folder = pathlib.Path(os.environ["UVMIRROR_BUILDS"])
    builds = Builds(work, keys, "debian",
                    {OLD: folder / "debian-a.qcow2", NEW: folder / "debian-b.qcow2"})
    small = Builds(work, keys, "small", {OLD: folder / "small.qcow2"})
    receiver = Host(work, keys, builds.images[NEW])
    print_size_heading()
    tell_sizes(builds, "Debian")
    tell_both(builds)
    old, difference = tell_difference(builds, receiver)
    tell_sizes(small, "like CirrOS")
    compare_imports(receiver, builds, rounds)
    compare_update(receiver, old, difference, rounds)
    for source in (receiver.source, builds.source, small.source):
        source.close()
