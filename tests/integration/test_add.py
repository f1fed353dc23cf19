"""Images that no stream lists: golden images of the site, and other distributions' cloud images."""

import hashlib
import json
import os
import shutil
import signal

import pytest

import hypervisor
import uvtool_view
from keys import Key
from sample_mirror import PRODUCT
from test_crash import strace

OLD, NEW = "20241004", "20241018"
NAME = "debian-12-generic-amd64.qcow2"
USUAL = ("release=bookworm", "arch=amd64", "version=20241004")


@pytest.fixture
def add(uvmirror, folder, site):
    """add(*arguments): `uvmirror add` on the internet host."""

    def run(*args, code=0, **options):
        return uvmirror("add", "--mirror", folder / "mirror", "--state-dir", site.state, *args,
                        code=code, **options)

    return run


@pytest.fixture
def bundle(uvmirror, folder, site):
    """bundle(*arguments): a bundle of what the mirror holds."""

    def run(*args, name="added"):
        path = folder / f"{name}.tar.zst"
        uvmirror("bundle", "--mirror", folder / "mirror", "--state-dir", site.state, "-o", path,
                 *args)
        return path

    return run


@pytest.fixture(scope="session")
def distribution(work):
    """A distribution's key."""
    key = Key(work / "distribution", "Some Distribution <images@example.org>")
    key.keyring = key.export(work / "distribution.gpg")
    yield key
    key.close()


@pytest.fixture
def debian(make_image, folder):
    """A distribution's cloud image, still without checksums."""
    path = folder / "images" / NAME
    path.parent.mkdir()
    shutil.copyfile(make_image("debian"), path)
    return path


def files_of(mirror):
    """The images that stand in a mirror folder."""
    return sorted(str(path.relative_to(mirror)) for path in mirror.rglob("*")
                  if path.is_file() and "uvmirror" not in path.relative_to(mirror).parts)


def partial(mirror):
    return sorted(path.name for path in (mirror / "uvmirror" / "partial").glob("*"))


def add_result(result):
    (found,) = [line for line in result.lines if line["event"] == "result"]
    return found


# ---- the whole way ------------------------------------------------------------------------------


def test_from_a_golden_image_to_a_running_guest(uvmirror, add, bundle, samples, host, folder):
    golden = folder / "golden.qcow2"
    hypervisor.qemu_img("convert", "-O", "qcow2", samples[OLD], golden)
    add(golden, "release=web", "arch=amd64", "version=1", "os=debian", "role=front end")
    uvmirror("import", bundle())
    name = uvtool_view.encode("local:web:amd64", "1")
    assert host.volumes() == [name]
    assert uvtool_view.problems(host) == []
    assert uvtool_view.query(host, release="web") == [name]
    ((_, _, metadata),) = uvtool_view.images(host)
    assert {key: metadata[key] for key in ("release", "arch", "version", "label", "os", "role")} == {
        "release": "web", "arch": "amd64", "version": "1", "label": "local", "os": "debian",
        "role": "front end"}
    guest = host.guest("web1", host.overlay(host.volume_path(name), "web1.qcow")).start()
    guest.wait_for(f"uvmirror sample {OLD}: guest is up, boot 1")


def test_a_newer_version_supersedes(uvmirror, add, bundle, make_image, host):
    add(make_image("a"), "release=web", "arch=amd64", "version=1")
    uvmirror("import", bundle(name="one"))
    add(make_image("b"), "release=web", "arch=amd64", "version=2")
    uvmirror("import", bundle("--max", "1", name="two"))
    assert uvtool_view.versions(host) == ["2"]
    assert host.volumes() == [uvtool_view.encode("local:web:amd64", "2")]


def test_beside_a_vendors_images(uvmirror, add, bundle, make_bundle, make_image, host):
    """One mirror, one stick."""
    make_bundle("vendor", {OLD: make_image("a")})
    result = add(make_image("b"), "release=noble", "arch=amd64", "version=1", "label=release")
    assert b"'uvt-kvm create' finds both" in result.err
    add(make_image("b"), "release=noble", "arch=amd64", "version=1", f"product={PRODUCT}", code=2)
    add("--remove", "release=noble")
    add(make_image("b"), "release=noble", "arch=amd64", "version=1")
    uvmirror("import", bundle())
    assert [image[0] for image in uvtool_view.images(host)] == [PRODUCT, "local:noble:amd64"]


