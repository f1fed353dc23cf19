"""The internet host: what is fetched from where, and what is refused."""

import fcntl
import json
import os
import signal
import stat
import subprocess
import termios
import time

import pytest

from bundles import Bundle
from sample_mirror import CONTENT_ID, INDEX_PATH, PRODUCT, PRODUCTS_PATH

OLD, NEW = "20241004", "20241018"
STREAMS = [f"{path}.sjson" for path in (INDEX_PATH, PRODUCTS_PATH)]


@pytest.fixture
def published(mirror, make_image):
    """Two versions and their neighbours."""
    for version, name in ((OLD, "a"), (NEW, "b")):
        mirror.add_image(version, make_image(name))
        mirror.add_neighbours(version)
    mirror.write()
    return mirror


@pytest.fixture
def nothing_written(folder):
    """No bundle, not even half of one; and no image in the mirror that was not verified."""
    def check():
        left = [path.name for path in folder.iterdir() if ".tar.zst" in path.name]
        assert left == []
        images = list((folder / "mirror").rglob("*.img")) if (folder / "mirror").exists() else []
        assert images == []

    return check


def images(bundle):
    return [(image["product"], image["version"]) for image in Bundle.read(bundle).manifest["images"]]


# ---- sources ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["http", "http without slash", "file", "folder"])
def test_source(published, fetch, web, folder, kind):
    source = {"http": web.url, "http without slash": web.url[:-1],
              "file": f"file://{published.root}", "folder": published.root}[kind]
    fetch("-o", folder / "b.tar.zst", "release=noble", source=source)
    assert images(folder / "b.tar.zst") == [(PRODUCT, NEW)]


def test_each_file_is_asked_for_once(published, fetch, web, folder):
    """Index and products in their signed form, the image, and nothing else."""
    fetch("-o", folder / "b.tar.zst", "release=noble", source=web.url)
    image = published.products[PRODUCT]["versions"][NEW]["items"]["disk1.img"]["path"]
    asked = [path.replace("%3A", ":") for path in web.requests()]
    assert asked == [f"/{path}" for path in [*STREAMS, image]]


def test_second_fetch_downloads_no_image(published, fetch, web, folder):
    fetch("-o", folder / "one.tar.zst", "release=noble", source=web.url)
    fetch("-o", folder / "two.tar.zst", "release=noble", source=web.url)
    assert len([path for path in web.requests() if path.endswith(".img")]) == 1
    one, two = (Bundle.read(folder / f"{name}.tar.zst").manifest for name in ("one", "two"))
    assert two["serial"] > one["serial"] and two["id"] != one["id"]


def test_one_products_file_as_path(published, fetch, folder):
    fetch("--path", STREAMS[1], "-o", folder / "b.tar.zst", "release=noble")
    assert images(folder / "b.tar.zst") == [(PRODUCT, NEW)]


def test_no_bundle_then_a_whole_one(published, fetch, folder):
    fetch("--no-bundle", "release=noble")
    assert [p for p in folder.iterdir() if p.name.endswith(".zst")] == []
    path = published.products[PRODUCT]["versions"][NEW]["items"]["disk1.img"]["path"]
    with open(folder / "mirror" / path, "rb") as got, open(published.path(path), "rb") as want:
        assert got.read() == want.read()


def test_standard_output(published, fetch, folder):
    result = fetch("-o", "-", "release=noble")
    (folder / "b.tar.zst").write_bytes(result.out)
    assert images(folder / "b.tar.zst") == [(PRODUCT, NEW)]


def test_one_image_that_does_not_come(published, fetch, web, folder, make_image, uvmirror, site):
    """The others take their places in the mirror all the same; there is no bundle."""
    jammy = "com.ubuntu.cloud:server:22.04:amd64"
    published.add_image(OLD, make_image("c"), jammy, release="jammy", number="22.04", title="22.04")
    published.write()
    fetch("--no-bundle", source=web.url)
    new = published.add_image(NEW, make_image("a"), jammy)
    published.add_image("20241101", make_image("d"))
    published.write()
    os.unlink(published.path(new["path"]))
    result = fetch("-o", folder / "b.tar.zst", source=web.url, code=3)
    assert b"404" in result.err
    assert not (folder / "b.tar.zst").exists()
    held = sorted(path.parent.name for path in (folder / "mirror").rglob("*.img"))
    assert held == [f"release-{OLD}", "release-20241101"], "jammy's old one stays, noble's went"
    uvmirror("bundle", "--mirror", folder / "mirror", "--state-dir", site.state,
             "-o", folder / "b.tar.zst")
    assert sorted(images(folder / "b.tar.zst")) == [(jammy, OLD), (PRODUCT, "20241101")]


def test_an_older_stream_is_not_believed_to_supersede(published, fetch, folder, make_image):
    fetch("--no-bundle", "release=noble")
    del published.products[PRODUCT]["versions"][NEW]
    published.write(updated=time.time() - 86400)
    result = fetch("--no-bundle", "release=noble")
    assert b"older than what the mirror holds" in result.err
    assert len(list((folder / "mirror").rglob("*.img"))) == 2
    fetch("--no-bundle", "--allow-older", "release=noble")
    assert [path.parent.name for path in (folder / "mirror").rglob("*.img")] == [f"release-{OLD}"]


