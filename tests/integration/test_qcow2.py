"""qcow2 images of every sound shape come through; what QEMU would follow out of the file, or into
itself, does not."""

import os
import shutil
import struct

import pytest

import hypervisor
import uvtool_view
from sample_mirror import PRODUCT

VERSION = "20241004"
MIB = 1 << 20
COPIED, COMPRESSED = 1 << 63, 1 << 62

# name: options of `qemu-img convert`
SHAPES = {
    "plain": (),
    "compressed": ("-c",),
    "zstd": ("-c", "-o", "compression_type=zstd"),
    "old": ("-o", "compat=0.10"),
    "old-compressed": ("-c", "-o", "compat=0.10"),
    "clusters-512": ("-o", "cluster_size=512"),
    "clusters-512-compressed": ("-c", "-o", "cluster_size=512"),
    "clusters-4k-zstd": ("-c", "-o", "cluster_size=4k,compression_type=zstd"),
    "clusters-2m": ("-o", "cluster_size=2M"),
    "clusters-2m-compressed": ("-c", "-o", "cluster_size=2M"),
    "out-of-order": ("-W",),
    "lazy": ("-o", "lazy_refcounts=on"),
    "prealloc-metadata": ("-o", "preallocation=metadata"),
    "prealloc-falloc": ("-o", "preallocation=falloc"),
    "prealloc-full": ("-o", "preallocation=full"),
    "refcounts-1": ("-o", "refcount_bits=1"),
    "refcounts-64-compressed": ("-c", "-o", "refcount_bits=64,cluster_size=1k"),
}


def grown(path):
    """Its L1 table moves to the end, behind the tables to which it leads."""
    hypervisor.qemu_img("resize", "-q", path, "6T")


def shrunk(path):
    hypervisor.qemu_img("resize", "-q", "--shrink", path, 2 * MIB)


def written_to(path):
    for at in (0, 3 * MIB, MIB):
        hypervisor.qemu_io(path, f"write -P 7 {at} 70000")
    hypervisor.qemu_io(path, "write -z 1M 64k")
    hypervisor.qemu_io(path, "discard 3M 64k")


def snapshot_gone(path):
    """Clusters that a snapshot shared are free again."""
    hypervisor.qemu_img("snapshot", "-c", "one", path)
    hypervisor.qemu_io(path, "write 0 1M")
    hypervisor.qemu_img("snapshot", "-d", "one", path)


def amended(path):
    hypervisor.qemu_img("amend", "-o", "refcount_bits=32", path)


CHANGES = {change.__name__: change for change in (grown, shrunk, written_to, snapshot_gone, amended)}


@pytest.fixture
def raw(folder):
    """4 MiB: random, text, a hole, and text again."""
    path = folder / "raw"
    path.write_bytes(os.urandom(MIB) + b"some text " * 100000)
    os.truncate(path, 3 * MIB)
    with open(path, "ab") as out:
        out.write(b"more text " * 70000)
    os.truncate(path, 4 * MIB)
    return path


def make(raw, path, *options):
    hypervisor.qemu_img("convert", "-f", "raw", "-O", "qcow2", *options, raw, path)
    return path


@pytest.mark.parametrize("option", [None, "--keep-compressed"])
def test_every_sound_shape(uvmirror, mirror, fetch, raw, host, folder, option):
    images = {name: make(raw, folder / name, *options) for name, options in SHAPES.items()}
    for name, change in CHANGES.items():
        images[name] = make(raw, folder / name)
        change(images[name])
    for name, image in images.items():
        hypervisor.qemu_img("check", "-q", image)
        mirror.add_image(VERSION, image, f"shape:{name}:amd64", release=name)
    mirror.write()
    fetch("-o", folder / "b.tar.zst", "release~.")
    uvmirror("import", *([option] if option else []), folder / "b.tar.zst")
    assert len(host.volumes()) == len(images)
    for name, image in images.items():
        path = host.volume_path(uvtool_view.encode(f"shape:{name}:amd64", VERSION))
        hypervisor.qemu_img("compare", "-f", "qcow2", "-F", "qcow2", image, path)


# ---- hostile ones -------------------------------------------------------------------------------


