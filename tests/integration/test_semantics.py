"""What simplestreams means: which images a stream and filters choose. The rows were also held against
the Python implementation; it is less strict about paths and checksums, and counts a version that is
empty from the start as one of --max.

A stream is written down as its products, an item by what it says beside path, size and checksum; a
dry run tells the paths that it chooses. Paths are "product/version/item" unless an item has its own."""

import itertools
import json
import os
import pathlib
import re

import pytest

from sample_mirror import PRODUCT

SHA256, SHA512, MD5 = "5" * 64, "a" * 128, "d" * 32
PRODUCTS = "streams/v1/products.json"


# ---- streams ------------------------------------------------------------------------------------


def filled(products, **top):
    """A stream of these products, with what every item must have."""
    for product, version, item in pedigrees(products):
        entry = products[product]["versions"][version]["items"][item]
        entry.setdefault("path", f"{product}/{version}/{item}")
        if not [key for key in entry if key.lower().startswith(("sha", "md5"))]:
            entry["sha256"] = SHA256
        entry.setdefault("size", 1)
    stream = {"content_id": "x", "datatype": "image-downloads", "format": "products:1.0",
              "products": products, **top}
    return {key: value for key, value in stream.items() if value is not None}


def pedigrees(products):
    for product, about in products.items():
        for version, content in about.get("versions", {}).items():
            for item in content.get("items", {}):
                yield product, version, item


def disk(**values):
    return {"disk1.img": {"ftype": "disk1.img", **values}}


def versions(*names, **values):
    """A product with these versions, each with a disk1.img."""
    return {"arch": "amd64", "release": "noble", **values,
            "versions": {name: {"items": disk()} for name in names}}


@pytest.fixture
def choose(uvmirror, folder):
    """choose(stream, *arguments): the paths that a dry run names."""
    def run(stream, *args, code=0, path=PRODUCTS, source=None):
        file = folder / "source" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(stream if isinstance(stream, str) else json.dumps(stream))
        result = uvmirror("fetch", "--json", "-n", "--no-authentication", "--source",
                          source or folder / "source", "--path", path, "--mirror",
                          folder / "mirror", "--state-dir", folder / "state", *args, code=code)
        return [line["path"] for line in result.lines if line["event"] == "plan"]

    return run


NOTHING = 3  # the exit code when nothing matches


def check(choose, stream, args, expected):
    if expected == [] or isinstance(expected, int):
        choose(stream, *args, code=expected or NOTHING)
    else:
        assert choose(stream, *args) == expected


# ---- filters ------------------------------------------------------------------------------------

ONE = {"p": versions("1", supported=True, number=24.04, count=7, title="24.04 LTS", none=None,
                     aliases="24.04,noble,lts", tags=["a"], empty="", os="ubuntu", **{
                         "a-b": "dash", "a|b": "bar", "\u00e4": "umlaut"})}
YES, NO, WRONG = ["p/1/disk1.img"], [], 2

FILTERS = [
    # Operators, and blanks around them.
    ("release=noble", YES), ("release=nobl", NO), ("release=Noble", NO),
    ("release!=noble", NO), ("release!=jammy", YES),
    ("release~obl", YES), ("release~^obl", NO), ("release~jammy", NO),
    ("release!~obl", NO), ("release!~^obl", YES),
    ("release = noble", YES), ("release =noble", YES), ("release= noble", YES),
    ("release   !=   jammy", YES), ("release ! = noble", WRONG),
    (" release=noble", WRONG), ("release=noble ", NO), ("release~noble ", NO),
    ("title=24.04 LTS", YES), ("title~04 L", YES),
    ("release==noble", NO), ("release=~noble", NO), ("release~=noble", NO), ("release!noble", WRONG),
    ("release<noble", WRONG), ("release", WRONG), ("=noble", WRONG), ("", WRONG),
    ("release:noble=x", WRONG), ("release.x=y", WRONG),
    # Keys: letters, digits, '_', '|' and '-'.
    ("a-b=dash", YES), ("a|b=bar", YES), ("\u00e4=umlaut", YES), ("no|such-key=", YES),
    # What is missing is empty; so is what does not survive flattening.
    ("nothing=", YES), ("nothing!=", NO), ("nothing~^$", YES), ("nothing=None", NO), ("nothing~.", NO),
    ("nothing!=x", YES), ("empty=", YES), ("none=", YES), ("none=None", NO), ("tags=", YES),
    ("tags~a", NO), ("versions=", YES),
    # As Python prints it.
    ("supported=True", YES), ("supported=true", NO), ("supported=1", NO), ("supported~rue$", YES),
    ("number=24.04", YES), ("count=7", YES), ("count=7.0", NO), ("size=1", YES),
    # What is added on the way.
    ("product_name=p", YES), ("version_name=1", YES), ("item_name=disk1.img", YES),
    ("content_id=x", YES), ("format=products:1.0", YES), ("product_name~^.$", YES),
    # Python's regular expressions.
    (r"count~^\d$", YES), (r"release~\bnoble\b", YES), (r"release~(?i)NOBLE", YES),
    (r"aliases~(^|,)lts(,|$)", YES), (r"release~^(?!jammy)", YES), (r"release~(?P<x>o)", YES),
    (r"release~n.*?e$", YES), (r"release~(", WRONG),
    (r"release~*", WRONG), (r"release~[z-a]", WRONG), (r"release~", YES), (r"release!~", NO),
    # What is implied, and what takes its place.
    ("arch=amd64", YES), ("arch=arm64", NO), ("arch~.", YES), ("arch~", YES), ("ftype=disk1.img", YES),
    ("ftype=manifest", NO), ("datatype=image-downloads", YES), ("datatype=image-ids", NO),
]