# ---- filters ------------------------------------------------------------------------------------


@pytest.mark.parametrize("filters, expected", [
    (["release=noble"], [NEW]),
    (["release~^nob"], [NEW]),
    (["release!=jammy"], [NEW]),
    ([f"version_name={OLD}"], [OLD]),
    (["--max", "2", "release=noble"], [NEW, OLD]),
    (["supported=True"], [NEW]),
    (["aliases~(^|,)lts(,|$)"], [NEW]),
    (["os = ubuntu", "label=release"], [NEW]),
])
def test_filters_choose(published, fetch, folder, filters, expected):
    fetch("-o", folder / "b.tar.zst", *filters)
    assert images(folder / "b.tar.zst") == [(PRODUCT, version) for version in expected]


def test_arch_is_implied_unless_named(published, fetch):
    fetch("-n", "release=noble", "arch=riscv64")
    result = fetch("-n", "arch~.")
    assert "riscv64" in (result.out + result.err).decode()
    result = fetch("-n")
    assert "riscv64" not in (result.out + result.err).decode()


def test_nothing_matches(published, fetch, nothing_written):
    fetch("-o", "x.tar.zst", "release=warty", code=None)
    nothing_written()


def test_bad_filter(published, fetch):
    fetch("release", code=2)
    fetch("release~(", code=2)


def test_dry_run(published, fetch, web, nothing_written):
    result = fetch("-n", "release=noble", source=web.url)
    assert NEW in (result.out + result.err).decode()
    assert [path for path in web.requests() if path.endswith(".img")] == []
    nothing_written()


def test_dry_run_makes_nothing(published, fetch, folder):
    (folder / "mirror").mkdir()
    fetch("-n", "release=noble")
    assert os.listdir(folder / "mirror") == []


def test_dry_run_says_what_it_comes_to(published, fetch, folder, site):
    item = published.products[PRODUCT]["versions"][NEW]["items"]["disk1.img"]
    *_, total = fetch("-n", "--json", "release=noble").lines
    assert total.pop("bundle_bytes_max") > item["size"]
    assert total == {"event": "total", "images": 1, "bytes": item["size"], "to_download": 1,
                     "download_bytes": item["size"], "signer": site.key.fingerprint}
    fetch("--no-bundle", "release=noble")
    *_, total = fetch("-n", "--json", "--no-bundle", "release=noble").lines
    assert (total["to_download"], total["bundle_bytes_max"], total["signer"]) == (0, 0, None)


def test_dry_run_foresees_a_missing_key(published, fetch, folder):
    result = fetch("-n", "--homedir", folder / "none", "release=noble")
    assert b"would fail" in result.err and b"uvmirror key generate" in result.err
    assert b"would fail" not in fetch("-n", "release=noble").err


def test_dry_run_foresees_a_full_disk(published, fetch, folder):
    published.products[PRODUCT]["versions"][NEW]["items"]["disk1.img"]["size"] = 1 << 49
    published.write()
    for mirror in ((), ("--mirror", folder / "not" / "yet")):
        result = fetch("-n", "release=noble", *mirror)
        assert b"would fail" in result.err and b"the mirror with the bundle needs" in result.err
    assert not (folder / "not").exists()
    assert b"the mirror with the bundle needs" in fetch("release=noble", code=6).err


def test_dry_run_into_a_full_disk(published, fetch, folder):
    result = fetch("-n", "release=noble", code=6, wrap=("sh", "-c", 'exec "$@" >/dev/full', "sh"))
    assert b"No space left" in result.err


# ---- the place of the bundle --------------------------------------------------------------------


def test_no_place_for_a_bundle(published, fetch, folder, nothing_written):
    """Said before the first image is downloaded; what stands there stays."""
    os.mkfifo(folder / "fifo")
    (folder / "link").symlink_to("fifo")
    for name in ("fifo", "link"):
        fetch("-o", folder / name, "release=noble", code=2)
        assert stat.S_ISFIFO(os.stat(folder / name).st_mode)
    fetch("-o", "/dev/null", "release=noble", code=2)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    fetch("-o", folder / "missing" / "b.tar.zst", "release=noble", code=1)
    fetch("-o", folder / "mirror", "release=noble", code=2)
    fetch("-o", folder / "mirror" / "uvmirror" / "serial", "release=noble", code=2)
    nothing_written()


def test_a_terminal_is_no_place_for_a_bundle(published, fetch, nothing_written):
    """`script` runs the program on a terminal of its own."""
    result = fetch("-o", "-", "release=noble", code=2, env={"NO_COLOR": "1"},
                   wrap=("sh", "-c", 'exec script -qec "$*" /dev/null >&2', "sh"))
    assert b"is a terminal" in result.err
    nothing_written()


