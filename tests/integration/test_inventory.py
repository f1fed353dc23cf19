"""uvmirror inventory: what a host has, for the host that fetches."""

import json
import pathlib
import platform

import hypervisor
import uvtool_view
from sample_mirror import PRODUCT

FIRST = "20241004"
DEBIAN = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def test_a_host_with_an_image(uvmirror, make_bundle, make_image, host, site, folder):
    bundle = make_bundle("one", {FIRST: make_image("a")})
    uvmirror("import", bundle)
    uvmirror("inventory", "-o", folder / "hv1.json")
    inventory = json.loads((folder / "hv1.json").read_text(encoding="utf-8"))
    assert (inventory["type"], inventory["version"]) == ("uvmirror-inventory", 1)
    assert inventory["host"] == platform.node() and inventory["architecture"] == DEBIAN
    assert inventory["trusted"] == [site.key.fingerprint]
    assert inventory["free_bytes"] > 0 and inventory["bundle_format"] >= 2
    shown = uvmirror("show", "--json", bundle).lines[-1]
    assert inventory["serial"] == shown["serial"]
    (image,) = inventory["images"]
    name = uvtool_view.encode(PRODUCT, FIRST)
    metadata = json.loads((pathlib.Path(hypervisor.METADATA) / name).read_text(encoding="utf-8"))
    assert image == {"product": PRODUCT, "version": FIRST, "sha256": metadata["sha256"],
                     "sha512": None}


def test_standard_output(uvmirror, host):
    result = uvmirror("inventory")
    assert json.loads(result.out)["images"] == [] and json.loads(result.out)["serial"] == 0
    assert b"0 images" in result.err


def test_as_an_event(uvmirror, host):
    (line,) = [line for line in uvmirror("inventory", "--json").lines if line["event"] == "result"]
    assert json.loads(line["inventory"])["type"] == "uvmirror-inventory"


def test_what_is_not_ready_does_not_count(uvmirror, make_bundle, make_image, host):
    name = uvtool_view.encode(PRODUCT, FIRST)
    uvmirror("import", make_bundle("one", {FIRST: make_image("a")}))
    host.retire(name)
    assert json.loads(uvmirror("inventory").out)["images"] == []


def test_it_changes_nothing(uvmirror, make_bundle, make_image, host):
    uvmirror("import", make_bundle("one", {FIRST: make_image("a")}))
    before = host.view()
    uvmirror("inventory")
    assert host.view() == before


def test_what_all_have_is_not_carried(uvmirror, make_bundle, make_image, host, fetch, folder):
    """Such a bundle is of metadata alone, and its import has nothing to do."""
    uvmirror("import", make_bundle("one", {FIRST: make_image("a")}))
    uvmirror("inventory", "-o", folder / "hv1.json")
    fetch("--have", folder / "hv1.json", "-o", folder / "two.tar.zst", "release=noble")
    (image,) = uvmirror("show", "--json", folder / "two.tar.zst").lines[-1]["images"]
    assert not image["carried"]
    assert (folder / "two.tar.zst").stat().st_size < 100_000
    before = host.view()
    uvmirror("import", folder / "two.tar.zst")
    assert host.view() == before


def test_no_host_no_inventory(uvmirror, bare_host, folder):
    uvmirror("inventory", "-o", folder / "hv1.json", code=7)
    assert not (folder / "hv1.json").exists()
