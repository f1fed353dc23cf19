"""An imported volume and its metadata file are exactly what uvtool would have made."""

import contextlib
import json
import os
import re
import stat

import pytest

import hypervisor
import uvtool_view
from sample_mirror import CONTENT_ID, PRODUCT

OLD, NEW = "20241004", "20241018"
NAME = uvtool_view.encode(PRODUCT, OLD)


@pytest.fixture
def imported(uvmirror, make_bundle, make_image, host):
    image = make_image("a")
    bundle = make_bundle("one", {OLD: image})
    uvmirror("import", bundle)
    return image, os.path.join(hypervisor.IMAGES, NAME)


def info(path):
    return json.loads(hypervisor.qemu_img("info", "--output=json", path))


def test_content_is_identical(imported):
    hypervisor.qemu_img("compare", "-f", "qcow2", "-F", "qcow2", *imported)


def test_it_is_sound_and_nothing_is_compressed(imported):
    _, volume = imported
    check = json.loads(hypervisor.qemu_img("check", "--output=json", volume))
    assert check["check-errors"] == 0
    assert check.get("compressed-clusters", 0) == 0
    assert check["allocated-clusters"] > 0


def test_format(imported):
    image, volume = imported
    said = info(volume)
    assert said["format"] == "qcow2"
    assert said["format-specific"]["data"]["compat"] == "1.1"
    assert said["virtual-size"] == info(image)["virtual-size"]
    assert "backing-filename" not in said


def test_libvirt_knows_it(imported, host):
    image, _ = imported
    xml = host.pool().storageVolLookupByName(NAME).XMLDesc()
    assert "<format type='qcow2'/>" in xml and "<compat>1.1</compat>" in xml
    assert f"<capacity unit='bytes'>{info(image)['virtual-size']}</capacity>" in xml


def test_keep_compressed(uvmirror, make_bundle, make_image, host):
    image = make_image("a")
    uvmirror("import", "--keep-compressed", make_bundle("one", {OLD: image}))
    volume = host.volume_path(NAME)
    assert json.loads(hypervisor.qemu_img("check", "--output=json", volume))["compressed-clusters"]
    hypervisor.qemu_img("compare", image, volume)


def test_name_is_exact(imported, host):
    # Worked out by hand once: base64 of "com.ubuntu.cloud:server:24.04:amd64 20241004"
    assert host.volumes() == [
        "x-uvt-b64-Y29tLnVidW50dS5jbG91ZDpzZXJ2ZXI6MjQuMDQ6YW1kNjQgMjAyNDEwMDQ="]
    assert list(host.metadata()) == host.volumes()


def expected_metadata(mirror):
    """The flattened pairs in simplestreams' order: top level, product, version, item."""
    product = mirror.products[PRODUCT]
    version = product["versions"][OLD]
    with open(mirror.path(f"streams/v1/{CONTENT_ID}.json"), encoding="utf-8") as file:
        stream = json.load(file)
    levels = [stream, stream["products"][PRODUCT], {"product_name": PRODUCT},
              stream["products"][PRODUCT]["versions"][OLD], {"version_name": OLD},
              version["items"]["disk1.img"], {"item_name": "disk1.img"}]
    flat = {}
    for level in levels:
        for key, value in sorted(level.items()):
            if isinstance(value, (str, int, float, bool)):
                flat[key] = str(value)
    return flat


def test_metadata_bytes(imported, host, mirror):
    text = host.metadata()[NAME].decode()
    expected = expected_metadata(mirror)
    assert json.loads(text) == expected
    assert text == json.dumps(expected, indent=4)
    assert json.loads(text)["supported"] == "True"


def test_metadata_mode(imported):
    info = os.stat(os.path.join(hypervisor.METADATA, NAME))
    assert stat.S_IMODE(info.st_mode) == 0o644


