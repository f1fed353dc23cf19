"""What a stream may not say, though its vendor has signed it; and what is odd, and legal."""

import json
import os
import shutil
import sys

import pytest

from bundles import Bundle
from sample_mirror import CONTENT_ID, INDEX_PATH, PRODUCT, PRODUCTS_PATH

OLD, NEW = "20241004", "20241018"
MEGABYTE = 1 << 20


def version_of(stream):
    return stream["products"][PRODUCT]["versions"][NEW]


def item_of(stream):
    return version_of(stream)["items"]["disk1.img"]


def rewrite(mirror, path, change):
    """Signs other bytes than json.dumps would make: change(bytes) -> bytes."""
    with open(mirror.path(f"{path}.json"), "rb") as file:
        text = change(file.read())
    with open(mirror.path(f"{path}.json"), "wb") as out:
        out.write(text)
    with open(mirror.path(f"{path}.sjson"), "wb") as out:
        out.write(mirror.key.clearsign(text))


# ---- refused: what an item says -----------------------------------------------------------------

NUMBER, CHECKSUM, PATH = "size '", "sha256", "path"

ITEMS = {
    "size below zero": ({"size": -1}, NUMBER),
    "size with an exponent": ({"size": 1e3}, NUMBER),
    "size as text with an exponent": ({"size": "1e3"}, NUMBER),
    "size as another text": ({"size": "eleven"}, NUMBER),
    "size with a blank": ({"size": " 11"}, NUMBER),
    "size as an empty text": ({"size": ""}, NUMBER),
    "size in other digits": ({"size": "\u0661\u0661"}, NUMBER),
    "size as a truth": ({"size": True}, NUMBER),
    "size over the limit": ({"size": 2 ** 50 + 1}, NUMBER),
    "size 2^63 - 1": ({"size": 2 ** 63 - 1}, NUMBER),
    "size 2^63": ({"size": 2 ** 63}, ("JSON", "integer")),
    "size 2^64 + 11 as text": ({"size": str(2 ** 64 + 11)}, NUMBER),
    "size beyond any number": ({"size": 1e300}, NUMBER),
    "size of nothing": ({"size": None}, "size is missing"),
    "size in a list": ({"size": [11]}, "size is missing"),
    "md5 only": ({"sha256": None}, "MD5"),
    "no checksum": ({"sha256": None, "md5": None}, "checksum"),
    "short checksum": ({"sha256": "abc"}, CHECKSUM),
    "one digit less": ({"sha256": "0" * 63}, CHECKSUM),
    "one digit more": ({"sha256": "0" * 65}, CHECKSUM),
    "no hex": ({"sha256": "g" * 64}, CHECKSUM),
    "checksum 0": ({"sha256": 0}, CHECKSUM),
    "short sha512 beside a good sha256": ({"sha512": "abc"}, "sha512"),
    "another sha256": ({"sha256": "0" * 64}, "checksum"),
    "another sha512": ({"sha512": "0" * 128}, "checksum"),
    "path of nothing": ({"path": None}, PATH),
    "path as a number": ({"path": 7}, PATH),
    "empty path": ({"path": ""}, PATH),
    "path upwards": ({"path": "../../etc/passwd"}, PATH),
    "path upwards inside": ({"path": "server/../../x"}, PATH),
    "path upwards at the end": ({"path": "server/.."}, PATH),
    "path to itself": ({"path": "server/./x"}, PATH),
    "absolute path": ({"path": "/etc/passwd"}, PATH),
    "URL": ({"path": "http://127.0.0.1/x"}, PATH),
    "URL of a file": ({"path": "file:///etc/passwd"}, PATH),
    "empty segment": ({"path": "a//b"}, PATH),
    "folder": ({"path": "a/b/"}, PATH),
    "backslash": ({"path": "a\\..\\b"}, PATH),
    "NUL": ({"path": "a\0b"}, "JSON"),
    "newline in the path": ({"path": "a\nb"}, PATH),
    "escape in the path": ({"path": "a\x1b[2Jb"}, PATH),
    "escaped dots": ({"path": "%2e%2e/x"}, PATH),
    "escaped dots, once upper-case": ({"path": "a/%2E./b"}, PATH),
    "long path": ({"path": "a/" * 600 + "b"}, PATH),
    "long segment": ({"path": "a" * 300}, ""),
    "our own folder": ({"path": "uvmirror/lock"}, PATH),
    "our streams": ({"path": "streams/v1/index.json"}, PATH),
    "another product's name": ({"product_name": "another"}, "claims to be"),
    "another version's name": ({"version_name": "19990101"}, "claims to be"),
    "64 KiB of metadata": ({f"about{n}": "x" * 16384 for n in range(4)}, "limit"),
    "1,025 keys": ({f"k{n}": "v" for n in range(1025)}, ""),
}


