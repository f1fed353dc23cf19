"""An old bundle does not pass for a new one; and what a wrong clock has done can be undone."""

import json
import os
import time

import pytest

import hypervisor
import uvtool_view
from sample_mirror import CONTENT_ID, PRODUCT

OLD, NEW = "20241004", "20241018"
NAMES = {version: uvtool_view.encode(PRODUCT, version) for version in (OLD, NEW)}
SEEN = os.path.join(hypervisor.STATE, "seen.json")


def at(year):
    """Runs it with a clock that stands in that year."""
    return {"wrap": ("faketime", "-m", f"{year}-06-01 12:00:00"),
            "env": {"ASAN_OPTIONS": "verify_asan_link_order=0:detect_leaks=0:exitcode=99"}}


def record():
    with open(SEEN, encoding="utf-8") as file:
        return json.load(file)["streams"][CONTENT_ID][PRODUCT]


@pytest.fixture
def images(make_image):
    return {OLD: make_image("a"), NEW: make_image("b")}


@pytest.fixture
def publish(mirror, images):
    """publish(version, updated): the vendor has this version, too, since then."""

    def run(version, updated=None):
        mirror.add_image(version, images[version])
        mirror.write(updated)

    return run


@pytest.fixture
def take(fetch, folder):
    """take(name): a bundle of what the vendor has now."""

    def run(name, *args, **options):
        path = folder / f"{name}.tar.zst"
        fetch("-o", path, "release=noble", *args, **options)
        return path

    return run


def test_the_same_bundle_is_a_repair(uvmirror, publish, take, host):
    publish(OLD)
    bundle = take("one")
    uvmirror("import", bundle)
    good = host.metadata()
    for damage in (lambda: host.retire(NAMES[OLD]),
                   lambda: host.pool().storageVolLookupByName(NAMES[OLD]).delete(0),
                   lambda: host.write_metadata(NAMES[OLD], {"product_name": "odd"})):
        damage()
        uvmirror("import", bundle)
        assert host.metadata() == good and host.volumes() == [NAMES[OLD]]


def test_the_message_names_both_times(uvmirror, publish, take, host):
    publish(OLD, 1728034200)
    first = take("one")
    publish(NEW, 1729243800)
    uvmirror("import", take("two"))
    result = uvmirror("import", first, code=4)
    assert b"2024-10-04T09:30:00Z" in result.err and b"2024-10-18T09:30:00Z" in result.err
    result = uvmirror("import", "--allow-older", first)
    assert b"older than the one of 2024-10-18T09:30:00Z" in result.err
    assert record()["updated"] == 1728034200
    uvmirror("import", first)  # it is the newest now


def test_whoever_signs(uvmirror, publish, take, host, stranger, site, vendor, mirror, folder):
    """Another trusted signer cannot bring an older stream, either."""
    publish(OLD)
    other = folder / "other.tar.zst"
    uvmirror("fetch", "--source", mirror.root, "--keyring", vendor.keyring, "--mirror",
             folder / "other-mirror", "--homedir", stranger.homedir, "--state-dir",
             folder / "other-state", "-o", other, "release=noble")
    time.sleep(1.1)  # a stream has its time in whole seconds
    publish(NEW)
    uvmirror("import", take("two"))
    uvmirror("import", "--keyring", stranger.keyring, other, code=4)
    assert uvtool_view.versions(host) == [NEW]


def test_two_laptops_with_one_key(uvmirror, publish, take, host, folder):
    """Each has a mirror of its own, and so serials of its own."""
    publish(OLD)
    first = take("first", "--mirror", folder / "laptop-1")
    second = take("second", "--mirror", folder / "laptop-2")
    uvmirror("import", first)
    uvmirror("import", second)
    third = take("third", "--mirror", folder / "laptop-1")
    uvmirror("import", third)
    publish(NEW)
    uvmirror("import", take("fourth", "--mirror", folder / "laptop-2"))
    assert uvtool_view.versions(host) == [NEW]
    uvmirror("import", first, code=4)


def test_a_fetch_host_in_2036(uvmirror, publish, take, host):
    publish(OLD)
    future = take("future", **at(2036))
    result = uvmirror("import", future)
    assert b"one of the two clocks is wrong" in result.err and b"from the future" in result.err
    publish(NEW)
    # The mirror's serials go on from there, so a mirror of its own stands for the one with the cure.
    today = take("today", "--mirror", os.path.join(host.work, "mirror"))
    result = uvmirror("import", today, code=4)
    assert b"2036-06-01" in result.err
    uvmirror("import", "--allow-older", today)
    assert uvtool_view.versions(host) == [NEW] and record()["serial"] < time.time() + 9
    uvmirror("import", today)
    uvmirror("import", take("next", "--mirror", os.path.join(host.work, "mirror")))


@pytest.mark.parametrize("year", [1970, 2036])
def test_this_hosts_clock(uvmirror, publish, take, host, year):
    """It is not trusted to be right: what is older than what was seen does not depend on it."""
    publish(OLD)
    first = take("one")
    time.sleep(1.1)
    publish(NEW)
    second = take("two")
    result = uvmirror("import", second, **at(year))
    assert (b"one of the two clocks is wrong" in result.err) == (year == 1970)
    assert uvtool_view.versions(host) == [NEW]
    uvmirror("import", first, code=4, **at(year))
    uvmirror("import", second)


def test_the_record_is_lost(uvmirror, publish, take, host):
    """Said loudly; and kept anew."""
    publish(OLD)
    first = take("one")
    time.sleep(1.1)
    publish(NEW)
    second = take("two")
    result = uvmirror("import", second)
    assert b"no record" not in result.err
    hypervisor.empty(hypervisor.STATE)
    result = uvmirror("import", second)
    assert b"no record of how new they are" in result.err
    uvmirror("import", first, code=4)


def test_the_record_is_damaged(uvmirror, publish, take, host):
    publish(OLD)
    bundle = take("one")
    uvmirror("import", bundle)
    with open(SEEN, "w", encoding="utf-8"):
        pass
    result = uvmirror("import", bundle)
    assert b"seen.json is damaged" in result.err
    assert record()["serial"] > 0