@pytest.mark.parametrize("text, expected", FILTERS,
                         ids=lambda value: value if isinstance(value, str) else "")
def test_filter(choose, text, expected):
    args = [text] if text.startswith("arch") else ["arch=amd64", text]
    check(choose, filled(ONE), args, expected)


@pytest.mark.parametrize("filters, expected", [
    (["release=noble", "supported=True"], YES),
    (["release=noble", "supported=False"], NO),
    (["release=noble", "release=jammy"], NO),
    (["release~n", "release~e$", "release!=jammy"], YES),
], ids=str)
def test_all_filters_must_hold(choose, filters, expected):
    check(choose, filled(ONE), ["arch=amd64", *filters], expected)


# ---- inheritance --------------------------------------------------------------------------------


def inheritance(top=None, product=None, version=None, item=None):
    """A stream in which the key `k` stands at these levels."""
    def at(value):
        return {} if value is None else {"k": value}
    return filled({"p": {"arch": "amd64", **at(product), "versions": {
        "1": {**at(version), "items": disk(**at(item))}}}}, **at(top))


@pytest.mark.parametrize("levels, expected", [
    ({"top": "a"}, "k=a"), ({"product": "a"}, "k=a"), ({"version": "a"}, "k=a"), ({"item": "a"}, "k=a"),
    ({"top": "a", "product": "b"}, "k=b"), ({"product": "a", "version": "b"}, "k=b"),
    ({"version": "a", "item": "b"}, "k=b"), ({"top": "a", "item": "b"}, "k=b"),
    ({"top": "a", "item": ""}, "k="), ({"top": "a", "item": False}, "k=False"),
    ({"product": "a", "item": ["b"]}, "k=a"), ({"product": "a", "version": {"b": "c"}}, "k=a"),
    ({"top": 1.5}, "k=1.5"), ({"top": 1e16}, "k=1e+16"), ({"top": -0.0}, "k=-0.0"),
    ({"top": 100}, "k=100"), ({"top": 1e2}, "k=100.0"),
], ids=str)
def test_later_wins(choose, levels, expected):
    assert choose(inheritance(**levels), "arch=amd64", expected) == YES


def test_names_win_over_what_stands_above_them(choose):
    stream = filled({"p": versions("1", product_name="q", version_name="2", item_name="x")},
                    product_name="top")
    assert choose(stream, "arch=amd64", "product_name=p", "version_name=1",
                  "item_name=disk1.img") == YES


INHERITED = {
    "size": ({"size": 5}, {"size": None}, YES),
    "checksum": ({"sha256": SHA256}, {"sha256": None}, YES),
    "path": ({"path": "a"}, {"path": None}, 5),
    "ftype": ({"ftype": "disk1.img"}, {"ftype": None}, YES),
    "arch": ({"arch": "arm64"}, {"arch": "amd64"}, YES),
}