@pytest.mark.parametrize("values, words", ITEMS.values(), ids=ITEMS.keys())
def test_item(published, refuses, values, words):
    def change(stream):
        item = item_of(stream)
        item.update(values)
        for key in [key for key, value in values.items() if value is None]:
            del item[key]

    published.write(change=change)
    refuses(words, code=5)


# ---- refused: names -----------------------------------------------------------------------------

NAMES = {
    "blank": "a b", "slash": "a/b", "upwards": "../x", "newline": "a\nb", "escape": "a\x1b[2J",
    "300 bytes": "x" * 300, "empty": "", "written backwards": "a\u202eb",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
@pytest.mark.parametrize("what", ["product", "version"])
def test_name(published, refuses, what, name):
    def change(stream):
        where = {"product": stream["products"],
                 "version": stream["products"][PRODUCT]["versions"]}[what]
        old = {"product": PRODUCT, "version": NEW}[what]
        where[name] = where.pop(old)

    published.write(change=change)
    refuses(f"{what}_name '", "--max", "9", "release=noble", code=5)


# ---- refused: a stream as a whole ---------------------------------------------------------------


def setting(**values):
    """The stream with other values at its top; None takes the key away."""
    def change(stream):
        stream.update(values)
        for key in [key for key, value in values.items() if value is None]:
            del stream[key]
    return change


def two_hashes_for_one_path(stream):
    versions = stream["products"][PRODUCT]["versions"]
    item_of(stream)["path"] = versions[OLD]["items"]["disk1.img"]["path"]


def under_an_image(stream):
    versions = stream["products"][PRODUCT]["versions"]
    item_of(stream)["path"] = versions[OLD]["items"]["disk1.img"]["path"] + "/x"


STREAMS = {
    "another content_id": (setting(content_id="com.ubuntu.cloud:daily:download"),
                           ("com.ubuntu.cloud:daily:download", CONTENT_ID)),
    "no content_id": (setting(content_id=None), "content_id"),
    "content_id as a path": (setting(content_id="../x"), "content_id"),
    "unknown format": (setting(format="products:2.0"), "products:2.0"),
    "an index": (setting(format="index:1.0"), "index:1.0"),
    "no format": (setting(format=None), "format"),
    "no products": (setting(products=None), "products"),
    "products in a list": (setting(products=[]), "products"),
    "a product that is none": (setting(products={PRODUCT: 7}), PRODUCT),
    "an alias of nothing": (setting(_aliases={"release": {"no": {}}}, release="noble"), "release"),
    "an alias without end": (setting(_aliases={"os": {"ubuntu": {"a": {"b": "c"}}}}), "os"),
    "two hashes for one path": (two_hashes_for_one_path, "server/releases/noble"),
    "a path below an image": (under_an_image, "server/releases/noble"),
}


@pytest.mark.parametrize("change, words", STREAMS.values(), ids=STREAMS.keys())
def test_stream(published, refuses, change, words):
    # The index is what it was: only the stream is wrong.
    with open(published.path(f"{INDEX_PATH}.json"), encoding="utf-8") as file:
        index = json.load(file)
    published.write(change=change, change_index=lambda wrong: index)
    refuses(words, "--max", "2", "release=noble", code=5)


def replace(old, new):
    def change(text):
        assert old in text
        return text.replace(old, new, 1)
    return change


DEEP = 3000

TEXTS = {
    "duplicate key": (replace(b'"release": "noble"', b'"release": "noble", "release": "jammy"'),
                      "duplicate"),
    "duplicate product": (replace(b'"products": {', b'"products": {"%s": {},' % PRODUCT.encode()),
                          "duplicate"),
    "duplicate at the top": (replace(b'"datatype"', b'"format": "x", "datatype"'), "duplicate"),
    "deep lists": (replace(b'"license"', b'"deep": %s%s, "license"' % (b"[" * DEEP, b"]" * DEEP)),
                   "depth"),
    "deep objects": (replace(b'"license"', b'"deep": %s1%s, "license"' % (b'{"a":' * DEEP,
                                                                       b"}" * DEEP)), "depth"),
    "not UTF-8": (replace(b'"os": "ubuntu"', b'"os": "ub\xffntu"'), "JSON"),
    "UTF-8, too long": (replace(b'"os": "ubuntu"', b'"os": "\xc0\xafubuntu"'), "JSON"),
    "half a character": (replace(b'"os": "ubuntu"', b'"os": "\\ud800"'), "JSON"),
    "NUL": (replace(b'"os": "ubuntu"', b'"os": "a\\u0000b"'), "JSON"),
    "NUL as it is": (replace(b'"os": "ubuntu"', b'"os": "a\0b"'), ""),
    "not a number": (replace(b'"supported": true', b'"supported": NaN'), "JSON"),
    "too large a number": (replace(b'"supported": true', b'"supported": 1e999'), "JSON"),
    "comment": (replace(b'"supported": true', b'/* x */ "supported": true'), "JSON"),
    "comma too many": (replace(b'"os": "ubuntu"', b'"os": "ubuntu",,'), "JSON"),
    "cut off": (lambda text: text[:-30], "JSON"),
    "more behind it": (lambda text: text + b"{}\n", "JSON"),
    "byte order mark": (lambda text: b"\xef\xbb\xbf" + text, "JSON"),
    "a list": (lambda text: b"[%s]\n" % text, "object"),
    "a number": (lambda text: b"7\n", "JSON"),
    "nothing": (lambda text: b"\n", "JSON"),
}


@pytest.mark.parametrize("change, words", TEXTS.values(), ids=TEXTS.keys())
def test_text(published, refuses, change, words):
    rewrite(published, PRODUCTS_PATH, change)
    refuses(words, code=5)


# ---- refused: the index -------------------------------------------------------------------------


def entry(**values):
    """The index with other values in the entry of the stream."""
    def change(index):
        index["index"][CONTENT_ID].update(values)
    return change


INDEXES = {
    "path upwards": (entry(path="../products.sjson"), 5, CONTENT_ID),
    "URL": (entry(path="http://127.0.0.1/x.sjson"), 5, CONTENT_ID),
    "no path": (entry(path=None), 5, CONTENT_ID),
    "unsigned products": (entry(path=f"{PRODUCTS_PATH}.json"), None, f"{PRODUCTS_PATH}.json"),
    "unknown datatype": (entry(datatype="image-ids"), 3, "no stream"),
    "unknown format": (entry(format="products:2.0"), 3, "no stream"),
    "no entries": (lambda index: index.update(index={}), 3, "no stream"),
    "entries in a list": (lambda index: index.update(index=[]), 3, "no stream"),
    "unknown format of its own": (lambda index: index.update(format="index:2.0"), 5, "index:2.0"),
    "itself": (entry(path=f"{INDEX_PATH}.sjson"), 5, "index:1.0"),
    "another name": (lambda index: index["index"].update(
        {"com.ubuntu.cloud:daily:download": index["index"].pop(CONTENT_ID)}), 5, "daily"),
    "nothing there": (entry(path="streams/v1/gone.sjson"), 3, "gone.sjson"),
}


@pytest.mark.parametrize("change, code, words", INDEXES.values(), ids=INDEXES.keys())
def test_index(published, refuses, change, code, words):
    published.write(change_index=change)
    result = refuses(words, code=code)
    assert result.code in (2, 3, 4, 5), str(result)


FAULTY_INDEXES = {
    "duplicate key": (replace(b'"format"', b'"format": "x", "format"'), "duplicate"),
    "deep": (replace(b'"format"', b'"deep": %s%s, "format"' % (b"[" * DEEP, b"]" * DEEP)), "depth"),
    "not UTF-8": (replace(b'"updated": "', b'"updated": "\xff'), "JSON"),
    "a list": (lambda text: b"[%s]\n" % text, "object"),
    "cut off": (lambda text: text[:-30], "JSON"),
    "nothing": (lambda text: b"\n", "JSON"),
}


@pytest.mark.parametrize("change, words", FAULTY_INDEXES.values(), ids=FAULTY_INDEXES.keys())
def test_text_of_the_index(published, refuses, change, words):
    rewrite(published, INDEX_PATH, change)
    refuses(words, code=5)


# ---- odd and legal ------------------------------------------------------------------------------


def bundled(path):
    return [(image["product"], image["version"]) for image in Bundle.read(path).manifest["images"]]


def size_as_a_string(stream):
    item_of(stream)["size"] = str(item_of(stream)["size"])


def upper_case_checksum(stream):
    item_of(stream)["sha256"] = item_of(stream)["sha256"].upper()


def odd_but_legal(stream):
    versions = stream["products"][PRODUCT]["versions"]
    versions["20991231"] = {"items": {}}
    versions["current"] = {}
    stream["products"][PRODUCT]["requirements"] = {"secureboot": "false"}
    stream["products"][PRODUCT]["release_title"] = "24.04 LTS, \u201cnoble\u201d"
    stream["unknown"] = {"deep": [1, 2, {"er": None}]}
    del stream["updated"]


def a_bad_item_that_nobody_asked_for(stream):
    stream["products"][PRODUCT]["versions"][OLD]["items"]["disk1.img"]["path"] = "../x"
    version_of(stream)["items"]["root.tar.xz"]["sha256"] = "x"


def another_product_of_no_sense(stream):
    stream["products"]["a b/c"] = {"versions": []}


def label_with_blanks(stream):
    version_of(stream)["label"] = "release candidate"


@pytest.mark.parametrize("change", [
    size_as_a_string, upper_case_checksum, odd_but_legal, a_bad_item_that_nobody_asked_for,
    another_product_of_no_sense, label_with_blanks,
], ids=lambda change: change.__name__)
def test_legal(published, fetch, folder, change):
    published.write(change=change)
    fetch("-o", folder / "b.tar.zst", "release=noble")
    assert bundled(folder / "b.tar.zst") == [(PRODUCT, NEW)]


def test_two_items_share_a_path(published, fetch, folder):
    """Equal contents: downloaded once, and both are listed."""
    def change(stream):
        stream["products"]["com.ubuntu.cloud:minimal:24.04:amd64"] = stream["products"][PRODUCT]

    published.write(change=change)
    fetch("-o", folder / "b.tar.zst", "release=noble")
    assert bundled(folder / "b.tar.zst") == [("com.ubuntu.cloud:minimal:24.04:amd64", NEW),
                                             (PRODUCT, NEW)]


def test_colons_and_tildes_in_a_path(published, fetch, web, folder):
    item = published.products[PRODUCT]["versions"][NEW]["items"]["disk1.img"]
    odd = "odd dir/20241018_07:42/a+b~c,d%20e.img"
    os.makedirs(os.path.dirname(published.path(odd)))
    shutil.move(published.path(item["path"]), published.path(odd))
    item["path"] = odd
    published.write()
    fetch("-o", folder / "b.tar.zst", "release=noble", source=web.url)
    assert (folder / "mirror" / odd).exists()
    assert odd in Bundle.read(folder / "b.tar.zst").names()


@pytest.mark.parametrize("key", ["release", "arch", "label"])
def test_what_uvtool_cannot_do_without(published, fetch, uvmirror, host, folder, key):
    """fetch takes it, since not every bundle is for libvirt; import says what is missing."""
    def change(stream):
        product = stream["products"][PRODUCT]
        (version_of(stream) if key == "label" else product).pop(key)

    published.write(change=change)
    fetch("-o", folder / "b.tar.zst", f"version_name={NEW}", "arch~")
    before = host.view()
    result = uvmirror("import", folder / "b.tar.zst", code=5)
    assert f"has no {key}".encode() in result.err
    assert host.view() == before


# ---- how large ----------------------------------------------------------------------------------

PRODUCTS_LIMIT = 64 * MEGABYTE
# Runs a command and writes its peak memory, in KiB, to a file.
PEAK = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
with open(sys.argv[1], "w") as out:
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=out)
sys.exit(code)
"""
# Of a build with sanitizers, which hardly holds back freed memory here.
MEMORY_MAX = 400 * MEGABYTE


def with_filling(published, size, filling):
    """Puts filling(number of bytes) into the products file, so that it has `size` bytes."""
    mark = b'"license"'

    def change(text):
        room = size - len(text) - len(b'"x": , ')
        return text.replace(mark, b'"x": %s, %s' % (filling(room), mark), 1)

    rewrite(published, PRODUCTS_PATH, change)


def lines(room):
    """Strings of a length that a clear-signed text may have."""
    line = b'"' + b"x" * 1000 + b'",\n'
    count = (room - 4) // len(line)
    rest = room - 4 - count * len(line)
    return b"[" + line * count + b'""' + b" " * rest + b"]"


def objects(room):
    """What takes the most memory for its text."""
    return b"[" + b"{},\n" * ((room - 4) // 4) + b"{}]"


@pytest.mark.parametrize("size, filling, code, words", [
    (PRODUCTS_LIMIT + 1, lines, 6, "more than"),
    (18 * MEGABYTE, objects, 5, "values"),
    pytest.param(PRODUCTS_LIMIT - MEGABYTE, objects, 5, "values", marks=pytest.mark.long),
], ids=["64 MiB and a byte", "18 MiB of small objects", "63 MiB of small objects"])
def test_too_large(published, refuses, size, filling, code, words, folder):
    """Said before anything is built of it: memory stays within bounds."""
    with_filling(published, size, filling)
    peak = folder / "peak"
    refuses(words, code=code, wrap=(sys.executable, "-c", PEAK, peak),
            env={"ASAN_OPTIONS": "detect_leaks=1:exitcode=99:quarantine_size_mb=1"})
    assert int(peak.read_text()) << 10 < MEMORY_MAX


def test_large(published, fetch):
    """Large is no fault by itself."""
    with_filling(published, 20 * MEGABYTE, lines)
    fetch("--no-bundle", "release=noble")
