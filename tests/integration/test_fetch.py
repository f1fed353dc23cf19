"""The internet host: what is fetched from where, and what is refused."""

import fcntl
import json
import os
import shutil
import signal
import stat
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


def test_arch_is_implied_unless_named(published, fetch, folder):
    fetch("-o", folder / "b.tar.zst", "--no-bundle", "-n", "release=noble", "arch=riscv64")
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
    """Half a bundle of gigabytes on a stick; but not one that somebody still writes."""
    stick = folder / "stick"
    stick.mkdir()
    names = {"dead": ".uvmirror-20241004T093000Z.tar.zst.aB3dE6", "busy": ".b.tar.zst.aB3dE6",
             "own": ".b.tar.zst.fG7hI8", "fresh": ".b.tar.zst.fresh1", "foreign": ".notes.aB3dE6"}
    for kind, name in names.items():
        (stick / name).write_bytes(b"half")
        if kind != "fresh":
            os.utime(stick / name, (1e9, 1e9))
    with open(stick / names["busy"], "rb") as busy:
        fcntl.flock(busy, fcntl.LOCK_EX)
        fetch("-o", stick / "b.tar.zst", "release=noble")
    assert sorted(os.listdir(stick)) == sorted(
        ["b.tar.zst", names["busy"], names["fresh"], names["foreign"]])


def test_standard_output_is_closed(published, fetch, folder):
    """No file of the mirror takes its place."""
    fetch("-o", "-", "release=noble", code=1, wrap=("sh", "-c", 'exec "$@" >&-', "sh"))


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


def test_tampered_image(published, fetch, web, nothing_written):
    path = published.path(published.products[PRODUCT]["versions"][NEW]["items"]["disk1.img"]["path"])
    with open(path, "r+b") as image:
        image.seek(5000)
        image.write(b"evil")
    fetch("-o", "x.tar.zst", "release=noble", source=web.url, code=5)
    nothing_written()


@pytest.mark.parametrize("change", [-1, 1])
def test_image_of_another_length(published, fetch, web, nothing_written, change):
    path = published.path(published.products[PRODUCT]["versions"][NEW]["items"]["disk1.img"]["path"])
    os.truncate(path, os.path.getsize(path) + change)
    result = fetch("-o", "x.tar.zst", "release=noble", source=web.url, code=None)
    assert result.code in (3, 5), str(result)
    nothing_written()


def test_image_is_not_there(published, fetch, web, nothing_written):
    os.unlink(published.path(
        published.products[PRODUCT]["versions"][NEW]["items"]["disk1.img"]["path"]))
    result = fetch("-o", "x.tar.zst", "release=noble", source=web.url, code=3)
    assert b"404" in result.err
    nothing_written()


