"""Killed at any moment, import leaves a host that uvtool understands, and the next run finishes."""

import collections
import json
import os
import re
import shutil
import signal
import sys

import pytest

import hypervisor
import uvtool_view
from sample_mirror import PRODUCT
from slow_import import SlowImport, is_image

OLD, NEW = "20241004", "20241018"
NAMES = {version: uvtool_view.encode(PRODUCT, version) for version in (OLD, NEW)}

# System calls that leave a trace on disk or at libvirt. "when" counts each on its own.
CALLS = ("rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat", "mkdir",
         "mkdirat", "fsync", "fdatasync", "syncfs", "openat", "write", "sendmsg", "sendto", "writev")
PER_CALL = 4  # moments tried of each; `long` tries all


@pytest.fixture
def pair(make_bundle, make_image, host, uvmirror):
    """A host with the old image, and the bundle with the new one, which retires it."""
    images = {OLD: make_image("a"), NEW: make_image("b")}
    uvmirror("import", make_bundle("one", {OLD: images[OLD]}))
    return images, make_bundle("two", {NEW: images[NEW]})


def strace(*options):
    """Follows neither children nor helper threads: GnuPG is not to be killed in our place.
    LeakSanitizer cannot work under another tracer."""
    return {"wrap": ("strace", "-qq", "-o", *options),
            "env": {"ASAN_OPTIONS": "detect_leaks=0:exitcode=99"}}


def count_calls(uvmirror, bundle, folder):
    """How often one good import makes each of these calls."""
    log = folder / "strace.log"
    uvmirror("import", bundle, **strace(log, "-e", "trace=" + ",".join(CALLS)))
    found = collections.Counter()
    for line in log.read_text(errors="replace").splitlines():
        match = re.match(r"(\w+)\(", line)
        if match:
            found[match[1]] += 1
    return found


def spread(count, most):
    """Up to `most` moments of 1..count: the first, the last and some between."""
    if count <= most:
        return range(1, count + 1)
    return sorted({1 + round(i * (count - 1) / (most - 1)) for i in range(most)})


def start_again(host, uvmirror, folder):
    """The host as `pair` left it."""
    host.reset()
    host.make_uvtool_pool()
    uvmirror("import", "--keyring", folder / "site.gpg", folder / "one.tar.zst")


def check_states(host, images):
    """At every instant: what uvtool knows is complete, and something is there to make guests from."""
    assert uvtool_view.problems(host) == []
    known = uvtool_view.versions(host)
    assert known, "no image is left"
    for version in known:
        hypervisor.qemu_img("compare", images[version], host.volume_path(NAMES[version]))
    for name in os.listdir(hypervisor.METADATA):
        assert name in NAMES.values(), f"{name} stands in the metadata folder"


def crash_everywhere(uvmirror, pair, host, site, folder, per_call):
    images, bundle = pair
    shutil.copyfile(site.keyring, folder / "site.gpg")
    arguments = ("import", "--keyring", folder / "site.gpg", bundle)
    calls = count_calls(uvmirror, bundle, folder)
    tried = killed = 0
    for call, count in sorted(calls.items()):
        for when in spread(count, per_call):
            start_again(host, uvmirror, folder)
            inject = f"inject={call}:signal=KILL:when={when}"
            result = uvmirror(*arguments, code=None,
                              **strace(os.devnull, "-e", f"trace={call}", "-e", inject))
            killed += result.code == -signal.SIGKILL
            tried += 1
            try:
                check_states(host, images)
                uvmirror(*arguments)
                assert uvtool_view.versions(host) == [NEW]
                check_states(host, images)
                assert host.volumes() == [NAMES[NEW]]
            except AssertionError as error:
                raise AssertionError(f"killed at {call} number {when} of {count}: {error}") from error
    assert tried > 20 and killed > tried * 3 // 4, f"only {killed} of {tried} runs were killed"


def test_killed_at_any_moment(uvmirror, pair, host, site, folder):
    crash_everywhere(uvmirror, pair, host, site, folder, PER_CALL)


@pytest.mark.long
def test_killed_at_every_moment(uvmirror, pair, host, site, folder):
    crash_everywhere(uvmirror, pair, host, site, folder, sys.maxsize)


@pytest.mark.parametrize("call", ["write", "fsync", "rename", "renameat2"])
def test_no_space(uvmirror, pair, host, site, folder, call):
    """A full disk under state folder or metadata: an error, not a wreck."""
    images, bundle = pair
    result = uvmirror("import", bundle, code=None,
                      **strace(os.devnull, "-P", hypervisor.STATE, "-P", hypervisor.METADATA, "-e",
                               f"trace={call}", "-e", f"inject={call}:error=ENOSPC:when=1+"))
    assert result.code in (0, 1, 6, 9), str(result)
    check_states(host, images)
    uvmirror("import", bundle)
    assert uvtool_view.versions(host) == [NEW]


