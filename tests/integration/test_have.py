"""Bundles for hosts that differ: each takes what is its own, and leaves the rest to the others."""

import json
import os
import platform

import pytest

import hypervisor
import uvtool_view
from bundles import Bundle
from sample_mirror import PRODUCT

OLD, NEW = "20241004", "20241018"
HERE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
OTHER = "arm64" if HERE == "amd64" else "amd64"
OTHERS_PRODUCT = f"com.ubuntu.cloud:server:24.04:{OTHER}:other"
KINDS = pytest.mark.parametrize("kind", [(), ("--compact",)], ids=["plain", "compact"])


@pytest.fixture
def images(make_image):
    """{(product, version): a file}: each product has its own."""
    return {(product, version): make_image(f"{number} {version}")
            for number, product in enumerate((PRODUCT, OTHERS_PRODUCT)) for version in (OLD, NEW)}


@pytest.fixture
def publish(mirror, images):
    """publish(version, ...): the vendor lists these of both products."""

    def run(*versions):
        mirror.products.clear()
        for version in versions:
            mirror.add_image(version, images[PRODUCT, version], arch=HERE)
            mirror.add_image(version, images[OTHERS_PRODUCT, version], OTHERS_PRODUCT, arch=OTHER)
        mirror.write()

    return run


@pytest.fixture
def inventory(folder, mirror):
    """inventory(host, architecture, product, version, ...): a file that says what a host has, of what the
    vendor lists now."""

    def make(host, architecture, product, *versions):
        def stock(version):
            item = mirror.products[product]["versions"][version]["items"]["disk1.img"]
            return {"product": product, "version": version, "sha256": item["sha256"], "sha512": None}

        path = folder / f"{host}.json"
        path.write_text(json.dumps({
            "type": "uvmirror-inventory", "version": 1, "host": host,
            "created": "2024-10-20T09:30:00Z", "architecture": architecture, "bundle_format": 2,
            "free_bytes": 1 << 40, "serial": 0, "trusted": [],
            "images": [stock(version) for version in versions]}))
        return path

    return make


@pytest.fixture
def both(publish, inventory):
    """both(here, other): --have of a host of this architecture and one of another; each has these versions
    of its own product."""

    def options(here, other):
        publish(OLD, NEW)
        return ("--have", inventory("hv1", HERE, PRODUCT, *here),
                "--have", inventory("hv2", OTHER, OTHERS_PRODUCT, *other))

    return options


def payload(bundle, product, version):
    (found,) = [image["payload"] for image in Bundle.read(bundle).manifest["images"]
                if (image["product"], image["version"]) == (product, version)]
    return found


def versions(host):
    return uvtool_view.versions(host)


@KINDS
def test_each_takes_its_own(both, fetch, uvmirror, host, folder, kind):
    """The other one has its image, and this one gets the new one all the same."""
    fetch(*both((), (NEW,)), *kind, "-o", folder / "b.tar.zst", "release=noble")
    assert payload(folder / "b.tar.zst", OTHERS_PRODUCT, NEW) is None
    result = uvmirror("import", folder / "b.tar.zst")
    assert f"1 image of other architectures than this host's, {HERE}, skipped".encode() in result.err
    assert versions(host) == [NEW]
    assert b"1 already there" in uvmirror("import", folder / "b.tar.zst").out


def test_a_difference_for_the_other(publish, both, fetch, uvmirror, host, folder):
    publish(OLD)
    arches = f"arch~^({HERE}|{OTHER})$"
    fetch("--compact", "-o", folder / "seed.tar.zst", "release=noble", arches)
    fetch(*both((OLD,), (OLD,)), "--compact", "-o", folder / "b.tar.zst", "release=noble")
    for product in (PRODUCT, OTHERS_PRODUCT):
        assert payload(folder / "b.tar.zst", product, NEW)["base"]["version"] == OLD
    uvmirror("import", folder / "seed.tar.zst", f"arch={HERE}")
    uvmirror("import", folder / "b.tar.zst")
    assert versions(host) == [NEW]


@KINDS
def test_what_is_missing_for_this_host_refuses(both, fetch, uvmirror, host, folder, kind):
    fetch(*both((NEW,), (NEW,)), *kind, "-o", folder / "b.tar.zst", "release=noble")
    result = uvmirror("import", folder / "b.tar.zst", code=5)
    assert f"noble {HERE} {NEW} is not carried".encode() in result.err
    assert not host.volumes() and not host.metadata()


def test_all_of_it_is_for_others(both, fetch, uvmirror, host, folder):
    fetch(*both((NEW,), (NEW,)), "-o", folder / "b.tar.zst", "release=noble", f"arch={OTHER}")
    result = uvmirror("import", folder / "b.tar.zst")
    assert b"nothing to import" in result.err
    assert not host.volumes() and not host.metadata()


def test_in_full_it_comes_as_ever(both, fetch, uvmirror, host, folder):
    fetch(*both((), ()), "-o", folder / "b.tar.zst", "release=noble")
    assert b"2 imported" in uvmirror("import", folder / "b.tar.zst").out


def test_room_for_all_of_a_base(publish, both, fetch, uvmirror, host, folder):
    """Little of the old volume is needed, but all of it is fetched: said before anything is done."""
    publish(OLD)
    mine = f"arch={HERE}"
    fetch("--compact", "-o", folder / "seed.tar.zst", "release=noble", mine)
    fetch(*both((OLD,), ()), "--compact", "-o", folder / "b.tar.zst", "release=noble", mine)
    assert payload(folder / "b.tar.zst", PRODUCT, NEW)["base"]["version"] == OLD
    uvmirror("import", folder / "seed.tar.zst")
    volume = host.volume_path(uvtool_view.encode(PRODUCT, OLD))
    with open(volume, "ab") as out:
        out.write(os.urandom(20 << 20))
    state = folder / "small"
    with hypervisor.tmpfs(state, "9m"):
        result = uvmirror("import", "--json", "--state-dir", state, folder / "b.tar.zst", code=6)
    assert b"are needed" in result.err and b"read volume" not in result.err
    assert versions(host) == [OLD]
