"""uvmirror publish: bundles become a tree that a web server serves while it changes."""

import fcntl
import json
import os
import pathlib
import subprocess
import threading
import time

import pytest

from bundles import Bundle
from sample_mirror import CONTENT_ID, INDEX_PATH, PRODUCT
from web import Web

FIRST, SECOND, THIRD = "20241004", "20241018", "20241101"
JAMMY = "com.ubuntu.cloud:server:22.04:amd64"


@pytest.fixture
def tree(folder):
    return folder / "tree"


@pytest.fixture
def publish(uvmirror, site, tree):
    """publish(*arguments): with the site's key, into `tree`, on a host that trusts the site."""

    def run(*args, code=0, **options):
        return uvmirror("publish", "--tree", tree, "--keyring", site.keyring, "--state-dir",
                        site.state, *args, code=code, **options)

    return run


@pytest.fixture
def serve(folder, tree):
    tree.mkdir(exist_ok=True)
    server = Web(folder / "site-nginx", tree)
    yield server
    server.close()


@pytest.fixture
def client(uvmirror, site, serve, folder):
    """client(*arguments): `uvmirror fetch` from the published tree, with the site's key."""

    def run(*args, code=0):
        return uvmirror("fetch", "--source", serve.url, "--keyring", site.keyring, "--mirror",
                        folder / "client", "--state-dir", site.state, "--no-bundle",
                        *(args or ("release=noble",)), code=code)

    return run


def index(tree, name="index.json"):
    text = (tree / "streams/v1" / name).read_text(encoding="utf-8")
    return json.loads(text)["index"]


def versions(tree, product=PRODUCT):
    """{version: path of its image} that the published index leads to."""
    products = json.loads((tree / index(tree)[CONTENT_ID]["path"]).read_bytes())["products"]
    return {version: entry["items"]["disk1.img"]["path"]
            for version, entry in products[product]["versions"].items()}


def files(tree):
    return sorted(str(path.relative_to(tree)) for path in tree.rglob("*")
                  if path.is_file() and ".uvmirror/" not in str(path))


def test_a_client_gets_the_vendors_bytes(make_bundle, make_image, publish, client, tree, folder):
    publish(make_bundle("b", {FIRST: make_image("a")}))
    client()
    (path,) = versions(tree).values()
    assert (folder / "client" / path).read_bytes() == make_image("a").read_bytes()
    assert (tree / path).read_bytes() == make_image("a").read_bytes()


def test_uvtools_own_sync_would_find_all_of_it(make_bundle, make_image, publish, tree, site):
    """Index and products are clear-signed by the site, and lead to each other."""
    publish(make_bundle("b", {FIRST: make_image("a")}))
    for name in ["index.sjson", pathlib.Path(index(tree)[CONTENT_ID]["path"]).stem + ".sjson"]:
        subprocess.run(["gpgv", "--keyring", site.keyring, tree / "streams/v1" / name], check=True,
                       stderr=subprocess.DEVNULL)
    assert "path\":\"streams/v1/" in (tree / "streams/v1/index.sjson").read_text().replace(" ", "")


def test_versions_that_are_superseded_stay_for_a_time(make_bundle, make_image, publish, tree):
    first = make_bundle("one", {FIRST: make_image("a")})
    second = make_bundle("two", {SECOND: make_image("b")})
    publish(first)
    old = versions(tree)[FIRST]
    result = publish(second)
    assert b"1 new, 1 no longer named, 0 files removed" in result.out
    assert list(versions(tree)) == [SECOND]
    assert (tree / old).exists()
    publish("--grace", "0", second)  # a second later at the earliest
    time.sleep(1.1)
    publish("--grace", "0", second)
    assert not (tree / old).exists()
    streams = [name for name in files(tree) if CONTENT_ID in name]
    assert len(streams) == 2, "old products files went, too"


def test_max_keeps_older_versions(make_bundle, make_image, publish, tree):
    for name, version in (("a", FIRST), ("b", SECOND), ("c", THIRD)):
        publish("--max", "2", make_bundle(name, {version: make_image(name)}))
    assert sorted(versions(tree)) == [SECOND, THIRD]


def test_what_the_source_withdrew_goes(mirror, make_bundle, make_image, publish, tree):
    publish("--max", "3", make_bundle("one", {FIRST: make_image("a"), SECOND: make_image("b")},
                                      "--max", "2", "release=noble"))
    assert sorted(versions(tree)) == [FIRST, SECOND]
    del mirror.products[PRODUCT]["versions"][SECOND]
    publish("--max", "3", make_bundle("two", {THIRD: make_image("c")}))
    assert sorted(versions(tree)) == [FIRST, THIRD]


