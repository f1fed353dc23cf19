"""A bundle as the world sees it, and what is refused."""

import gzip
import hashlib
import io
import os
import random
import shutil
import tarfile

import pytest

import bundles
import hypervisor
from bundles import Bundle, Member
from sample_mirror import PRODUCT

OLD = "20241004"


@pytest.fixture
def bundle(make_bundle, make_image):
    return make_bundle("good", {OLD: make_image("a")})


@pytest.fixture
def refused(uvmirror, host, folder):
    """refused(path, code): verify and import both refuse it with this exit code, say why in a line
    or two, and change nothing."""
    def check(path, *codes, options=()):
        before = host.view()
        for command in ("verify", "import"):
            result = uvmirror(command, *options, path, code=None)
            assert result.code in codes, f"expected {codes}\n{result}"
            message = result.err.decode().strip().splitlines()
            assert message[-1].startswith("uvmirror: ") or message[-2].startswith("uvmirror: ")
            assert host.view() == before, f"{command} changed the host\n{result}"
        return result

    return check


# ---- what it is ---------------------------------------------------------------------------------


def test_plain_tar_unpacks_a_signed_mirror(bundle, unpack, mirror, site, uvmirror, folder):
    tree = unpack(bundle)
    item = mirror.products["com.ubuntu.cloud:server:24.04:amd64"]["versions"][OLD]["items"]
    image = tree / item["disk1.img"]["path"]
    assert hashlib.sha256(image.read_bytes()).hexdigest() == item["disk1.img"]["sha256"]
    # What only other filters would have chosen is not there, and not in the stream.
    assert not (tree / item["root.tar.xz"]["path"]).exists()
    # It is a source that fetch takes, with the site's key.
    uvmirror("fetch", "--source", tree, "--keyring", site.keyring, "--mirror", folder / "second",
             "--state-dir", site.state, "-o", folder / "again.tar.zst", "release=noble")
    assert (folder / "again.tar.zst").exists()
    uvmirror("fetch", "--source", f"file://{tree}", "--keyring", site.keyring, "--mirror",
             folder / "third", "--state-dir", site.state, "--no-bundle", "release=noble")


def test_members_stand_in_their_order(bundle):
    content = Bundle.read(bundle)
    assert content.names()[:2] == [bundles.MANIFEST, bundles.SIGNATURE]
    kinds = [name.split("/")[1] if name.startswith("uvmirror/") else name.split("/")[0]
             for name in content.names()[2:]]
    assert kinds == sorted(kinds, key=["origin", "streams", "server"].index)
    listed = [member["path"] for member in content.manifest["members"]]
    assert content.names()[2:2 + len(listed)] == listed


def test_origin_is_the_vendors_file_byte_for_byte(bundle, mirror):
    content = Bundle.read(bundle)
    (stream,) = content.manifest["streams"]
    with open(mirror.path(stream["path"]), "rb") as file:
        assert content[stream["origin"]] == file.read()


def test_the_first_frame_is_small_and_holds_two_members(bundle, folder):
    first = folder / "first.zst"
    data = bundle.read_bytes()
    first.write_bytes(data[:bundles.second_frame(data)])
    unpacked = io.BytesIO(bundles.decompress(first) + bundles.END)
    with tarfile.open(fileobj=unpacked) as tar:
        assert tar.getnames() == [bundles.MANIFEST, bundles.SIGNATURE]


def test_name_in_a_folder_suits_fat(make_bundle, make_image, fetch, folder):
    make_bundle("any", {OLD: make_image("a")})
    stick = folder / "stick"
    stick.mkdir()
    fetch("-o", stick, "release=noble")
    (path,) = stick.iterdir()
    assert path.name.startswith("uvmirror-20") and path.name.endswith("Z.tar.zst")
    assert ":" not in path.name


# ---- what is taken ------------------------------------------------------------------------------


def test_rebuilt_by_hand_is_accepted(bundle, uvmirror, host, folder):
    """The counterpart of all refusals below: the tools of this file do write a good bundle."""
    uvmirror("import", Bundle.read(bundle).save(folder / "rebuilt.tar.zst"))
    assert len(host.volumes()) == 1


def test_from_standard_input_and_from_a_folder(bundle, uvmirror, host, folder):
    uvmirror("verify", "-", stdin=bundle.read_bytes())
    stick = folder / "stick"
    stick.mkdir()
    shutil.copy(bundle, stick / "x.tar.zst")
    result = uvmirror("verify", stick)
    assert b"x.tar.zst" in result.out + result.err
    uvmirror("import", "-", stdin=bundle.read_bytes())
    assert len(host.volumes()) == 1