# ---- who vouches for it -------------------------------------------------------------------------


def publish_fedora(image, key):
    """CHECKSUM, clear-signed, with BSD's lines."""
    data = image.read_bytes()
    text = f"# {NAME}: {len(data)} bytes\nSHA256 ({NAME}) = {hashlib.sha256(data).hexdigest()}\n"
    path = image.parent / "Fedora-Cloud-40-x86_64-CHECKSUM"
    path.write_bytes(key.clearsign(text.encode()))
    return path


def publish_debian(image, key):
    """SHA512SUMS and SHA512SUMS.sign, armored."""
    path = image.parent / "SHA512SUMS"
    sums = hashlib.sha512(image.read_bytes()).hexdigest()
    path.write_text(f"{'0' * 128}  other.qcow2\n{sums}  {NAME}\n")
    (image.parent / "SHA512SUMS.sign").write_bytes(key.detach_sign(path.read_bytes()))
    return path


def publish_ubuntu(image, key):
    """SHA256SUMS and SHA256SUMS.gpg, of files read as binary."""
    path = image.parent / "SHA256SUMS"
    path.write_text(f"{hashlib.sha256(image.read_bytes()).hexdigest()} *{NAME}\n")
    (image.parent / "SHA256SUMS.gpg").write_bytes(key.detach_sign(path.read_bytes()))
    return path


PUBLISHERS = {"fedora": publish_fedora, "debian": publish_debian, "ubuntu": publish_ubuntu}


@pytest.mark.parametrize("publisher", PUBLISHERS)
def test_signed_by_its_distribution(uvmirror, add, bundle, debian, distribution, stranger, host,
                                    publisher):
    """The word of the distribution goes all the way."""
    sums = PUBLISHERS[publisher](debian, distribution)
    result = add("--json", "--checksums", sums, "--keyring", distribution.keyring, debian, *USUAL)
    assert add_result(result)["signer"] == distribution.fingerprint
    assert b"warning" not in result.err
    path = bundle()
    origin = ("--require-origin", "--origin-keyring")
    uvmirror("verify", *origin, distribution.keyring, path)
    uvmirror("import", *origin, stranger.keyring, path, code=4)
    uvmirror("import", *origin, distribution.keyring, path)
    assert uvtool_view.versions(host) == [OLD]


@pytest.mark.parametrize("publisher", PUBLISHERS)
def test_from_the_distributions_server(add, web, mirror, debian, distribution, folder, publisher):
    sums = PUBLISHERS[publisher](debian, distribution)
    shutil.copytree(debian.parent, mirror.root, dirs_exist_ok=True)
    add("--checksums", web.url + sums.name, "--keyring", distribution.keyring, web.url + NAME,
        *USUAL)
    assert files_of(folder / "mirror") == [f"local/bookworm/amd64/{OLD}/{NAME}"]
    assert (folder / "mirror" / "local/bookworm/amd64" / OLD / NAME).read_bytes() == (
        debian.read_bytes())


@pytest.mark.parametrize("publisher", PUBLISHERS)
@pytest.mark.parametrize("lie", ["stranger", "other sum", "other image", "no signature",
                                 "another name"])
def test_a_word_that_does_not_hold(add, debian, distribution, stranger, folder, publisher, lie):
    code = 4
    image = debian
    sums = PUBLISHERS[publisher](debian, stranger if lie == "stranger" else distribution)
    if lie == "other sum":
        digest = hashlib.sha512 if publisher == "debian" else hashlib.sha256
        right = digest(debian.read_bytes()).hexdigest()
        sums.write_text(sums.read_text().replace(right, digest(b"").hexdigest()))
    if lie == "other image":
        code = 5
        data = bytearray(debian.read_bytes())
        data[-1] ^= 1
        debian.write_bytes(data)
    if lie == "no signature":
        for ending in (".sign", ".gpg"):
            sums.with_name(sums.name + ending).unlink(missing_ok=True)
        if publisher == "fedora":
            sums.write_text(sums.read_text().split("\n\n")[1])
    if lie == "another name":
        code = 5
        image = debian.rename(debian.with_name("renamed.qcow2"))
    add("--checksums", sums, "--keyring", distribution.keyring, image, *USUAL, code=code)
    assert files_of(folder / "mirror") == []
    assert partial(folder / "mirror") == []


