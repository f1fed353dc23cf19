#!/usr/bin/env python3
"""Checks a bundle and unpacks it, with gpgv, zstd and Python's standard library: a second reader, written
from docs/bundle-format.md alone. If it does not understand a bundle, that page or the bundle is wrong.

    read_bundle.py BUNDLE KEYRING FOLDER [BASE ...]

BUNDLE is a file, or the sums of one in parts, which lie beside them. KEYRING holds the site's public key,
not armored; FOLDER is made. What is compact is also made an image again; BASE are images that the receiver has
('qemu-img' reads those). Checked is what the site signed; see "Origin" on that page for the vendor's word.
"""

import hashlib
import json
import mmap
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib

from read_compact import Refused, need, rebuild

MANIFEST, SIGNATURE = "uvmirror/manifest.json", "uvmirror/manifest.json.sig"
MANIFEST_MAX, SIGNATURE_MAX, MEMBER_MAX, PAYLOAD_MAX = 16 << 20, 64 << 10, 64 << 20, 1 << 50
FRAME_MAX = 1024 + MANIFEST_MAX + SIGNATURE_MAX
KNOWN = {"format", "id", "serial", "created", "tool", "signer", "trailer", "critical", "streams", "images",
         "members"}
BAD = {"BADSIG", "ERRSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG", "NODATA"}


# ---- frames (RFC 8878, 3.1.1) ---------------------------------------------------------------------