def test_an_unknown_field_that_is_not_critical_is_ignored(bundle, uvmirror, host, site, folder):
    content = Bundle.read(bundle)
    content.sign(site.key, dict(content.manifest, moon_phase="waxing"))
    uvmirror("verify", content.save(folder / "more.tar.zst"))


# ---- what is refused: trust ---------------------------------------------------------------------


def test_signed_by_a_stranger(bundle, refused, stranger, folder):
    content = Bundle.read(bundle)
    content.sign(stranger, content[bundles.MANIFEST])
    result = refused(content.save(folder / "bad.tar.zst"), 4)
    assert b"uvmirror key trust" in result.err


def test_no_key_is_trusted(bundle, refused):
    for name in os.listdir("/etc/uvmirror/trusted.d"):
        os.unlink(f"/etc/uvmirror/trusted.d/{name}")
    refused(bundle, 4)


def test_another_keyring_on_the_command_line(bundle, refused, stranger):
    refused(bundle, 4, options=("--keyring", stranger.keyring))


@pytest.mark.parametrize("signature", [b"", b"not a signature\n"], ids=["empty", "rubbish"])
def test_without_a_signature(bundle, refused, folder, signature):
    content = Bundle.read(bundle)
    content[bundles.SIGNATURE] = signature
    refused(content.save(folder / "bad.tar.zst"), 4)


def test_signature_of_another_manifest(bundle, refused, folder):
    content = Bundle.read(bundle)
    content[bundles.MANIFEST] = content[bundles.MANIFEST].replace(b'"tool"', b'"Tool"', 1)
    refused(content.save(folder / "bad.tar.zst"), 4)


def test_a_bad_signature_beside_the_good_one(bundle, refused, stranger, site, folder):
    content = Bundle.read(bundle)
    other = site.key.gpg("--local-user", site.key.fingerprint, "--detach-sign", data=b"something")
    good = site.key.gpg("--local-user", site.key.fingerprint, "--detach-sign",
                        data=content[bundles.MANIFEST])
    content[bundles.SIGNATURE] = good + other
    refused(content.save(folder / "bad.tar.zst"), 4)
    content[bundles.SIGNATURE] = good + stranger.gpg(
        "--local-user", stranger.fingerprint, "--detach-sign", data=content[bundles.MANIFEST])
    refused(content.save(folder / "bad2.tar.zst"), 4)


def test_origin_keyring(bundle, refused, uvmirror, host, vendor, site, stranger, folder):
    """The second layer: the vendor's own signature, which the site cannot make."""
    uvmirror("verify", "--origin-keyring", vendor.keyring, "--require-origin", bundle)
    refused(bundle, 4, options=("--origin-keyring", stranger.keyring))
    content = Bundle.read(bundle)
    (stream,) = content.manifest["streams"]
    content.change(site.key, stream["origin"], site.key.clearsign(b"{}"))
    refused(content.save(folder / "bad.tar.zst"), 4, options=("--origin-keyring", vendor.keyring))


def test_an_image_that_the_vendor_never_listed(bundle, refused, site, vendor, make_image, folder):
    """A compromised fetch host: everything is signed by the site, nothing by the vendor."""
    content = Bundle.read(bundle)
    manifest = content.manifest
    evil = make_image("evil").read_bytes()
    digest = hashlib.sha256(evil).hexdigest()
    for image in manifest["images"]:
        image["size"] = image["payload"]["size"] = len(evil)
        image["sha256"] = image["payload"]["sha256"] = digest
        image["metadata"].update(sha256=digest, size=str(len(evil)))
        image["metadata"].pop("md5", None)
        content[image["payload"]["member"]] = evil
    content.sign(site.key, manifest)
    refused(content.save(folder / "evil.tar.zst"), 4, options=("--origin-keyring", vendor.keyring))


def test_only_sha512_is_signed(mirror, make_bundle, make_image, refused, uvmirror, host, site, vendor,
                               folder):
    """Then a SHA-256 is the site's word alone: the bytes must have the SHA-512, too."""
    good = make_image("a").read_bytes()
    mirror.add_image(OLD, make_image("a"))
    item = mirror.products[PRODUCT]["versions"][OLD]["items"]["disk1.img"]
    item.pop("sha256")
    item["sha512"] = hashlib.sha512(good).hexdigest()
    path = make_bundle("sha512", {})
    uvmirror("verify", "--origin-keyring", vendor.keyring, path)
    content = Bundle.read(path)
    manifest = content.manifest
    evil = good[:-1] + bytes([good[-1] ^ 1])
    for image in manifest["images"]:
        image["payload"]["sha256"] = hashlib.sha256(evil).hexdigest()
        content[image["payload"]["member"]] = evil
    content.sign(site.key, manifest)
    refused(content.save(folder / "evil.tar.zst"), 5, options=("--origin-keyring", vendor.keyring))