def test_a_signature_of_another_name(add, debian, distribution):
    sums = publish_debian(debian, distribution)
    elsewhere = debian.parent / "signature"
    (debian.parent / "SHA512SUMS.sign").rename(elsewhere)
    arguments = ("--checksums", sums, "--keyring", distribution.keyring, debian, *USUAL)
    result = add(*arguments, code=4)
    assert b"--signature" in result.err
    add("--signature", elsewhere, *arguments)


def test_unsigned_is_said(add, bundle, uvmirror, debian, distribution, host):
    """A checksum that nobody vouches for is better than none, and a receiver may want more."""
    result = add("--checksums", publish_debian(debian, distribution), debian, *USUAL)
    assert b"--keyring" in result.err
    path = bundle()
    uvmirror("import", "--require-origin", "--origin-keyring", distribution.keyring, path, code=4)
    uvmirror("import", path)


def test_over_http(add, web, mirror, debian, distribution, folder):
    """What anybody on the way can change is not taken at its word."""
    sums = publish_ubuntu(debian, distribution)
    shutil.copytree(debian.parent, mirror.root, dirs_exist_ok=True)
    image = web.url + NAME
    digest = hashlib.sha256(debian.read_bytes()).hexdigest()
    assert b"--sha256" in add(image, *USUAL, code=2).err
    assert b"--keyring" in add("--checksums", web.url + sums.name, image, *USUAL, code=2).err
    assert web.requests() == []
    add("--sha256", "0" * 64, image, *USUAL, code=5)
    add(web.url + "none", "--sha256", digest, *USUAL, code=3)
    assert files_of(folder / "mirror") == []
    add("--sha256", digest.upper(), image, *USUAL)
    add("--checksums", sums, image, *USUAL)


# ---- refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [
    [], ["golden"], ["golden", "release=web"], ["release=web", "arch=amd64", "version=1"],
    ["golden", *USUAL, "x"], ["golden", *USUAL, "=x"], ["golden", *USUAL, "path=/etc/passwd"],
    ["golden", *USUAL, "release=twice"], ["golden", "release=../..", "arch=amd64", "version=1"],
    ["golden", *USUAL, os.fsdecode(b"os=\xff")], ["golden", *USUAL, "os=\x1b[31m"],
    ["-n", "golden", *USUAL], ["--keyring", "x", "golden", *USUAL], ["--remove"],
    ["--remove", "--sha256", "0" * 64, "release=web"], ["--sha256", "abc", "golden", *USUAL],
    ["ftp://example.org/golden", *USUAL], ["https://example.org/golden?x=y", *USUAL],
], ids=lambda arguments: ascii(" ".join(arguments)) or "nothing")
def test_usage(add, make_image, folder, arguments):
    shutil.copyfile(make_image("a"), folder / "golden")
    result = add(*arguments, code=2, cwd=folder)
    assert result.out == b"" and b"\x1b" not in result.err
    assert not (folder / "mirror").exists() or files_of(folder / "mirror") == []


@pytest.mark.parametrize("kind", ["raw", "vmdk", "vdi", "overlay", "snapshot", "data file",
                                  "text"])