def frame_end(data, at):
    """Where the zstd frame at this place ends, by its blocks' headers."""
    need(data[at:at + 4] == b"\x28\xb5\x2f\xfd", "no zstd frame where one must be")
    head, window = data[at + 4], data[at + 5]
    single, checksum = head & 32, head & 4
    need(head & 3 == 0, "a dictionary")
    size_len = (1 if single else 0, 2, 4, 8)[head >> 6]
    start = at + (5 if single else 6)
    size = int.from_bytes(data[start:start + size_len], "little") + (256 if size_len == 2 else 0)
    base = 1 << 10 + (window >> 3)
    need((size if single else base + base // 8 * (window & 7)) <= 1 << 27, "the window is too large")
    at, last = start + size_len, False
    while not last:
        block = int.from_bytes(data[at:at + 3], "little")
        last, kind, size = block & 1, block >> 1 & 3, block >> 3
        at += 3 + (1 if kind == 1 else size)
        need(kind < 3 and at <= len(data), "a block is damaged or cut off")
    return at + (4 if checksum else 0)


def first_frame(data):
    """The first frame, decoded: never more than it may hold."""
    done = subprocess.run(["zstd", "-qdc", "--no-sparse"], input=data, capture_output=True, check=False)
    need(done.returncode == 0 and len(done.stdout) <= FRAME_MAX, "the first frame is damaged or too large")
    return done.stdout


# ---- tar ------------------------------------------------------------------------------------------


def plain_file(info, name, most):
    need(info.name == name, f"found {info.name} where {name} must be")
    strange = set(info.pax_headers) - {"path", "size", "hdrcharset"}
    need(info.type == tarfile.REGTYPE and not info.sparse and not strange, f"{name} is no plain file")
    need(0 <= info.size <= most, f"{name} is too large")


def small_member(frame, at, name, most):
    """A member with a plain header: its content, and where the next one begins."""
    need(len(frame) >= at + 512, f"{name} is missing")
    info = tarfile.TarInfo.frombuf(frame[at:at + 512], "utf-8", "surrogateescape")
    plain_file(info, name, most)
    end = at + 512 + info.size
    need(end <= len(frame), f"{name} is cut off")
    return frame[at + 512:end], at + 512 + -(-info.size // 512) * 512


class Counted:
    """A pipe that remembers how much came out of it, and the last of it."""

    def __init__(self, pipe):
        self.pipe, self.count, self.last = pipe, 0, b""

    def read(self, size):
        data = self.pipe.read(size)
        self.count, self.last = self.count + len(data), (self.last + data)[-3 * tarfile.RECORDSIZE:]
        return data


# ---- the manifest ---------------------------------------------------------------------------------


def verify(keyring, *contents):
    """Of a signature and what it is of, or of a clear-signed text, which is returned without its armor."""
    with tempfile.TemporaryDirectory() as home:
        files = [pathlib.Path(home, str(number)) for number in range(len(contents))]
        plain = pathlib.Path(home, "plain")
        for file, content in zip(files, contents):
            file.write_bytes(content)
        more = ["--output", plain] if len(files) == 1 else []
        done = subprocess.run(["gpgv", "-q", "--homedir", home, "--weak-digest", "SHA1", "--status-fd", "1",
                               "--keyring", pathlib.Path(keyring).resolve(), *more, *files],
                              capture_output=True, check=False)
        text = plain.read_bytes() if plain.exists() else b""
    said = {line.split()[1] for line in done.stdout.decode("utf-8", "replace").splitlines()}
    need(done.returncode == 0 and "VALIDSIG" in said and not said & BAD, "the signature is not good")
    return text


def unique(pairs):
    need(len(dict(pairs)) == len(pairs), "the manifest has a key twice")
    return dict(pairs)


def safe(path):
    parts = path.split("/")
    need(0 < len(path.encode()) <= 1024 and not {"", ".", ".."} & set(parts), f"unsafe path {path!r}")
    need(not any(c < " " or c in "\\\x7f" for c in path), f"unsafe path {path!r}")
    need("%2e" not in path.lower() and "%2f" not in path.lower(), f"unsafe path {path!r}")


def plain_payload(_, image, payload):
    """The checksums of the member."""
    need(payload["encoding"] == "plain" and payload["member"] == image["path"] and
         payload["size"] == image["size"] and image["sha256"] in (None, payload["sha256"]),
         f"{image['path']}: not its payload")
    return {"sha256": payload["sha256"], **({"sha512": image["sha512"]} if image["sha512"] else {})}


def compact_payload(manifest, image, payload):
    need(manifest["format"] == 2 and payload["content"] % 65536 == 0 and
         payload["member"] == "uvmirror/compact/" + (image["sha256"] or image["sha512"]),
         f"{image['path']}: not its payload")
    return {"sha256": payload["sha256"]}


def wanted_members(manifest):
    """[(path, size, {digest type: value})] of all members behind the first two, in their order."""
    need(manifest["format"] in (1, 2), f"format {manifest['format']} is not known")
    need(set(manifest["critical"]) <= KNOWN, "a critical field is not known")
    wanted = {}
    for member in manifest["members"]:
        need(member["path"].startswith(("uvmirror/origin/", "streams/v1/")), "a small member elsewhere")
        need(member["path"] not in wanted and member["size"] <= MEMBER_MAX, "twice, or too large")
        wanted[member["path"]] = member["size"], {"sha256": member["sha256"]}
    small = set(wanted)
    for image in manifest["images"]:
        payload = image["payload"]
        if payload is None:
            continue
        need(payload["size"] <= PAYLOAD_MAX, f"{image['path']}: too large")
        check = compact_payload if payload["encoding"] == "compact" else plain_payload
        entry = payload["size"], check(manifest, image, payload)
        need(payload["member"] not in small and wanted.setdefault(payload["member"], entry) == entry,
             f"{image['path']}: two payloads of one name")
    for path in wanted:
        safe(path)
    return [(path, *rest) for path, rest in wanted.items()]


# ---- parts ----------------------------------------------------------------------------------------

SUMS = re.compile(r"# uvmirror-parts 1\n# bundle (\S+)\n# serial (\d+)\n# encoder [ -~]{1,200}\n((?s:.*))")
PART = re.compile(r"# part of (\d+) bytes, begins [0-9a-f]{64}\n"
                  r"([0-9a-f]{64})  ([^/\\\n]+\.tar\.zst)\.(\d{3})\n")


def join(sums, keyring, target):
    """Puts the parts together in a file; returns the id and serial that the bundle must have."""
    message = sums.read_bytes()
    if message.startswith(b"\x50\x2a\x4d\x18"):
        need(int.from_bytes(message[4:8], "little") == len(message) - 8, "the sums are cut off")
        message = message[9:]
    need(message.startswith(b"-----BEGIN PGP SIGNED MESSAGE-----\n"), "no sums")
    head = SUMS.fullmatch(verify(keyring, message).decode())
    need(head and PART.sub("", head[3]) == "", "the sums are not as they must be")
    for number, (size, digest, name, suffix) in enumerate(PART.findall(head[3]), 1):
        need(int(suffix) == number, "the parts are out of order")
        content = sums.with_name(f"{name}.{suffix}").read_bytes()
        need(len(content) == int(size) and hashlib.sha256(content).hexdigest() == digest,
             f"part {number} is damaged")
        target.write(content)
    return head[1], int(head[2])


# ---- images of compact payloads -------------------------------------------------------------------


def digests_of(path):
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return {name: hashlib.new(name, data).hexdigest() for name in ("sha256", "sha512")}


def is_same(digests, wanted):
    stated = {name for name in digests if wanted[name]}
    return bool(stated) and all(digests[name] == wanted[name] for name in stated)


def raw_disk(image, target):
    done = subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, target], check=False)
    need(done.returncode == 0, f"{image} is no base")
    return open(target, "rb")


def rebuild_image(image, folder, known, scratch):
    """`known` are [(digests, content)] of the images that may be a base."""
    payload, path = image["payload"], folder / image["path"]
    member, base = folder / payload["member"], payload["base"]
    with open(member, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        need(frame_end(data, 0) == len(data) and data[4] & 4, "not one frame with a checksum")
    found = [content for digests, content in known if base and is_same(digests, base)]
    path.parent.mkdir(parents=True, exist_ok=True)
    content = open(scratch / str(len(known)), "x+b")
    size = rebuild(member, path, found[0] if found else None, content)
    digests = digests_of(path)
    need(size == payload["content"] and path.stat().st_size == image["size"] and is_same(digests, image),
         f"{image['path']}: its payload makes something else")
    known.append((digests, content))


def rebuild_images(manifest, folder, bases):
    with tempfile.TemporaryDirectory() as name:
        scratch = pathlib.Path(name)
        known = [(digests_of(base), raw_disk(base, scratch / str(n))) for n, base in enumerate(bases)]
        for image in manifest["images"]:
            compact = image["payload"] and image["payload"]["encoding"] == "compact"
            if compact and not (folder / image["path"]).exists():
                rebuild_image(image, folder, known, scratch)


# ---- the whole ------------------------------------------------------------------------------------


def unpack(tar, info, path, sums):
    path.parent.mkdir(parents=True, exist_ok=True)
    digests = {name: hashlib.new(name) for name in sums}
    with tar.extractfile(info) as source, open(path, "xb") as target:
        while block := source.read(1 << 20):
            target.write(block)
            for digest in digests.values():
                digest.update(block)
    need({name: d.hexdigest() for name, d in digests.items()} == sums, f"{info.name} is not what was signed")


def read_second(file, wanted, folder):
    """The second frame; zstd passes over the trailer."""
    with subprocess.Popen(["zstd", "-qdc"], stdin=file, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL) as zstd:
        source = Counted(zstd.stdout)
        with tarfile.open(fileobj=source, mode="r|", encoding="utf-8", bufsize=512) as tar:
            for path, size, sums in wanted:
                info = tar.next()
                need(info is not None, f"{path} is missing")
                plain_file(info, path, size)
                need(info.size == size, f"{path} has {info.size} bytes, not {size}")
                unpack(tar, info, folder / path, sums)
            need(tar.next() is None, "there is more than the manifest lists")
            while source.read(1 << 16):
                pass
            end = source.count - tar.offset
    need(zstd.returncode == 0, "the second frame is damaged")
    need(end in range(1024, 1024 + tarfile.RECORDSIZE, 512) and not any(source.last[-end:]),
         "no sound end of the archive")


def read_bundle(bundle, keyring, folder):
    """The manifest, when all is well; `folder` holds the content then."""
    with open(bundle, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        second = frame_end(data, 0)
        need(second <= FRAME_MAX + FRAME_MAX // 64, "the first frame is too large")
        frame = first_frame(data[:second])
        text, at = small_member(frame, 0, MANIFEST, MANIFEST_MAX)
        signature, at = small_member(frame, at, SIGNATURE, SIGNATURE_MAX)
        need(at == len(frame), "the first frame holds more than two members")
        verify(keyring, signature, text)
        manifest = json.loads(text, object_pairs_hook=unique)
        wanted = wanted_members(manifest)
        end, trailer = frame_end(data, second), b""
        if "trailer" in manifest:
            need(manifest["trailer"] == "crc32", "an unknown trailer")
            trailer = bytes.fromhex("552a4d1804000000") + \
                zlib.crc32(memoryview(data)[:end]).to_bytes(4, "little")
        need(data[end:] == trailer, "damaged, or there is something behind the end")
        file.seek(second)
        read_second(file, wanted, pathlib.Path(folder))
    for name, content in ((MANIFEST, text), (SIGNATURE, signature)):
        pathlib.Path(folder, name).write_bytes(content)
    return manifest


def read_parts(sums, keyring, folder):
    with tempfile.NamedTemporaryFile() as joined:
        which = join(pathlib.Path(sums), keyring, joined)
        joined.flush()
        manifest = read_bundle(joined.name, keyring, folder)
    need((manifest["id"], manifest["serial"]) == which, "the sums are of another bundle")
    return manifest


def main(bundle, keyring, folder, *bases):
    pathlib.Path(folder).mkdir()
    try:
        manifest = (read_parts if bundle.endswith(".sums") else read_bundle)(bundle, keyring, folder)
        rebuild_images(manifest, pathlib.Path(folder), bases)
    except (Refused, OSError, ValueError, KeyError, TypeError, IndexError, tarfile.TarError) as error:
        shutil.rmtree(folder)  # nothing of a bundle counts unless all of it does
        sys.exit(f"{bundle}: refused: {error or type(error).__name__}")
    print(f"{bundle}: {manifest['id']}: OK")


if __name__ == "__main__":
    main(*sys.argv[1:])
