"""An image stays as long as any guest needs it, however it does; and goes when none does."""

import contextlib
import os
import shutil
import subprocess
import threading

import libvirt
import pytest

import hypervisor
import uvtool_view
from program import Program
from sample_mirror import PRODUCT

OLD, NEW = "20241004", "20241018"
NAME = uvtool_view.encode(PRODUCT, OLD)


@pytest.fixture
def state(uvmirror):
    def look():
        (entry,) = [e for e in uvmirror("list", "--json").lines if e.get("version") == OLD]
        return entry["state"]

    return look


@pytest.fixture
def kept(uvmirror, host, state):
    """kept(): list says retired, clean keeps it (dry run or not), and the report names `by`."""
    def check(by=None):
        assert state() == "retired"
        dry = uvmirror("clean", "--dry-run")
        result = uvmirror("clean")
        assert NAME in host.volumes(), f"a needed image was deleted\n{result}"
        if by:
            table = uvmirror("list").out.decode()
            assert by in table, f"{by} is not named\n{table}\n{dry}"

    return check


@pytest.fixture
def gone(uvmirror, host, state):
    def check():
        assert state() == "unused"
        uvmirror("clean", "--dry-run")
        assert NAME in host.volumes()
        uvmirror("clean")
        assert NAME not in host.volumes()

    return check


def test_unused_goes(base, gone):
    gone()


def test_known_and_unused_stays(uvmirror, make_bundle, make_image, host):
    uvmirror("import", make_bundle("one", {OLD: make_image("a")}))
    uvmirror("clean")
    assert host.volumes() == [NAME]


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_chain_of_overlays_in_the_pool(base, host, kept, gone, depth):
    """uvtool sees a depth of one and deletes the image of a deeper chain."""
    path = base
    for level in range(depth):
        path = host.overlay(path, f"web1-{level}.qcow")
    guest = host.guest("web1", path)
    kept(by="web1")
    guest.remove(disks=[path])
    for level in range(depth - 1):
        host.pool().storageVolLookupByName(f"web1-{level}.qcow").delete(0)
    gone()


def test_chain_behind_libvirts_back(base, host, kept):
    """qemu-img made the overlays after the pool was looked at last."""
    images = hypervisor.IMAGES
    middle = host.overlay_file(base, os.path.join(images, "middle.qcow"))
    top = host.overlay_file(middle, os.path.join(images, "top.qcow"))
    host.guest("web1", top)
    kept(by="web1")


def test_chain_outside_every_pool(base, host, kept):
    middle = host.overlay_file(base, os.path.join(host.work, "middle.qcow"))
    top = host.overlay_file(middle, os.path.join(host.work, "top.qcow"))
    host.guest("web1", top)
    kept(by="web1")


def test_relative_backing_name(base, host, kept):
    top = os.path.join(hypervisor.IMAGES, "web1.qcow")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", NAME, "-F", "qcow2", top],
                   cwd=hypervisor.IMAGES, check=True)
    host.guest("web1", top)
    kept(by="web1")


def test_backing_name_as_json(base, host, kept):
    top = host.overlay_file('json:{"driver": "qcow2", "file": {"driver": "file", "filename": "%s"}}'
                            % base, os.path.join(host.work, "web1.qcow"))
    host.guest("web1", top)
    kept()


def test_backing_name_as_json_with_a_backing_of_its_own(base, uvmirror, host):
    """QEMU takes the name's word for it, and not the header's."""
    middle = os.path.join(host.work, "middle.qcow2")
    hypervisor.qemu_img("create", "-q", "-f", "qcow2", middle, "1M")
    name = ('json:{"driver": "qcow2", "file": {"driver": "file", "filename": "%s"}, "backing": '
            '{"driver": "qcow2", "file": {"driver": "file", "filename": "%s"}}}' % (middle, base))
    top = os.path.join(host.work, "web1.qcow")
    hypervisor.qemu_img("create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", name, top, "1M")
    host.guest("web1", top)
    uvmirror("clean")
    assert NAME in host.volumes()


