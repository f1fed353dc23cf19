"""doctor names what is wrong, and the command that it names mends it."""

import os
import pathlib
import re
import shutil
import subprocess

import pytest

import hypervisor
import uvtool_view
from keys import Key
from sample_mirror import PRODUCT
from test_rollback import at

OLD = "20241004"
NAME = uvtool_view.encode(PRODUCT, OLD)


@pytest.fixture
def wrong(uvmirror):
    """wrong(): what is wrong, as [(check, text, cure)]."""

    def run(*args, **options):
        result = uvmirror("doctor", "--json", *args, code=None, **options)
        *findings, end = result.lines if result.code == 0 else result.lines[:-1]
        found = [(f["check"], f["text"], f["cure"]) for f in findings if not f["ok"]]
        assert end["event"] == "result" and end["wrong"] == len(found), str(result)
        assert result.code == (1 if found else 0), str(result)
        return found

    return run


def mend(cure):
    subprocess.run(["sh", "-ec", cure], check=True, capture_output=True)


def test_all_is_well(uvmirror, prepared, wrong, make_bundle, make_image):
    assert wrong() == []
    before = prepared.view()
    said = uvmirror("doctor").out.decode()
    for check in ("libvirt", "pool", "metadata", "state", "keys", "clock", "space"):
        assert re.search(rf"^ok +{check} ", said, re.M), said
    assert prepared.view() == before
    assert uvmirror("doctor", "--quiet").out == b""
    uvmirror("import", make_bundle("one", {OLD: make_image("a")}))
    assert wrong() == []


def pool_is_stopped(host):
    host.libvirt.storagePoolLookupByName(hypervisor.POOL).destroy()


def pool_does_not_start_itself(host):
    host.libvirt.storagePoolLookupByName(hypervisor.POOL).setAutostart(0)


def pool_is_locked_up(_host):
    os.chmod(hypervisor.IMAGES, 0o700)


def metadata_is_not_shared(_host):
    os.chown(hypervisor.METADATA, 0, 0)
    os.chmod(hypervisor.METADATA, 0o755)


def metadata_is_everybodys(_host):
    os.chmod(hypervisor.METADATA, 0o2777)


def a_stray_file(_host):
    pathlib.Path(hypervisor.METADATA, "x-uvt-b64-").touch()


def a_stray_folder(_host):
    os.mkdir(os.path.join(hypervisor.METADATA, NAME))


def metadata_without_volume(host):
    host.write_metadata(NAME, {"product_name": PRODUCT, "version_name": OLD})


def state_is_not_shared(_host):
    os.chmod(hypervisor.STATE, 0o700)



MENDABLE = {
    pool_is_stopped: "pool",
    pool_does_not_start_itself: "pool",
    pool_is_locked_up: "pool",
    metadata_is_not_shared: "metadata",
    metadata_is_everybodys: "metadata",
    a_stray_file: "metadata",
    a_stray_folder: "metadata",
    metadata_without_volume: "metadata",
    state_is_not_shared: "state",
}


@pytest.mark.parametrize("damage", MENDABLE, ids=lambda function: function.__name__)
def test_damage_is_found_and_mended(uvmirror, prepared, wrong, damage, folder):
    damage(prepared)
    (check, text, cure), = wrong()
    assert check == MENDABLE[damage]
    said = uvmirror("doctor", code=1).out.decode()
    assert text in said and cure in said
    if cure.startswith("mv "):
        cure = cure.replace("/root", str(folder))  # the machine's own stays as it is
    mend(cure.replace("uvmirror ", f"{uvmirror.path} ", 1) if cure.startswith("uvmirror ") else cure)
    assert wrong() == []


def test_without_a_pool(uvmirror, bare_host, wrong):
    found = wrong()
    assert {check for check, _, _ in found} >= {"pool", "metadata", "keys"}
    assert ("pool", "there is no pool uvtool", "uvmirror init") in found


def test_without_a_daemon(prepared, wrong):
    (check, _, cure), = wrong("--connect", "qemu+unix:///system?socket=/nowhere")
    assert check == "libvirt" and "libvirtd" in cure


def test_a_pool_that_is_no_folder(prepared, wrong):
    pool = prepared.libvirt.storagePoolLookupByName(hypervisor.POOL)
    pool.destroy()
    pool.undefine()
    prepared.libvirt.storagePoolDefineXML(
        "<pool type='logical'><name>uvtool</name><source><name>vg</name></source>"
        "<target><path>/dev/vg</path></target></pool>")
    (_, text, _), = wrong()
    assert "type logical" in text


def test_a_pool_elsewhere(prepared, wrong):
    pool = prepared.libvirt.storagePoolLookupByName(hypervisor.POOL)
    pool.destroy()
    pool.undefine()
    prepared.make_pool(hypervisor.POOL, os.path.join(prepared.work, "big-disk"))
    prepared.libvirt.storagePoolLookupByName(hypervisor.POOL).setAutostart(1)
    found = wrong()
    assert any("uvtool" in cure and "sync" in cure for _, _, cure in found)


def test_an_interrupted_import(uvmirror, prepared, wrong):
    path = pathlib.Path(hypervisor.STATE, "journal.json")
    path.write_text("{}", encoding="utf-8")
    (check, _, cure), = wrong()
    assert (check, cure) == ("state", "uvmirror clean")


def test_a_damaged_record(prepared, wrong):
    pathlib.Path(hypervisor.STATE, "seen.json").touch()
    (check, text, _), = wrong()
    assert check == "state" and "seen.json" in text


def test_keys(uvmirror, prepared, wrong, work, folder, site):
    trusted = pathlib.Path(hypervisor.CONFIG, "trusted.d")
    (trusted / "odd.gpg").write_bytes(b"no key")
    (check, text, _), = wrong()
    assert check == "keys" and "odd.gpg" in text
    (trusted / "odd.gpg").unlink()

    key = Key(folder / "short", "Short Lived <short@example.org>")
    key.gpg("--quick-set-expire", key.fingerprint, "10d")
    key.export(trusted / "short.gpg")
    (_, text, cure), = wrong()
    assert key.fingerprint in text and "expires" in text and "key trust" in cure
    found = wrong(**at(2036))
    assert any(key.fingerprint in text and "expired" in text for _, text, _ in found)
    key.close()
    shutil.rmtree(trusted)
    (check, _, cure), = wrong()
    assert check == "keys" and "key trust" in cure


def test_a_clock_that_is_behind(uvmirror, prepared, wrong, make_bundle, make_image):
    uvmirror("import", make_bundle("one", {OLD: make_image("a")}))
    found = wrong(**at(1999))
    assert [check for check, _, _ in found] == ["clock"]


def test_little_space(uvmirror, prepared, wrong):
    pool = prepared.libvirt.storagePoolLookupByName(hypervisor.POOL)
    pool.destroy()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=9m,mode=755", "none", hypervisor.IMAGES], check=True)
    try:
        pool.create()
        (check, text, _), = wrong()
        assert check == "space" and "free" in text
        pool.destroy()
    finally:
        subprocess.run(["umount", hypervisor.IMAGES], check=True)


def test_no_room_where_images_wait(prepared, wrong):
    state = os.path.join(prepared.work, "state")
    with hypervisor.tmpfs(state, "9m"):
        found = [(text, cure) for check, text, cure in wrong("--state-dir", state) if check == "space"]
    assert len(found) == 1 and state in found[0][0], found