# ---- images that the site added -----------------------------------------------------------------


def sums_of(data, name="debian.qcow2"):
    return f"{hashlib.sha512(b'other').hexdigest()}  other.qcow2\n" \
           f"{hashlib.sha256(data).hexdigest()}  {name}\n".encode()


@pytest.fixture
def distribution(stranger):
    """A key that signs checksum files. Only --origin-keyring makes anybody trust it."""
    return stranger


@pytest.fixture
def both_keyrings(vendor, distribution):
    return ("--require-origin", "--origin-keyring", vendor.keyring, "--origin-keyring",
            distribution.keyring)


def test_an_added_image_is_the_sites_word(bundle, uvmirror, refused, host, site, both_keyrings,
                                          make_image, folder):
    content = Bundle.read(bundle)
    content.add_image(site.key, make_image("golden").read_bytes())
    path = content.save(folder / "golden.tar.zst")
    result = refused(path, 4, options=both_keyrings)
    assert b"bookworm amd64 1: added by the site; no distribution vouches for it" in result.err
    assert b"nobody but the site" in uvmirror("verify", path).out
    uvmirror("import", path)
    assert len(host.volumes()) == 2


@pytest.mark.parametrize("form", ["detached", "clear-signed"])
def test_an_added_image_with_its_checksum_file(bundle, uvmirror, refused, host, site, vendor,
                                               distribution, both_keyrings, make_image, folder, form):
    content = Bundle.read(bundle)
    data = make_image("golden").read_bytes()
    sums = sums_of(data)
    word = (sums, distribution.detach_sign(sums)) if form == "detached" else \
        (distribution.clearsign(sums), None)
    content.add_image(site.key, data, *word)
    path = content.save(folder / "debian.tar.zst")
    refused(path, 4, options=("--require-origin", "--origin-keyring", vendor.keyring))
    refused(path, 4, options=("--require-origin", "--origin-keyring", distribution.keyring))
    result = uvmirror("show", "--json", *both_keyrings, path).lines[-1]
    assert [image["origin_verified"] for image in result["images"]] == [
        vendor.fingerprint, distribution.fingerprint]
    uvmirror("verify", path)
    uvmirror("import", *both_keyrings, path)
    assert len(host.volumes()) == 2


@pytest.mark.parametrize("lie", ["other bytes", "other name", "unsigned", "signed by the site",
                                 "a vendor's product"])
def test_an_added_image_that_its_distribution_does_not_bear_out(
        bundle, refused, site, distribution, both_keyrings, make_image, folder, lie):
    content = Bundle.read(bundle)
    data = make_image("golden").read_bytes()
    sums = sums_of(data + b"x" if lie == "other bytes" else data,
                   "x.qcow2" if lie == "other name" else "debian.qcow2")
    signer = site.key if lie == "signed by the site" else distribution
    signature = None if lie == "unsigned" else signer.detach_sign(sums)
    more = {"product": PRODUCT} if lie == "a vendor's product" else {}
    content.add_image(site.key, data, sums, signature, **more)
    result = refused(content.save(folder / "bad.tar.zst"), 4, options=both_keyrings)
    assert b"bookworm amd64 1" in result.err


def test_a_vendors_stream_does_not_pass_for_the_sites_own(bundle, refused, site, vendor, folder):
    """Else all of its images would get away without the vendor's word."""
    content = Bundle.read(bundle)
    manifest = content.manifest
    for entry in manifest["streams"] + manifest["images"]:
        entry["content_id" if "content_id" in entry else "stream"] = bundles.LOCAL
    content.sign(site.key, manifest)
    refused(content.save(folder / "bad.tar.zst"), 4, options=("--origin-keyring", vendor.keyring))


# ---- what is refused: content -------------------------------------------------------------------


def accepted_flips(uvmirror, data, places, path):
    """Of the given (byte, bit) places those where a flipped bit is not refused."""
    accepted = []
    for place, bit in places:
        flipped = bytearray(data)
        flipped[place] ^= 1 << bit
        path.write_bytes(flipped)
        result = uvmirror("verify", path, code=None)
        if result.code not in (4, 5):
            accepted.append((place, bit, result.code))
    return accepted


