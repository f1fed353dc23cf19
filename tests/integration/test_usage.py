"""Command lines that make no sense end with code 2, before anything is done, and say which option it
is; and files are no more open than their owner's umask wants."""

import os
import pathlib
import stat

import pytest


@pytest.mark.parametrize("args, says", [
    (("fetch", "--mirror", ""), "--mirror: its value is empty"),
    (("fetch", "--source", ""), "--source: its value is empty"),
    (("fetch", "--keyring="), "--keyring: its value is empty"),
    (("bundle", "-o", ""), "--output: its value is empty"),
    (("import", "--state-dir", "", "x"), "--state-dir: its value is empty"),
    (("key", "generate", "--name", ""), "--name: its value is empty"),
    (("fetch", "--source", "http://[::1/x"), "--source: the URL's host is malformed"),
    (("fetch", "--source", "http://h:http/"), "--source: the URL's port is no number"),
    (("fetch", "--source", "http://joe:sec/ret@h/"), "--source: a user or password with '/'"),
    (("add", "http://joe:sec/ret@h/x", "release=a", "arch=b", "version=c", "--sha256", "0" * 64),
     "a user or password with '/'"),
    (("fetch", "--no-bundle", "-o", "x"), "--no-bundle and --output"),
    (("fetch", "--no-bundle", "--sign-key", "x"), "--no-bundle and --sign-key"),
    (("fetch", "--no-bundle", "--homedir", "x"), "--no-bundle and --homedir"),
    (("fetch", "--no-bundle", "--split", "4G"), "--no-bundle and --split"),
    (("fetch", "--no-bundle", "--format", "1"), "--no-bundle and --format"),
    (("fetch", "--no-bundle", "--read-back"), "--no-bundle and --read-back"),
    (("fetch", "--no-bundle", "--no-read-back"), "--no-bundle and --no-read-back"),
    (("bundle", "--again", "x", "--parts", "1", "--format", "1"), "--again writes what was written"),
    (("key", "rotate", "--finish", "--name", "x"), "--finish takes the next key as it is"),
    (("key", "rotate", "--abort", "--yes", "-o", "x"), "--abort takes the next key as it is"),
    (("key", "generate", "--finish"), "go with 'uvmirror key rotate'"),
], ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_usage(uvmirror, folder, vendor, args, says):
    options = () if "--keyring=" in args or args[0] != "fetch" else ("--keyring", vendor.keyring)
    if "" not in args:
        options += ("--state-dir", folder / "state")
    result = uvmirror(*args, *options, code=2, cwd=folder, env={"HOME": folder})
    assert says in result.err.decode(), str(result)
    assert b"sec" not in result.err and not list(folder.rglob("*.tar.zst"))


def modes(path):
    """{permissions of a file or folder}"""
    return {stat.S_IMODE(found.lstat().st_mode) for found in [path, *path.rglob("*")]}


@pytest.mark.parametrize("mask, file, directory", [(0o077, 0o600, 0o700), (0o027, 0o640, 0o750),
                                                   (0o002, 0o644, 0o755), (0, 0o644, 0o755)])
def test_umask(mirror, fetch, uvmirror, make_image, folder, site, mask, file, directory):
    mirror.add_image("20241004", make_image("a"))
    mirror.write()
    stick = folder / "stick"
    stick.mkdir()
    before = os.umask(mask)
    try:
        fetch("-o", folder / "one.tar.zst", "release=noble")
        uvmirror("bundle", "--mirror", folder / "mirror", "--state-dir", site.state, "--split", "200k",
                 "-o", stick / "two.tar.zst")
        uvmirror("add", "--mirror", folder / "mirror", make_image("b"), "release=a", "arch=amd64",
                 "version=1")
    finally:
        os.umask(before)
    written = modes(folder / "mirror")
    lock = folder / "mirror" / "uvmirror" / "lock"
    assert stat.S_IMODE(lock.stat().st_mode) & mask == 0
    assert written <= {file, directory, 0o600 | (0o660 & ~(mask | 0o022))}
    assert stat.S_IMODE((folder / "one.tar.zst").stat().st_mode) == file
    assert {stat.S_IMODE(path.stat().st_mode) for path in stick.iterdir()} == {file}


def test_umask_of_what_a_host_shares(uvmirror, host, make_bundle, make_image):
    """An import by an administrator who is careful hides no image from uvt-kvm's users."""
    bundle = make_bundle("one", {"20241004": make_image("a")})
    before = os.umask(0o077)
    try:
        uvmirror("import", bundle)
    finally:
        os.umask(before)
    metadata = pathlib.Path("/var/lib/uvtool/libvirt/metadata")
    assert {stat.S_IMODE(path.stat().st_mode) for path in metadata.iterdir()} == {0o644}
    assert stat.S_IMODE(pathlib.Path("/var/lib/uvmirror/seen.json").stat().st_mode) == 0o644
