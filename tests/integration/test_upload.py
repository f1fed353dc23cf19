"""What stands in the pool while an image is on its way: nothing that anybody would take for one."""

import json
import os
import re
import signal
import struct
import subprocess
import time

import pytest

import hypervisor
import uvtool_view
from sample_mirror import PRODUCT

VERSION = "20241004"
NAME = uvtool_view.encode(PRODUCT, VERSION)
PATH = os.path.join(hypervisor.IMAGES, NAME)

# strace follows the main thread alone: GnuPG is not to be killed in our place.
NO_LEAK_CHECK = {"ASAN_OPTIONS": "detect_leaks=0:exitcode=99"}
LARGE = 60000  # bytes: a write of so many is a piece of a volume, on its way to libvirt


def strace(*options):
    return {"wrap": ("strace", "-qq", "-y", "-e", "trace=write", *options), "env": NO_LEAK_CHECK}


def pieces(log):
    """Which of an import's writes carry a piece of a volume to libvirt."""
    writes = re.findall(r"^write\(\d+<([^>]*)>.*\) += (\d+)$", log.read_text(), re.M)
    return [when for when, (file, length) in enumerate(writes, 1)
            if file.startswith("socket:") and int(length) > LARGE]


def moments(whens):
    """Some of them: the first, some between, and those around the last one, the head."""
    spread = {whens[i * (len(whens) - 1) // 5] for i in range(6)}
    return sorted(spread | {whens[-2], whens[-1] + 1, whens[-1] + 2})


def seen_by_libvirt(host):
    return re.search(r"<format type='(\w+)'/>", host.pool().storageVolLookupByName(NAME).XMLDesc())[1]


def look(host, image):
    """What QEMU, libvirt and uvtool see of the volume."""
    if not os.path.exists(PATH):
        return "nothing"
    kind = json.loads(hypervisor.qemu_img("info", "--output=json", PATH))["format"]
    assert seen_by_libvirt(host) == kind
    if kind == "qcow2":
        hypervisor.qemu_img("check", PATH)
        hypervisor.qemu_img("compare", image, PATH)
    else:
        assert host.metadata() == {} and uvtool_view.versions(host) == []
    return kind


@pytest.mark.parametrize("option", [(), ("--keep-compressed",)], ids=["plain", "keep-compressed"])
def test_it_is_no_image_before_its_end(uvmirror, make_bundle, make_image, host, folder, option):
    """Whenever it is killed: there is nothing, or raw bytes, or the whole image."""
    image = make_image("big", 4 << 20)
    command = ("import", *option, make_bundle("one", {VERSION: image}))
    seen = []
    uvmirror(*command, **strace("-s", "0", "-o", folder / "strace.log"))
    for when in moments(pieces(folder / "strace.log")):
        for name in host.metadata():
            host.retire(name)
        uvmirror("clean")
        assert host.volumes() == []
        result = uvmirror(*command, code=None, **strace(
            "-o", os.devnull, "-e", f"inject=write:signal=KILL:when={when}"))
        # How many writes fill the file that waits in the state folder differs from run to run.
        assert result.code in (0, -signal.SIGKILL), str(result)
        seen.append(look(host, image))
    print(seen)
    assert seen.count("raw") > 3
    uvmirror(*command)
    assert look(host, image) == "qcow2" and uvtool_view.versions(host) == [VERSION]


def test_laid_out_as_by_qemu_img(uvmirror, make_bundle, make_image, host, folder):
    """As large, in one piece, each table ahead of its clusters, and these in a guest's order."""
    image = make_image("big", 4 << 20)
    uvmirror("import", make_bundle("one", {VERSION: image}))
    hypervisor.qemu_img("convert", "-O", "qcow2", image, folder / "by-hand")
    checks = [json.loads(hypervisor.qemu_img("check", "--output=json", path))
              for path in (PATH, folder / "by-hand")]
    for key in ("allocated-clusters", "total-clusters", "check-errors"):
        assert checks[0][key] == checks[1][key], key
    assert checks[0].get("fragmented-clusters", 0) == 0
    assert os.stat(PATH).st_size <= os.stat(folder / "by-hand").st_size
    starts = [place["offset"] for place in
              json.loads(hypervisor.qemu_img("map", "--output=json", PATH)) if "offset" in place]
    assert starts == sorted(starts)
    with open(PATH, "rb") as file:
        l1_entries, l1 = struct.unpack(">36xIQ", file.read(48))
        file.seek(l1)
        tables = [entry & ~(1 << 63) for entry in struct.unpack(f">{l1_entries}Q", file.read(8 * l1_entries))]
    assert tables == sorted(tables) and tables[0] < starts[0]


def test_nothing_is_sent_before_it_is_verified(uvmirror, make_bundle, make_image, host, folder):
    """One byte is wrong, far behind: not even a volume's name was seen."""
    bundle = make_bundle("one", {VERSION: make_image("big", 16 << 20)})
    data = bytearray(bundle.read_bytes())
    data[len(data) * 3 // 4] ^= 1
    bundle.write_bytes(data)
    uvmirror("import", bundle, code=5, **strace("-s", "0", "-o", folder / "strace.log"))
    assert pieces(folder / "strace.log") == []
    assert host.volumes() == [] and "journal.json" not in os.listdir(hypervisor.STATE)


@pytest.fixture
def small_pool(bare_host):
    """uvtool's pool on a small disk; its folder."""
    path = os.path.join(bare_host.work, "disk")
    os.makedirs(hypervisor.METADATA)
    with hypervisor.tmpfs(path, "40m"):
        bare_host.make_pool(hypervisor.POOL, path)
        yield path
        bare_host.pool().destroy()


@pytest.mark.parametrize("options", [(), ("--keep-compressed",)], ids=["inflated", "as it came"])
def test_the_disk_is_filled_meanwhile(uvmirror, make_bundle, make_image, bare_host, small_pool, site,
                                      folder, options):
    """By somebody else, when there was room at the beginning: an error that says so, and nothing is left."""
    bundle = make_bundle("one", {VERSION: make_image("big", 16 << 20)})
    arguments = ("import", "--keyring", site.keyring, *options, bundle)
    uvmirror(*arguments, **strace("-s", "0", "-o", folder / "strace.log"))
    sent = pieces(folder / "strace.log")
    bare_host.retire(NAME)
    uvmirror("clean")

    # It takes a breath in the middle, in which the rest of the disk goes.
    breath = strace("-o", os.devnull, "-e",
                    f"inject=write:delay_enter=3000000:when={sent[len(sent) // 2]}")
    process = subprocess.Popen(list(map(str, (*breath["wrap"], uvmirror.path, *arguments))),
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env=uvmirror.environment(**breath["env"]))
    volume = os.path.join(small_pool, NAME)
    while not os.path.exists(volume) or os.stat(volume).st_blocks * 512 < 4 << 20:
        assert process.poll() is None
        time.sleep(0.01)
    with open(os.path.join(small_pool, "other"), "wb", buffering=0) as other, \
            pytest.raises(OSError, match="No space left"):
        while True:
            other.write(bytes(1 << 20))
    _, said = process.communicate(timeout=60)
    assert process.returncode == 6 and b"No space left" in said, said.decode()
    assert os.listdir(small_pool) == ["other"] and bare_host.metadata() == {}
