"""A sync of another program, behaving as uvtool's does, runs in a loop beside imports: it wants one
version, adopts any volume of its name or makes one, forgets the other versions, deletes what has no
metadata and no guest that it knows of, erases metadata without volume, and stumbles over names that it
cannot decode."""

import json
import os
import random
import threading
import time

import libvirt
import pytest

import hypervisor
import uvtool_view
from sample_mirror import PRODUCT

OLD, NEW = "20241004", "20241018"
NAMES = {version: uvtool_view.encode(PRODUCT, version) for version in (OLD, NEW)}
VOLUME_XML = """
<volume><name>{name}</name><capacity>0</capacity><target><format type='qcow2'/></target></volume>"""


class Sync(threading.Thread):
    """What it wrote itself bears a mark. `between` is held while it is at work."""

    def __init__(self, seed, images):
        super().__init__()
        self.random, self.images = random.Random(seed), images
        self.stop, self.between = threading.Event(), threading.Lock()
        self.libvirt = libvirt.open("qemu:///system")
        self.counts = {"adopted": 0, "made": 0, "forgotten": 0, "deleted": 0, "erased": 0}
        self.broken = None

    def run(self):
        while not self.stop.is_set():
            try:
                with self.between:
                    self.once(self.random.choice((OLD, NEW)))
            except libvirt.libvirtError:
                pass  # something went away, or is busy: the next round is soon
            except Exception as error:  # pylint: disable=broad-except
                self.broken = error
                return
            time.sleep(self.random.random() / 20)

    def end(self):
        self.stop.set()
        self.join()
        self.libvirt.close()
        assert self.broken is None, f"the other program stumbled: {self.broken!r}"

    def once(self, version):
        """A whole sync with a source that lists this version."""
        pool = self.libvirt.storagePoolLookupByName(hypervisor.POOL)
        known = self.load(pool)
        if version not in known and self.insert(pool, version):
            for other in known:
                self.forget(other)
        self.clean(pool)

    def load(self, pool):
        """The versions that it takes for images."""
        known = []
        for name in os.listdir(hypervisor.METADATA):
            product, version = uvtool_view.decode(name)
            try:
                if name in pool.listVolumes():
                    with open(self.path(name), encoding="utf-8") as file:
                        values = json.load(file)
                    assert (values["product_name"], values["version_name"]) == (product, version)
                    known.append(version)
                else:
                    os.unlink(self.path(name))
                    self.counts["erased"] += 1
            except FileNotFoundError:
                pass  # retired in this instant
        return known

    def insert(self, pool, version):
        name = NAMES[version]
        if name in pool.listVolumes():
            self.counts["adopted"] += 1
        elif self.random.random() < 0.2:
            self.make(pool, name, self.images[version])
        else:
            return False  # its network is slow today
        with open(self.path(name), "w", encoding="utf-8") as out:
            json.dump({"product_name": PRODUCT, "version_name": version, "foreign": "yes",
                       "item_name": "disk1.img", "release": "noble", "arch": "amd64",
                       "label": "release"}, out)
        return True

    def make(self, pool, name, image):
        """The volume has its name before it has any content."""
        volume = pool.createXML(VOLUME_XML.format(name=name), 0)
        stream = self.libvirt.newStream(0)
        with open(image, "rb") as data:
            volume.upload(stream, 0, os.fstat(data.fileno()).st_size, 0)
            stream.sendAll(lambda _, size, file: file.read(size), data)
        stream.finish()
        self.counts["made"] += 1

    def forget(self, version):
        if os.path.exists(self.path(NAMES[version])):
            os.unlink(self.path(NAMES[version]))
            self.counts["forgotten"] += 1

    def clean(self, pool):
        names = pool.listVolumes()
        used = uvtool_view.used_by_domains(self)
        for name in names:
            volume = pool.storageVolLookupByName(name)
            if volume.path() not in used and not os.path.exists(self.path(name)):
                volume.delete(0)
                self.counts["deleted"] += 1

    @staticmethod
    def path(name):
        return os.path.join(hypervisor.METADATA, name)


def check_images(host, images):
    """Whatever came of an import: what has metadata is whole, also where the other program believed a
    volume that was not there in full yet."""
    volumes = host.volumes()
    for version, image in images.items():
        if NAMES[version] in volumes and NAMES[version] in host.metadata():
            hypervisor.qemu_img("compare", "-U", image, os.path.join(hypervisor.IMAGES, NAMES[version]))


def import_beside(uvmirror, host, sync, images, bundles, choose):
    """One import; its exit code."""
    options = choose.choice(((), ("--keep-compressed",)))
    result = uvmirror("import", "--allow-older", *options, choose.choice(bundles), code=None)
    # All went well; or libvirt or another program is named.
    assert result.code in (0, 7, 9), str(result)
    assert sync.is_alive(), f"the other program stumbled: {sync.broken!r}\n{result}"
    with sync.between:
        check_images(host, images)
    return result.code


def run(uvmirror, make_bundle, make_image, host, imports):
    seed = int(os.environ.get("UVMIRROR_SEED") or random.randrange(1 << 32))
    print(f"UVMIRROR_SEED={seed}")
    images = {OLD: make_image("big-a", 8 << 20), NEW: make_image("big-b", 8 << 20)}
    bundles = [make_bundle("one", {OLD: images[OLD]}), make_bundle("two", {NEW: images[NEW]})]
    choose = random.Random(seed)
    uvmirror("import", bundles[0])
    base = host.volume_path(NAMES[OLD])
    host.guest("web1", host.overlay(base, "web1.qcow"))
    used = os.stat(base)
    sync = Sync(seed, images)
    sync.start()
    try:
        ended = [import_beside(uvmirror, host, sync, images, bundles, choose)
                 for _ in range(imports)]
    finally:
        sync.end()
    print(f"exit codes {ended}, the other program {sync.counts}")
    assert os.stat(base).st_ino == used.st_ino and os.stat(base).st_mtime_ns == used.st_mtime_ns
    # When it is gone, all comes right.
    for name in list(host.metadata()):
        host.retire(name)
    uvmirror("import", "--allow-older", bundles[1])
    assert uvtool_view.versions(host) == [NEW] and uvtool_view.problems(host) == []
    hypervisor.qemu_img("compare", images[NEW], host.volume_path(NAMES[NEW]))
    assert host.volumes() == sorted([*NAMES.values(), "web1.qcow"])


def test_beside_another_sync(uvmirror, make_bundle, make_image, host):
    run(uvmirror, make_bundle, make_image, host, 6)


@pytest.mark.long
def test_long_beside_another_sync(uvmirror, make_bundle, make_image, host):
    run(uvmirror, make_bundle, make_image, host, 20)