@pytest.fixture
def big(make_bundle, make_image):
    return make_bundle("big", {OLD: make_image("big", 16 << 20)})


@pytest.fixture
def half_way(uvmirror, make_bundle, make_image):
    """An import of two images: the first is in the pool, the second on its way."""
    images = {NEW: make_image("a"), OLD: make_image("big", 16 << 20)}
    slow = SlowImport(uvmirror, make_bundle("two", images, "--max", "2", "release=noble"), "--max", "2")
    slow.wait_for(lambda: is_image(NAMES[NEW]))
    return slow


def test_interrupted_by_ctrl_c(host, half_way, uvmirror, folder):
    half_way.process.send_signal(signal.SIGINT)
    _, code = half_way.finish()
    assert code == 130
    assert host.volumes() == [] and host.metadata() == {}
    uvmirror("import", "--max", "2", folder / "two.tar.zst")
    assert uvtool_view.versions(host) == [OLD, NEW]


def test_two_at_once(uvmirror, big, host):
    """The second run finds the lock and says so; so does a cleanup."""
    slow = SlowImport(uvmirror, big)
    uvmirror("import", big, code=8)
    uvmirror("clean", code=8)
    said, code = slow.finish()
    assert code == 0, said
    assert uvtool_view.versions(host) == [OLD]


def test_the_bundle_ends_in_the_middle(host, half_way):
    """The stick is pulled: what was uploaded goes again."""
    half_way.rest = b""
    _, code = half_way.finish()
    assert code in (4, 5)
    assert host.volumes() == [] and host.metadata() == {}


def leave_journal(host, **fields):
    """What an import leaves that was killed before it had made its volume; or other `fields`."""
    fields = fields or {"phase": "import", "volumes": [NAMES[OLD]]}
    os.makedirs(hypervisor.STATE, exist_ok=True)
    with open(os.path.join(hypervisor.STATE, "journal.json"), "w", encoding="utf-8") as out:
        json.dump({"version": 1, "pool": host.pool().UUIDString(),
                   "metadata_dir": hypervisor.METADATA, **fields}, out)


def test_killed_while_an_import_was_undone(uvmirror, make_bundle, make_image, host):
    """Another tool had given the half-made volume metadata, and who uses it cannot be told: that it
    has none any more after a second crash proves nothing."""
    uvmirror("import", make_bundle("one", {OLD: make_image("a")}))
    leave_journal(host)
    guest = host.guest("web1", os.path.join(host.work, "gone.qcow"))
    result = uvmirror("clean", code=None,
                      **strace(os.devnull, "-P", hypervisor.METADATA, "-e", "trace=fsync",
                               "-e", "inject=fsync:signal=KILL"))
    assert result.code == -signal.SIGKILL and host.metadata() == {}
    uvmirror("clean")
    assert host.volumes() == [NAMES[OLD]]
    guest.remove()
    uvmirror("clean")
    assert host.volumes() == []


def test_a_journal_that_is_no_file(uvmirror, host):
    os.makedirs(hypervisor.STATE, exist_ok=True)
    os.mkfifo(os.path.join(hypervisor.STATE, "journal.json"))
    uvmirror("clean", code=1, timeout=30)


def test_somebody_replaced_a_volume_before_its_metadata_came(host, half_way, make_image):
    """What was verified is gone; what bears its name now is not called an image."""
    path = host.volume_path(NAMES[NEW])
    host.pool().storageVolLookupByName(NAMES[NEW]).delete(0)
    hypervisor.qemu_img("convert", "-O", "qcow2", make_image("c"), path)
    said, code = half_way.finish()
    assert code == 7 and b"replaced" in said[1], said
    assert host.metadata() == {}


def test_somebody_replaced_a_volume_between_crash_and_recovery(uvmirror, make_bundle, make_image,
                                                               host):
    uvmirror("import", make_bundle("one", {OLD: make_image("a")}))
    (name, text), = host.metadata().items()
    info = os.stat(host.volume_path(name))
    host.retire(name)
    leave_journal(host, phase="commit", metadata={name: text.decode()}, retire=[],
                  files={name: f"{info.st_ino}:1.000000000"}, seen={})
    result = uvmirror("clean")
    assert host.metadata() == {} and b"another took its place" in result.err, str(result)