def test_other_products_are_left_alone(mirror, make_bundle, make_image, publish, tree):
    publish(make_bundle("one", {FIRST: make_image("a")}))
    publish(make_bundle("two", {FIRST: make_image("b")}, "release=jammy", product=JAMMY,
                        release="jammy", number="22.04", title="22.04"))
    assert list(versions(tree)) == [FIRST] and list(versions(tree, JAMMY)) == [FIRST]
    assert sorted(index(tree)[CONTENT_ID]["products"]) == sorted([PRODUCT, JAMMY])


def test_several_bundles_at_once(make_bundle, make_image, publish, tree):
    publish("--max", "2", make_bundle("one", {FIRST: make_image("a")}),
            make_bundle("two", {SECOND: make_image("b")}))
    assert sorted(versions(tree)) == [FIRST, SECOND]


def test_an_older_bundle_is_refused(make_bundle, make_image, publish, tree):
    first = make_bundle("one", {FIRST: make_image("a")})
    second = make_bundle("two", {SECOND: make_image("b")})
    publish(second)
    before = files(tree)
    result = publish(first, code=4)
    assert b"older than what was published" in result.err
    assert files(tree) == before and list(versions(tree)) == [SECOND]
    publish(second)  # the same again is fine
    publish("--allow-older", first)
    assert list(versions(tree)) == [FIRST]


def test_same_version_with_other_bytes(mirror, make_bundle, make_image, publish, tree, folder):
    publish(make_bundle("one", {FIRST: make_image("a")}))
    changed = make_bundle("two", {FIRST: make_image("b")}, "--mirror", folder / "other",
                          "release=noble")
    result = publish(changed, code=5)
    assert b"another" in result.err
    (path,) = versions(tree).values()
    assert (tree / path).read_bytes() == make_image("a").read_bytes()


def test_a_damaged_bundle_changes_nothing(make_bundle, make_image, publish, tree, folder):
    publish(make_bundle("one", {FIRST: make_image("a")}))
    before = files(tree)
    text = (tree / "streams/v1/index.sjson").read_bytes()
    damaged = folder / "damaged.tar.zst"
    data = bytearray(make_bundle("two", {SECOND: make_image("b")}).read_bytes())
    data[-20] ^= 1
    damaged.write_bytes(data)
    publish(damaged, code=5)
    assert files(tree) == before and (tree / "streams/v1/index.sjson").read_bytes() == text
    assert list((tree / ".uvmirror/incoming").iterdir()) == []


def test_a_stranger_publishes_nothing(make_bundle, make_image, publish, tree, uvmirror, stranger,
                                      site):
    bundle = make_bundle("one", {FIRST: make_image("a")})
    uvmirror("publish", "--tree", tree, "--keyring", stranger.keyring, "--state-dir", site.state,
             bundle, code=4)
    assert files(tree) == []


def lie(bundle, site, change):
    """Signs a bundle anew whose own products file is changed, and whose manifest is as it was."""
    name, parts = f"streams/v1/{CONTENT_ID}.json", Bundle.read(bundle)
    products = json.loads(parts[name])
    change(products, products["products"][PRODUCT]["versions"])
    parts.change(site.key, name, json.dumps(products).encode())
    return parts.save(bundle.with_name("lie.tar.zst"))


def old_as_new(_, listed):
    listed[SECOND]["items"] = listed[FIRST]["items"]


def old_by_an_alias(products, listed):
    (first,), (second,) = (listed[version]["items"].values() for version in (FIRST, SECOND))
    products["_aliases"] = {"path": {first["path"]: first, second["path"]: first}}


def without_the_new(_, listed):
    del listed[SECOND]


def one_without_a_path(_, listed):
    listed[SECOND]["items"]["more"] = {"ftype": "more"}


@pytest.mark.parametrize("change, code", [(old_as_new, 4), (old_by_an_alias, 4), (without_the_new, 4),
                                          (one_without_a_path, 5)])
def test_the_products_file_is_what_was_verified(make_bundle, make_image, publish, tree, site, vendor,
                                                change, code):
    """A fetch host that was taken over signs anything; the vendor's check is of the manifest."""
    bundle = make_bundle("b", {FIRST: make_image("a"), SECOND: make_image("b")}, "--max", "2",
                         "release=noble")
    check = ("--max", "2", "--require-origin", "--origin-keyring", vendor.keyring)
    publish(*check, lie(bundle, site, change), code=code)
    assert files(tree) == []
    publish(*check, bundle)