def test_metadata_beyond_ascii(uvmirror, mirror, fetch, make_image, host, folder):
    mirror.product()["release_title"] = "24.04 \u201cNoble\u201d \u00fc\U0001F427 \"q\" \\ \t"
    mirror.add_image(OLD, make_image("a"))
    mirror.write()
    fetch("-o", folder / "b.tar.zst", "release=noble")
    uvmirror("import", folder / "b.tar.zst")
    assert host.metadata()[NAME].decode() == json.dumps(expected_metadata(mirror), indent=4)


def test_uvtool_finds_nothing_odd(imported, host):
    assert uvtool_view.problems(host) == []
    assert uvtool_view.would_delete(host) == []
    assert uvtool_view.query(host, release="noble", arch="amd64") == [NAME]


def test_a_second_import_changes_nothing(uvmirror, imported, host, folder):
    before = host.view()
    uvmirror("import", folder / "one.tar.zst")
    assert host.view() == before


def test_a_newer_one_retires_the_older(uvmirror, imported, make_bundle, make_image, host):
    uvmirror("import", make_bundle("two", {NEW: make_image("b")}))
    assert uvtool_view.versions(host) == [NEW]
    assert len(host.volumes()) == 1


def test_max_2_keeps_both(uvmirror, imported, make_bundle, make_image, host):
    two = make_bundle("two", {NEW: make_image("b")}, "--max", "2", "release=noble")
    uvmirror("import", "--max", "2", two)
    assert uvtool_view.versions(host) == [OLD, NEW]


def test_an_older_bundle_is_refused(uvmirror, mirror, make_bundle, make_image, host):
    first = make_bundle("one", {OLD: make_image("a")})
    uvmirror("import", make_bundle("two", {NEW: make_image("b")}))
    before = host.view()
    uvmirror("import", first, code=4)
    assert host.view() == before
    uvmirror("import", "--allow-older", first)
    assert uvtool_view.versions(host) == [OLD]


def test_same_version_with_other_bytes_is_refused(uvmirror, imported, make_bundle, make_image, host):
    before = host.view()
    uvmirror("import", make_bundle("other", {OLD: make_image("b")}), code=5)
    assert host.view() == before


def test_a_product_that_is_not_in_the_bundle_is_left_alone(uvmirror, imported, make_bundle, mirror,
                                                           make_image, host):
    jammy = {"product": "com.ubuntu.cloud:server:22.04:amd64", "release": "jammy", "number": "22.04"}
    uvmirror("import", make_bundle("jammy", {NEW: make_image("b")}, "release=jammy", **jammy))
    assert uvtool_view.versions(host) == [NEW, OLD]
    assert uvtool_view.problems(host) == []


def test_an_incomplete_view_only_adds(uvmirror, imported, make_bundle, make_image, host):
    """A filter on the version hid something: that tells nothing about what is gone."""
    two = make_bundle("two", {NEW: make_image("b")}, "release=noble", f"version_name={NEW}")
    uvmirror("import", two)
    assert uvtool_view.versions(host) == [OLD, NEW]


def test_dry_run_changes_nothing(uvmirror, make_bundle, make_image, host):
    bundle = make_bundle("one", {OLD: make_image("a")})
    before = host.view()
    result = uvmirror("import", "--dry-run", bundle)
    assert OLD in (result.out + result.err).decode()
    assert host.view() == before


def test_a_volume_without_metadata_is_not_believed(uvmirror, make_bundle, make_image, host):
    """Somebody put another image under the name: it proves nothing."""
    image = make_image("a")
    bundle = make_bundle("one", {OLD: image})
    hypervisor.qemu_img("convert", "-O", "qcow2", make_image("b"),
                        os.path.join(hypervisor.IMAGES, NAME))
    assert host.volumes() == [NAME]
    uvmirror("import", bundle)
    hypervisor.qemu_img("compare", image, host.volume_path(NAME))
    assert uvtool_view.versions(host) == [OLD]


def test_metadata_without_volume_is_erased(uvmirror, imported, host):
    host.pool().storageVolLookupByName(NAME).delete(0)
    states = [entry["state"] for entry in uvmirror("list", "--json").lines if "state" in entry]
    assert states == ["broken"]
    uvmirror("clean")
    assert host.metadata() == {}