@pytest.mark.parametrize("product, item, expected", INHERITED.values(), ids=INHERITED.keys())
def test_what_is_inherited(choose, product, item, expected):
    stream = filled({"p": versions("1", **product)})
    entry = stream["products"]["p"]["versions"]["1"]["items"]["disk1.img"]
    entry.update(item)
    for key in [key for key, value in item.items() if value is None]:
        del entry[key]
    check(choose, stream, ["arch=amd64"], expected)


# ---- aliases ------------------------------------------------------------------------------------

ALIASES = {"crsn": {"one": {"region": "us", "zone": 1}, "two": {"region": "eu"}},
           "region": {"us": {"country": "USA"}, "eu": {"country": "EU"}}}


@pytest.mark.parametrize("values, filters, expected", [
    ({"crsn": "one"}, ["region=us", "zone=1", "crsn=one"], YES),
    ({"crsn": "two"}, ["region=eu", "zone="], YES),
    ({"crsn": "one", "region": "mars"}, ["region=us"], YES),
    ({"region": "us"}, ["country=USA"], YES),
    ({"crsn": "one"}, ["country="], YES),
    ({"crsn": "one", "region": "eu"}, ["country=USA"], YES),
    ({"crsn": ""}, ["region="], YES),
    ({"crsn": 7}, ["region="], YES),
    ({"crsn": "three"}, [], 5),
    ({}, ["_aliases="], YES),
], ids=str)
def test_aliases(choose, values, filters, expected):
    for level in ("product", "item"):
        stream = filled({"p": versions("1")}, _aliases=ALIASES)
        product = stream["products"]["p"]
        target = product if level == "product" else product["versions"]["1"]["items"]["disk1.img"]
        target.update(values)
        check(choose, stream, ["arch=amd64", *filters], expected)


# ---- versions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("names, maximum, expected", [
    (["20240605", "20240605.1", "20240604"], 1, ["20240605.1"]),
    (["20240605", "20240605.1", "20240604"], 2, ["20240605.1", "20240605"]),
    (["20240605", "20240605.1", "20240604"], 9, ["20240605.1", "20240605", "20240604"]),
    (["9", "10"], 1, ["9"]),
    (["20240605.9", "20240605.10"], 1, ["20240605.9"]),
    (["20240605_01", "20240605.1", "20240605"], 3, ["20240605_01", "20240605.1", "20240605"]),
    (["20991231", "current", "Current"], 3, ["current", "Current", "20991231"]),
    (["a", "B", "\u00e4", "z", "\uffee", "\U0001f600"], 9,
     ["\U0001f600", "\uffee", "\u00e4", "z", "a", "B"]),
], ids=str)
def test_version_order(choose, names, maximum, expected):
    """By code point, the newest first; not as numbers."""
    stream = filled({"p": versions(*names)})
    assert choose(stream, "arch=amd64", "--max", maximum) == [
        f"p/{name}/disk1.img" for name in expected]


def test_max_counts_versions_that_still_match(choose):
    """Of each product on its own; a version without a matching item counts for nothing."""
    products = {"p": versions("1", "2", "3", "4"), "q": versions("1", "2")}
    products["p"]["versions"]["4"]["items"] = {}
    products["p"]["versions"]["3"]["items"]["disk1.img"]["ftype"] = "manifest"
    stream = filled(products)
    assert choose(stream, "arch=amd64") == ["p/2/disk1.img", "q/2/disk1.img"]
    assert choose(stream, "arch=amd64", "--max", 2) == [
        "p/2/disk1.img", "p/1/disk1.img", "q/2/disk1.img", "q/1/disk1.img"]
    assert choose(stream, "arch=amd64", "version_name!=2") == ["p/1/disk1.img", "q/1/disk1.img"]


def test_max_counts_versions_not_items(choose):
    products = {"p": versions("1", "2")}
    for version in products["p"]["versions"].values():
        version["items"].update({"disk.qcow2": {"ftype": "disk1.img"}, "m": {"ftype": "manifest"}})
    stream = filled(products)
    assert choose(stream, "arch=amd64") == ["p/2/disk1.img", "p/2/disk.qcow2"]
    assert choose(stream, "arch=amd64", "ftype~") == ["p/2/disk1.img", "p/2/disk.qcow2", "p/2/m"]


def test_products_come_in_their_order(choose):
    stream = filled({"q": versions("1"), "a": versions("1"), "p": versions("1")})
    assert choose(stream, "arch=amd64") == ["q/1/disk1.img", "a/1/disk1.img", "p/1/disk1.img"]