def test_through_a_symbolic_link(base, host, kept):
    link = os.path.join(host.work, "link")
    os.symlink(base, link)
    host.guest("web1", host.overlay_file(link, os.path.join(host.work, "web1.qcow")))
    kept(by="web1")


def test_other_spelling_of_the_path(base, host, kept):
    spelled = base.replace("/uvtool/", "/uvtool//../uvtool/./")
    host.guest("web1", host.overlay_file(spelled, os.path.join(host.work, "web1.qcow")))
    kept(by="web1")


def test_a_guest_on_the_image_itself(base, host, kept, gone):
    guest = host.guest("web1", base)
    kept(by="web1")
    guest.remove()
    gone()


def test_one_file_met_on_two_ways(base, host, kept):
    """top's relative name means another file from the folder of each of the guest's two disks."""
    one, two = (os.path.join(host.work, name) for name in ("one", "two"))
    os.mkdir(one)
    os.mkdir(two)
    shutil.copyfile(base, os.path.join(one, "base"))
    os.symlink(base, os.path.join(two, "base"))
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "top"],
                   cwd=one, check=True)
    os.symlink("../one/top", os.path.join(two, "top"))
    second = hypervisor.FILE_DISK.format(format="qcow2", path=os.path.join(two, "top"), dev="vdb")
    host.guest("web1", os.path.join(one, "top"), devices=second)
    kept(by="web1")


def test_volume_disk(base, host, kept, gone):
    guest = host.guest_on_volume("web1", hypervisor.POOL, NAME)
    kept(by="web1")
    guest.remove()
    gone()


def test_volume_disk_in_another_pool(base, host, kept):
    host.make_pool("fast")
    host.overlay(base, "web1.qcow", pool="fast")
    host.guest_on_volume("web1", "fast", "web1.qcow")
    kept(by="web1")


def test_overlay_in_another_pool_that_no_guest_names(base, host, kept):
    host.make_pool("fast")
    host.overlay(base, "waiting.qcow", pool="fast")
    kept()


def test_overlay_in_an_inactive_pool(base, host, kept):
    host.make_pool("fast")
    host.overlay(base, "web1.qcow", pool="fast")
    host.guest("web1", os.path.join(host.work, "fast", "web1.qcow"))
    host.pool("fast").destroy()
    kept(by="web1")


def test_overlay_in_an_inactive_pool_that_no_guest_names(base, host, kept):
    host.make_pool("fast")
    host.overlay(base, "waiting.qcow", pool="fast")
    host.pool("fast").destroy()
    kept(by="waiting.qcow")


def test_only_the_live_guest_has_the_disk(base, host, samples, kept):
    """The disk was changed in the stored definition; the running guest still has the old one."""
    top = host.overlay(base, "web1.qcow")
    guest = host.guest("web1", top).start()
    other = shutil.copy(samples[OLD], os.path.join(host.work, "other.qcow2"))
    host.guest("web1", other)
    kept(by="web1")
    guest.stop()


def test_only_the_stored_definition_has_the_disk(base, host, samples, kept):
    other = shutil.copy(samples[OLD], os.path.join(host.work, "other.qcow2"))
    os.chmod(other, 0o666)
    guest = host.guest("web1", other).start()
    host.guest("web1", host.overlay(base, "web1.qcow"))
    kept(by="web1")
    guest.stop()


def test_external_snapshot_of_a_running_guest(base, host, kept):
    guest = host.guest("web1", host.overlay(base, "web1.qcow")).start()
    guest.domain.snapshotCreateXML("""
        <domainsnapshot><name>one</name><disks><disk name='vda' snapshot='external'/></disks>
        </domainsnapshot>""", 1 << 4)  # VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
    kept(by="web1")
    guest.stop()
    kept(by="web1")


def test_cdrom_and_floppy(base, host, kept):
    host.guest("web1", devices=f"""<disk type='file' device='cdrom'>
        <source file='{base}'/><target dev='sda' bus='sata'/><readonly/></disk>""")
    kept(by="web1")