def test_flipped_bits(bundle, uvmirror, host, folder):
    """One bit anywhere: in the first bytes, the last ones, where the second frame begins, and at random."""
    data = bundle.read_bytes()
    before = host.view()
    chance = random.Random(4)
    second = bundles.second_frame(data)
    places = [(place, bit) for place in (4, 5, second + 4, second + 5) for bit in range(8)]
    places += [(place, chance.randrange(8)) for start in (0, second, len(data) - 20)
               for place in range(start, start + 20)]
    places += [(chance.randrange(len(data)), chance.randrange(8)) for _ in range(40)]
    assert accepted_flips(uvmirror, data, places, folder / "flipped.tar.zst") == []
    assert host.view() == before


@pytest.mark.long
def test_many_flipped_bits(bundle, uvmirror, host, folder):
    data = bundle.read_bytes()
    chance = random.Random()
    head = bundles.second_frame(data) + 4096
    places = [(chance.randrange(head), chance.randrange(8)) for _ in range(700)]
    places += [(chance.randrange(len(data)), chance.randrange(8)) for _ in range(300)]
    assert accepted_flips(uvmirror, data, places, folder / "flipped.tar.zst") == []


def test_flipped_bits_at_import(bundle, refused, folder):
    data = bundle.read_bytes()
    for part in (0.1, 0.5, 0.9, 0.999):
        flipped = bytearray(data)
        flipped[int(len(data) * part)] ^= 0x10
        path = folder / "flipped.tar.zst"
        path.write_bytes(flipped)
        refused(path, 4, 5)