def test_pool_elsewhere(uvmirror, make_bundle, make_image, bare_host, site, folder):
    """People move the pool to a big disk: its place is what its XML says."""
    os.makedirs(hypervisor.METADATA)
    big = os.path.join(bare_host.work, "big-disk")
    bare_host.make_pool(hypervisor.POOL, big)
    uvmirror("import", "--keyring", site.keyring, make_bundle("one", {OLD: make_image("a")}))
    assert os.listdir(big) == [NAME]


def test_init_on_a_bare_host(uvmirror, make_bundle, make_image, bare_host, site):
    bundle = make_bundle("one", {OLD: make_image("a")})
    uvmirror("import", "--keyring", site.keyring, bundle, code=7)
    uvmirror("init")
    uvmirror("init")  # twice does no harm
    pool = bare_host.libvirt.storagePoolLookupByName(hypervisor.POOL)
    assert pool.isActive() and pool.autostart()
    assert stat.S_IMODE(os.stat(hypervisor.METADATA).st_mode) & 0o775 == 0o775
    uvmirror("import", "--keyring", site.keyring, bundle)
    assert bare_host.volumes() == [NAME]


def test_init_of_another_pool(uvmirror, bare_host):
    """It does not share uvtool's folder, and building it anew would not lock QEMU out."""
    metadata = os.path.join(bare_host.work, "other", "metadata")
    uvmirror("init")
    uvmirror("init", "--pool", "other", "--metadata-dir", metadata)
    for name, path in ((hypervisor.POOL, hypervisor.IMAGES),
                       ("other", os.path.join(bare_host.work, "other", "images"))):
        xml = bare_host.libvirt.storagePoolLookupByName(name).XMLDesc(1)  # INACTIVE
        assert f"<path>{path}</path>" in xml and "<mode>0755</mode>" in xml
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o755


def test_what_waits_must_fit_too(uvmirror, make_bundle, make_image, host):
    """An image waits in the state folder until it is verified."""
    bundle = make_bundle("big", {OLD: make_image("big", 16 << 20)})
    before = host.view()
    state = os.path.join(host.work, "state")
    with hypervisor.tmpfs(state, "5m"):
        result = uvmirror("import", "--state-dir", state, bundle, code=6)
        assert f"folder {state}: at least 8." in result.err.decode(), str(result)
        assert host.view() == before and "journal.json" not in os.listdir(state)
    with hypervisor.tmpfs(f"{state}-2", "10m"):
        uvmirror("import", "--state-dir", f"{state}-2", bundle)
        assert not [name for name in os.listdir(f"{state}-2") if name.startswith(".")]
        assert uvtool_view.versions(host) == [OLD]


@pytest.fixture
def small_disk(bare_host):
    """small_disk(size): a disk, with nothing on it but the folder of uvtool's pool."""

    @contextlib.contextmanager
    def mount(size):
        disk = os.path.join(bare_host.work, "disk")
        os.makedirs(hypervisor.METADATA)
        with hypervisor.tmpfs(disk, size):
            os.mkdir(f"{disk}/images")
            bare_host.make_pool(hypervisor.POOL, f"{disk}/images")
            yield disk
            bare_host.pool().destroy()

    return mount


def test_image_and_volume_on_one_disk(uvmirror, make_bundle, make_image, small_disk, site):
    """Both are counted."""
    bundle = make_bundle("big", {OLD: make_image("big", 16 << 20)})
    with small_disk("15m") as disk:
        result = uvmirror("import", "--state-dir", f"{disk}/state", "--keyring", site.keyring, bundle,
                          code=6)
        assert f"folder {disk}/images: at least 17." in result.err.decode(), str(result)
        assert os.listdir(f"{disk}/images") == []


