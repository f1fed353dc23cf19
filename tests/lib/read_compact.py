#!/usr/bin/env python3
"""Makes an image of its compact payload again, with zstd and Python's zlib: written from the section "Compact
payloads" of docs/bundle-format.md alone.

    read_compact.py MEMBER IMAGE [BASE]

MEMBER is the payload, IMAGE is made. BASE is the image's base as a raw disk ('qemu-img convert -O raw').
"""

import hashlib
import struct
import subprocess
import sys
import tempfile
import zlib

BLOCK, CLUSTER = 4096, 65536
HEAD, PAIR = struct.Struct(">12sIQQIIQQ32s"), struct.Struct(">QQ")
MAP_MAX, FILE_MAX = 2 << 20, 1 << 50
ZEROS, CARRIED, BASE = range(3)
VERBATIM, HOLE, AS_IS, DEFLATED = range(4)


class Refused(Exception):
    pass


def need(condition, why):
    if not condition:
        raise Refused(why)


def exactly(stream, size):
    data = stream.read(size)
    need(len(data) == size, "it ends too early")
    return data


def pair(stream):
    """A kind, how many, and the second number."""
    first, second = PAIR.unpack(exactly(stream, PAIR.size))
    return first >> 56, first & (1 << 56) - 1, second


def read_head(stream):
    magic, bits, virtual, size, records, zero, carried, from_base, digest = \
        HEAD.unpack(exactly(stream, HEAD.size))
    need(magic == b"uvmcompact\0\1" and zero == 0, "no compact payload")
    need(9 <= bits <= 21 and virtual > 0 and size <= FILE_MAX and 0 < records <= MAP_MAX, "a number is wrong")
    need(from_base or not any(digest), "a checksum of nothing")
    return bits, virtual, size, records, (carried, from_base), digest


def read_map(stream, records, blocks, wanted):
    """[(kind, number of blocks, first block of the base)]"""
    found = [pair(stream) for _ in range(records)]
    need(all(kind in (ZEROS, CARRIED, BASE) and count > 0 and (kind == BASE or base == 0)
             for kind, count, base in found), "a record of the map is wrong")
    need(sum(count for _, count, _ in found) == blocks, "the map is not of this disk")
    counts = tuple(sum(count for kind, count, _ in found if kind == which) for which in (CARRIED, BASE))
    need(counts == wanted, "the map is not what the head says")
    return found


def content_bytes(disk_map, virtual):
    """Of the clusters of 64 KiB of which a guest can see anything that is not zeros."""
    clusters, block, seen = set(), 0, -(-virtual // BLOCK)
    for kind, count, _ in disk_map:
        if kind != ZEROS:
            clusters.update(range(block * BLOCK // CLUSTER, -(-min(block + count, seen) * BLOCK // CLUSTER)))
        block += count
    return len(clusters) * CLUSTER


def make_content(stream, disk_map, digest, base, content):
    """Puts all blocks where they belong; `base` and `content` are files."""
    hashed, block = hashlib.sha256(), 0
    for kind, count, first in disk_map:
        content.seek(block * BLOCK)
        block += count
        for at in range(count if kind != ZEROS else 0):
            if kind == CARRIED:
                content.write(exactly(stream, BLOCK))
                continue
            need(base is not None, "it needs a base")
            base.seek((first + at) * BLOCK)
            data = base.read(BLOCK).ljust(BLOCK, b"\0")
            hashed.update(data)
            content.write(data)
    content.truncate(block * BLOCK)
    need(not any(kind == BASE for kind, _, _ in disk_map) or hashed.digest() == digest, "not the right base")


def deflate(data):
    """As QEMU does."""
    packer = zlib.compressobj(-1, zlib.DEFLATED, -12, 9)
    return packer.compress(data) + packer.flush()


def make_file(stream, size, cluster_size, clusters, content, image):
    """The image's own bytes, segment by segment."""
    at = 0
    while at < size:
        kind, count, cluster = pair(stream)
        need(kind <= DEFLATED and 0 < count <= size - at, "a segment is wrong")
        at += count
        if kind == HOLE:
            image.seek(count, 1)
        elif kind == VERBATIM:
            for done in range(0, count, CLUSTER):
                image.write(exactly(stream, min(CLUSTER, count - done)))
        else:
            need(cluster < clusters, "a cluster is outside of the disk")
            content.seek(cluster * cluster_size)
            data = content.read(cluster_size).ljust(cluster_size, b"\0")
            data = deflate(data) if kind == DEFLATED else data[:count]
            need(len(data) == count and (kind == DEFLATED or count == cluster_size or at == size),
                 "a cluster has another length")
            image.write(data)
        need(kind in (AS_IS, DEFLATED) or cluster == 0, "a segment is wrong")
    image.truncate(size)
    need(not stream.read(1), "there is something behind the end")


def rebuild(member, image, base, content):
    """`member` and `image` are paths, `base` is a file or None; `content`, a file, gets the disk. Returns the
    number of bytes of the content, as the manifest has it."""
    with subprocess.Popen(["zstd", "-qdc", "--long=27", member], stdout=subprocess.PIPE) as zstd, \
            open(image, "xb") as target:
        bits, virtual, size, records, counts, digest = read_head(zstd.stdout)
        clusters = virtual + (1 << bits) - 1 >> bits
        disk_map = read_map(zstd.stdout, records, -(-(clusters << bits) // BLOCK), counts)
        make_content(zstd.stdout, disk_map, digest, base, content)
        make_file(zstd.stdout, size, 1 << bits, clusters, content, target)
        need(zstd.wait() == 0, "it is damaged")
    return content_bytes(disk_map, virtual)


def main(member, image, base=None):
    try:
        with open(base or "/dev/null", "rb") as file, tempfile.TemporaryFile() as content:
            rebuild(member, image, file if base else None, content)
    except (Refused, OSError) as error:
        sys.exit(f"{member}: refused: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