def test_an_overlay_without_a_guest_is_no_guest_disk_of_ours_to_delete(base, uvmirror, host):
    """uvt-kvm makes a disk a second before it defines the guest: neither may go."""
    host.overlay(base, "web1.qcow")
    uvmirror("clean")
    assert host.volumes() == sorted(["web1.qcow", NAME])


def test_a_foreign_volume_is_left_alone(base, uvmirror, host, gone):
    path = os.path.join(hypervisor.IMAGES, "somebody-elses.img")
    with open(path, "wb") as out:
        out.truncate(4096)
    gone()
    assert host.volumes() == ["somebody-elses.img"]


def test_a_disk_that_cannot_be_read_means_keep_everything(base, uvmirror, host):
    """web1's overlay is gone, so what it needed is not known."""
    top = host.overlay_file(base, os.path.join(host.work, "web1.qcow"))
    host.guest("web1", top)
    os.rename(top, top + ".away")
    result = uvmirror("clean", code=None)
    assert NAME in host.volumes()
    said = (result.out + result.err).decode()
    assert "web1" in said and top in said, str(result)


def test_a_disk_that_makes_no_sense_means_keep_everything(base, uvmirror, host):
    top = os.path.join(host.work, "web1.qcow")
    with open(top, "wb") as out:
        out.write(b"QFI\xfb" + b"\xff" * 508)
    host.guest("web1", top)
    uvmirror("clean", code=None)
    assert NAME in host.volumes()


def test_a_loop_of_backing_files_ends(base, uvmirror, host):
    one, two = (os.path.join(host.work, name) for name in ("one.qcow", "two.qcow"))
    host.overlay_file(base, one)
    host.overlay_file(one, two)
    hypervisor.qemu_img("rebase", "-u", "-b", two, "-F", "qcow2", one)
    host.guest("web1", two)
    host.guest("web2", host.overlay(base, "web2.qcow"))
    uvmirror("clean", code=None, timeout=30)
    assert NAME in host.volumes()


# ---- other programs at work -----------------------------------------------------------------------


