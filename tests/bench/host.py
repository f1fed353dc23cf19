"""import and verify against gpg, tar, sha256sum, qemu-img and virsh."""

import shutil

import hypervisor
import uvtool_view
from fetch import Source
from sample_mirror import PRODUCT
from tools import compare, shell

VERSION = "20241004"
MEMORY_GOAL = 96


class Host:
    """A bundle of one image, and a hypervisor for it."""

    def __init__(self, work, keys, image):
        self.keys, self.image = keys, image
        self.source = Source(work, keys, "one-image")
        self.source.add(VERSION, image)
        self.source.publish()
        for step in (self.source.whole(), self.source.by_hand()):
            list(step)
        self.work, self.meter = self.source.work, self.source.meter
        self.bundle = self.work / "bundle.tar.zst"
        self.host = hypervisor.Hypervisor(work)
        self.host.make_uvtool_pool()
        self.name = uvtool_view.encode(PRODUCT, VERSION)
        self.volume = self.work / "volume.qcow2"
        hypervisor.qemu_img("convert", "-O", "qcow2", image, self.volume)

    def take(self, bundle):
        self.meter("import", "--quiet", "--keyring", self.keys.site_keyring, bundle)

    def importing(self, bundle, *before):
        """The step of importing a bundle where others were imported before."""
        def step():
            self.empty()
            for other in before:
                self.take(other)
            yield
            self.take(bundle)

        return step

    def import_by_hand(self):
        self.empty()
        folder = self.work / "unpacked"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        yield
        shell('''cd "$FOLDER"
                 gpg --homedir "$KEY" --batch --verify ../by-hand.tar.zst.sig ../by-hand.tar.zst
                 tar --zstd -xf ../by-hand.tar.zst
                 sha256sum "$IMAGE"
                 qemu-img convert -O qcow2 "$IMAGE" disk
                 virsh -q vol-create-as uvtool "$NAME" 0 --format qcow2
                 virsh -q vol-upload "$NAME" disk --pool uvtool''',
              FOLDER=folder, KEY=self.keys.state / "gnupg", IMAGE=self.source.paths[0],
              NAME=self.name)

    def upload(self):
        """What no import can do without."""
        self.empty()
        yield
        shell('''virsh -q vol-create-as uvtool "$NAME" 0 --format qcow2
                 virsh -q vol-upload "$NAME" "$VOLUME" --pool uvtool''',
              NAME=self.name, VOLUME=self.volume)

    def verify(self):
        yield
        self.meter("verify", "--quiet", "--keyring", self.keys.site_keyring, self.bundle)

    def verify_by_hand(self):
        yield
        shell('openssl dgst -sha256 "$IMAGE"', IMAGE=self.image)

    def empty(self):
        for pool in self.host.pools():
            for volume in self.host.volumes(pool):
                self.host.pool(pool).storageVolLookupByName(volume).delete(0)
        for folder in (hypervisor.METADATA, hypervisor.STATE):
            hypervisor.empty(folder)


def run(work, keys, image, rounds):
    host = Host(work, keys, image)
    compare("import", host.meter, rounds, 0.6, MEMORY_GOAL, host.importing(host.bundle),
            host.import_by_hand, {"virsh vol-upload alone": host.upload})
    compare("verify", host.meter, rounds, 1.2, MEMORY_GOAL, host.verify, host.verify_by_hand)
    host.source.close()
