"""An image of more than 6 GiB that does not compress, on its way over a FAT32 stick: in parts, and with
little memory."""

import os
import shutil
import subprocess
import sys

import pytest

import uvtool_view
from hypervisor import qemu_img
from media import fat, visible
from sample_mirror import PRODUCT
from test_stream_metadata import PEAK

VERSION = "20241004"
SIZE = 6 << 30
FAT32_MAX = (4 << 30) - 1  # the largest file
MEMORY_MAX = 96 << 10  # KiB, of any process of ours
PATIENCE = 3600
# What nothing compresses, faster than a disk takes it.
KEYSTREAM = ["openssl", "enc", "-aes-128-ctr", "-K", "0" * 32, "-iv", "0" * 32, "-in", "/dev/zero"]

pytestmark = pytest.mark.long


def holes(fd, size):
    """(start, end) of each."""
    end = 0
    while end < size:
        start = os.lseek(fd, end, os.SEEK_HOLE)
        if start >= size:
            return
        try:
            end = os.lseek(fd, start, os.SEEK_DATA)
        except OSError:
            end = size
        yield start, end


def make_large_image(path):
    """A qcow2 with all of its clusters mapped, and the keystream in them."""
    qemu_img("create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", path, SIZE)
    size = path.stat().st_size
    assert size > SIZE
    with open(path, "r+b") as image, subprocess.Popen(
            KEYSTREAM, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as stream:
        for start, end in list(holes(image.fileno(), size)):
            image.seek(start)
            while image.tell() < end:
                image.write(stream.stdout.read(min(1 << 20, end - image.tell())))
        stream.terminate()


@pytest.fixture
def program(uvmirror):
    """The program as it is installed: sanitizers have memory of their own."""
    if "UVMIRROR_RELEASE" not in os.environ:
        pytest.skip("no build without sanitizers (UVMIRROR_RELEASE); tests/run.sh long makes one")
    return type(uvmirror)(os.environ["UVMIRROR_RELEASE"])


@pytest.fixture
def sparing(program, folder):
    """sparing(*arguments, code=...): runs it, and nothing of it takes more memory than it may."""
    peak = folder / "peak"

    def run(*args, code=0, wrap=()):
        measured = (sys.executable, "-c", PEAK, peak, *wrap)
        result = program(*args, code=code, timeout=PATIENCE, wrap=measured)
        used = int(peak.read_text(encoding="ascii"))
        print(f"{args[0]}: exit code {result.code}, peak {used} KiB")
        assert used <= MEMORY_MAX, f"{used} KiB\n{result}"
        return result

    return run


@pytest.fixture
def internet(mirror, vendor, site, folder):
    """The options of fetch and bundle, and a vendor who publishes the large image."""
    image = folder / "large.qcow2"
    make_large_image(image)
    mirror.add_image(VERSION, image)
    mirror.write()
    image.unlink()
    own = ("--mirror", folder / "mirror", "--state-dir", site.state)
    return ("--source", mirror.root, "--keyring", vendor.keyring, *own), own


def file_system(path):
    return subprocess.run(["findmnt", "-n", "-o", "FSTYPE", path], check=True, capture_output=True,
                          text=True).stdout.strip()


@pytest.fixture
def stick(folder):
    """A FAT32, and the largest file that it takes: the one in user space stops at 2 GiB."""
    path = folder / "stick"
    path.mkdir()
    with fat(path, 8 << 30):
        yield path, FAT32_MAX if file_system(path) == "vfat" else (2 << 30) - 1


def flip_last(path, elsewhere):
    """Elsewhere, and back as a new file: FAT in user space cannot change one byte alone."""
    shutil.copyfile(path, elsewhere)
    with open(elsewhere, "r+b") as part:
        part.seek(-1, os.SEEK_END)
        byte = part.read(1)
        part.seek(-1, os.SEEK_END)
        part.write(bytes([byte[0] ^ 1]))
    path.unlink()
    shutil.copyfile(elsewhere, path)


def check_parts(sparing, folder, largest):
    """There and back, and the last byte of all counts."""
    parts = [folder / name for name in visible(folder) if not name.endswith(".sums")]
    sizes = [path.stat().st_size for path in parts]
    assert sum(sizes) > SIZE and sizes[:-1] == [largest] * (len(parts) - 1) and len(parts) > 1
    sparing("verify", folder)
    flip_last(parts[-1], folder.parent / "part")
    result = sparing("verify", folder, code=5)
    assert parts[-1].name in result.err.decode().splitlines()[-1], str(result)
    return parts[-1]


def test_fat32(sparing, internet, stick, host):
    path, largest = stick
    fetching, _ = internet
    sparing("fetch", *fetching, "-o", path, "--split", "fat32" if largest == FAT32_MAX else largest,
            "release=noble")
    last = check_parts(sparing, path, largest)
    before = host.view()
    sparing("import", path, code=5)
    assert host.view() == before
    flip_last(last, path.parent / "part")
    sparing("import", path)
    name = uvtool_view.encode(PRODUCT, VERSION)
    assert host.volumes() == [name] and list(host.metadata()) == [name]


def test_parts_of_4_gib(sparing, internet, host, folder):
    """With the limit that FAT32 has, on a file system of any kind."""
    fetching, own = internet
    out = folder / "out"
    out.mkdir()
    limit = ("prlimit", f"--fsize={FAT32_MAX}")
    sparing("fetch", *fetching, "--no-bundle", "release=noble")
    result = sparing("bundle", *own, "-o", out, "release=noble", code=6, wrap=limit)
    assert "split the bundle (--split fat32)" in result.err.decode() and visible(out) == []
    sparing("bundle", *own, "-o", out, "--split", "fat32", "release=noble", wrap=limit)
    check_parts(sparing, out, FAT32_MAX)
    assert host.volumes() == []
