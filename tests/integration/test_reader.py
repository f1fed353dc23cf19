"""docs/bundle-format.md is enough to make another reader: tests/lib/read_bundle.py, which knows nothing of
uvmirror, takes every kind of bundle and refuses every damaged one."""

import hashlib
import io
import pathlib
import subprocess
import sys
import tarfile

import pytest

import bundles
from bundles import Bundle, Member
from sample_mirror import INDEX_PATH, PRODUCT

READER = pathlib.Path(__file__).resolve().parent.parent / "lib" / "read_bundle.py"
OLD = "20241004"
LONG = "local/" + "/".join(["longer-than-a-plain-header-can-say"] * 4) + "/µ.img"


@pytest.fixture
def bundle(make_bundle, make_image):
    return make_bundle("good", {OLD: make_image("a")})


@pytest.fixture
def read(site, folder):
    """read(path): what the other reader says of it, and that nothing is left of what it refuses."""

    def run(path, keyring=site.keyring):
        out = folder / "out"
        done = subprocess.run([sys.executable, READER, path, keyring, out], capture_output=True, text=True,
                              timeout=60, check=False)
        assert done.returncode in (0, 1) and "Traceback" not in done.stderr, done.stderr
        assert out.exists() == (done.returncode == 0), done.stderr
        return done

    return run


@pytest.fixture
def takes(read, uvmirror, host, unpack, folder):
    """takes(path): both readers do, and what this one unpacks is what tar unpacks."""

    def check(path, *options):
        uvmirror("verify", *options, path)
        done = read(path)
        assert done.returncode == 0 and done.stdout.endswith(": OK\n"), done.stderr
        subprocess.run(["diff", "-r", folder / "out", unpack(path)], check=True)

    return check


@pytest.fixture
def refuses(read, uvmirror, host):
    """refuses(path): both readers do."""

    def check(path):
        assert uvmirror("verify", path, code=None).code in (4, 5)
        done = read(path)
        assert done.returncode == 1 and ": refused: " in done.stderr, f"{path} was taken"

    return check


# ---- what it takes ------------------------------------------------------------------------------


def test_plain(bundle, takes):
    takes(bundle)


def test_several_streams_and_an_added_image(make_bundle, make_image, uvmirror, site, stranger, takes, folder):
    make_bundle("one", {OLD: make_image("a")})
    sums = folder / "SHA256SUMS"
    image = folder / "debian.qcow2"
    image.write_bytes(make_image("b").read_bytes())
    sums.write_bytes(hashlib.sha256(image.read_bytes()).hexdigest().encode() + b"  debian.qcow2\n")
    (folder / "SHA256SUMS.sign").write_bytes(stranger.detach_sign(sums.read_bytes()))
    where = ("--mirror", folder / "mirror", "--state-dir", site.state)
    uvmirror("add", *where, "--checksums", sums, "--keyring", stranger.keyring, image, "release=bookworm",
             "arch=amd64", "version=1")
    uvmirror("bundle", *where, "-o", folder / "both.tar.zst", "arch~.")
    names = Bundle.read(folder / "both.tar.zst").names()
    assert any(name.endswith(".sums.sig") for name in names) and len(names) > 9
    takes(folder / "both.tar.zst")


def test_two_images_of_one_payload(mirror, make_bundle, make_image, takes):
    mirror.add_image(OLD, make_image("a"))
    items = mirror.products[PRODUCT]["versions"][OLD]["items"]
    items["again.img"] = dict(items["disk1.img"])
    path = make_bundle("shared", {})
    manifest = Bundle.read(path).manifest
    assert len(manifest["images"]) == 2
    takes(path)


def test_only_sha512_is_signed(mirror, make_bundle, make_image, takes):
    item = mirror.add_image(OLD, make_image("a"))
    del item["sha256"]
    with open(make_image("a"), "rb") as image:
        item["sha512"] = hashlib.sha512(image.read()).hexdigest()
    takes(make_bundle("sha512", {}))


def test_no_authentication(mirror, uvmirror, site, make_image, takes, folder):
    mirror.add_image(OLD, make_image("a"))
    mirror.write()
    uvmirror("fetch", "--no-authentication", "--source", mirror.root, "--path", f"{INDEX_PATH}.json",
             "--mirror", folder / "mirror", "--state-dir", site.state, "-o", folder / "b.tar.zst", "release=noble")
    assert Bundle.read(folder / "b.tar.zst").manifest["streams"][0]["verified_by"] is None
    takes(folder / "b.tar.zst")


def test_names_that_need_a_pax_header(mirror, make_bundle, make_image, takes):
    item = mirror.add_image(OLD, make_image("a"))
    target = pathlib.Path(mirror.path(LONG))
    target.parent.mkdir(parents=True)
    target.write_bytes(make_image("a").read_bytes())
    item["path"] = LONG
    takes(make_bundle("long", {}))


