"""A mirror that cannot be written, or that another run works in: what only looks, works."""

import fcntl
import shutil
import subprocess

import pytest

from program import Program


@pytest.fixture
def filled(mirror, fetch, make_image, folder):
    """filled(*arguments): a mirror with two images, and a bundle in parts of it. Its folder."""
    mirror.add_image("20241004", make_image("a"))
    mirror.write()
    stick = folder / "stick"
    stick.mkdir()
    fetch("--split", "200k", "-o", stick / "one.tar.zst", "release=noble")
    mirror.add_image("20241018", make_image("b"))
    mirror.write()
    return folder / "mirror"


@pytest.fixture
def read_only(filled):
    """The same on a read-only medium."""
    subprocess.run(["mount", "--bind", filled, filled], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", filled], check=True)
    yield filled
    subprocess.run(["umount", filled], check=True)


@pytest.fixture
def bundle(uvmirror, site, folder):
    def run(*args, program=uvmirror, where=folder / "mirror", **options):
        return program("bundle", "--mirror", where, "--state-dir", site.state, *args, **options)

    return run


def again(bundle, folder, **options):
    """Part 2 of what was split, once more; as it was."""
    was = folder / "stick" / "one.tar.zst.002"
    (made,) = [path.name for path in (folder / "mirror/uvmirror/bundles").iterdir()
               if (path / "uvmirror/parts.sums").exists()]
    out = folder / "again"
    out.mkdir()
    bundle("--again", made, "--parts", "2", "-o", out, **options)
    assert (out / was.name).read_bytes() == was.read_bytes()


def look(bundle, fetch):
    said = bundle("-n")
    assert b"20241004" in said.out and b"1 image; the bundle would have up to" in said.out
    planned = fetch("-n", "release=noble")
    assert b"to download: 1" in planned.out and b"would remove" in planned.out
    return said.err.decode(), planned.err.decode()


def test_on_a_read_only_medium(read_only, bundle, fetch, folder):
    for said in look(bundle, fetch):
        assert "the run itself would fail" in said and "Read-only file system" in said
    again(bundle, folder)
    for run in (lambda: bundle("-o", folder / "x.tar.zst", code=1),
                lambda: fetch("-o", folder / "x.tar.zst", "release=noble", code=1)):
        said = run().err.decode()
        assert f"mirror folder {read_only} cannot be written" in said and "serial" in said
        assert "--mirror" in said and said.rstrip().endswith("Read-only file system")
    assert not (folder / "x.tar.zst").exists()
    # The way out that it names.
    subprocess.run(["cp", "-a", read_only, folder / "copy"], check=True)
    bundle("-o", folder / "x.tar.zst", where=folder / "copy")
    assert (folder / "x.tar.zst").exists()


def test_somebody_elses(filled, bundle, uvmirror, folder):
    program = folder / "uvmirror"  # where everybody may run it
    shutil.copy(uvmirror.path, program)
    folder.chmod(0o755)
    as_nobody = {"program": Program(str(program)), "env": {"HOME": "/nonexistent"},
                 "wrap": ("setpriv", "--reuid=nobody", "--clear-groups", "--regid=nogroup")}
    said = bundle("-n", **as_nobody)
    assert b"20241004" in said.out and b"Permission denied" in said.err
    before = {path: path.stat().st_mtime_ns for path in filled.rglob("*")}
    assert b"cannot be written" in bundle("--homedir", folder, "-o", "/tmp", code=1, **as_nobody).err
    assert before == {path: path.stat().st_mtime_ns for path in filled.rglob("*")}


def test_while_another_run_works_in_it(filled, bundle, fetch, folder):
    with open(filled / "uvmirror" / "lock", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for said in look(bundle, fetch):
            assert "would fail" not in said
        again(bundle, folder)
        bundle("-o", folder / "x.tar.zst", code=8)


def test_looking_writes_nothing(filled, bundle, fetch):
    """Not even what it has found out by hashing, after a start of the machine."""
    record = filled / "uvmirror" / "verified.json"
    record.unlink()
    before = {path: path.stat().st_mtime_ns for path in filled.rglob("*")}
    assert b"20241004" in bundle("-n").out
    fetch("-n", "release=noble")
    assert before == {path: path.stat().st_mtime_ns for path in filled.rglob("*")}
    assert not record.exists()
