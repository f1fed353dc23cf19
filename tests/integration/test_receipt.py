"""What an import leaves in writing: for the one who must know later what came, and from whom."""

import hashlib
import json
import os
import signal
import stat

import pytest

import hypervisor
import uvtool_view
from sample_mirror import CONTENT_ID, PRODUCT
from slow_import import SlowImport

OLD, NEW = "20241004", "20241018"
RECEIPTS = os.path.join(hypervisor.STATE, "receipts")


@pytest.fixture
def report(folder):
    return folder / "report.json"


def read(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def kept():
    return sorted(os.listdir(RECEIPTS)) if os.path.isdir(RECEIPTS) else []


def test_of_an_import(uvmirror, make_bundle, make_image, host, site, vendor, report):
    image = make_image("a")
    bundle = make_bundle("one", {OLD: image})
    uvmirror("import", "--report", report, "--origin-keyring", vendor.keyring, bundle)
    receipt = read(report)
    assert receipt["receipt"] == 1 and receipt["host"] == os.uname().nodename
    assert receipt["exit_code"] == 0 and receipt["error"] is None and not receipt["dry_run"]
    assert receipt["started"] <= receipt["ended"]
    assert receipt["bundle"]["signer"] == site.key.fingerprint
    assert receipt["bundle"]["file"] == str(bundle)
    assert receipt["bundle"]["origins_verified"] == [
        {"content_id": CONTENT_ID, "fingerprint": vendor.fingerprint}]
    (entry,) = receipt["images"]
    assert entry["outcome"] == "added" and entry["name"] == uvtool_view.encode(PRODUCT, OLD)
    assert entry["sha256"] == hashlib.sha256(image.read_bytes()).hexdigest()
    assert receipt["cleanup"]["deleted"] == []
    assert stat.S_IMODE(os.stat(report).st_mode) == 0o644
    # The host's own copy.
    (name,) = kept()
    assert receipt["bundle"]["id"] in name and read(os.path.join(RECEIPTS, name)) == receipt


def test_of_what_was_retired_and_deleted(uvmirror, make_bundle, make_image, host, report):
    uvmirror("import", make_bundle("one", {OLD: make_image("a")}))
    uvmirror("import", "--report", report, make_bundle("two", {NEW: make_image("b")}))
    receipt = read(report)
    outcomes = {entry["version"]: entry["outcome"] for entry in receipt["images"]}
    assert outcomes == {NEW: "added", OLD: "retired"}
    assert receipt["cleanup"]["deleted"] == [f"noble amd64 {OLD}"]
    assert receipt["cleanup"]["freed"] > 0
    assert len(kept()) == 2


def test_of_a_bad_image(uvmirror, make_bundle, make_image, host, folder, report):
    """The first one was good, and came to nothing all the same."""
    bad = folder / "bad"
    bad.write_bytes(make_image("b").read_bytes())
    hypervisor.qemu_img("rebase", "-u", "-b", "/etc/shadow", "-F", "raw", bad)
    bundle = make_bundle("two", {NEW: make_image("a"), OLD: bad}, "--max", "2", "release=noble")
    uvmirror("import", "--max", "2", "--report", report, bundle, code=5)
    receipt = read(report)
    assert receipt["exit_code"] == 5 and "backing file" in receipt["error"]
    assert {entry["outcome"] for entry in receipt["images"]} == {"not done"}
    assert receipt["cleanup"] is None
    assert len(kept()) == 1 and host.volumes() == []


def test_without_trust(uvmirror, make_bundle, make_image, host, stranger, report):
    """Nothing that the bundle says of itself is repeated."""
    bundle = make_bundle("one", {OLD: make_image("a")})
    uvmirror("import", "--keyring", stranger.keyring, "--report", report, bundle, code=4)
    receipt = read(report)
    assert receipt["exit_code"] == 4 and receipt["bundle"] is None and receipt["images"] == []
    assert receipt["argument"] == str(bundle)
    assert kept() == []


def test_without_a_pool(uvmirror, make_bundle, make_image, bare_host, report):
    uvmirror("import", "--report", report, make_bundle("one", {OLD: make_image("a")}), code=7)
    assert read(report)["exit_code"] == 7


def test_of_a_dry_run(uvmirror, make_bundle, make_image, host, report):
    bundle = make_bundle("one", {OLD: make_image("a")})
    uvmirror("import", "-n", "--report", report, bundle)
    receipt = read(report)
    assert receipt["dry_run"] and receipt["images"][0]["outcome"] == "add"
    assert kept() == []


def test_interrupted(uvmirror, make_bundle, make_image, host, report):
    slow = SlowImport(uvmirror, make_bundle("big", {OLD: make_image("big", 16 << 20)}),
                      "--report", report)
    slow.process.send_signal(signal.SIGINT)
    _, code = slow.finish()
    assert code == 130 and read(report)["exit_code"] == 130


def test_that_cannot_be_written(uvmirror, make_bundle, make_image, host, folder):
    """The import itself went well, and is told; the report is missed."""
    bundle = make_bundle("one", {OLD: make_image("a")})
    result = uvmirror("import", "--report", folder / "missing" / "report.json", bundle, code=1)
    assert b"report was not written" in result.err
    assert uvtool_view.versions(host) == [OLD] and len(kept()) == 1


def test_the_newest_are_kept(uvmirror, make_bundle, make_image, host):
    os.makedirs(RECEIPTS)
    for i in range(120):
        with open(os.path.join(RECEIPTS, f"20200101T000000Z-{i:03}.json"), "wb"):
            pass
    with open(os.path.join(RECEIPTS, "notes"), "wb"):
        pass
    uvmirror("import", make_bundle("one", {OLD: make_image("a")}))
    names = kept()
    assert len(names) == 101 and "notes" in names
    assert names[0] == "20200101T000000Z-021.json" and "uvmirror-" in names[-2]


def test_shown(uvmirror, make_bundle, make_image, host, site, report):
    uvmirror("import", "--report", report, make_bundle("one", {OLD: make_image("a")}))
    shown = uvmirror("show", report).out.decode()
    assert OLD in shown and "added" in shown and site.key.fingerprint in shown
    assert uvmirror("show", "--json", report).lines == [read(report)]


@pytest.mark.parametrize("text", [b"{", b"{}", b'{"receipt": 2}'])
def test_shown_is_no_receipt(uvmirror, folder, text):
    (folder / "odd").write_bytes(text)
    uvmirror("show", folder / "odd", code=5)


def test_shown_is_made_printable(uvmirror, folder):
    """Nobody signed it."""
    (folder / "odd").write_text(json.dumps({
        "receipt": 1, "host": "a\x1b[2Jb", "images": [{"title": "\u009bx\n"}, 7],
        "bundle": {"streams": [{"source": "\u202ex"}, []]}, "cleanup": {"kept": [None, "\x07"]}}))
    out = uvmirror("show", folder / "odd").out
    assert b"\x1b" not in out and b"\x07" not in out and "\u009b".encode() not in out