def test_not_a_plain_qcow2(add, make_image, folder, kind):
    path, plain = folder / "image", make_image("a")
    if kind in ("raw", "vmdk", "vdi"):
        hypervisor.qemu_img("convert", "-O", kind, plain, path)
    elif kind == "overlay":
        hypervisor.qemu_img("create", "-f", "qcow2", "-F", "qcow2", "-b", plain, path)
    elif kind == "snapshot":
        shutil.copyfile(plain, path)
        hypervisor.qemu_img("snapshot", "-c", "one", path)
    elif kind == "data file":
        hypervisor.qemu_img("create", "-f", "qcow2", "-o", f"data_file={folder}/data", path, "1M")
    else:
        path.write_text("<html>404</html>")
    result = add(path, *USUAL, code=5)
    assert b"qemu-img convert -O qcow2" in result.err
    assert files_of(folder / "mirror") == [] and partial(folder / "mirror") == []


def test_max_virtual_size(add, make_image):
    result = add("--max-virtual-size", "1M", make_image("a"), *USUAL, code=5)
    assert b"--max-virtual-size" in result.err
    add("--max-virtual-size", "2M", make_image("a"), *USUAL)


def test_the_same_version_with_other_bytes(add, make_image, folder):
    add(make_image("a"), *USUAL)
    result = add(make_image("b"), *USUAL, code=5)
    assert b"--remove" in result.err
    add(make_image("a"), *USUAL, "os=debian")
    assert files_of(folder / "mirror") == [f"local/bookworm/amd64/{OLD}/a.qcow2"]


def test_no_room(add, make_image, folder):
    with hypervisor.tmpfs(folder / "mirror", "256k"):
        result = add(make_image("a"), *USUAL, code=6)
        assert b"has room for" in result.err
        assert files_of(folder / "mirror") == [] and partial(folder / "mirror") == []


# ---- out again ----------------------------------------------------------------------------------


def test_remove(add, make_image, folder):
    add(make_image("a"), *USUAL)
    add(make_image("b"), "release=trixie", "arch=arm64", "version=1")
    before = files_of(folder / "mirror")
    assert add("--remove", "-n", "release~.").out.count(b"would remove") == 2
    assert files_of(folder / "mirror") == before
    lines = add("--remove", "--json", "release=bookworm").lines
    assert [(line["event"], line["path"]) for line in lines] == [("removed", before[0])]
    assert files_of(folder / "mirror") == before[1:]
    add("--remove", "release=bookworm", code=1)


def test_remove_from_nothing(uvmirror, folder):
    uvmirror("add", "--remove", "--mirror", folder / "nothing", "release=web", code=1)
    assert not (folder / "nothing").exists()


# ---- killed -------------------------------------------------------------------------------------


CALLS = ("renameat", "rename", "unlinkat", "fsync",
         *(pytest.param(call, marks=pytest.mark.long) for call in ("mkdirat", "write")))


def held_images(mirror):
    """What the record says is held."""
    path = mirror / "uvmirror" / "streams" / "uvmirror:local.json"
    if not path.exists():
        return []
    record = json.loads(path.read_text())
    return sorted(image["path"] for image in record["images"].values())


@pytest.mark.parametrize("call", CALLS)
def test_killed(add, debian, make_image, distribution, folder, call):
    """At each call of a kind in turn, until a run comes through: what is held is whole, and the next
    run leaves nothing else behind."""
    sums = publish_debian(debian, distribution)
    mirror = folder / "mirror"
    arguments = ("--checksums", sums, debian, *USUAL)
    for when in range(1, 40):
        shutil.rmtree(mirror, ignore_errors=True)
        add(make_image("a"), "release=web", "arch=amd64", "version=1")
        result = add(*arguments, code=None,
                     **strace(os.devnull, "-e", f"trace={call}", "-e",
                              f"inject={call}:signal=KILL:when={when}"))
        assert result.code in (0, -signal.SIGKILL), str(result)
        assert set(held_images(mirror)) <= set(files_of(mirror)), f"{call} number {when}"
        add(*arguments)
        both = [f"local/bookworm/amd64/{OLD}/{NAME}", "local/web/amd64/1/a.qcow2"]
        assert held_images(mirror) == files_of(mirror) == both, f"{call} number {when}"
        assert partial(mirror) == []
        assert len(list((mirror / "uvmirror" / "origins").iterdir())) == 2
        if result.code == 0:
            break
    assert when > 1, f"there is no {call}"
