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


def stage_is_empty(host):
    return host.pools() == [hypervisor.POOL]


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
    assert uvtool_view.problems(host) == [] and stage_is_empty(host)
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
    assert stage_is_empty(host)


def test_damaged_metadata_of_one_in_use(uvmirror, old, host):
    uvmirror("import", old)
    text = host.metadata()
    use(host)
    with open(os.path.join(hypervisor.METADATA, NAME), "wb"):
        pass
    uvmirror("import", old)
    assert host.metadata() == text


def test_no_room_to_compare(uvmirror, old, images, bare_host, site):
    """Said with figures; nothing has changed."""
    disk = os.path.join(bare_host.work, "disk")
    os.makedirs(hypervisor.METADATA)
    with hypervisor.tmpfs(disk, "3m"):
        os.mkdir(os.path.join(disk, "images"))
        bare_host.make_pool(hypervisor.POOL, f"{disk}/images")
        path = os.path.join(disk, "images", NAME)
        hypervisor.qemu_img("convert", "-O", "qcow2", images[OLD], path)
        bare_host.pool()
        guest = bare_host.guest("web1", path)
        result = uvmirror("import", "--keyring", site.keyring, old, code=6)
        assert b"are free" in result.err
        assert os.listdir(f"{disk}/images") == [NAME] and os.listdir(disk) == ["images"]
        guest.remove()
        bare_host.pool().destroy()
