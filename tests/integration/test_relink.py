"""A volume of an image's name without metadata, while a guest uses it: linked again when it proves to
be the image, never replaced."""

import os

import pytest

import hypervisor
import uvtool_view
from sample_mirror import PRODUCT

OLD, NEW = "20241004", "20241018"
NAME = uvtool_view.encode(PRODUCT, OLD)
PATH = os.path.join(hypervisor.IMAGES, NAME)


@pytest.fixture
def images(make_image):
    return {OLD: make_image("a"), NEW: make_image("b")}


@pytest.fixture
def old(make_bundle, images):
    return make_bundle("one", {OLD: images[OLD]})


@pytest.fixture
def new(old, make_bundle, images):
    return make_bundle("two", {NEW: images[NEW]})


def use(host):
    """A guest whose disk stands on the volume."""
    return host.guest("web1", host.overlay(PATH, "web1.qcow"))


@pytest.mark.parametrize("option", [(), ("--keep-compressed",)], ids=["plain", "keep-compressed"])
def test_back_to_a_retired_one(uvmirror, old, new, host, option):
    uvmirror("import", *option, old)
    inode = os.stat(PATH).st_ino
    guest = use(host)
    uvmirror("import", new)
    assert uvtool_view.versions(host) == [NEW]

    planned = uvmirror("import", "--dry-run", "--allow-older", old)
    assert b"would link again" in planned.out
    uvmirror("import", "--allow-older", old)
    assert uvtool_view.versions(host) == [OLD]
    assert os.stat(PATH).st_ino == inode
    assert uvtool_view.problems(host) == []
    guest.remove()


def test_while_the_guest_runs(uvmirror, old, host):
    uvmirror("import", old)
    text = host.metadata()
    guest = use(host).start()
    host.retire(NAME)
    result = uvmirror("import", old)
    assert host.metadata() == text and b"linked again" in result.out
    assert guest.domain.isActive()


def test_one_that_uvtool_made(uvmirror, old, images, host):
    """Other bytes, of another cluster size, with the same content."""
    hypervisor.qemu_img("convert", "-O", "qcow2", "-o", "cluster_size=4k", images[OLD], PATH)
    host.pool()
    use(host)
    uvmirror("import", old)
    assert uvtool_view.versions(host) == [OLD]


def differ_by_one_byte(images):
    hypervisor.qemu_img("convert", "-O", "qcow2", images[OLD], PATH)
    hypervisor.qemu_io(PATH, "write -P 1 1900k 1")  # in the hole


def have_another_size(images):
    hypervisor.qemu_img("convert", "-O", "qcow2", images[OLD], PATH)
    hypervisor.qemu_img("resize", "-q", PATH, "+1M")


def stand_on_another(images):
    """The content is right, today."""
    base = os.path.join(hypervisor.IMAGES, "base.qcow2")
    hypervisor.qemu_img("convert", "-O", "qcow2", images[OLD], base)
    hypervisor.qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", PATH)


def be_raw(images):
    hypervisor.qemu_img("convert", "-O", "raw", images[OLD], PATH)


@pytest.mark.parametrize("change", [differ_by_one_byte, have_another_size, stand_on_another, be_raw],
                         ids=lambda function: function.__name__)
def test_another_one_is_left_alone(uvmirror, old, new, images, host, change):
    """Neither replaced nor believed; and what it would have superseded stays."""
    uvmirror("import", new)
    change(images)
    host.pool()
    host.guest("web1", PATH, disk_format="raw" if change is be_raw else "qcow2")
    with open(PATH, "rb") as file:
        before = file.read()
    result = uvmirror("import", "--allow-older", old, code=9)
    assert b"not taken for the image" in result.err
    assert uvtool_view.versions(host) == [NEW]
    with open(PATH, "rb") as file:
        assert file.read() == before


def test_damaged_metadata_of_one_in_use(uvmirror, old, host):
    uvmirror("import", old)
    text = host.metadata()
    use(host)
    with open(os.path.join(hypervisor.METADATA, NAME), "wb"):
        pass
    uvmirror("import", old)
    assert host.metadata() == text


@pytest.mark.parametrize("option", [(), ("--keep-compressed",)], ids=["plain", "keep-compressed"])
def test_beside_one_that_is_new(uvmirror, mirror, fetch, images, host, folder, option):
    """Two products have the same bytes: one volume is compared, the other one made."""
    other = "com.example:other:24.04:amd64"
    hypervisor.qemu_img("convert", "-O", "qcow2", images[OLD], PATH)
    host.pool()
    use(host)
    mirror.add_image(OLD, images[OLD])
    mirror.add_image(OLD, images[OLD], other)
    items = mirror.products[other]["versions"][OLD]["items"]
    items["disk1.img"]["path"] = mirror.product()["versions"][OLD]["items"]["disk1.img"]["path"]
    mirror.write()
    fetch("-o", folder / "b.tar.zst", "release=noble")
    result = uvmirror("import", *option, folder / "b.tar.zst")
    assert b"linked again" in result.out and b"added" in result.out
    assert sorted(host.metadata()) == sorted([NAME, uvtool_view.encode(other, OLD)])
    hypervisor.qemu_img("compare", images[OLD], host.volume_path(uvtool_view.encode(other, OLD)))


def test_no_room_to_compare(uvmirror, old, images, host):
    """Said with figures; nothing has changed."""
    hypervisor.qemu_img("convert", "-O", "qcow2", images[OLD], PATH)
    use(host)
    state = os.path.join(host.work, "state")
    with hypervisor.tmpfs(state, "1m"):
        result = uvmirror("import", "--state-dir", state, old, code=6)
        assert f"folder {state}: at least" in result.err.decode(), str(result)
    assert host.volumes() == sorted([NAME, "web1.qcow"]) and host.metadata() == {}
