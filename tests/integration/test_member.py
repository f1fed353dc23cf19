"""Import by a member of group libvirt who is not root: everything but cleanup."""

import grp
import json
import os
import stat
import subprocess

import pytest

import hypervisor
import uvtool_view
from sample_mirror import PRODUCT
from slow_import import SlowImport

OLD, NEW = "20241004", "20241018"
NAMES = {version: uvtool_view.encode(PRODUCT, version) for version in (OLD, NEW)}


class Member:
    """Runs the program as an ordinary user who is in group libvirt, or not."""

    def __init__(self, uvmirror, home, groups):
        self.uvmirror = uvmirror
        self.wrap = ("setpriv", "--reuid", "nobody", "--regid", "nogroup", *groups)
        self.env = {"HOME": home, "TMPDIR": home}

    def __call__(self, *args, **options):
        return self.uvmirror(*args, wrap=self.wrap, env=self.env, **options)


@pytest.fixture
def home(work):
    path = work / "home-of-member"
    subprocess.run(["rm", "-rf", path], check=True)
    path.mkdir()
    os.chown(path, 65534, 65534)
    path.chmod(0o755)
    return path


@pytest.fixture
def program(uvmirror, work):
    """A copy where everybody can get at it."""
    path = work / "uvmirror-for-all"
    if not path.exists():
        subprocess.run(["install", "-m", "0755", uvmirror.path, path], check=True)
    return type(uvmirror)(str(path))


@pytest.fixture
def member(program, home):
    return Member(program, home, ("--groups", "libvirt"))


@pytest.fixture
def outsider(program, home):
    return Member(program, home, ("--clear-groups",))


@pytest.fixture
def bundles(make_bundle, make_image, folder):
    made = [make_bundle("one", {OLD: make_image("a")}), make_bundle("two", {NEW: make_image("b")})]
    for path in (folder, *made):
        path.chmod(0o755)
    return made


def test_init_shares_the_folders(prepared):
    group = grp.getgrnam("libvirt").gr_gid
    for folder, mode in ((hypervisor.METADATA, 0o2775), (hypervisor.STATE, 0o2770)):
        info = os.stat(folder)
        assert (info.st_uid, info.st_gid) == (0, group)
        assert stat.S_IMODE(info.st_mode) == mode


def test_import(member, uvmirror, prepared, bundles):
    """Root and member take turns on one lock, one record, one journal."""
    result = member("import", bundles[0])
    assert uvtool_view.versions(prepared) == [OLD] and uvtool_view.problems(prepared) == []
    info = os.stat(os.path.join(hypervisor.METADATA, NAMES[OLD]))
    assert stat.S_IMODE(info.st_mode) == 0o644 and info.st_gid == grp.getgrnam("libvirt").gr_gid
    assert b"warning" not in result.err

    result = member("import", bundles[1])
    assert uvtool_view.versions(prepared) == [NEW]
    assert prepared.volumes() == sorted(NAMES.values())  # the old one is left to root
    assert result.err.count(b"left for root") == 1 and b"warning" not in result.err

    uvmirror("clean")
    assert prepared.volumes() == [NAMES[NEW]]
    member("import", bundles[0], code=4)
    uvmirror("import", bundles[0], code=4)
    assert len(os.listdir(os.path.join(hypervisor.STATE, "receipts"))) == 4


def test_after_root(member, uvmirror, prepared, bundles):
    """What root made, lock and records included, is the member's, too."""
    uvmirror("import", bundles[0])
    member("import", bundles[1])
    assert uvtool_view.versions(prepared) == [NEW]
    with open(os.path.join(hypervisor.STATE, "seen.json"), encoding="utf-8") as file:
        assert json.load(file)["version"] == 1


def test_keep_compressed(member, prepared, bundles):
    member("import", "--keep-compressed", bundles[0])
    assert uvtool_view.versions(prepared) == [OLD]


def test_one_lock(member, uvmirror, prepared, make_bundle, make_image, folder):
    big = make_bundle("big", {OLD: make_image("big", 16 << 20)})
    for path in (folder, big):
        path.chmod(0o755)
    slow = SlowImport(uvmirror, big)
    member("import", big, code=8)
    _, code = slow.finish()
    assert code == 0


def test_relink(member, uvmirror, prepared, bundles):
    """The comparison needs libvirt alone."""
    uvmirror("import", bundles[0])
    prepared.guest("web1", prepared.overlay(prepared.volume_path(NAMES[OLD]), "web1.qcow"))
    member("import", bundles[1])
    member("import", "--allow-older", bundles[0])
    assert uvtool_view.versions(prepared) == [OLD]


def test_list_and_clean(member, prepared, bundles):
    """Looks, and leaves what it may not read."""
    member("import", bundles[0])
    member("list")
    member("clean")
    assert prepared.volumes() == [NAMES[OLD]]


def test_own_mirror(member, prepared, home):
    """What is shared is the host's state; a mirror is everybody's own."""
    result = member("bundle", "-n", code=1)
    assert f"{home}/.local/share/uvmirror/mirror is not a mirror".encode() in result.err


def test_outside_the_group(outsider, prepared, bundles):
    """libvirt's own answer, and nothing is changed."""
    before = prepared.view()
    outsider("import", bundles[0], code=7)
    assert prepared.view() == before
