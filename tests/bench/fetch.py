"""fetch against curl, sha256sum, tar, zstd and gpg; and what large streams cost by themselves."""

import hashlib
import os
import pathlib
import shutil

from keys import Key
from sample_mirror import INDEX_PATH, PRODUCTS_PATH, SampleMirror
from tools import MEGABYTE, Meter, compare, measure, shell
from web import Web

GOAL, MEMORY_GOAL = 0.5, 96
SMALL_IMAGES = 200
LARGE_PRODUCTS, LARGE_ITEMS = 20 * MEGABYTE, 50000
TOO_LARGE_PRODUCTS = 64 * MEGABYTE + 1
ITEMS_OF_A_VERSION = 10


class Source:
    """A vendor's mirror behind nginx, and the internet host that fetches from it."""

    def __init__(self, work, keys, name):
        self.work = work / name
        self.work.mkdir()
        self.keys, self.meter = keys, Meter(self.work)
        self.mirror = SampleMirror(self.work / "source", keys.vendor)
        self.paths = []
        self.web = None

    def add(self, version, image, **details):
        self.paths.append(self.mirror.add_image(version, image, **details)["path"])

    def publish(self, change=None):
        self.mirror.write(change=change)
        self.web = Web(self.work / "nginx", self.mirror.root)

    def fetch(self, *args, code=0):
        self.meter("fetch", "--quiet", "--source", self.web.url, "--keyring",
                   self.keys.vendor_keyring, "--mirror", self.work / "mirror", "--state-dir",
                   self.keys.state, "-o", self.work / "bundle.tar.zst", *args, code=code)

    # ---- steps

    def whole(self):
        shutil.rmtree(self.work / "mirror", ignore_errors=True)
        (self.work / "bundle.tar.zst").unlink(missing_ok=True)
        yield
        self.fetch("--max", "2", "arch=amd64")

    def again(self):
        yield
        self.fetch("--max", "2", "arch=amd64")

    def look(self):
        yield
        self.fetch("-n", "arch=amd64")

    def refused(self):
        yield
        self.fetch("-n", "arch=amd64", code=6)

    def by_hand(self):
        folder = self.work / "by-hand"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for suffix in ("", ".sig"):
            pathlib.Path(f"{folder}.tar.zst{suffix}").unlink(missing_ok=True)
        yield
        shell('''cd "$FOLDER"
                 for path in $PATHS; do curl -sSf --create-dirs -o "$path" "$URL$path"; done
                 sha256sum $PATHS
                 tar -c . | zstd -q -T0 -3 -o ../by-hand.tar.zst
                 gpg --homedir "$KEY" --batch --detach-sign ../by-hand.tar.zst''',
              FOLDER=folder, URL=self.web.url, KEY=self.keys.state / "gnupg",
              PATHS=" ".join([f"{INDEX_PATH}.sjson", f"{PRODUCTS_PATH}.sjson", *self.paths]))

    def close(self):
        self.web.close()
        shutil.rmtree(self.work)


class Keys:
    """The vendor's and the site's."""

    def __init__(self, work):
        self.vendor = Key(work / "vendor", "Vendor <vendor@example.org>")
        self.vendor_keyring = self.vendor.export(work / "vendor.gpg")
        self.state = work / "site"
        self.site = Key(self.state / "gnupg", "Site <site@example.org>")
        self.site_keyring = self.site.export(work / "site.gpg")


def two_images(work, keys, image):
    source = Source(work, keys, "two-images")
    other = work / "other.qcow2"
    shutil.copyfile(image, other)
    with open(other, "ab") as out:
        out.write(os.urandom(512))
    source.add("20241004", image)
    source.add("20241018", other)
    other.unlink()
    source.publish()
    return source


def small_images(work, keys, image):
    """Pieces of a real one."""
    source = Source(work, keys, "small-images")
    piece = work / "piece"
    with open(image, "rb") as file:
        for number in range(SMALL_IMAGES):
            data = file.read(MEGABYTE) or file.seek(0) or file.read(MEGABYTE)
            piece.write_bytes(data + number.to_bytes(2, "big"))
            source.add("20241004", piece, product=f"org.example:small:{number}:amd64",
                       release=f"r{number}")
    piece.unlink()
    source.publish()
    return source


def many_items(items, filling):
    """A stream of so many items, each with so many bytes more than it needs."""
    def change(stream):
        versions = {}
        for number in range(items):
            version = versions.setdefault(f"{number // ITEMS_OF_A_VERSION:06}", {"items": {}})
            version["items"][f"item{number % ITEMS_OF_A_VERSION}"] = {
                "ftype": "disk1.img", "path": f"server/releases/{number}.img", "size": 600000000,
                "sha256": hashlib.sha256(str(number).encode()).hexdigest(), "about": "x" * filling}
        stream["products"] = {"org.example:many:amd64": {"arch": "amd64", "release": "noble",
                                                         "versions": versions}}
    return change


def large_streams(work, keys, name, size):
    """A products file of at least so many bytes."""
    source = Source(work, keys, name)
    source.mirror.write(change=many_items(LARGE_ITEMS, 0))
    bare = os.path.getsize(source.mirror.path(f"{PRODUCTS_PATH}.json"))
    source.publish(many_items(LARGE_ITEMS, -(-(size - bare) // LARGE_ITEMS)))
    return source


def run(work, keys, image, rounds):
    source = two_images(work, keys, image)
    compare("fetch, two images", source.meter, rounds, GOAL, MEMORY_GOAL, source.whole,
            source.by_hand)
    measure("  the same again", source.meter, source.again)
    source.close()
    source = small_images(work, keys, image)
    compare(f"fetch, {SMALL_IMAGES} of 1 MiB", source.meter, rounds, GOAL, MEMORY_GOAL, source.whole,
            source.by_hand)
    measure("  the same again", source.meter, source.again)
    source.close()
    source = large_streams(work, keys, "large", LARGE_PRODUCTS)
    measure(f"20 MiB, {LARGE_ITEMS} items", source.meter, source.look)
    source.close()
    source = large_streams(work, keys, "too-large", TOO_LARGE_PRODUCTS)
    measure("64 MiB are refused", source.meter, source.refused)
    source.close()
