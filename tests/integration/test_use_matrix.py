"""The matrix of use: each way in which something can need an image, made by libvirt itself. An image
that is needed is kept, list and clean say why; and when the need is gone, so is the image.

docs/in-use.md has the same rows; test_the_documentation_has_every_row holds the two together."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import uuid

import libvirt
import pytest

import hypervisor
import uvtool_view
from sample_mirror import PRODUCT

VERSION = "20241004"
NAME = uvtool_view.encode(PRODUCT, VERSION)
DOCUMENT = pathlib.Path(__file__).resolve().parents[2] / "docs" / "in-use.md"

DISK_ONLY = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
SNAPSHOT = """
<domainsnapshot><name>{name}</name><disks><disk name='vda' snapshot='external'/></disks>
</domainsnapshot>"""
CHECKPOINT = """
<domaincheckpoint><name>{name}</name><disks><disk name='vda' checkpoint='bitmap'/></disks>
</domaincheckpoint>"""
BLOCK_DISK = """
<disk type='block' device='disk'><driver name='qemu' type='{format}'/>
  <source dev='{device}'/><target dev='vda' bus='virtio'/></disk>"""

rows = []


def row(title):
    """A way of needing an image: a generator that makes the need, yields what list must say, and ends
    it."""
    def add(func):
        rows.append(pytest.param(contextlib.contextmanager(func), id=title))
        return func

    return add


class Bench:
    """The host, an image on it that nobody needs yet, and how rows use them."""

    def __init__(self, host, base, spare):
        self.host, self.base, self.spare = host, base, spare

    def path(self, name):
        return os.path.join(self.host.work, name)

    def other_disk(self, name="other.qcow2"):
        """A disk that has nothing to do with the image."""
        path = shutil.copyfile(self.spare, self.path(name))
        os.chmod(path, 0o666)
        return path

    def overlay(self, base=None, name="web1.qcow"):
        return self.host.overlay(base or self.base, name)

    def overlay_file(self, base=None, name="web1.qcow"):
        path = self.host.overlay_file(base or self.base, self.path(name))
        os.chmod(path, 0o666)
        return path

    def delete(self, *paths):
        for path in paths:
            os.unlink(path)

    @contextlib.contextmanager
    def guest(self, disk=None, *, run=False, **options):
        guest = self.host.guest("web1", disk, **options)
        if run:
            guest.start()
        yield guest
        guest.remove()


@pytest.fixture
def bench(base, make_image, host):
    return Bench(host, base, make_image("b"))


# ---- definitions ----------------------------------------------------------------------------------


@row("disk of a stored definition")
def stored(bench):
    with bench.guest(bench.base):
        yield "guest web1"


@row("disk of a running guest, the stored definition has another")
def live(bench):
    top = bench.overlay()
    with bench.guest(top, run=True):
        bench.host.guest("web1", bench.other_disk())
        yield "guest web1 through web1.qcow"
    bench.delete(top)


@row("disk of the stored definition, the running guest has another")
def only_stored(bench):
    top = bench.overlay()
    with bench.guest(bench.other_disk(), run=True):
        bench.host.guest("web1", top)
        yield "guest web1 through web1.qcow"
    bench.delete(top)


@row("transient guest")
def transient(bench):
    top = bench.overlay()
    disk = hypervisor.FILE_DISK.format(format="qcow2", path=top, dev="vda")
    xml = hypervisor.DOMAIN_XML.format(name="web1", uuid=uuid.uuid4(), devices=disk, os="",
                                       console=bench.path("web1.console"))
    domain = bench.host.libvirt.createXML(xml)
    yield "guest web1 through web1.qcow"
    domain.destroy()
    bench.delete(top)


@row("cdrom")
def cdrom(bench):
    with bench.guest(devices=f"""<disk type='file' device='cdrom'><source file='{bench.base}'/>
                                 <target dev='sda' bus='sata'/><readonly/></disk>"""):
        yield "guest web1"


@row("floppy")
def floppy(bench):
    with bench.guest(devices=f"""<disk type='file' device='floppy'><source file='{bench.base}'/>
                                 <target dev='fda' bus='fdc'/></disk>"""):
        yield "guest web1"


@row("volume of a pool, by name")
def volume(bench):
    guest = bench.host.guest_on_volume("web1", hypervisor.POOL, NAME)
    yield "guest web1"
    guest.remove()


@row("volume of another pool, by name")
def other_volume(bench):
    bench.host.make_pool("fast")
    top = bench.host.overlay(bench.base, "web1.qcow", pool="fast")
    guest = bench.host.guest_on_volume("web1", "fast", "web1.qcow")
    yield "guest web1 through web1.qcow"
    guest.remove()
    bench.delete(top)


@row("backing store that only the definition names")
def backing_store(bench):
    disk = f"""<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
        <source file='{bench.other_disk()}'/>
        <backingStore type='file'><format type='qcow2'/><source file='{bench.base}'/><backingStore/>
        </backingStore><target dev='vda' bus='virtio'/></disk>"""
    with bench.guest(devices=disk):
        yield "guest web1"


@row("kernel and initrd")
def kernel(bench):
    vmlinuz = bench.other_disk("vmlinuz")
    with bench.guest(os_xml=f"<kernel>{vmlinuz}</kernel><initrd>{bench.base}</initrd>"):
        yield "guest web1"


@row("loader")
def loader(bench):
    with bench.guest(os_xml=f"<loader readonly='yes' type='rom'>{bench.base}</loader>"):
        yield "guest web1"


@row("nvram")
def nvram(bench):
    firmware = bench.other_disk("firmware.fd")
    with bench.guest(os_xml=f"""<loader readonly='yes' type='pflash'>{firmware}</loader>
                                <nvram template='{firmware}'>{bench.path('vars.fd')}</nvram>"""):
        os.symlink(bench.base, bench.path("vars.fd"))
        yield "guest web1"
        os.unlink(bench.path("vars.fd"))


@row("argument that QEMU gets past libvirt")
def argument(bench):
    guest = bench.host.guest("web1")
    xml = guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE).replace(
        "</domain>", f"""<commandline xmlns='http://libvirt.org/schemas/domain/qemu/1.0'>
            <arg value='-drive'/><arg value='file={bench.base},if=virtio'/></commandline></domain>""")
    bench.host.libvirt.defineXML(xml)
    yield "guest web1"
    guest.remove()


# ---- chains ---------------------------------------------------------------------------------------


@row("overlay")
def one_overlay(bench):
    top = bench.overlay()
    with bench.guest(top):
        yield "guest web1 through web1.qcow"
    bench.delete(top)


@row("overlays three deep, outside any pool")
def deep(bench):
    one = bench.overlay_file(name="one.qcow")
    two = bench.overlay_file(one, "two.qcow")
    top = bench.overlay_file(two)
    with bench.guest(top):
        yield "guest web1 through web1.qcow -> two.qcow -> one.qcow"
    bench.delete(one, two, top)


@row("overlay in another pool, while no guest names it")
def waiting(bench):
    bench.host.make_pool("fast")
    top = bench.host.overlay(bench.base, "waiting.qcow", pool="fast")
    yield "volume waiting.qcow in pool fast"
    bench.delete(top)


@row("overlay in a pool that is not active")
def inactive(bench):
    bench.host.make_pool("fast")
    top = bench.host.overlay(bench.base, "waiting.qcow", pool="fast")
    bench.host.pool("fast").destroy()
    yield "volume waiting.qcow in pool fast"
    bench.delete(top)


@row("relative backing name")
def relative(bench):
    top = os.path.join(hypervisor.IMAGES, "web1.qcow")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", NAME, "-F", "qcow2", top],
                   cwd=hypervisor.IMAGES, check=True)
    with bench.guest(top):
        yield "guest web1 through web1.qcow"
    bench.delete(top)


@row("backing name as json:")
def json_name(bench):
    top = bench.overlay_file('json:{"driver": "qcow2", "file": {"driver": "file", "filename": "%s"}}'
                             % bench.base)
    with bench.guest(top):
        yield "guest web1 through web1.qcow"
    bench.delete(top)


@row("external data file")
def data_file(bench):
    top = bench.path("web1.qcow")
    hypervisor.qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={top}.data", top, "1M")
    hypervisor.qemu_img("amend", "-f", "qcow2", "-o", f"data_file={bench.base}", top)
    with bench.guest(top):
        yield "guest web1 through web1.qcow"
    bench.delete(top)


@row("symbolic link")
def link(bench):
    os.symlink(bench.base, bench.path("link"))
    top = bench.overlay_file(bench.path("link"))
    with bench.guest(top):
        yield "guest web1 through web1.qcow"
    bench.delete(top)


@row("bind mount")
def bind_mount(bench):
    folder = bench.path("mounted")
    os.mkdir(folder)
    subprocess.run(["mount", "--bind", hypervisor.IMAGES, folder], check=True)
    try:
        with bench.guest(os.path.join(folder, NAME)):
            yield "guest web1"
    finally:
        subprocess.run(["umount", folder], check=True)


@contextlib.contextmanager
def loop_device(path):
    device = subprocess.run(["losetup", "--find", "--show", "--read-only", path], check=True,
                            capture_output=True, text=True).stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@row("block device: a loop over the image")
def loop(bench):
    with loop_device(bench.base) as device:
        with bench.guest(devices=BLOCK_DISK.format(device=device, format="raw")):
            yield f"guest web1 through {os.path.basename(device)}"


@row("block device: a loop over an overlay")
def loop_overlay(bench):
    top = bench.overlay_file()
    with loop_device(top) as device:
        with bench.guest(devices=BLOCK_DISK.format(device=device, format="qcow2")):
            yield f"guest web1 through {os.path.basename(device)}"
    bench.delete(top)


# ---- snapshots and jobs ---------------------------------------------------------------------------


def snapshots(bench, count):
    top = bench.overlay()
    files = [f"web1.s{n}" for n in range(count, 0, -1)]
    with bench.guest(top, run=True) as guest:
        for n in range(1, count + 1):
            guest.domain.snapshotCreateXML(SNAPSHOT.format(name=f"s{n}"), DISK_ONLY)
        yield "guest web1 through " + " -> ".join(files + ["web1.qcow"])
    bench.delete(top, *[os.path.join(hypervisor.IMAGES, name) for name in files])


@row("external snapshot of a running guest")
def one_snapshot(bench):
    yield from snapshots(bench, 1)


@row("external snapshots, two deep")
def two_snapshots(bench):
    yield from snapshots(bench, 2)


@row("external snapshots, three deep")
def three_snapshots(bench):
    yield from snapshots(bench, 3)


@row("snapshot alone, the guest has another disk by now")
def old_snapshot(bench):
    top = bench.overlay()
    with bench.guest(top, run=True) as guest:
        guest.domain.snapshotCreateXML(SNAPSHOT.format(name="s1"), DISK_ONLY)
        guest.stop()
        bench.host.guest("web1", bench.other_disk())
        yield "guest web1 (snapshot s1) through web1."
    bench.delete(top, os.path.join(hypervisor.IMAGES, "web1.s1"))


@row("checkpoint alone")
def checkpoint(bench):
    top = bench.overlay_file()
    with bench.guest(top, run=True) as guest:
        guest.domain.checkpointCreateXML(CHECKPOINT.format(name="c1"))
        guest.stop()
        bench.host.guest("web1", bench.other_disk())
        yield "guest web1 (checkpoint c1) through web1.qcow"
    bench.delete(top)


@row("managed save alone")
def managed_save(bench):
    top = bench.overlay()
    with bench.guest(top, run=True) as guest:
        guest.domain.managedSave()
        bench.host.guest("web1", bench.other_disk())
        yield "guest web1 (managed save) through web1.qcow"
    bench.delete(top)


@row("backup job")
def backup(bench):
    scratch = bench.overlay_file(name="scratch.qcow")
    with bench.guest(bench.other_disk(), run=True) as guest:
        guest.domain.backupBegin(
            f"""<domainbackup mode='pull'><server name='127.0.0.1' port='10809'/>
                <disks><disk name='vda' backup='yes' type='file'><driver type='qcow2'/>
                <scratch file='{scratch}'/></disk></disks></domainbackup>""", None,
            libvirt.VIR_DOMAIN_BACKUP_BEGIN_REUSE_EXTERNAL)
        yield "guest web1 (backup job) through scratch.qcow"
        guest.domain.abortJob()
    bench.delete(scratch)


@row("block copy that runs")
def block_copy(bench):
    target = bench.overlay_file(name="target.qcow")
    with bench.guest(bench.other_disk(), run=True) as guest:
        guest.domain.blockCopy(
            "vda", f"<disk type='file'><driver type='qcow2'/><source file='{target}'/></disk>", {},
            libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT | libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB)
        yield "guest web1 through target.qcow"
        guest.domain.blockJobAbort("vda")
    bench.delete(target)


@row("block commit that runs")
def block_commit(bench):
    middle = bench.overlay(name="middle.qcow")
    top = bench.overlay(middle)
    with bench.guest(top, run=True) as guest:
        guest.domain.blockCommit("vda", middle, top, 0, libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE)
        yield "guest web1 through"
        guest.domain.blockJobAbort("vda")
    bench.delete(middle, top)


# ---- the tests ------------------------------------------------------------------------------------


def entry(uvmirror):
    (found,) = [line for line in uvmirror("list", "--json").lines if line.get("version") == VERSION]
    return found


@pytest.mark.parametrize("need", rows)
def test_kept_explained_and_gone_when_released(uvmirror, bench, need):
    with need(bench) as why:
        found = entry(uvmirror)
        assert found["state"] == "retired", found
        table = uvmirror("list")
        assert f"\n    {why}" in table.out.decode(), str(table)
        assert table.err == b"", str(table)
        dry = uvmirror("clean", "--dry-run")
        assert f": {why}" in dry.err.decode(), str(dry)
        uvmirror("clean")
        assert NAME in bench.host.volumes()
    assert entry(uvmirror)["state"] == "unused"
    uvmirror("clean")
    assert NAME not in bench.host.volumes()


def test_the_documentation_has_every_row():
    text = DOCUMENT.read_text(encoding="utf-8")
    missing = [param.id for param in rows if f"| {param.id} |" not in text]
    assert not missing
