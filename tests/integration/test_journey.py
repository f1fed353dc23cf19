"""The main job, end to end, on real parts: two builds of a Linux that really boots."""

import pathlib

import hypervisor
import uvtool_view
from sample_mirror import PRODUCT

OLD, NEW = "20241004", "20241018"


def up(version, boot):
    return f"uvmirror sample {version}: guest is up, boot {boot}"


def state_of(uvmirror, version):
    """The state that `list --json` gives a version, None when it is not there."""
    for entry in uvmirror("list", "--json").lines:
        if entry.get("version") == version:
            return entry["state"]
    return None


def test_from_two_hosts_to_a_running_guest(uvmirror, mirror, web, vendor, samples, bare_host,
                                           folder):
    """Everything by the program alone, from nothing: the three commands of a newcomer included."""
    host, site = bare_host, folder / "site"

    def fetch(output):
        uvmirror("fetch", "--source", web.url, "--keyring", vendor.keyring, "--mirror",
                 folder / "mirror", "--state-dir", site, "-o", output, "release=noble")

    # The internet host: a key, and a first bundle.
    mirror.add_image(OLD, samples[OLD])
    mirror.add_neighbours(OLD)
    mirror.write()
    uvmirror("key", "generate", "--state-dir", site)
    uvmirror("key", "export", "--state-dir", site, "-o", folder / "site.asc")
    fetch(folder / "first.tar.zst")

    # The hypervisor.
    uvmirror("key", "trust", "--yes", folder / "site.asc")
    uvmirror("verify", folder / "first.tar.zst")
    uvmirror("init")
    uvmirror("import", folder / "first.tar.zst")
    old = uvtool_view.encode(PRODUCT, OLD)
    assert host.volumes() == [old]
    assert uvtool_view.query(host, release="noble", arch="amd64", label="release") == [old]
    assert state_of(uvmirror, OLD) == "ready"

    guest = host.guest("web1", host.overlay(host.volume_path(old), "web1.qcow")).start()
    guest.wait_for(up(OLD, 1))

    # Two weeks later: the old image is retired, and stays as long as the guest lives.
    mirror.add_image(NEW, samples[NEW])
    mirror.write()
    fetch(folder / "second.tar.zst")
    uvmirror("import", folder / "second.tar.zst")
    new = uvtool_view.encode(PRODUCT, NEW)
    assert uvtool_view.versions(host) == [NEW]
    assert host.volumes() == sorted([old, new, "web1.qcow"])
    assert state_of(uvmirror, OLD) == "retired"
    assert state_of(uvmirror, NEW) == "ready"
    assert uvtool_view.problems(host) == []

    # It really lives: it stops, starts and finds what it wrote before.
    guest.stop()
    uvmirror("clean")
    assert old in host.volumes()
    guest.start().wait_for(up(OLD, 2))

    # The guest goes, and with it the image that only it needed. The new one boots, too.
    guest.remove(disks=[host.volume_path("web1.qcow")])
    assert state_of(uvmirror, OLD) == "unused"
    uvmirror("clean")
    assert host.volumes() == [new]
    other = host.guest("web2", host.overlay(host.volume_path(new), "web2.qcow")).start()
    other.wait_for(up(NEW, 1))


def test_nothing_is_left_behind(uvmirror, make_bundle, make_image, host, folder):
    """After an import the host holds an image and its metadata, and not a scrap more."""
    uvmirror("import", make_bundle("one", {OLD: make_image("a")}))
    assert host.volumes() == [uvtool_view.encode(PRODUCT, OLD)]
    assert uvtool_view.problems(host) == []
    for pool in host.pools():
        assert pool == hypervisor.POOL or host.volumes(pool) == [], f"{pool} is not empty"
    kept = {path.name for path in pathlib.Path(hypervisor.STATE).iterdir()}
    assert not kept & {"journal.json"}
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == []
