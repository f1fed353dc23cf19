"""What a cleanup takes and leaves when guests lie, disks are lost, daemons hang, and others are at work."""

import os
import signal
import struct
import threading
import time

import pytest

import hypervisor
import uvtool_view
from sample_mirror import PRODUCT

OLD = "20241004"
NAME = uvtool_view.encode(PRODUCT, OLD)


def raw_disk_that_claims(backing, path):
    """A disk into which its guest wrote the header of an overlay."""
    name = os.fsencode(backing)
    header = struct.pack(">4sIQIIQ", b"QFI\xfb", 2, 512, len(name), 16, 1 << 20)
    with open(path, "wb") as out:
        out.write(header.ljust(512, b"\0") + name)
        out.truncate(1 << 20)
    return path


# ---- guests whose disk is gone --------------------------------------------------------------------


def test_ignore_guest_is_the_way_out_for_a_lost_disk(uvmirror, base, host):
    lost = os.path.join(host.work, "lost.qcow")
    host.guest("web1", lost)
    result = uvmirror("clean")
    assert NAME in host.volumes()
    assert f"guest web1: {lost}: No such file or directory" in result.err.decode(), str(result)
    dry = uvmirror("clean", "--dry-run", "--ignore-guest", "web1", "--json").lines[-1]
    assert len(dry["deleted"]) == 1 and dry["doubts"] == []
    result = uvmirror("clean", "--ignore-guest", "web1")
    assert NAME not in host.volumes()
    assert f"warning: ignored: guest web1: {lost}" in result.err.decode(), str(result)


def test_an_ignored_guest_keeps_what_can_be_told(uvmirror, base, host):
    """One of its disks is lost, the other is an overlay on the image."""
    lost = hypervisor.FILE_DISK.format(format="qcow2", path="/nowhere/lost.qcow", dev="vdb")
    host.guest("web1", host.overlay(base, "web1.qcow"), devices=lost)
    uvmirror("clean", "--ignore-guest", "web1")
    assert NAME in host.volumes()


def test_ignoring_one_guest_does_not_ignore_another(uvmirror, base, host):
    for name in ("web1", "web2"):
        host.guest(name, "/nowhere/shared.qcow")
    result = uvmirror("clean", "--ignore-guest", "web1")
    assert NAME in host.volumes() and "guest web2" in result.err.decode(), str(result)
    uvmirror("clean", "--ignore-guest", "web1", "--ignore-guest", "web2")
    assert NAME not in host.volumes()


def test_a_guest_to_ignore_that_is_not_there_is_told(uvmirror, base):
    result = uvmirror("clean", "--ignore-guest", "wbe1")
    assert "no guest 'wbe1'" in result.err.decode(), str(result)


def test_the_chain_of_an_ignored_guest_may_be_of_volumes(uvmirror, base, host):
    """Its overlay is a volume of the pool, and what that stood on is gone."""
    middle = host.overlay_file(base, os.path.join(host.work, "middle.qcow"))
    host.guest("web1", host.overlay(middle, "web1.qcow"))
    os.unlink(middle)
    result = uvmirror("clean")
    assert NAME in host.volumes()
    assert f"guest web1 through web1.qcow: {middle}: No such" in result.err.decode(), str(result)
    uvmirror("clean", "--ignore-guest", "web1")
    assert host.volumes() == ["web1.qcow"]


# ---- raw disks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", ["/nowhere/base.qcow2", "nbd://host/x", "relative"])
def test_a_raw_disk_cannot_keep_everything(uvmirror, base, host, claim):
    disk = raw_disk_that_claims(claim, os.path.join(hypervisor.IMAGES, "web1.raw"))
    host.guest("web1", disk, disk_format="raw")
    result = uvmirror("clean")
    assert host.volumes() == ["web1.raw"], str(result)
    assert "ignored: guest web1" in result.err.decode() and "web1.raw" in result.err.decode()


def test_what_a_raw_disk_claims_is_kept_and_explained(uvmirror, base, host):
    """It may be an overlay after all, whose guest is defined wrongly."""
    disk = raw_disk_that_claims(base, os.path.join(host.work, "web1.raw"))
    host.guest("web1", disk, disk_format="raw")
    result = uvmirror("clean")
    assert NAME in host.volumes()
    assert "guest web1 through web1.raw (as the content of a raw disk says)" in result.err.decode()


def test_a_disk_that_one_guest_reads_as_qcow2_is_one(uvmirror, base, host):
    disk = raw_disk_that_claims("/nowhere/base.qcow2", os.path.join(host.work, "shared"))
    host.guest("web1", disk, disk_format="raw")
    host.guest("web2", disk, disk_format="qcow2")
    result = uvmirror("clean")
    assert NAME in host.volumes() and "guest web2" in result.err.decode(), str(result)


# ---- volumes with other names ---------------------------------------------------------------------