def test_a_stream_that_nobody_verified(mirror, make_image, fetch, publish, tree, folder):
    mirror.add_image(FIRST, make_image("a"))
    mirror.write()
    bundle = folder / "b.tar.zst"
    fetch("--no-authentication", "--path", f"{INDEX_PATH}.json", "-o", bundle, "release=noble")
    assert b"without checking the vendor's signature" in publish(bundle, code=4).err
    assert files(tree) == []
    publish("--no-authentication", bundle)
    assert list(versions(tree)) == [FIRST]


def test_files_of_others_are_not_touched(make_bundle, make_image, publish, tree):
    tree.mkdir()
    (tree / "index.html").write_text("ours", encoding="ascii")
    (tree / "robots.txt").write_text("ours", encoding="ascii")
    bundle = make_bundle("one", {FIRST: make_image("a")})
    publish("--grace", "0", bundle)
    assert (tree / "index.html").read_text() == "ours" and (tree / "robots.txt").exists()


@pytest.mark.parametrize("name", ["index.json", "index.sjson"])
def test_an_index_of_somebody_else_stays(make_bundle, make_image, publish, tree, name):
    (tree / "streams/v1").mkdir(parents=True)
    (tree / "streams/v1" / name).write_text("ours", encoding="ascii")
    result = publish(make_bundle("one", {FIRST: make_image("a")}), code=5)
    assert b"an index of somebody else's" in result.err
    assert (tree / "streams/v1" / name).read_text() == "ours" and len(files(tree)) == 1


@pytest.mark.parametrize("path", ["index.html", ".htaccess", "images/.hidden/a.img",
                                  ".uvmirror/published.json"])
def test_an_image_is_no_file_of_the_tree_itself(mirror, make_bundle, make_image, publish, tree, path):
    file = pathlib.Path(mirror.path(path))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(make_image("a").read_bytes())
    mirror.add_image(FIRST, make_image("a"))["path"] = path
    result = publish(make_bundle("one", {}), code=5)
    assert b"is no path that an image may be published under" in result.err
    assert files(tree) == []


def test_a_file_in_the_way_is_not_replaced(make_bundle, make_image, publish, tree):
    bundle = make_bundle("one", {FIRST: make_image("a")})
    path = Bundle.read(bundle).manifest["images"][0]["path"]
    (tree / path).parent.mkdir(parents=True)
    (tree / path).write_text("ours", encoding="ascii")
    assert b"is there with another content" in publish(bundle, code=5).err
    assert (tree / path).read_text() == "ours"


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_whatever_is_in_the_way_is_not_replaced(make_bundle, make_image, publish, tree, kind):
    bundle = make_bundle("one", {FIRST: make_image("a")})
    place = tree / Bundle.read(bundle).manifest["images"][0]["path"]
    place.parent.mkdir(parents=True)
    {"link": lambda: place.symlink_to("nowhere"), "fifo": lambda: os.mkfifo(place),
     "folder": place.mkdir}[kind]()
    assert b"is there with another content" in publish(bundle, code=5).err
    assert not place.is_file() and os.path.lexists(place)


@pytest.mark.parametrize("name", [".uvmirror", ".uvmirror/incoming", "streams", "streams/v1"])
def test_a_link_is_none_of_its_folders(make_bundle, make_image, publish, tree, folder, name):
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "ours").write_text("ours", encoding="ascii")
    (tree / name).parent.mkdir(parents=True)
    (tree / name).symlink_to(elsewhere)
    result = publish(make_bundle("one", {FIRST: make_image("a")}), code=5)
    assert b"is a symbolic link" in result.err
    assert [path.name for path in elsewhere.iterdir()] == ["ours"]


@pytest.mark.parametrize("options", [(), ("--compact",)])
def test_two_paths_with_the_same_bytes(mirror, make_bundle, make_image, publish, tree, client, options):
    mirror.add_image(FIRST, make_image("a"))
    publish(make_bundle("b", {FIRST: make_image("a")}, *options, "release~(noble|jammy)", product=JAMMY,
                        release="jammy", number="22.04", title="22.04"))
    paths = [*versions(tree).values(), *versions(tree, JAMMY).values()]
    assert len(set(paths)) == 2
    for path in paths:
        assert (tree / path).read_bytes() == make_image("a").read_bytes()
    client("release~(noble|jammy)")