def test_what_does_not_fit_is_said_first(uvmirror, make_bundle, make_image, small_disk, site):
    """With figures, before a byte is sent."""
    bundle = make_bundle("big", {OLD: make_image("big", 16 << 20)})
    with small_disk("9m") as disk:
        result = uvmirror("import", "--keyring", site.keyring, bundle, code=6)
        assert re.search(rb"at least [\d.]+ MB are needed, [\d.]+ MB are free", result.err), str(result)
        assert b"upload" not in result.err
        assert os.listdir(disk) == ["images"] and os.listdir(f"{disk}/images") == []


def test_what_does_not_fit_uncompressed(uvmirror, make_bundle, small_disk, site, folder):
    """Known once the image was seen: guests beside it must not find a full disk meanwhile."""
    raw = folder / "raw"
    raw.write_bytes(b"text that shrinks " * 400000)
    image = folder / "image"
    hypervisor.qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", raw, image)
    bundle = make_bundle("one", {OLD: image})
    with small_disk("5m") as disk:
        result = uvmirror("import", "--keyring", site.keyring, bundle, code=6)
        assert b"at least 7." in result.err and b"upload" not in result.err
        assert os.listdir(disk) == ["images"] and os.listdir(f"{disk}/images") == []
        uvmirror("import", "--keep-compressed", "--keyring", site.keyring, bundle)


def test_unused_volumes_go_first(uvmirror, make_bundle, make_image, small_disk, bare_host, site):
    """Without them there is room."""
    first = make_bundle("one", {OLD: make_image("m1", 4 << 20)})
    second = make_bundle("two", {NEW: make_image("m2", 4 << 20)})
    with small_disk("8m"):
        uvmirror("import", "--keyring", site.keyring, first)
        uvmirror("import", "--no-clean", "--keyring", site.keyring, second, code=6)
        assert uvtool_view.versions(bare_host) == [OLD]
        bare_host.retire(NAME)
        uvmirror("import", "--keyring", site.keyring, second)
        assert uvtool_view.versions(bare_host) == [NEW]


def test_a_folder_with_the_name_of_metadata(uvmirror, make_bundle, make_image, host):
    """Nobody's, and left alone: a cleanup passes over it, an import of that name is refused in time."""
    folder = os.path.join(hypervisor.METADATA, NAME)
    os.mkdir(folder)
    result = uvmirror("clean")
    assert result.err.decode().count("is a folder") == 1
    bundle = make_bundle("one", {OLD: make_image("a")})
    result = uvmirror("import", bundle, code=1)
    assert folder in result.err.decode()
    assert host.volumes() == [] and os.path.isdir(folder)


def test_without_metadata_folder(uvmirror, make_bundle, make_image, host):
    """Refused before a byte is sent; and that every image looks retired deletes none."""
    bundle = make_bundle("one", {OLD: make_image("a")})
    uvmirror("import", bundle)
    os.rename(hypervisor.METADATA, hypervisor.METADATA + ".away")
    uvmirror("import", bundle, code=7)
    uvmirror("clean")
    assert host.volumes() == [NAME]
    assert "journal.json" not in os.listdir(hypervisor.STATE)
    os.rename(hypervisor.METADATA + ".away", hypervisor.METADATA)
    uvmirror("import", bundle)


@pytest.mark.parametrize("there", [True, False])
def test_another_metadata_folder_for_the_same_pool(uvmirror, imported, host, folder, there):
    """A slip of the pen must not make every image look retired."""
    other = folder / "metadata"
    if there:
        other.mkdir()
    uvmirror("clean", "--metadata-dir", other, code=7)
    assert host.volumes() == [NAME]


def test_a_name_too_long_for_a_file(uvmirror, make_bundle, make_image, host):
    bundle = make_bundle("one", {OLD: make_image("a")}, product="p" * 190)
    before = host.view()
    uvmirror("import", "--dry-run", bundle, code=5)
    uvmirror("import", bundle, code=5)
    assert host.view() == before


def test_list_names_that_are_not_utf8(uvmirror, host):
    with open(os.path.join(hypervisor.IMAGES.encode(), b"x\xff.img"), "wb") as out:
        out.truncate(4096)
    (entry,) = uvmirror("list", "--json").lines
    assert entry["state"] == "foreign"