def test_without_a_trailer(bundle, site, takes, folder):
    content = Bundle.read(bundle)
    manifest = content.manifest
    del manifest["trailer"]
    content.sign(site.key, manifest)
    path = content.save(folder / "plain.tar.zst")
    path.write_bytes(path.read_bytes()[:-bundles.TRAILER_SIZE])
    takes(path)


@pytest.fixture
def stick(mirror, fetch, make_image, folder):
    """A bundle in four parts or more, and its sums."""
    mirror.add_image(OLD, make_image("a"))
    mirror.write()
    stick = folder / "stick"
    stick.mkdir()
    fetch("--split", "256K", "-o", stick, "release=noble")
    assert len(list(stick.glob("*.zst.00?"))) >= 3
    return stick


def test_parts(stick, read, uvmirror, host, folder):
    (sums,) = stick.glob("*.sums")
    uvmirror("verify", stick)
    done = read(sums)
    assert done.returncode == 0, done.stderr
    joined = b"".join(part.read_bytes() for part in sorted(stick.glob("*.zst.00?")))
    (folder / "joined.tar.zst").write_bytes(joined)
    with tarfile.open(fileobj=io.BytesIO(bundles.decompress(folder / "joined.tar.zst"))) as tar:
        for info in tar:
            assert (folder / "out" / info.name).read_bytes() == tar.extractfile(info).read()


def test_parts_that_are_damaged(stick, read, uvmirror, host):
    (sums,) = stick.glob("*.sums")
    second = sums.with_suffix(".002")
    for path, place in ((second, 99), (sums, 120), (sums, 5), (sums, len(sums.read_bytes()) // 2)):
        good = path.read_bytes()
        changed = bytearray(good)
        changed[place] ^= 1
        path.write_bytes(changed)
        assert read(sums).returncode == 1, (path, place)
        path.write_bytes(good)
    second.unlink()
    assert read(sums).returncode == 1


# ---- what it refuses ----------------------------------------------------------------------------


def test_flipped_bits(bundle, refuses, folder):
    data = bundle.read_bytes()
    second = bundles.second_frame(data)
    places = [0, 5, second // 2, second - 1, second, second + 6, second + 20, (second + len(data)) // 2,
              *range(len(data) - bundles.TRAILER_SIZE - 2, len(data))]
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1
        (folder / "bad.tar.zst").write_bytes(changed)
        refuses(folder / "bad.tar.zst")


def test_truncated_and_continued(bundle, refuses, folder):
    data = bundle.read_bytes()
    second = bundles.second_frame(data)
    others = [data[:length] for length in (4, second - 1, second, second + 8, len(data) // 2, len(data) - 13,
                                           len(data) - 12, len(data) - 1)]
    others += [data + b"\0", data + bundles.compress(b""), data + data[-12:]]
    for other in others:
        (folder / "bad.tar.zst").write_bytes(other)
        refuses(folder / "bad.tar.zst")


def test_another_frame_before_a_trailer_that_fits(bundle, refuses, folder):
    content = Bundle.read(bundle)
    refuses(content.save(folder / "bad.tar.zst", behind=bundles.compress(b"more")))
    refuses(content.save(folder / "long.tar.zst", end=bytes(10240 + 1024)))
    refuses(content.save(folder / "short.tar.zst", end=bytes(512)))
    refuses(content.save(folder / "head.tar.zst", head=3))


def test_signed_by_a_stranger(bundle, read, refuses, stranger, folder):
    assert read(bundle, stranger.keyring).returncode == 1
    content = Bundle.read(bundle)
    content.sign(stranger, content.manifest)
    refuses(content.save(folder / "bad.tar.zst"))
    content[bundles.SIGNATURE] = b""
    refuses(content.save(folder / "bad.tar.zst"))


@pytest.mark.parametrize("kind", ["link", "folder", "twice", "unlisted", "missing", "order", "content"])
def test_members_that_are_not_what_was_signed(bundle, refuses, folder, kind):
    content = Bundle.read(bundle)
    last = content.members[-1]
    if kind == "link":
        content.members[-1] = Member(last.name, type=b"2", linkname="/etc/passwd")
    elif kind == "folder":
        content.members.insert(2, Member("streams", type=b"5"))
    elif kind == "twice":
        content.members.append(last)
    elif kind == "unlisted":
        content.members.append(Member("more", b"x"))
    elif kind == "missing":
        content.members.pop()
    elif kind == "order":
        content.members[2:4] = content.members[3:1:-1]
    else:
        content[last.name] = last.data[:-1] + b"\0\1"[last.data[-1] == 0:][:1]
    refuses(content.save(folder / "bad.tar.zst"))


@pytest.mark.parametrize("change", [
    {"format": 3}, {"critical": ["moon_phase"]}, {"trailer": "crc64"}, {"images": None},
])
def test_a_manifest_that_says_what_is_not_known(bundle, refuses, site, folder, change):
    content = Bundle.read(bundle)
    content.sign(site.key, dict(content.manifest, **change))
    refuses(content.save(folder / "bad.tar.zst"))