@contextlib.contextmanager
def foreign_upload(host, size=1 << 20):
    """What uvtool does for minutes: its volume has our name, is being filled, and has no metadata."""
    volume = host.pool().createXML(
        f"<volume><name>{NAME}</name><capacity>{size}</capacity></volume>", 0)
    stream = host.libvirt.newStream(0)
    volume.upload(stream, 0, size, 0)
    stream.send(bytes(size // 2))
    yield
    stream.send(bytes(size // 2))
    stream.finish()


def test_what_another_tool_is_uploading_stays(uvmirror, host):
    with foreign_upload(host):
        dry = uvmirror("clean", "--dry-run", "--json").lines[-1]
        result = uvmirror("clean")
        assert NAME in host.volumes(), str(result)
        assert OLD in result.err.decode() and "open in another program" in result.err.decode()
        assert dry["deleted"] == [] and len(dry["kept"]) == 1
    uvmirror("clean")
    assert host.volumes() == []


def test_import_does_not_replace_what_another_tool_is_uploading(uvmirror, make_bundle, make_image,
                                                                host):
    bundle = make_bundle("one", {OLD: make_image("a")})
    with foreign_upload(host):
        result = uvmirror("import", bundle, code=7)
        assert "open in another program" in result.err.decode()
        assert host.volumes() == [NAME]
    uvmirror("import", bundle)
    assert uvtool_view.versions(host) == [OLD]


def test_pools_and_guests_come_and_go(uvmirror, base, host, gone):
    """What vanishes while it is listed is no error, and no reason to keep anything."""
    stop = threading.Event()
    other = libvirt.open("qemu:///system")
    path = os.path.join(host.work, "transient")
    os.mkdir(path)
    pool_xml = hypervisor.POOL_XML.format(name="transient", path=path)
    domain_xml = hypervisor.DOMAIN_XML.format(
        name="transient", uuid="7d7b6c3e-0000-4000-8000-000000000001", devices="", os="",
        console=os.path.join(host.work, "transient.console"))

    def churn():
        while not stop.is_set():
            other.storagePoolCreateXML(pool_xml, 0).destroy()
            other.defineXML(domain_xml).undefine()

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(20):
            result = uvmirror("clean", "--dry-run", "--json")
            assert result.lines[-1]["doubts"] == [], str(result)
    finally:
        stop.set()
        thread.join()
    gone()


def test_who_may_not_read_volumes_is_told_so_once(uvmirror, base, host, work):
    os.chmod(base, 0o600)
    for name in ("one.img", "two.img"):
        path = os.path.join(hypervisor.IMAGES, name)
        with open(path, "wb") as out:
            out.truncate(4096)
        os.chmod(path, 0o600)
    state = os.path.join(work, "nobodys-state")
    os.makedirs(state, exist_ok=True)
    shutil.chown(state, "nobody")
    nobody = ("setpriv", "--reuid=nobody", "--regid=libvirt", "--clear-groups")
    program = Program(shutil.copy(uvmirror.path, work))  # where everybody may come
    result = program("clean", "--json", "--state-dir", state, wrap=nobody)
    assert len(result.lines[-1]["doubts"]) == 1, str(result)
    assert "may not be read" in result.lines[-1]["doubts"][0]
    assert NAME in host.volumes()


# ---- what is told ---------------------------------------------------------------------------------


def test_result_tells_what_made_room(uvmirror, base, make_bundle, make_image, host):
    """It went before the import, not after it, and is told all the same."""
    result = uvmirror("import", "--json", make_bundle("two", {NEW: make_image("b")}))
    assert [title.split()[-1] for title in result.lines[-1]["deleted"]] == [OLD], str(result)


def test_import_deletes_what_belongs_to_a_guests_user(uvmirror, base, make_bundle, make_image, host):
    """QEMU's user is left the owner of an image when a guest with snapshots ends. A confined import can
    still tell that nobody has it open."""
    shutil.chown(base, "nobody")
    result = uvmirror("import", make_bundle("two", {NEW: make_image("b")}))
    assert NAME not in host.volumes(), str(result)


def test_dry_run_tells_what_retirement_would_delete(uvmirror, make_bundle, make_image, host):
    uvmirror("import", make_bundle("one", {OLD: make_image("a")}))
    two = make_bundle("two", {NEW: make_image("b")})
    result = uvmirror("import", "--dry-run", "--json", two)
    assert [title.split()[-1] for title in result.lines[-1]["deleted"]] == [OLD], str(result)
    uvmirror("import", "--dry-run", "--no-clean", two)
    host.guest("web1", host.overlay(host.volume_path(NAME), "web1.qcow"))
    last = uvmirror("import", "--dry-run", "--json", two).lines[-1]
    assert last["deleted"] == [] and "web1" in last["kept_for_guests"][0]
    assert uvtool_view.versions(host) == [OLD]


def test_no_clean_deletes_no_volume_but_erases_broken_metadata(uvmirror, make_bundle, make_image,
                                                               base, host):
    host.write_metadata(uvtool_view.encode(PRODUCT, "20230101"), {})
    uvmirror("import", "--no-clean", make_bundle("two", {NEW: make_image("b")}))
    assert uvtool_view.versions(host) == [NEW]
    assert uvtool_view.problems(host) == []
    assert len(host.volumes()) == 2


def test_clean_in_part_tells_its_result(uvmirror, base, host):
    subprocess.run(["mount", "--bind", base, base], check=True)  # a mount point cannot be deleted
    try:
        result = uvmirror("clean", "--json", code=9)
    finally:
        subprocess.run(["umount", base], check=True)
    results = [line for line in result.lines if line.get("event") == "result"]
    assert len(results) == 1 and results[0]["deleted"] == [], str(result)