class Image:
    """A qcow2 file's numbers, to be read and changed."""

    def __init__(self, path):
        self.file = open(path, "r+b")  # pylint: disable=consider-using-with
        self.cluster = 1 << self.get(20, ">I")
        self.l1 = self.get(40)
        self.l2 = self.get(self.l1) & ~COPIED
        self.refblock = self.get(self.get(48))

    def get(self, at, form=">Q"):
        self.file.seek(at)
        return struct.unpack(form, self.file.read(struct.calcsize(form)))[0]

    def put(self, at, value, form=">Q"):
        self.file.seek(at)
        self.file.write(struct.pack(form, value))

    def size(self):
        return self.file.seek(0, os.SEEK_END)


def l2_outside(i):
    i.put(i.l1, COPIED | i.size() + i.cluster)


def l2_is_the_header(i):
    i.put(i.l1, COPIED)


def l2_is_the_l1(i):
    i.put(i.l1, COPIED | i.l1)


def data_outside(i):
    i.put(i.l2, COPIED | 1 << 40)


def data_is_a_table(i):
    i.put(i.l2, COPIED | i.refblock)


def data_twice(i):
    i.put(i.l2, i.get(i.l2 + 8))


def compressed_outside(i):
    i.put(i.l2 + 16, COMPRESSED | i.size())


def compressed_in_the_header(i):
    i.put(i.l2 + 16, COMPRESSED | 512)


def reserved_bits(i):
    i.put(i.l2, i.get(i.l2) | 1 << 58)


def refcount_of_zero(i):
    i.put(i.refblock, 0, ">H")


def refcount_block_outside(i):
    i.put(i.get(48), 1 << 50)


def backing_file_far_behind(i):
    i.put(8, 40000)
    i.put(16, 11, ">I")
    i.file.seek(40000)
    i.file.write(b"/etc/shadow")


HOSTILE = (l2_outside, l2_is_the_header, l2_is_the_l1, data_outside, data_is_a_table, data_twice,
           compressed_outside, compressed_in_the_header, reserved_bits, refcount_of_zero,
           refcount_block_outside, backing_file_far_behind)


@pytest.fixture
def base(uvmirror, make_bundle, make_image, host):
    """A host with one image, and a view of it."""
    uvmirror("import", make_bundle("base", {VERSION: make_image("a")}))
    return host.view()


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda function: function.__name__)
def test_refused(uvmirror, mirror, fetch, raw, host, folder, base, hostile):
    """Whichever road it takes; and nothing has changed."""
    image = make(raw, folder / "image")
    changed = Image(image)
    hostile(changed)
    changed.file.close()
    mirror.add_image("20241018", image)
    mirror.write()
    fetch("-o", folder / "b.tar.zst", "release=noble")
    for option in ((), ("--keep-compressed",)):
        result = uvmirror("import", *option, folder / "b.tar.zst", code=5)
        assert b"qcow2" in result.err
        assert host.view() == base


def test_a_table_behind_the_data(uvmirror, mirror, fetch, raw, host, folder, base):
    """It is reached only when all was sent, and refused all the same."""
    image = make(raw, folder / "image")
    grown(image)
    changed = Image(image)
    changed.put(changed.l2, COPIED | changed.l1)
    changed.file.close()
    mirror.add_image("20241018", image)
    mirror.write()
    fetch("-o", folder / "b.tar.zst", "release=noble")
    for option in ((), ("--keep-compressed",)):
        uvmirror("import", *option, folder / "b.tar.zst", code=5)
        assert host.view() == base


def test_other_features_are_refused(uvmirror, mirror, fetch, raw, host, folder, base):
    made = {"extended": make(raw, folder / "extended", "-o", "extended_l2=on,cluster_size=128k"),
            "bitmap": make(raw, folder / "bitmap")}
    hypervisor.qemu_img("bitmap", "--add", made["bitmap"], "one")
    for name, image in made.items():
        shutil.rmtree(folder / "mirror", ignore_errors=True)
        mirror.add_image("20241018", image)
        mirror.write()
        fetch("-o", folder / f"{name}.tar.zst", "release=noble")
        uvmirror("import", folder / f"{name}.tar.zst", code=5)
        assert host.view() == base