# ---- missing and odd ----------------------------------------------------------------------------

ODD = {
    "no updated": filled({"p": versions("1")}),
    "updated in another language": filled({"p": versions("1")}, updated="gestern"),
    "unknown keys": filled({"p": versions("1")}, license=None, x={"deep": [1, {"er": None}]}),
    "a product without versions": filled({"q": {"arch": "amd64"}, "p": versions("1")}),
    "no version": filled({"q": versions(), "p": versions("1")}),
    "a version without items": filled({"p": {**versions("1"), "versions": {
        "2": {}, "1": {"items": disk()}}}}),
    "an object for a value": filled({"p": versions("1", requirements={"secureboot": "false"})}),
    "no release, no label": filled({"p": {"arch": "amd64", "versions": {"1": {"items": disk()}}}}),
    "label with blanks": filled({"p": versions("1", label="release candidate")}),
    "size as a string": filled({"p": {**versions(), "versions": {"1": {"items": disk(size="1")}}}}),
    "upper-case checksum": filled({"p": {**versions(), "versions": {
        "1": {"items": disk(sha256="ABCDEF00" * 8)}}}}),
}


@pytest.mark.parametrize("stream", ODD.values(), ids=ODD.keys())
def test_odd_and_legal(choose, stream):
    assert choose(stream, "arch=amd64") == YES


@pytest.mark.parametrize("text", [
    json.dumps(filled({"p": versions("1")}), separators=(",", ":")),
    json.dumps(filled({"p": versions("1")}), indent=1).replace(",\n", ", \n") + "\n\n",
    json.dumps(filled({"p": versions("1")})).replace("/", "\\/"),
], ids=["minified", "trailing blanks", "escaped slashes"])
def test_spelling(choose, text):
    assert choose(text, "arch=amd64") == YES


# ---- checksums ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sums, expected", [
    ({"sha256": SHA256}, YES), ({"sha512": SHA512}, YES), ({"sha256": SHA256, "md5": MD5}, YES),
    ({"sha256": SHA256, "sha512": SHA512}, YES), ({"sha256": SHA256, "md5": "not at all"}, YES),
    ({"md5": MD5}, 5), ({"md5": MD5, "sha1": "0" * 40}, 5), ({"sha224": "0" * 56}, 5),
    ({"sha256": SHA512}, 5), ({"sha512": SHA256}, 5), ({"SHA256": SHA256, "md5": MD5}, 5),
    ({"sha256": SHA256, "sha512": "0"}, 5),
], ids=lambda value: " ".join(value) if isinstance(value, dict) else "")
def test_which_checksums_count(choose, sums, expected):
    stream = filled({"p": {**versions(), "versions": {"1": {"items": disk(**sums)}}}})
    check(choose, stream, ["arch=amd64"], expected)


def test_the_strongest_checksum_decides(published, fetch, standing):
    """A wrong SHA-512 beside a right SHA-256 is a wrong checksum; a wrong MD5 is none."""
    item = published.products[PRODUCT]["versions"]["20241018"]["items"]["disk1.img"]
    item["md5"] = MD5
    published.write()
    fetch("--no-bundle", "release=noble")
    item["sha512"] = SHA512
    published.write()
    fetch("--no-bundle", "release=noble", code=5)


# ---- where a source is --------------------------------------------------------------------------


def index_of(**paths):
    return {"format": "index:1.0", "index": {
        name: {"format": "products:1.0", "datatype": "image-downloads", "path": path}
        for name, path in paths.items()}}


@pytest.mark.parametrize("slash", ["", "/", "//"], ids=["without", "with", "with two"])
@pytest.mark.parametrize("scheme", ["", "file://"], ids=["folder", "file"])
def test_trailing_slash(choose, folder, scheme, slash):
    assert choose(filled(ONE), "arch=amd64", source=f"{scheme}{folder}/source{slash}") == YES


@pytest.mark.parametrize("path", ["x.json", "a/b/c/d.json", "streams/v1/org.example:x.json",
                                  "a b/\u00e4.json"])
def test_path(choose, path):
    assert choose(filled(ONE), "arch=amd64", path=path) == YES