def test_what_a_killed_run_left_goes(published, fetch, folder):
    """Half a bundle of gigabytes on a stick; but not one that somebody still writes, or is about to; and
    not what rsync is copying there."""
    stick = folder / "stick"
    stick.mkdir()
    names = {"dead": ".uvmirror-20241004T093000Z.tar.zst.uvm-aB3dE6", "own": ".b.tar.zst.uvm-fG7hI8",
             "busy": ".b.tar.zst.uvm-aB3dE6", "empty": ".b.tar.zst.uvm-fresh1",
             "rsync": ".b.tar.zst.aB3dE6", "foreign": ".notes.aB3dE6"}
    for kind, name in names.items():
        (stick / name).write_bytes(b"" if kind == "empty" else b"half")
    with open(stick / names["busy"], "rb") as busy:
        fcntl.flock(busy, fcntl.LOCK_EX)
        fetch("-o", stick / "b.tar.zst", "release=noble")
    kept = [names[kind] for kind in ("busy", "empty", "rsync", "foreign")]
    assert sorted(os.listdir(stick)) == sorted(["b.tar.zst", *kept])


def test_standard_output_is_closed(published, fetch, folder):
    """No file of the mirror takes its place."""
    fetch("-o", "-", "release=noble", code=1, wrap=("sh", "-c", 'exec "$@" >&-', "sh"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_reader_who_does_not_read(published, uvmirror, fetch, vendor, site, folder, number):
    """Whoever waits for him can still be stopped."""
    fetch("--no-bundle", "release=noble")
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [uvmirror.path, "fetch", "--source", published.root, "--keyring", vendor.keyring, "--mirror",
         folder / "mirror", "--state-dir", site.state, "-o", "-", "release=noble"],
        stdout=writer, stderr=subprocess.PIPE, env=uvmirror.environment())
    os.close(writer)
    waiting, before = bytearray(4), None
    while waiting == bytes(4) or waiting != before:  # until nothing more goes in
        before = bytes(waiting)
        time.sleep(0.2)
        fcntl.ioctl(reader, termios.FIONREAD, waiting)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    os.close(reader)
    assert process.returncode == 130 and b"interrupted" in said


# ---- refused ------------------------------------------------------------------------------------


def test_image_of_the_mirror_was_changed(published, fetch, folder):
    """Same size, same times: only the look at its bytes tells, when the bundle is written."""
    fetch("--no-bundle", "release=noble")
    path = folder / "mirror" / published.products[PRODUCT]["versions"][NEW]["items"]["disk1.img"]["path"]
    before, data = path.stat(), bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    result = fetch("-o", folder / "b.tar.zst", "release=noble", code=5)
    assert b"fetch it again" in result.err
    assert not [name for name in os.listdir(folder) if ".tar.zst" in name]
    path.unlink()
    fetch("-o", folder / "b.tar.zst", "release=noble")


def test_source_is_not_there(published, fetch, folder, web):
    fetch("release=noble", source=folder / "nowhere", code=3)
    fetch("release=noble", source=web.url + "nowhere/", code=3)


def test_other_schemes(published, fetch):
    for source in ("ftp://127.0.0.1/", "gopher://127.0.0.1/", "dict://127.0.0.1/"):
        fetch("release=noble", source=source, code=2)


def test_unsigned_path_without_asking(published, fetch, nothing_written):
    fetch("--path", f"{INDEX_PATH}.json", "-o", "x.tar.zst", "release=noble", code=2)
    nothing_written()


def test_no_authentication_is_loud_and_recorded(published, fetch, uvmirror, host, folder):
    result = fetch("--no-authentication", "--path", f"{INDEX_PATH}.json", "-o",
                   folder / "b.tar.zst", "release=noble")
    assert b"authenticat" in result.err.lower() or b"verif" in result.err.lower(), str(result)
    (stream,) = Bundle.read(folder / "b.tar.zst").manifest["streams"]
    assert stream["verified_by"] is None
    uvmirror("import", folder / "b.tar.zst", code=4)
    uvmirror("import", "--no-authentication", folder / "b.tar.zst")


# ---- output -------------------------------------------------------------------------------------


def test_json_speaks_json_only(published, fetch, folder):
    result = fetch("--json", "-o", folder / "b.tar.zst", "release=noble")
    assert result.lines
    assert all(isinstance(line, dict) for line in result.lines)


def test_index_of_the_bundle_is_of_its_content(published, fetch, unpack, folder):
    fetch("-o", folder / "b.tar.zst", "release=noble")
    tree = unpack(folder / "b.tar.zst")
    with open(tree / f"{INDEX_PATH}.json", encoding="utf-8") as file:
        index = json.load(file)
    assert list(index["index"]) == [CONTENT_ID]
    with open(tree / f"streams/v1/{CONTENT_ID}.json", encoding="utf-8") as file:
        stream = json.load(file)
    assert list(stream["products"]) == [PRODUCT]
    assert list(stream["products"][PRODUCT]["versions"]) == [NEW]
