"""A sync of another program, behaving as uvtool's does, runs in a loop beside imports: it adopts any
volume of a name that it wants, deletes what has no metadata and no guest, erases metadata without
volume, and stumbles over names that it cannot decode."""

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


class Sync(threading.Thread):
    """What it wrote itself bears a mark."""

    def __init__(self, seed):
        super().__init__()
        self.random = random.Random(seed)
        self.stop = threading.Event()
        self.libvirt = libvirt.open("qemu:///system")
        self.counts = {"adopted": 0, "deleted": 0, "erased": 0}
        self.broken = None

    def run(self):
        while not self.stop.is_set():
            try:
                self.once()
            except libvirt.libvirtError:
                pass  # something went away, or is busy: the next round is soon
            except Exception as error:  # pylint: disable=broad-except
                self.broken = error
                return
            time.sleep(self.random.random() / 50)

    def end(self):
        self.stop.set()
        self.join()
        self.libvirt.close()
        assert self.broken is None, f"the other program stumbled: {self.broken!r}"

    def once(self):
        pool = self.libvirt.storagePoolLookupByName(hypervisor.POOL)
        if self.random.random() < 0.5:
            self.adopt(pool)
        else:
            self.clean(pool)

    def adopt(self, pool):
        self.erase(pool)
        version = self.random.choice((OLD, NEW))
        if NAMES[version] in pool.listVolumes():
            with open(self.path(NAMES[version]), "w", encoding="utf-8") as out:
                json.dump({"product_name": PRODUCT, "version_name": version, "foreign": "yes",
                           "item_name": "disk1.img", "release": "noble", "arch": "amd64",
                           "label": "release"}, out)
            self.counts["adopted"] += 1

    def erase(self, pool):
        for name in os.listdir(hypervisor.METADATA):
            product, version = uvtool_view.decode(name)
            try:
                if name in pool.listVolumes():
                    with open(self.path(name), encoding="utf-8") as file:
                        values = json.load(file)
                    assert (values["product_name"], values["version_name"]) == (product, version)
                else:
                    os.unlink(self.path(name))
                    self.counts["erased"] += 1
            except FileNotFoundError:
                pass  # retired in this instant

    def clean(self, pool):
        for name in pool.listVolumes():
            if not os.path.exists(self.path(name)):
                pool.storageVolLookupByName(name).delete(0)
                self.counts["deleted"] += 1

    @staticmethod
    def path(name):
        return os.path.join(hypervisor.METADATA, name)


def check_what_we_published(host, images):
    """Whatever came of an import: an image that uvmirror calls one is whole."""
    for name, text in host.metadata().items():
        if text and "foreign" in json.loads(text):
            continue
        for version, image in images.items():
            if NAMES[version] == name and name in host.volumes():
                hypervisor.qemu_img("compare", "-U", image, os.path.join(hypervisor.IMAGES, name))


def run(uvmirror, make_bundle, make_image, host, imports):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    images = {OLD: make_image("big-a", 8 << 20), NEW: make_image("big-b", 8 << 20)}
    bundles = [make_bundle("one", {OLD: images[OLD]}), make_bundle("two", {NEW: images[NEW]})]
    choose = random.Random(seed)
    sync = Sync(seed)
    sync.start()
    ended = []
    try:
        for _ in range(imports):
            options = choose.choice(((), ("--keep-compressed",)))
            result = uvmirror("import", "--allow-older", *options, choose.choice(bundles), code=None)
            # All went well; or libvirt or another program is named.
            assert result.code in (0, 7, 9), str(result)
            ended.append(result.code)
            check_what_we_published(host, images)
    finally:
        sync.end()
    print(f"exit codes {ended}, the other program {sync.counts}")
    # When it is gone, all comes right.
    for name in list(host.metadata()):
        host.retire(name)
    uvmirror("import", "--allow-older", bundles[1])
    assert uvtool_view.versions(host) == [NEW] and uvtool_view.problems(host) == []
    hypervisor.qemu_img("compare", images[NEW], host.volume_path(NAMES[NEW]))
    assert host.volumes() == [NAMES[NEW]]


def test_beside_another_sync(uvmirror, make_bundle, make_image, host):
    run(uvmirror, make_bundle, make_image, host, 6)


@pytest.mark.long
def test_long_beside_another_sync(uvmirror, make_bundle, make_image, host):
    run(uvmirror, make_bundle, make_image, host, 20)