def test_truncated(bundle, refused, folder):
    data = bundle.read_bytes()
    path = folder / "short.tar.zst"
    for length in (0, 3, 100, 2000, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        refused(path, 4, 5)


# How many of all: tests/unit/test_bundle_damage.c has them all, in process.
@pytest.mark.parametrize("count", [10, pytest.param(100, marks=pytest.mark.long)])
def test_samples_of_damage(bundle, refused, folder, count):
    """Cut off at 4 KiB, and a bit flipped in the first 64 KiB: verify and import refuse it, and neither
    pool nor metadata nor any file of theirs changes."""
    data = bundle.read_bytes()
    assert len(data) > 64 << 10
    chance = random.Random(count)
    path = folder / "damaged.tar.zst"
    for _ in range(count):
        path.write_bytes(data[:chance.randrange(len(data) // 4096 + 1) * 4096])
        refused(path, 4, 5)
        flipped = bytearray(data)
        flipped[chance.randrange(64 << 10)] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        refused(path, 4, 5)


def behind_the_end(content):
    return {"behind": bundles.compress(b"x" * 512)}


def garbage_behind_the_end(content):
    return {"behind": b"garbage"}


def no_end(content):
    return {"end": b""}


def member_too_many(content):
    content.members.append(Member("streams/v1/more.json", b"{}"))


def image_too_many(content):
    content.members.append(Member("server/more.img", b"x"))


def member_twice(content):
    content.members.append(content.members[-1])


def member_missing(content):
    del content.members[2]


def members_swapped(content):
    content.members[2], content.members[3] = content.members[3], content.members[2]


def member_outside(content):
    content.members.append(Member("../../etc/passwd", b"root"))


def absolute_member(content):
    content.members.append(Member("/etc/passwd", b"root"))


def member_is_a_link(content):
    name = content.members[-1].name
    content.members[-1] = Member(name, type=tarfile.SYMTYPE, linkname="/etc/passwd")


def member_is_a_hard_link(content):
    name = content.members[-1].name
    content.members[-1] = Member(name, type=tarfile.LNKTYPE, linkname=content.members[2].name)


def member_is_a_fifo(content):
    content.members[-1] = Member(content.members[-1].name, type=tarfile.FIFOTYPE)


def member_is_a_device(content):
    content.members[-1] = Member(content.members[-1].name, type=tarfile.CHRTYPE, devmajor=1)


def member_is_a_folder(content):
    content.members.append(Member("server/empty", type=tarfile.DIRTYPE))


def other_bytes_of_the_same_length(content):
    last = content.members[-1]
    last.data = last.data[:-1] + bytes([last.data[-1] ^ 1])


def manifest_comes_second(content):
    content.members[0], content.members[1] = content.members[1], content.members[0]


def three_members_in_the_first_frame(content):
    return {"head": 3}


@pytest.mark.parametrize("damage", [
    behind_the_end, garbage_behind_the_end, no_end, member_too_many, image_too_many, member_twice,
    member_missing, members_swapped, member_outside, absolute_member, member_is_a_link,
    member_is_a_hard_link, member_is_a_fifo, member_is_a_device, member_is_a_folder,
    other_bytes_of_the_same_length, manifest_comes_second, three_members_in_the_first_frame,
], ids=lambda damage: damage.__name__)
def test_not_what_was_signed(bundle, refused, folder, damage):
    content = Bundle.read(bundle)
    options = damage(content) or {}
    refused(content.save(folder / "bad.tar.zst", **options), 4, 5)


def test_a_window_of_two_gigabytes(bundle, refused, folder):
    """The second frame asks its reader for that much memory (RFC 8878, 3.1.1.1.2)."""
    data = bytearray(bundle.read_bytes()[:-bundles.TRAILER_SIZE])
    data[bundles.second_frame(data) + 5] = (31 - 10) << 3
    (folder / "wide.tar.zst").write_bytes(bundles.with_trailer(bytes(data)))
    refused(folder / "wide.tar.zst", 5)


@pytest.mark.parametrize("more", [b"\0", b"garbage", bundles.with_trailer(b"")],
                         ids=["zero", "text", "trailer"])
def test_data_behind_the_trailer(bundle, refused, folder, more):
    (folder / "more.tar.zst").write_bytes(bundle.read_bytes() + more)
    refused(folder / "more.tar.zst", 5)


def unknown_format(manifest):
    manifest["format"] = 999


def unknown_critical_field(manifest):
    manifest["critical"] = ["moon_phase"]
    manifest["moon_phase"] = "waxing"


def negative_size(manifest):
    manifest["images"][0]["payload"]["size"] = -1


def path_outside(manifest):
    manifest["images"][0]["payload"]["member"] = "../x"
    manifest["images"][0]["path"] = "../x"


def unknown_encoding(manifest):
    manifest["images"][0]["payload"]["encoding"] = "rot13"


def image_twice(manifest):
    manifest["images"].append(manifest["images"][0])


def no_images(manifest):
    del manifest["images"]


def name_with_a_blank(manifest):
    manifest["images"][0]["product"] = "a b"
    manifest["images"][0]["metadata"]["product_name"] = "a b"


def only_md5(manifest):
    for image in manifest["images"]:
        image["sha256"] = image["sha512"] = None
        image["metadata"].pop("sha256")


def metadata_of_another_version(manifest):
    manifest["images"][0]["metadata"]["version_name"] = "20991231"


@pytest.mark.parametrize("change", [
    unknown_format, unknown_critical_field, negative_size, path_outside, unknown_encoding, image_twice,
    no_images, name_with_a_blank, only_md5, metadata_of_another_version,
], ids=lambda change: change.__name__)
def test_manifest_that_is_signed_and_wrong(bundle, refused, site, folder, change):
    content = Bundle.read(bundle)
    manifest = content.manifest
    change(manifest)
    content.sign(site.key, manifest)
    refused(content.save(folder / "bad.tar.zst"), 5)


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"{" * 3000, b'{"format": 1, "format": 1}',
                                  b"\xff\xfe"], ids=["empty", "object", "list", "deep", "twice",
                                                     "binary"])
def test_manifest_that_is_signed_and_no_manifest(bundle, refused, site, folder, text):
    content = Bundle.read(bundle)
    content.sign(site.key, text)
    refused(content.save(folder / "bad.tar.zst"), 5)


@pytest.mark.parametrize("name", ["empty", "text", "gzip", "tar", "folder", "fifo", "missing"])
def test_no_bundle_at_all(uvmirror, host, folder, name):
    path = folder / name
    if name == "empty":
        path.write_bytes(b"")
    elif name == "text":
        path.write_text("This is not the bundle you are looking for.\n")
    elif name == "gzip":
        path.write_bytes(gzip.compress(b"x" * 1000))
    elif name == "tar":
        with tarfile.open(path, "w") as tar:
            tar.addfile(tarfile.TarInfo("x"))
    elif name == "folder":
        path.mkdir()
    elif name == "fifo":
        os.mkfifo(path)
    result = uvmirror("verify", path, code=None, timeout=20)
    assert result.code in (1, 4, 5), str(result)
    assert host.view()[0] == {}


def test_a_signed_image_that_is_not_safe(mirror, fetch, uvmirror, host, make_image, folder):
    """A vendor's mistake or worse: the stream signs it, and it wants a file of the host."""
    image = folder / "backed.qcow2"
    hypervisor.qemu_img("create", "-q", "-f", "qcow2", "-b", make_image("a"), "-F", "qcow2", image)
    mirror.add_image(OLD, image)
    mirror.write()
    before = host.view()
    if fetch("-o", folder / "b.tar.zst", "release=noble", code=None).code != 5:
        uvmirror("import", folder / "b.tar.zst", code=5)
    assert host.view() == before