def test_the_page_for_people(make_bundle, make_image, publish, tree, mirror):
    mirror.product(PRODUCT)["release_title"] = "<script>alert(1)</script>"
    bundle = make_bundle("one", {FIRST: make_image("a")})
    publish(bundle)
    page = (tree / "index.html").read_text(encoding="utf-8")
    (path,) = versions(tree).values()
    assert f'href="./{path}"' in page and FIRST in page and "noble" in page
    assert Bundle.read(bundle).manifest["images"][0]["sha256"] in page
    assert "<script" not in page


def test_two_at_once(make_bundle, make_image, publish, tree):
    bundle = make_bundle("one", {FIRST: make_image("a")})
    publish(bundle)
    with open(tree / ".uvmirror/lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        publish(bundle, code=8)


def test_a_tree_is_needed(uvmirror, site, make_bundle, make_image):
    bundle = make_bundle("one", {FIRST: make_image("a")})
    result = uvmirror("publish", "--state-dir", site.state, "--keyring", site.keyring, bundle, code=2)
    assert b"--tree" in result.err


@pytest.fixture
def kill(uvmirror, site, tree):
    """kill(call, n, bundle): publishes it, and dies in the n-th such system call."""

    def run(call, when, bundle):
        command = ["strace", "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e",
                   f"inject={call}:signal=KILL:when={when}", uvmirror.path, "publish", "--tree", tree,
                   "--keyring", site.keyring, "--state-dir", site.state, bundle]
        subprocess.run(command, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)

    return run


def test_the_time_of_grace_begins_with_the_next_index(make_bundle, make_image, publish, tree, kill):
    publish(make_bundle("one", {FIRST: make_image("a")}))
    second = make_bundle("two", {SECOND: make_image("b")})
    index_text = (tree / "streams/v1/index.json").read_bytes()
    kill("rename", 6, second)
    assert (tree / "streams/v1/index.json").read_bytes() == index_text
    assert "dropped" not in (tree / ".uvmirror/published.json").read_text(encoding="utf-8")
    publish(second)
    assert "dropped" in (tree / ".uvmirror/published.json").read_text(encoding="utf-8")


def test_a_page_stays_ours_after_a_crash(make_bundle, make_image, publish, tree, kill):
    first, second = (make_bundle(name, {version: make_image(name)})
                     for name, version in (("a", FIRST), ("b", SECOND)))
    kill("rename", 9, first)
    assert FIRST in (tree / "index.html").read_text(encoding="utf-8")
    publish(second)
    assert SECOND in (tree / "index.html").read_text(encoding="utf-8")


def test_killed_at_any_moment(make_bundle, make_image, publish, tree, kill, client):
    """Whatever was killed, a client finds what it found before or what is new; and the next run
    ends well."""
    publish(make_bundle("one", {FIRST: make_image("a")}))
    second = make_bundle("two", {SECOND: make_image("b")})
    points = [("renameat", 1), ("rename", 1), ("rename", 2), ("rename", 3), ("rename", 5),
              ("rename", 6), ("rename", 7), ("unlinkat", 1)]
    for call, when in points:
        kill(call, when, second)
        assert list(versions(tree)) in ([FIRST], [SECOND])
        client()
    publish(second)
    assert list(versions(tree)) == [SECOND]
    client()


def switch(publish, bundles, rounds, stop):
    for n in range(rounds):
        publish("--allow-older", "--grace", "1m", bundles[n % len(bundles)])
    stop.set()


@pytest.mark.parametrize("rounds", [8, pytest.param(100, marks=pytest.mark.long)])
def test_a_client_never_misses_a_file(make_bundle, make_image, publish, client, serve, rounds):
    """It fetches in a loop, while the tree is switched."""
    bundles = [make_bundle(name, {version: make_image(name)})
               for name, version in (("a", FIRST), ("b", SECOND), ("c", THIRD))]
    publish(bundles[0])
    stop = threading.Event()
    writer = threading.Thread(target=switch, args=(publish, bundles, rounds, stop))
    writer.start()
    fetched = 0
    while not stop.is_set() or fetched == 0:
        client("--allow-older", "release=noble")
        fetched += 1
    writer.join()
    missed = [answer for answer in serve.answers() if answer.status not in (200, 206)]
    assert missed == [], f"after {fetched} fetches"
