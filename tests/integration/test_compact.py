"""Compact bundles against the real parts: what goes in comes out, and what cannot is said before anything
is touched."""

import hashlib
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import time

import pytest

import hypervisor
import uvtool_view
from bundles import Bundle
from sample_mirror import PRODUCT

OLDEST, OLD, NEW = "20240911", "20241004", "20241018"
NAMES = {version: uvtool_view.encode(PRODUCT, version) for version in (OLDEST, OLD, NEW)}
COMPACT = "uvmirror/compact"


def text_of(seed, size):
    """Text that compresses by half, and has no block twice."""
    return random.Random(seed).randbytes(size // 2).hex().encode()


@pytest.fixture(scope="session")
def builds(work):
    """{version: a compressed qcow2}: three builds that share most of their content, and the raw files."""
    folder = work / "builds"
    folder.mkdir()
    shared = [text_of(n, 512 << 10) for n in range(4)]
    found = {}
    for number, version in enumerate((OLDEST, OLD, NEW)):
        raw, path = folder / f"{version}.raw", folder / f"{version}.qcow2"
        parts = list(shared)
        parts[number] = text_of(f"own {version}", 512 << 10)
        with open(raw, "wb") as out:
            for n, part in enumerate(parts):
                out.seek(n << 20)
                out.write(part)
            out.truncate(6 << 20)
        hypervisor.qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", raw, path)
        found[version] = path
    return found


@pytest.fixture
def publish(mirror, builds):
    """publish(version, ...): the vendor lists these, and no others."""

    def run(*versions):
        mirror.products.clear()
        for version in versions:
            mirror.add_image(version, builds[version])
        mirror.write()

    return run


@pytest.fixture
def compact(publish, fetch, folder):
    """compact("name", version, ..., options=(...)): a bundle of all these versions."""

    def make(name, *versions, options=()):
        publish(*versions)
        path = folder / f"{name}.tar.zst"
        fetch("--compact", "--max", len(versions), "-o", path, *options, "release=noble")
        return path

    return make


def image_sum(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def inventory(folder, builds):
    """inventory(version, ...): a file that says that a host has these."""

    def make(*versions, host="hv1", architecture="amd64", bundle_format=2):
        path = folder / f"{host}.json"
        path.write_text(json.dumps({
            "type": "uvmirror-inventory", "version": 1, "host": host,
            "created": "2024-10-20T09:30:00Z", "architecture": architecture,
            "bundle_format": bundle_format, "free_bytes": 1 << 40, "serial": 0, "trusted": [],
            "images": [{"product": PRODUCT, "version": version, "sha256": image_sum(builds[version]),
                        "sha512": None} for version in versions]}))
        return path

    return make


def payloads(bundle):
    return {image["version"]: image["payload"] for image in Bundle.read(bundle).manifest["images"]}


def same_for_guests(host, builds, version):
    volume = host.volume_path(NAMES[version])
    hypervisor.qemu_img("compare", "-f", "qcow2", "-F", "qcow2", builds[version], volume)
    check = json.loads(hypervisor.qemu_img("check", "--output=json", volume))
    assert check["check-errors"] == 0 and not check.get("corruptions") and not check.get("leaks")
    return check


def steps(result, name):
    return [line for line in result.lines if line.get("step") == name]


# ---- what is written -----------------------------------------------------------------------------


def test_the_manifest(compact, builds):
    bundle = compact("two", OLD, NEW)
    content = Bundle.read(bundle)
    assert content.manifest["format"] == 2
    new, old = payloads(bundle)[NEW], payloads(bundle)[OLD]
    assert new["encoding"] == old["encoding"] == "compact"
    assert new["member"] == f"{COMPACT}/{image_sum(builds[NEW])}"
    assert new["base"] is None and new["content"] == 4 * (512 << 10)
    assert old["base"] == {"product": PRODUCT, "version": NEW, "sha256": image_sum(builds[NEW]),
                           "sha512": None, "bytes": 2 * (512 << 10)}
    assert new["size"] < builds[NEW].stat().st_size and old["size"] < 0.7 * new["size"]
    assert content.names()[-2:] == [new["member"], old["member"]]


def test_without_it_nothing_changes(publish, fetch, folder):
    publish(OLD, NEW)
    fetch("--max", "2", "-o", folder / "plain.tar.zst", "release=noble")
    assert Bundle.read(folder / "plain.tar.zst").manifest["format"] == 1


@pytest.mark.parametrize("options, words", [
    (("--compact", "--format", "1"), b"compact images are of format 2"),
    (("--compress-level", "9"), b"is for --compact"),
    (("--compact", "--compress-level", "20"), b"at most 19"),
    (("--format", "3"), b"writes formats 1 to 2"),
    (("--compact", "--no-bundle"), b"--no-bundle and --compact"),
])
def test_options_that_do_not_fit(publish, fetch, options, words):
    publish(NEW)
    assert words in fetch(*options, "release=noble", code=2).err


def test_a_receiver_that_reads_no_compact_images(publish, fetch, inventory):
    publish(NEW)
    have = inventory(OLD, bundle_format=1)
    result = fetch("--compact", "--have", have, "release=noble", code=2)
    assert b"hv1 reads bundles of format 1 at most" in result.err


def test_what_is_no_image_goes_as_it_is(mirror, fetch, builds, folder):
    odd = folder / "odd.img"
    odd.write_bytes(b"QFI\xfb" + bytes(70000))
    mirror.add_image(OLD, odd)
    mirror.add_image(NEW, builds[NEW])
    mirror.write()
    fetch("--compact", "--max", "2", "-o", folder / "both.tar.zst", "release=noble")
    found = payloads(folder / "both.tar.zst")
    assert found[OLD]["encoding"] == "plain" and found[NEW]["encoding"] == "compact"


def test_a_second_bundle_takes_nothing_to_encode(compact, fetch, uvmirror, site, folder):
    first = compact("first", OLD, NEW)
    mirror = ("--mirror", folder / "mirror", "--state-dir", site.state)
    again = uvmirror("bundle", "--json", "--compact", *mirror, "-o", folder / "again.tar.zst")
    assert not steps(again, "compact")
    assert payloads(folder / "again.tar.zst") == payloads(first)
    other = uvmirror("bundle", "--json", "--compact", "--compress-level", "19", *mirror, "-o",
                     folder / "other.tar.zst")
    assert len({line["subject"] for line in steps(other, "compact")}) == 2


def test_a_damaged_cache_is_made_anew(compact, uvmirror, site, folder):
    compact("first", NEW)
    (member,) = (folder / "mirror" / COMPACT).glob("*.l8")
    data = bytearray(member.read_bytes())
    data[len(data) // 2] ^= 1
    member.write_bytes(data)
    command = ("bundle", "--compact", "--mirror", folder / "mirror", "--state-dir", site.state, "-o",
               folder / "again.tar.zst")
    assert b"has changed since it was encoded" in uvmirror(*command, code=5).err
    assert not (folder / "again.tar.zst").exists()
    uvmirror(*command)
    uvmirror("verify", "--deep", "--keyring", site.keyring, folder / "again.tar.zst")


def test_a_kill_leaves_nothing_that_stays(publish, fetch, uvmirror, site, folder):
    publish(NEW)
    fetch("--no-bundle", "release=noble")
    cache = folder / "mirror" / COMPACT
    cache.mkdir()
    command = ("bundle", "--compact", "--compress-level", "19", "--mirror", folder / "mirror",
               "--state-dir", site.state, "-o", folder)
    process = uvmirror.start(*command)
    for _ in range(3000):
        if list(cache.glob(".*")):
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (left,) = cache.glob(".*")
    left.write_bytes(b"half")  # what is empty may be somebody's who has not locked it yet
    assert not list(folder.glob("uvmirror-*"))
    uvmirror(*command)
    assert not list(cache.glob(".*")) and list(folder.glob("uvmirror-*.tar.zst"))


def test_parts_once_more(compact, uvmirror, site, folder):
    path = compact("split", OLD, NEW, options=("--split", "400k"))
    parts = sorted(folder.glob("split.tar.zst.0*"))
    assert len(parts) > 2 and not path.exists()
    before = parts[1].read_bytes()
    bundle_id = uvmirror("show", "--json", "--keyring", site.keyring, folder / "split.tar.zst.sums"
                         ).lines[-1]["id"]
    out = folder / "out"
    out.mkdir()
    uvmirror("bundle", "--again", bundle_id, "--parts", "2", "--mirror", folder / "mirror",
             "--state-dir", site.state, "-o", out)
    assert (out / parts[1].name).read_bytes() == before


# ---- looking -------------------------------------------------------------------------------------


def test_verify_deep(compact, uvmirror, site, inventory):
    trust = ("--keyring", site.keyring)
    bundle = compact("two", OLD, NEW)
    uvmirror("verify", *trust, bundle)
    (result,) = [line for line in uvmirror("verify", "--deep", "--json", *trust, bundle).lines
                 if "rebuilt" in line]
    assert result["rebuilt"] == [f"noble amd64 {NEW}", f"noble amd64 {OLD}"]
    assert result["not_rebuilt"] == []
    update = compact("update", OLD, NEW, options=("--have", inventory(OLD)))
    shown = uvmirror("verify", "--deep", *trust, update).out.decode()
    assert f"noble amd64 {NEW} needs {PRODUCT} {OLD}, not rebuilt here" in shown


def words_for(uvmirror, command, *options):
    """What a command prints, and per version who vouches."""
    text = uvmirror(command, *options).out.decode()
    (result,) = [line for line in uvmirror(command, "--json", *options).lines if "images" in line]
    return text, {image["version"]: image["origin_verified"] for image in result["images"]}


def test_whose_word_is_not_compared(compact, uvmirror, site, vendor, inventory):
    """The vendor's word is for a file: nobody vouches for content that no file was made of."""
    origin = ("--keyring", site.keyring, "--require-origin", "--origin-keyring", vendor.keyring)
    bundle = compact("two", OLD, NEW)
    text, who = words_for(uvmirror, "show", *origin, bundle)
    assert "for the files of 2 compact images" in text and "not compared here" in text
    assert who == {OLD: None, NEW: None}
    text, who = words_for(uvmirror, "verify", *origin, bundle)
    assert "2 compact images rebuilt" in text and "not compared" not in text
    assert None not in who.values()
    update = compact("update", OLD, NEW, options=("--have", inventory(OLD)))
    text, who = words_for(uvmirror, "verify", *origin, update)
    assert "not rebuilt here" in text and "for the files of 1 compact image:" in text
    assert who[NEW] is None and who[OLD] is not None
    text, _ = words_for(uvmirror, "verify", "--keyring", site.keyring, update)
    assert "compared" not in text


def test_show(compact, uvmirror, site, builds):
    bundle = compact("three", OLDEST, OLD, NEW)
    text = uvmirror("show", "--keyring", site.keyring, bundle).out.decode()
    assert all(len(line) <= 80 for line in text.splitlines()), text
    assert "compact" in text and f"to {NEW}" in text and f"to {OLD}" in text and "shared" in text
    shown = uvmirror("show", "--json", "--keyring", site.keyring, bundle).lines[-1]
    assert shown["format"] == 2
    sizes, found = shown["sizes"], payloads(bundle)
    assert sizes["images"] == sum(path.stat().st_size for path in builds.values())
    assert sizes["compact"] == found[NEW]["size"] and sizes["plain"] == 0
    assert sizes["differences"] == found[OLD]["size"] + found[OLDEST]["size"]
    assert sizes["shared"] == found[OLD]["base"]["bytes"] + found[OLDEST]["base"]["bytes"]


@pytest.mark.parametrize("where", ["member", "reference"])
def test_damaged(compact, uvmirror, site, host, folder, where):
    content = Bundle.read(compact("good", OLD, NEW))
    manifest = content.manifest
    payload = manifest["images"][0]["payload"]
    data = bytearray(content[payload["member"]])
    if where == "member":  # with a manifest that agrees: the decoder must find it
        data[len(data) // 2] ^= 0x10
        content[payload["member"]] = bytes(data)
        payload["sha256"] = hashlib.sha256(data).hexdigest()
    else:
        manifest["images"][1]["payload"]["base"]["version"] = OLD
    content.sign(site.key, manifest)
    bad = content.save(folder / "bad.tar.zst")
    for command in (("verify", "--deep"), ("import", "--max", "2")):
        uvmirror(*command, bad, code=5)
    assert not host.volumes() and not host.metadata()


# ---- importing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("most, there", [(1, [NEW]), (2, [OLD, NEW]), (3, [OLDEST, OLD, NEW])])
def test_import(compact, uvmirror, host, builds, most, there):
    uvmirror("import", "--max", most, compact("three", OLDEST, OLD, NEW))
    assert uvtool_view.versions(host) == there
    for version in there:
        assert not same_for_guests(host, builds, version).get("compressed-clusters")


def test_only_an_older_one(compact, uvmirror, host, builds):
    bundle = compact("three", OLDEST, OLD, NEW)
    uvmirror("import", bundle, f"version_name={OLDEST}")
    assert uvtool_view.versions(host) == [OLDEST]
    same_for_guests(host, builds, OLDEST)
    assert not [name for name in os.listdir(hypervisor.STATE) if "spool" in name]


def test_standard_input(compact, uvmirror, host, builds):
    bundle = compact("two", OLD, NEW)
    uvmirror("import", "--max", "2", "-", stdin=bundle.read_bytes())
    same_for_guests(host, builds, OLD)
    same_for_guests(host, builds, NEW)


def test_parts(compact, uvmirror, host, builds, folder):
    compact("split", OLD, NEW, options=("--split", "400k"))
    uvmirror("import", "--max", "2", *folder.glob("split.tar.zst.*"))
    same_for_guests(host, builds, OLD)


def test_keep_compressed(compact, uvmirror, host, builds):
    uvmirror("import", "--max", "2", "--keep-compressed", compact("two", OLD, NEW))
    for version in (OLD, NEW):  # the vendor's own bytes
        with open(host.volume_path(NAMES[version]), "rb") as volume:
            assert hashlib.sha256(volume.read()).hexdigest() == image_sum(builds[version])


def test_require_origin(compact, uvmirror, host, builds, vendor):
    bundle = compact("two", OLD, NEW)
    origin = ("--require-origin", "--origin-keyring", vendor.keyring)
    uvmirror("import", "--max", "2", *origin, bundle)
    same_for_guests(host, builds, OLD)


def test_a_site_that_signs_other_content(compact, uvmirror, host, vendor, folder, site):
    """The site's word is enough for content, but not where the vendor's is asked for."""
    new, old = (Bundle.read(compact(name, version)) for name, version in (("n", NEW), ("o", OLD)))
    manifest = new.manifest
    payload, other = (b.manifest["images"][0]["payload"] for b in (new, old))
    new[payload["member"]] = old[other["member"]]
    for key in ("size", "sha256", "content"):
        payload[key] = other[key]
    new.sign(site.key, manifest)
    bad = new.save(folder / "bad.tar.zst")
    result = uvmirror("import", "--require-origin", "--origin-keyring", vendor.keyring, bad, code=5)
    assert b"not the image whose checksum was signed" in result.err or b"file" in result.err
    assert not host.volumes() and not host.metadata()


BLOCK, CLUSTER_BLOCKS = 4096, 16
ZEROS, CARRIED = 0, 1


def decode(member):
    return subprocess.run(["zstd", "-q", "-d", "-c", "--long=27"], input=member, check=True,
                          stdout=subprocess.PIPE).stdout


def encode(text):
    return subprocess.run(["zstd", "-q", "-c", "--long=27"], input=text, check=True,
                          stdout=subprocess.PIPE).stdout


def lie(member):
    """The same image by what becomes of its file; but where its disk holds nothing, the map now names
    a cluster that the site brings."""
    text = decode(member)
    (count,) = struct.unpack_from(">I", text, 32)
    (carried,) = struct.unpack_from(">Q", text, 40)
    records = [struct.unpack_from(">QQ", text, 88 + 16 * n) for n in range(count)]
    lies, place, before = [], 0, 0
    for kind_and_length, first in records:
        kind, length = kind_and_length >> 56, kind_and_length & ((1 << 56) - 1)
        skipped = -place % CLUSTER_BLOCKS + CLUSTER_BLOCKS
        if kind == ZEROS and length > skipped + CLUSTER_BLOCKS and len(lies) == before:
            lies += [(ZEROS << 56 | skipped, 0), (CARRIED << 56 | CLUSTER_BLOCKS, 0),
                     (ZEROS << 56 | length - skipped - CLUSTER_BLOCKS, 0)]
            at = sum(value & ((1 << 56) - 1) for value, _ in records[:before] if value >> 56 == CARRIED)
        else:
            lies.append((kind_and_length, first))
        before, place = before + 1, place + length
    assert len(lies) == count + 2
    head = bytearray(text[:88])
    struct.pack_into(">I", head, 32, len(lies))
    struct.pack_into(">Q", head, 40, carried + CLUSTER_BLOCKS)
    blocks = 88 + 16 * count
    put = blocks + at * BLOCK
    return encode(bytes(head) + b"".join(struct.pack(">QQ", *record) for record in lies)
                  + text[blocks:put] + b"owned by the site " * 3640 + bytes(16) + text[put:])


def test_a_site_that_adds_to_the_content(compact, uvmirror, host, vendor, folder, site, builds):
    """The vendor's checksum is of the file, and that can still be made of it: whoever wants the vendor's
    word gets the file's own content."""
    bundle = Bundle.read(compact("n", NEW))
    manifest = bundle.manifest
    payload = manifest["images"][0]["payload"]
    member = lie(bundle[payload["member"]])
    bundle[payload["member"]] = member
    payload.update(size=len(member), sha256=hashlib.sha256(member).hexdigest(),
                   content=payload["content"] + CLUSTER_BLOCKS * BLOCK)
    bundle.sign(site.key, manifest)
    bad = bundle.save(folder / "bad.tar.zst")
    uvmirror("verify", "--deep", bad)
    result = uvmirror("verify", "--require-origin", "--origin-keyring", vendor.keyring, bad)
    assert b"the vendor's own bytes can be made of it" in result.out  # and that is all it says
    assert b"takes the content from these bytes" in result.out
    uvmirror("import", "--require-origin", "--origin-keyring", vendor.keyring, bad)
    same_for_guests(host, builds, NEW)
    shutil.rmtree(hypervisor.METADATA)
    os.mkdir(hypervisor.METADATA)
    uvmirror("clean")
    uvmirror("import", bad)
    with pytest.raises(subprocess.CalledProcessError):
        same_for_guests(host, builds, NEW)


# ---- differences to what is there ----------------------------------------------------------------


@pytest.fixture
def update(compact, inventory):
    """A bundle for a host that has the old version; the mirror has forgotten that one's file."""
    compact("seed", OLD)
    return compact("update", NEW, options=("--have", inventory(OLD)))


def test_a_difference(update, uvmirror, host, builds, folder):
    payload = payloads(update)[NEW]
    assert payload["base"]["version"] == OLD and payload["base"]["bytes"] > 0
    assert payload["size"] < 0.6 * builds[NEW].stat().st_size
    uvmirror("import", folder / "seed.tar.zst")
    uvmirror("import", update)
    assert uvtool_view.versions(host) == [NEW]
    same_for_guests(host, builds, NEW)


def test_the_same_content_for_two_products(compact, mirror, fetch, inventory, uvmirror, site, folder,
                                           builds):
    """What is for receivers of both is no difference, not even at second hand, to what one of them has."""
    compact("seed", OLDEST)
    other = PRODUCT.replace("24.04", "24.10")
    mirror.products.clear()
    for version in (OLD, NEW):
        mirror.add_image(version, builds[version])
    mirror.add_image(OLD, builds[OLD], other, release="oracular", number="24.10", title="24.10")
    mirror.write()
    fetch("--compact", "--max", "2", "--have", inventory(OLDEST), "-o", folder / "both.tar.zst", "arch=amd64")
    images = Bundle.read(folder / "both.tar.zst").manifest["images"]
    assert len(images) == 3
    bases = {image["payload"]["base"] and image["payload"]["base"]["version"] for image in images
             if image["payload"]["member"].endswith(image_sum(builds[OLD]))}
    assert bases == {None}
    assert payloads(folder / "both.tar.zst")[NEW]["base"]["version"] == OLDEST
    uvmirror("verify", "--keyring", site.keyring, folder / "both.tar.zst")


def test_a_damaged_stick_is_not_the_volumes_fault(update, uvmirror, host, folder):
    """Whatever a damaged member seems to say."""
    uvmirror("import", folder / "seed.tar.zst")
    for at in (0.1, 0.5, 0.9):
        content = Bundle.read(update)
        member = payloads(update)[NEW]["member"]
        data = bytearray(content[member])
        data[int(len(data) * at)] ^= 0x10
        content[member] = bytes(data)
        result = uvmirror("import", content.save(folder / "bad.tar.zst"), code=5)
        refusal = result.err.splitlines()[-1]
        assert b"its content is not what was signed" in refusal
        assert b"changed" not in refusal and OLD.encode() not in refusal
    assert uvtool_view.versions(host) == [OLD]


def test_what_all_have_is_not_carried(compact, uvmirror, host, inventory, builds, folder):
    compact("seed", OLD)
    bundle = compact("update", OLD, NEW, options=("--have", inventory(OLD)))
    assert payloads(bundle)[OLD] is None and payloads(bundle)[NEW]["base"]["version"] == OLD
    uvmirror("import", folder / "seed.tar.zst")
    uvmirror("import", "--max", "2", bundle)
    assert uvtool_view.versions(host) == [OLD, NEW]


def test_what_is_not_carried_is_missing(compact, uvmirror, host, inventory):
    compact("seed", OLD)
    bundle = compact("update", OLD, NEW, options=("--have", inventory(OLD)))
    result = uvmirror("import", "--max", "2", bundle, code=5)
    assert b"is not carried, and this host does not have it: a full bundle is needed" in result.err
    assert not host.volumes() and not host.metadata()


def put_volume(host, path, version, values):
    """As uvtool does."""
    name = NAMES[version]
    shutil.copyfile(path, os.path.join(hypervisor.IMAGES, name))
    host.pool().refresh()
    host.write_metadata(name, values)


def as_uvtool(builds, folder, version):
    path = folder / "as-uvtool.qcow2"
    hypervisor.qemu_img("convert", "-f", "qcow2", "-O", "qcow2", builds[version], path)
    return path


@pytest.fixture
def stated(mirror, publish):
    """stated(version): the metadata of an image of the vendor's."""

    def make(version):
        publish(version)
        item = mirror.products[PRODUCT]["versions"][version]["items"]["disk1.img"]
        return {"product_name": PRODUCT, "version_name": version, "release": "noble", "arch": "amd64",
                "label": "release", "sha256": item["sha256"]}

    return make


def test_a_volume_that_uvtool_made(update, uvmirror, host, builds, folder, stated):
    put_volume(host, as_uvtool(builds, folder, OLD), OLD, stated(OLD))
    uvmirror("import", update)
    assert uvtool_view.versions(host) == [NEW]
    same_for_guests(host, builds, NEW)


def test_a_volume_that_is_compressed(update, uvmirror, host, builds, folder):
    uvmirror("import", "--keep-compressed", folder / "seed.tar.zst")
    uvmirror("import", update)
    same_for_guests(host, builds, NEW)


def test_a_difference_with_require_origin(update, uvmirror, host, builds, folder, vendor):
    uvmirror("import", folder / "seed.tar.zst")
    uvmirror("import", "--require-origin", "--origin-keyring", vendor.keyring, update)
    same_for_guests(host, builds, NEW)


def test_the_base_is_gone(update, uvmirror, host):
    result = uvmirror("import", update, code=5)
    assert f"this host's noble amd64 {OLD}, which is gone: a full bundle is needed, or one made with " \
           "this host's inventory".encode() in result.err
    assert not host.volumes() and not host.metadata()
    assert b"which is gone" in uvmirror("import", "-n", update, code=5).err


def test_the_base_is_another_image(update, uvmirror, host, builds, stated):
    put_volume(host, builds[OLDEST], OLD, dict(stated(OLD), sha256="0" * 64))
    before = host.view()
    result = uvmirror("import", update, code=5)
    assert f"this host's noble amd64 {OLD}, which is another image".encode() in result.err
    assert host.view() == before


def test_the_base_was_changed(update, uvmirror, host, builds, folder, stated):
    path = as_uvtool(builds, folder, OLD)
    hypervisor.qemu_io(path, "write -P 7 0 4M")
    put_volume(host, path, OLD, stated(OLD))
    before = host.view()
    result = uvmirror("import", update, code=5)
    assert b"was changed" in result.err and b"a full bundle is needed" in result.err
    assert host.view() == before


def test_the_base_is_no_image(update, uvmirror, host, folder, stated):
    path = folder / "junk"
    path.write_bytes(os.urandom(100000))
    put_volume(host, path, OLD, stated(OLD))
    before = host.view()
    result = uvmirror("import", update, code=5)
    assert f"this host's noble amd64 {OLD}, which was changed".encode() in result.err
    assert host.view() == before


def test_hosts_at_different_states(compact, uvmirror, host, inventory, builds):
    """One has the old version, the other one none: the new one must stand alone for both."""
    compact("seed", OLD)
    both = ("--have", inventory(OLD, host="hv1"), "--have", inventory(host="hv2"))
    bundle = compact("update", NEW, options=both)
    assert payloads(bundle)[NEW]["base"] is None
    uvmirror("import", bundle)
    same_for_guests(host, builds, NEW)


def test_what_one_has_and_another_one_lacks_is_no_base(compact, inventory):
    """Each would need the other's image for what it lacks."""
    compact("seed", OLD)
    crossed = ("--have", inventory(OLD, host="hv1"), "--have", inventory(NEW, host="hv2"))
    found = payloads(compact("crossed", OLD, NEW, options=crossed))
    assert found[NEW]["base"] is None and found[OLD]["base"]["version"] == NEW


def test_a_chain_begins_with_what_all_have(compact, inventory):
    """hv2 lacks the old version alone, and what the new one stands on for hv1."""
    compact("seed", OLDEST)
    have = ("--have", inventory(OLDEST, host="hv1"), "--have", inventory(NEW, host="hv2"))
    found = payloads(compact("chain", OLD, NEW, options=have))
    assert found[NEW]["base"]["version"] == OLDEST and found[OLD]["base"] is None


def test_two_architectures(mirror, fetch, builds, inventory, folder):
    mirror.add_image(NEW, builds[NEW])
    mirror.add_image(NEW, builds[OLD], "com.ubuntu.cloud:server:24.04:arm64", arch="arm64")
    mirror.add_image(NEW, builds[OLDEST], "com.ubuntu.cloud:server:24.04:ppc64el", arch="ppc64el")
    mirror.write()
    both = ("--have", inventory(host="hv1"), "--have", inventory(host="hv2", architecture="arm64"))
    fetch(*both, "-o", folder / "both.tar.zst", "release=noble")
    images = Bundle.read(folder / "both.tar.zst").manifest["images"]
    assert {image["metadata"]["arch"] for image in images} == {"amd64", "arm64"}
    fetch(*both, "-o", folder / "one.tar.zst", "release=noble", "arch=ppc64el")
    images = Bundle.read(folder / "one.tar.zst").manifest["images"]
    assert {image["metadata"]["arch"] for image in images} == {"ppc64el"}


def test_plain_tools(compact, folder):
    """tar and sha256sum find what the manifest says, also in a compact bundle."""
    bundle = compact("two", OLD, NEW)
    out = folder / "out"
    out.mkdir()
    subprocess.run(["tar", "--zstd", "-xf", bundle, "-C", out], check=True)
    for payload in payloads(bundle).values():
        assert image_sum(out / payload["member"]) == payload["sha256"]
