#!/usr/bin/python3
"""Makes a small, signed simplestreams mirror of the shape that cloud-images.ubuntu.com has.

    sample_mirror.py --root DIR --gnupg DIR --keyring FILE VERSION=QCOW2...

The vendor's key is made in the GnuPG folder when there is none; the keyring gets its public part.
Run again with one version more, it is as if the vendor had published it.
"""

import argparse
import copy
import datetime
import email.utils
import hashlib
import json
import os
import shutil
import time

from keys import Key

CONTENT_ID = "com.ubuntu.cloud:released:download"
PRODUCT = "com.ubuntu.cloud:server:24.04:amd64"
PRODUCTS_PATH = f"streams/v1/{CONTENT_ID}"
INDEX_PATH = "streams/v1/index"
USER_ID = "Sample Vendor <vendor@example.org>"


def digest(path, name):
    state = hashlib.new(name)
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            state.update(block)
    return state.hexdigest()


class SampleMirror:
    """A source as a folder. `products` is what write() signs: tests may change it as they like."""

    def __init__(self, root, key):
        self.root = str(root)
        self.key = key
        self.products = {}

    def path(self, relative):
        return os.path.join(self.root, relative)

    def product(self, name=PRODUCT, release="noble", arch="amd64", number="24.04", title="24.04 LTS"):
        """The product of this name, added when it is new."""
        return self.products.setdefault(name, {
            "aliases": f"{number},{release}" + (",lts,default" if release == "noble" else ""),
            "arch": arch,
            "os": "ubuntu",
            "release": release,
            "release_codename": release.capitalize(),
            "release_title": title,
            "support_eol": "2029-05-31",
            "supported": True,
            "version": number,
            "versions": {},
        })

    def item(self, path, ftype):
        """What a stream says about a file of the mirror."""
        full = self.path(path)
        return {
            "ftype": ftype,
            "md5": digest(full, "md5"),
            "path": path,
            "sha256": digest(full, "sha256"),
            "size": os.path.getsize(full),
        }

    def add_image(self, version, image, product=PRODUCT, **details):
        """Lists a version whose disk1.img is a copy of the file `image`; returns its item."""
        entry = self.product(product, **details)
        release, arch = entry["release"], entry["arch"]
        folder = f"server/releases/{release}/release-{version}"
        stem = f"{folder}/ubuntu-{entry['version']}-server-cloudimg-{arch}"
        os.makedirs(self.path(folder), exist_ok=True)
        shutil.copyfile(image, self.path(f"{stem}.img"))
        # The neighbours that real versions have: not for libvirt.
        for suffix, content in (("-root.tar.xz", "root"), (".manifest", "manifest")):
            with open(self.path(stem + suffix), "w", encoding="ascii") as out:
                out.write(f"{content} of {release} {arch} {version}\n")
        entry["versions"][version] = {
            "items": {
                "disk1.img": self.item(f"{stem}.img", "disk1.img"),
                "manifest": self.item(f"{stem}.manifest", "manifest"),
                "root.tar.xz": self.item(f"{stem}-root.tar.xz", "root.tar.xz"),
            },
            "label": "release",
            "pubname": f"ubuntu-{release}-{entry['version']}-{arch}-server-{version}",
        }
        return entry["versions"][version]["items"]["disk1.img"]

    def add_neighbours(self, version):
        """Another architecture, whose "image" is a few bytes; and a product without any version."""
        stub = self.path(".stub")
        os.makedirs(self.root, exist_ok=True)
        with open(stub, "wb") as out:
            out.write(b"QFI\xfb" + bytes(508))
        self.add_image(version, stub, "com.ubuntu.cloud:server:24.04:riscv64", arch="riscv64")
        self.product("com.ubuntu.cloud:server:18.10:amd64", "cosmic", "amd64", "18.10", "18.10")
        os.unlink(stub)

    def write(self, updated=None, change=None, change_index=None):
        """Writes and signs products and index. `change` and `change_index` get the object that is
        to be signed and may make anything of it."""
        when = datetime.datetime.fromtimestamp(updated or time.time(), datetime.timezone.utc)
        updated = email.utils.format_datetime(when)
        stream = {
            "content_id": CONTENT_ID,
            "datatype": "image-downloads",
            "format": "products:1.0",
            "license": "http://www.canonical.com/intellectual-property-policy",
            "products": copy.deepcopy(self.products),
            "updated": updated,
        }
        if change:
            stream = change(stream) or stream
        self._write_signed(PRODUCTS_PATH, stream)
        index = self._index(stream, updated)
        if change_index:
            index = change_index(index) or index
        self._write_signed(INDEX_PATH, index)

    @staticmethod
    def _index(stream, updated):
        def entry(datatype, content_id, products):
            return {"datatype": datatype, "format": "products:1.0",
                    "path": f"streams/v1/{content_id}.sjson", "products": products,
                    "updated": updated}

        return {
            "format": "index:1.0",
            "index": {
                # Of another datatype, and not even there: nobody may ask for it.
                "com.ubuntu.cloud:released:aws": entry("image-ids", "com.ubuntu.cloud:released:aws",
                                                       ["com.ubuntu.cloud:server:24.04:amd64"]),
                CONTENT_ID: entry("image-downloads", CONTENT_ID, sorted(stream.get("products", []))),
            },
            "updated": updated,
        }

    def _write_signed(self, path, content):
        text = (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()
        os.makedirs(os.path.dirname(self.path(path)), exist_ok=True)
        with open(self.path(f"{path}.json"), "wb") as out:
            out.write(text)
        with open(self.path(f"{path}.sjson"), "wb") as out:
            out.write(self.key.clearsign(text))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True)
    parser.add_argument("--gnupg", required=True)
    parser.add_argument("--keyring", required=True)
    parser.add_argument("images", nargs="+", metavar="VERSION=QCOW2")
    args = parser.parse_args()
    key = Key(args.gnupg, USER_ID)
    key.export(args.keyring)
    mirror = SampleMirror(args.root, key)
    for image in args.images:
        version, file = image.split("=", 1)
        mirror.add_image(version, file)
        mirror.add_neighbours(version)
    mirror.write()
    key.close()


if __name__ == "__main__":
    main()