@pytest.mark.parametrize("path", ["../x.json", "/x.json", "a//x.json", "./x.json", "a\\x.json"])
def test_path_outside(uvmirror, folder, path):
    uvmirror("fetch", "-n", "--no-authentication", "--source", folder, "--path", path,
             "--state-dir", folder / "state", code=2)


def test_index(choose, folder):
    """Of its entries those of images are followed, in their order."""
    (folder / "source" / "s").mkdir(parents=True)
    for name in ("y", "x"):
        stream = filled({name: versions("1")}, content_id=name)
        (folder / "source" / "s" / f"{name}.json").write_text(json.dumps(stream))
    index = index_of(y="s/y.json", x="s/x.json")
    for name, entry in {"ids": {"datatype": "image-ids"}, "new": {"format": "products:2.0"},
                        "index": {"format": "index:1.0"}}.items():
        index["index"][name] = {**index["index"]["x"], "path": "s/nothing.json", **entry}
    assert choose(index, "arch=amd64", path="index.json") == ["y/1/disk1.img", "x/1/disk1.img"]
    assert choose(index, "arch=amd64", "product_name=x", path="index.json") == ["x/1/disk1.img"]


# ---- against a model ----------------------------------------------------------------------------


def flattened(stream, product, version, item):
    """The design's words, once more in another language."""
    flat = {}
    node = stream
    for level, name in [(None, None), ("products", product), ("versions", version), ("items", item)]:
        node = node[level][name] if level else node
        flat.update({key: str(value) for key, value in node.items()
                     if isinstance(value, (str, int, float))})
        if level:
            flat[f"{level[:-1]}_name"] = name
    return flat


def holds(text, flat):
    key, operator, value = re.match(r"([\w|\-]+)[ ]*([!]?[=~])[ ]*(.*)[ ]*$", text).groups()
    have = flat.get(key, "")
    found = have == value if "=" in operator else re.search(value, have) is not None
    return found != operator.startswith("!")


def chosen_by_model(stream, filters, maximum):
    paths = []
    for product, about in stream["products"].items():
        left = maximum
        for version in sorted(about.get("versions", {}), reverse=True):
            items = [item for item in about["versions"][version].get("items", {})
                     if all(holds(text, flattened(stream, product, version, item))
                            for text in filters)]
            if items and left:
                left -= 1
                paths += [about["versions"][version]["items"][item]["path"] for item in items]
    return paths


def real_streams():
    """{name: stream} of the public servers whose metadata lie beside the project, if they do."""
    beside = pathlib.Path(__file__).resolve().parents[2].parent / "shared" / "fixtures"
    folder = pathlib.Path(os.environ.get("UVM_FIXTURES", beside))
    found = {}
    for path in sorted(folder.rglob("*.json")):
        stream = json.loads(path.read_text(encoding="utf-8"))
        if stream.get("format") == "products:1.0":
            found[path.stem] = stream
    return found


STREAMS = {"made up": filled({
    f"org.example:{release}:{arch}": {"arch": arch, "release": release, "supported": release > "k",
                                      "versions": {
        f"2024{month}01": {"label": "daily" if month % 2 else "release", "items": {
            kind: {"ftype": kind} for kind in ("disk1.img", "root.tar.xz", "manifest")}}
        for month in range(10, 10 + count)}}
    for count, (release, arch) in enumerate(itertools.product(
        ["bionic", "jammy", "noble"], ["amd64", "arm64"]))}), **real_streams()}

QUESTIONS = [
    ["arch~", "ftype~", "datatype~"], ["arch=amd64", "ftype=disk1.img"],
    ["arch~64$", "ftype!=disk1.img", "release~^[j-n]"], ["arch=i386", "ftype~", "datatype~"],
    ["arch~", "ftype~disk", "supported=True", "label=release"],
    ["arch~", "ftype~^(root|combined|squashfs)", "version_name!~[02]$", "size!~^0$"],
]


@pytest.mark.parametrize("maximum", [1, 3, 1000])
@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS.keys())
def test_as_the_model(choose, stream, maximum):
    """All questions that this stream can be asked; some of them have many answers."""
    stream = {"datatype": "image-downloads", **stream}
    answered = 0
    for question in QUESTIONS:
        filters = question if "datatype~" in question else [*question, "datatype=image-downloads"]
        expected = chosen_by_model(stream, filters, maximum)
        check(choose, stream, [*question, "--max", maximum], expected)
        answered += bool(expected)
    assert answered
