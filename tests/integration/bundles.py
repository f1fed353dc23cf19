"""Takes a bundle apart and builds others from its pieces, by Python's tarfile and the zstd program:
nothing of uvmirror is in here. What save() writes need not be sound: that is the point."""

import hashlib
import io
import json
import struct
import subprocess
import tarfile
import zlib

MANIFEST = "uvmirror/manifest.json"
SIGNATURE = "uvmirror/manifest.json.sig"
END = bytes(1024)


LOCAL = "uvmirror:local"
SUMS = "uvmirror/origin/checksums/test.sums"


def compress(data):
    """A frame with the head that the format wants: checksum, no size, a window of 2^17 bytes."""
    return subprocess.run(["zstd", "-q", "-c", "-1", "--zstd=wlog=17"], input=data, check=True,
                          stdout=subprocess.PIPE).stdout


TRAILER_SIZE = 12


def with_trailer(data):
    """Adds the skippable frame that holds the CRC-32 of all bytes before it."""
    return data + struct.pack("<III", 0x184D2A55, 4, zlib.crc32(data))


def second_frame(data):
    """Where the second frame begins."""
    return data.index(b"\x28\xb5\x2f\xfd", 4)


def decompress(path):
    return subprocess.run(["zstd", "-q", "-d", "-c", str(path)], check=True,
                          stdout=subprocess.PIPE).stdout


class Member:
    """A member of the tar. `info` may be any tarfile.TarInfo: a link, a device, ..."""

    def __init__(self, name, data=b"", **fields):
        self.info = tarfile.TarInfo(name)
        self.info.size = len(data)
        self.info.mode = 0o644
        for field, value in fields.items():
            setattr(self.info, field, value)
        self.data = data

    @property
    def name(self):
        return self.info.name

    def block(self):
        header = self.info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        return header + self.data + bytes(-len(self.data) % 512)


class Bundle:
    def __init__(self, members):
        self.members = members

    @classmethod
    def read(cls, path):
        members = []
        with tarfile.open(fileobj=io.BytesIO(decompress(path))) as tar:
            for info in tar:
                members.append(Member(info.name, tar.extractfile(info).read()))
        return cls(members)

    def names(self):
        return [member.name for member in self.members]

    def index(self, name):
        return self.names().index(name)

    def __getitem__(self, name):
        return self.members[self.index(name)].data

    def __setitem__(self, name, data):
        self.members[self.index(name)] = Member(name, data)

    @property
    def manifest(self):
        return json.loads(self[MANIFEST])

    def change(self, key, name, data):
        """Other bytes for a member, and a manifest that agrees, signed by `key`."""
        self[name] = data
        manifest = self.manifest
        for entry in manifest["members"]:
            if entry["path"] == name:
                entry["size"] = len(data)
                entry["sha256"] = hashlib.sha256(data).hexdigest()
        self.sign(key, manifest)

    def _add_member(self, manifest, name, data):
        """Behind the small members that are there."""
        self.members.insert(2 + len(manifest["members"]), Member(name, data))
        manifest["members"].append({"path": name, "size": len(data),
                                    "sha256": hashlib.sha256(data).hexdigest()})

    def add_image(self, key, data, sums=None, signature=None, product="local:bookworm:amd64"):
        """An image that the site added, under the name "debian.qcow2", and its checksum file."""
        release, arch = "bookworm", "amd64"
        path, digest = f"local/{release}/{arch}/1/debian.qcow2", hashlib.sha256(data).hexdigest()
        item = {"ftype": "disk1.img", "path": path, "sha256": digest, "size": str(len(data))}
        names = {"product_name": product, "version_name": "1", "item_name": "disk1.img"}
        about = {"release": release, "arch": arch, "label": "local"}
        head = {"content_id": LOCAL, "datatype": "image-downloads", "format": "products:1.0"}
        versions = {"1": {"items": {"disk1.img": item}}}
        stream = dict(head, products={product: dict(about, versions=versions)})
        manifest, origin = self.manifest, f"uvmirror/origin/{LOCAL}.sjson"
        self._add_member(manifest, origin, key.clearsign(json.dumps(stream).encode()))
        for name, content in ((SUMS, sums), (f"{SUMS}.sig", signature)):
            if content is not None:
                self._add_member(manifest, name, content)
        manifest["streams"].append({
            "content_id": LOCAL, "source": "local", "path": "x", "updated": None, "updated_at": 0,
            "filters": [], "origin": origin, "verified_by": key.fingerprint,
            "products": [{"name": product, "complete": True, "versions": ["1"]}]})
        image = {"stream": LOCAL, "product": product, "version": "1", "item": "disk1.img",
                 "path": path, "size": len(data), "sha256": digest, "sha512": None,
                 "metadata": {**head, **about, **names, **item},
                 "payload": {"member": path, "encoding": "plain", "size": len(data),
                             "sha256": digest}}
        if sums is not None:
            image["origin"] = {"checksums": SUMS, "name": "debian.qcow2",
                               "signature": f"{SUMS}.sig" if signature is not None else None}
        manifest["images"].append(image)
        self.members.append(Member(path, data))
        self.sign(key, manifest)

    def sign(self, key, manifest):
        """Puts in a manifest (an object, or bytes as they are), signed by `key`."""
        if not isinstance(manifest, bytes):
            manifest = (json.dumps(manifest, indent=1) + "\n").encode()
        self[MANIFEST] = manifest
        self[SIGNATURE] = key.detach_sign(manifest)

    def save(self, path, *, head=2, end=END, behind=b""):
        """Two frames: the first `head` members, and the rest with the `end` marker; `behind` follows
        as it is; then the trailer, so that none of this is refused for a checksum that is wrong."""
        blocks = [member.block() for member in self.members]
        frames = compress(b"".join(blocks[:head])) + compress(b"".join(blocks[head:]) + end)
        path.write_bytes(with_trailer(frames + behind))
        return path
