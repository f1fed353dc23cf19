"""Bundles as older versions of uvmirror wrote them. What they hold is kept as text, signatures included, in
a folder per format; their images, which are binary, are made here. No secret key is needed, and none is
left: the keys were made for the specimen and thrown away."""

import json
import pathlib
import struct

from bundles import MANIFEST, SIGNATURE, Bundle, Member

HERE = pathlib.Path(__file__).resolve().parent
CLUSTER = 1 << 16


def image(mebibytes):
    """An empty qcow2 of that virtual size: header, refcount table, refcount block, L1 table."""
    header = struct.pack(">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 0, 0, 16, mebibytes << 20, 0, 1, 3 * CLUSTER,
                         CLUSTER, 1, 0, 0, 0, 0, 0, 4, 104)
    clusters = header + bytes(8), struct.pack(">Q", 2 * CLUSTER), struct.pack(">4H", 1, 1, 1, 1), b""
    return b"".join(cluster.ljust(CLUSTER, b"\0") for cluster in clusters)


# Each image of a specimen has a size of its own.
IMAGES = {
    "server/releases/noble/release-20241004/ubuntu-24.04-server-cloudimg-amd64.img": image(3),
    "local/bookworm/amd64/1/debian.qcow2": image(5),
}


class Specimen:
    def __init__(self, name):
        self.folder = HERE / name
        self.site, self.vendor, self.distribution = (
            self.folder / f"{who}.asc" for who in ("site", "vendor", "distribution"))

    def _member(self, name):
        return Member(name, IMAGES[name] if name in IMAGES else (self.folder / name).read_bytes())

    def write(self, path):
        manifest = json.loads((self.folder / MANIFEST).read_bytes())
        payloads = [image["payload"]["member"] for image in manifest["images"] if image["payload"]]
        names = [MANIFEST, SIGNATURE, *(member["path"] for member in manifest["members"]), *payloads]
        return Bundle([self._member(name) for name in names]).save(path)