def test_interrupted_download_goes_on(published, fetch, web, folder):
    """What is there of a download is kept, and only the rest is asked for."""
    item = published.products[PRODUCT]["versions"][NEW]["items"]["disk1.img"]
    path = published.path(item["path"])
    whole = open(path, "rb").read()
    os.truncate(path, len(whole) // 2)
    fetch("--no-bundle", "release=noble", source=web.url, code=None)
    with open(path, "wb") as image:
        image.write(whole)
    fetch("--no-bundle", "release=noble", source=web.url)
    with open(folder / "mirror" / item["path"], "rb") as got:
        assert got.read() == whole


def test_wrong_key(published, fetch, stranger, nothing_written):
    fetch("-o", "x.tar.zst", "release=noble", keyring=stranger.keyring, code=4)
    nothing_written()


def test_keyring_missing(published, fetch, folder):
    fetch("release=noble", keyring=folder / "nothing.gpg", code=4)


def test_server_is_not_there(published, fetch):
    result = fetch("release=noble", source="http://127.0.0.1:1/", code=3)
    assert b"127.0.0.1" in result.err


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


def broken(path, text):
    """A damage of a signed file: its new bytes."""
    with open(path, "rb") as file:
        data = file.read()
    with open(path, "wb") as file:
        file.write(text(data))


DAMAGES = {
    "text before": lambda data: b"hello\n" + data,
    "text behind": lambda data: data + b"hello\n",
    "two messages": lambda data: data + data,
    "cut": lambda data: data[:-40],
    "empty": lambda data: b"",
    "one bit": lambda data: data.replace(b"ubuntu", b"ubunuu", 1),
    "unsigned": lambda data: data.split(b"\n\n", 1)[1].split(b"-----BEGIN PGP SIG")[0],
    "odd header": lambda data: data.replace(b"Hash:", b"Comment: x\nHash:", 1),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
@pytest.mark.parametrize("file", STREAMS, ids=["index", "products"])
def test_damaged_signature(published, fetch, nothing_written, damage, file):
    broken(published.path(file), damage)
    fetch("-o", "x.tar.zst", "release=noble", code=4)
    nothing_written()


def test_products_signed_by_another(published, fetch, stranger, nothing_written):
    """The index is the vendor's; verification does not end there."""
    path = published.path(f"{PRODUCTS_PATH}.json")
    with open(path, "rb") as file:
        signed = stranger.clearsign(file.read())
    with open(published.path(f"{PRODUCTS_PATH}.sjson"), "wb") as out:
        out.write(signed)
    fetch("-o", "x.tar.zst", "release=noble", code=4)
    nothing_written()


def item_of(stream):
    return stream["products"][PRODUCT]["versions"][NEW]["items"]["disk1.img"]


def changed(**values):
    def change(stream):
        for key, value in values.items():
            if value is None:
                del item_of(stream)[key]
            else:
                item_of(stream)[key] = value
    return change


def other_content_id(stream):
    stream["content_id"] = "com.ubuntu.cloud:daily:download"


def other_format(stream):
    stream["format"] = "products:2.0"


def version_with_slash(stream):
    versions = stream["products"][PRODUCT]["versions"]
    versions["2025/../.."] = versions[NEW]



def two_hashes_for_one_path(stream):
    versions = stream["products"][PRODUCT]["versions"]
    versions[NEW]["items"]["disk1.img"]["path"] = versions[OLD]["items"]["disk1.img"]["path"]


@pytest.mark.parametrize("change", [
    changed(path="../../etc/passwd"), changed(path="/etc/passwd"), changed(path="a//b"),
    changed(path="a/../b"), changed(path="a\\b"), changed(path="a\u0000b"), changed(path="a%2e%2e/b"),
    changed(path="http://x/y"), changed(path="uvmirror/lock"), changed(path="streams/v1/x"),
    changed(path=None), changed(size=None), changed(size=-1), changed(size=1e300),
    changed(size="many"), changed(size=2 ** 63), changed(sha256="abc"), changed(sha256=None),
    other_content_id, other_format, version_with_slash, two_hashes_for_one_path,
], ids=lambda change: getattr(change, "__name__", "x"))
def test_signed_and_wrong(published, fetch, nothing_written, change):
    published.write(change=change)
    result = fetch("--max", "2", "-o", "x.tar.zst", "release=noble", code=None)
    assert result.code in (3, 5), str(result)
    nothing_written()


# ---- odd and legal ------------------------------------------------------------------------------


def test_size_as_a_string(published, fetch, folder):
    size = published.products[PRODUCT]["versions"][NEW]["items"]["disk1.img"]["size"]
    published.write(change=changed(size=str(size)))
    fetch("-o", folder / "b.tar.zst", "release=noble")
    assert images(folder / "b.tar.zst") == [(PRODUCT, NEW)]


def test_upper_case_checksum(published, fetch, folder):
    sha256 = published.products[PRODUCT]["versions"][NEW]["items"]["disk1.img"]["sha256"]
    published.write(change=changed(sha256=sha256.upper()))
    fetch("-o", folder / "b.tar.zst", "release=noble")


def odd_but_legal(stream):
    versions = stream["products"][PRODUCT]["versions"]
    versions["20991231"] = {"items": {}}
    versions["current"] = {}
    stream["products"][PRODUCT]["requirements"] = {"secureboot": "false"}
    stream["products"][PRODUCT]["release_title"] = "24.04 LTS, \u201cnoble\u201d"
    stream["unknown"] = {"deep": [1, 2, {"er": None}]}
    del stream["updated"]


def test_odd_but_legal(published, fetch, folder):
    published.write(change=odd_but_legal)
    fetch("-o", folder / "b.tar.zst", "release=noble")
    assert images(folder / "b.tar.zst") == [(PRODUCT, NEW)]


def test_a_bad_item_that_nobody_asked_for_does_no_harm(published, fetch, folder):
    def change(stream):
        stream["products"][PRODUCT]["versions"][OLD]["items"]["disk1.img"]["path"] = "../x"

    published.write(change=change)
    fetch("-o", folder / "b.tar.zst", "release=noble")
    assert images(folder / "b.tar.zst") == [(PRODUCT, NEW)]


def test_colons_and_tildes_in_a_path(mirror, fetch, web, make_image, folder):
    mirror.add_image(NEW, make_image("a"))
    item = mirror.products[PRODUCT]["versions"][NEW]["items"]["disk1.img"]
    odd = "odd dir/20241018_07:42/a+b~c,d%20e.img"
    os.makedirs(os.path.dirname(mirror.path(odd)))
    shutil.move(mirror.path(item["path"]), mirror.path(odd))
    item["path"] = odd
    mirror.write()
    fetch("-o", folder / "b.tar.zst", "release=noble", source=web.url)
    assert (folder / "mirror" / odd).exists()
    assert odd in Bundle.read(folder / "b.tar.zst").names()


# ---- the user's own GnuPG -----------------------------------------------------------------------


def test_own_keyring_plays_no_part(published, fetch, stranger, folder):
    """The stranger's key in ~/.gnupg, as trusted as can be, makes nothing trusted."""
    with open(published.path(f"{INDEX_PATH}.json"), "rb") as file:
        signed = stranger.clearsign(file.read())
    with open(published.path(f"{INDEX_PATH}.sjson"), "wb") as out:
        out.write(signed)
    fetch("release=noble", code=4, env={"GNUPGHOME": stranger.homedir, "HOME": folder})


def test_no_agent_is_left(published, uvmirror, vendor, folder):
    """Neither of making a key, nor of signing with it, nor of verifying."""
    before = agents()
    state = folder / "state"
    uvmirror("key", "generate", "--state-dir", state)
    uvmirror("fetch", "--source", published.root, "--keyring", vendor.keyring, "--mirror",
             folder / "mirror", "--state-dir", state, "-o", folder / "b.tar.zst", "release=noble")
    end = time.monotonic() + 3  # an agent that was told to end may need a moment
    while agents() != before and time.monotonic() < end:
        time.sleep(0.05)
    assert agents() == before


def test_a_users_agent_stays(published, fetch, site, folder):
    """One that ran before us may hold passphrases, and is none of ours to end."""
    site.key.detach_sign(b"")
    before = agents()
    assert any(str(site.key.homedir) in command for command in before)
    fetch("-o", folder / "b.tar.zst", "release=noble")
    assert agents() == before


def test_ctrl_c_while_gnupg_runs(published, fetch, uvmirror, vendor, site, folder):
    """Ctrl-C ends GnuPG as well, which must not look like a signature that is no good."""
    fetch("-o", folder / "b.tar.zst", "release=noble")
    (folder / "tmp").mkdir()
    codes = set()
    for step in range(12):
        process = uvmirror.start("verify", "--keyring", site.keyring, folder / "b.tar.zst",
                                 env={"TMPDIR": folder / "tmp"}, start_new_session=True)
        wait_for_gnupg(process, folder / "tmp")
        time.sleep(step * 0.003)
        try:
            os.killpg(process.pid, signal.SIGINT)
        except ProcessLookupError:
            pass
        process.communicate(timeout=30)
        codes.add(process.returncode)
        assert os.listdir(folder / "tmp") == []
    assert codes <= {0, 130} and 130 in codes


def wait_for_gnupg(process, folder):
    """Until it has a home folder, or the process has ended."""
    while not os.listdir(folder) and process.poll() is None:
        time.sleep(0.001)


def agents():
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                command = file.read().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if "gpg-agent" in command or "keyboxd" in command:
            found.append(command)
    return sorted(found)


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
