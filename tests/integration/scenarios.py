"""Commands that are to be disturbed, each on a host that can be made as it was before, any number of times."""

import os
import shutil
import subprocess
import tempfile

import hypervisor
import uvtool_view
from sample_mirror import PRODUCT
from supervisor import KILL, supervised

OLD, NEW, LOST = "20241004", "20241018", "20241101"
NAMES = {version: uvtool_view.encode(PRODUCT, version) for version in (OLD, NEW, LOST)}

UVTOOL = "/var/lib/uvtool"
JOURNAL = os.path.join(hypervisor.STATE, "journal.json")


class Scenario:
    def __init__(self, uvmirror, host, folder, images):
        self.uvmirror, self.host, self.folder, self.images = uvmirror, host, folder, images
        self.command = None
        self.kept = folder / "kept"

    # ---- beginnings

    def keep(self):
        for path in (UVTOOL, hypervisor.STATE):
            shutil.copytree(path, self.kept / os.path.basename(path))

    def restore(self):
        for pool in self.host.libvirt.listAllStoragePools():
            if pool.name() != hypervisor.POOL:
                persistent = pool.isPersistent()
                if pool.isActive():
                    hypervisor.patiently(pool.destroy)
                if persistent:
                    pool.undefine()
        for path in (UVTOOL, hypervisor.STATE):
            hypervisor.empty(path)
            shutil.copytree(self.kept / os.path.basename(path), path, dirs_exist_ok=True)
        self.host.pool()

    def prepare(self):
        """As it was; and nobody's temporary files are left."""
        self.restore()
        hypervisor.empty(tempfile.gettempdir())

    # ---- runs

    def run(self, decide, code=None):
        return supervised(self.uvmirror, *self.command, decide=decide, code=code)

    def again(self):
        return self.uvmirror(*self.command)

    # ---- ends

    def check(self):
        """What holds at every instant: what uvtool knows is complete, and something is left to make
        guests from."""
        lost = f"metadata without volume: {PRODUCT} {LOST}"
        assert [problem for problem in uvtool_view.problems(self.host) if problem != lost] == []
        known = uvtool_view.versions(self.host)
        assert known, "no image is left"
        for version in known:
            hypervisor.qemu_img("compare", self.images[version],
                                self.host.volume_path(NAMES[version]))

    def end(self):
        """All that every good end has in common."""
        state = {}
        for name in sorted(os.listdir(hypervisor.STATE)):
            path = os.path.join(hypervisor.STATE, name)
            if os.path.isfile(path):
                with open(path, "rb") as file:
                    state[name] = file.read()
        folders = {path: (sorted(names), oct(os.stat(path).st_mode))
                   for path, names, _ in os.walk(UVTOOL)}
        return {"volumes": [(pool, self.host.volumes(pool)) for pool in self.host.pools()],
                "metadata": self.host.metadata(), "state": state, "folders": folders}


class Import(Scenario):
    """A newer image comes, and retires the one that is there."""

    def __init__(self, *args, bundles):
        super().__init__(*args)
        self.uvmirror("import", bundles[OLD])
        self.keep()
        self.command = ("import", bundles[NEW])


class Clean(Scenario):
    """There is an image that nobody needs any more, and metadata that has lost its volume."""

    def __init__(self, *args, bundles):
        super().__init__(*args)
        for version in (OLD, NEW):
            self.uvmirror("import", "--max", "2", bundles[version])
        self.host.retire(NAMES[OLD])
        self.host.write_metadata(NAMES[LOST], {
            "product_name": PRODUCT, "version_name": LOST, "item_name": "disk1.img",
            "release": "noble", "arch": "amd64", "label": "release"})
        self.keep()
        self.command = ("clean",)


class Recovery(Import):
    """An import was killed, at the call of `name` below `below`; a cleanup finds its journal."""

    name, below = None, None

    def __init__(self, *args, bundles):
        super().__init__(*args, bundles=bundles)
        self.killed = self.command
        self.command = ("clean",)

    def _where(self, call):
        return KILL if call.name == self.name and call.target.startswith(self.below) else None

    def prepare(self):
        self.restore()
        supervised(self.uvmirror, *self.killed, decide=self._where, code=-9)
        assert os.path.exists(JOURNAL)
        hypervisor.empty(tempfile.gettempdir())


class Undo(Recovery):
    """Its volume was complete, but not yet durable."""

    name, below = "syncfs", "/"


class Finish(Recovery):
    """Everything was, and the metadata to be linked."""

    name, below = "linkat", hypervisor.METADATA


class Init(Scenario):
    """A host on which nothing was ever done."""

    def __init__(self, *args, bundles):
        del bundles
        super().__init__(*args)
        self.command = ("init",)

    def restore(self):
        self.host.reset()

    def check(self):
        assert self.host.metadata() == {}


ALL = [Import, Clean, Undo, Finish, Init]


def spread(count, most):
    """Up to `most` of 1..count, each from the middle of a stretch of the same length; None: all."""
    if most is None or count <= most:
        return range(1, count + 1)
    return [1 + (2 * i + 1) * count // (2 * most) for i in range(most)]