def test_foreign_volumes_go_only_when_asked_for_and_old(uvmirror, base, host):
    host.overlay(base, "young.qcow")
    result = uvmirror("clean")
    assert "1 unused volume with other names is left alone" in result.err.decode(), str(result)
    result = uvmirror("clean", "--foreign")
    assert host.volumes() == sorted(["young.qcow", NAME])
    assert "kept young.qcow: is not old enough" in result.err.decode(), str(result)
    dry = uvmirror("clean", "--foreign", "--foreign-age", "0", "--dry-run")
    assert "would delete young.qcow" in dry.out.decode(), str(dry)
    uvmirror("clean", "--foreign", "--foreign-age", "0")
    assert host.volumes() == [NAME]
    uvmirror("clean")
    assert host.volumes() == []


def test_an_old_time_in_a_file_does_not_make_it_old(uvmirror, base, host):
    """A disk that was copied with its times is as young as the copy."""
    path = host.overlay(base, "copied.qcow")
    os.utime(path, (0, 0))
    uvmirror("clean", "--foreign")
    assert "copied.qcow" in host.volumes()


def test_foreign_volumes_that_are_used_stay(uvmirror, base, host):
    host.guest("web1", host.overlay(base, "web1.qcow"))
    host.make_pool("fast")
    middle = host.overlay(base, "middle.qcow")
    host.overlay(middle, "waiting.qcow", pool="fast")
    uvmirror("clean", "--foreign", "--foreign-age", "0")
    assert host.volumes() == sorted(["web1.qcow", "middle.qcow", NAME])


def test_doubts_keep_foreign_volumes_too(uvmirror, base, host):
    host.overlay(base, "old.qcow")
    host.guest("web1", "/nowhere/lost.qcow")
    uvmirror("clean", "--foreign", "--foreign-age", "0")
    assert host.volumes() == sorted(["old.qcow", NAME])


# ---- while it deletes -----------------------------------------------------------------------------


@pytest.fixture
def many(host):
    """Volumes of images that left the metadata, the last to be deleted first."""
    names = [uvtool_view.encode(PRODUCT, f"2023{n:04}") for n in range(300)]
    for name in names:
        hypervisor.qemu_img("create", "-q", "-f", "qcow2",
                            os.path.join(hypervisor.IMAGES, name), "1M")
    return names


def test_a_guest_that_is_made_meanwhile_keeps_its_base(uvmirror, host, many):
    needed = os.path.join(hypervisor.IMAGES, many[0])

    def make_guest():
        while os.path.exists(os.path.join(hypervisor.IMAGES, many[-1])):
            time.sleep(0.001)
        top = host.overlay_file(needed, os.path.join(host.work, "web1.qcow"))
        host.guest("web1", top)

    thread = threading.Thread(target=make_guest)
    thread.start()
    result = uvmirror("clean", "--quiet")
    thread.join()
    assert host.volumes() == [many[0]], str(result)


def test_an_overlay_that_is_made_meanwhile_keeps_its_base(uvmirror, host, many):
    """No guest is defined yet, and libvirt tells nothing of a new volume."""
    def make_overlay():
        while os.path.exists(os.path.join(hypervisor.IMAGES, many[-1])):
            time.sleep(0.001)
        host.overlay_file(os.path.join(hypervisor.IMAGES, many[0]),
                          os.path.join(hypervisor.IMAGES, "web1.qcow"))

    thread = threading.Thread(target=make_overlay)
    thread.start()
    result = uvmirror("clean", "--quiet")
    thread.join()
    assert host.volumes() == sorted([many[0], "web1.qcow"]), str(result)


def test_a_daemon_that_dies_in_the_middle(uvmirror, host, many):
    process = uvmirror.start("clean", "--quiet")
    while os.path.exists(os.path.join(hypervisor.IMAGES, many[-1])):
        time.sleep(0.001)
    host.end_daemon()
    try:
        _, err = process.communicate(timeout=60)
    finally:
        host.start_daemon()
    assert process.returncode == 7, err.decode()
    assert "connection to libvirt broke after" in err.decode().splitlines()[-1], err.decode()
    uvmirror("clean")
    assert host.volumes() == []


@pytest.mark.parametrize("command", [("list",), ("clean",)])
def test_a_daemon_that_hangs_does_not_hold_who_wants_to_stop(uvmirror, host, command):
    os.kill(host.daemon(), signal.SIGSTOP)
    process = uvmirror.start(*command)
    try:
        time.sleep(1)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=40)
    finally:
        os.kill(host.daemon(), signal.SIGCONT)
    assert process.returncode == 130, err.decode()
    assert "libvirt" in err.decode()


@pytest.mark.long
def test_a_daemon_that_hangs_is_told(uvmirror, host):
    os.kill(host.daemon(), signal.SIGSTOP)
    try:
        result = uvmirror("list", code=7, timeout=120)
    finally:
        os.kill(host.daemon(), signal.SIGCONT)
    assert "has not answered" in result.err.decode(), str(result)
