"""The command line: help, usage errors, output for people and for programs."""

import os
import shutil
import subprocess

import pytest

OLD = "20241004"
COMMANDS = ["fetch", "add", "bundle", "import", "verify", "show", "list", "clean",
            "inventory", "publish", "key", "init", "doctor"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(uvmirror, command):
    result = uvmirror(command, "--help")
    text = result.out.decode()
    assert text.startswith("Usage: uvmirror " + command)
    assert "--help" in text
    assert max(map(len, text.splitlines())) <= 80
    assert result.err == b""


def test_help_names_every_command(uvmirror):
    text = uvmirror("--help").out.decode()
    for command in COMMANDS:
        assert f"  {command} " in text
    assert max(map(len, text.splitlines())) <= 80


def test_version(uvmirror):
    assert uvmirror("--version").out.decode().startswith("uvmirror ")


@pytest.mark.parametrize("arguments", [
    [], ["nonsense"], ["--nonsense"], ["fetch", "--nonsense"], ["import"], ["verify"], ["show"],
    ["publish"], ["publish", "--tree", "x"],
    ["import", "--max", "many", "x"], ["import", "--max", "0", "x"], ["fetch", "--max", "0"],
    ["key"], ["key", "nonsense"], ["list", "--pool", "other"],
    ["fetch", "--source"], ["clean", "surplus"], ["init", "surplus"], ["show", "--color=yes", "x"],
], ids=lambda arguments: " ".join(arguments) or "nothing")
def test_usage(uvmirror, arguments):
    result = uvmirror(*arguments, code=2)
    assert result.out == b""


@pytest.fixture
def bundle(make_bundle, make_image):
    return make_bundle("one", {OLD: make_image("a")})


def test_show_says_what_who_and_when(uvmirror, bundle, host, site, mirror):
    text = uvmirror("show", bundle).out.decode()
    for part in ("noble", "amd64", OLD, mirror.root):
        assert part in text, text
    assert site.key.fingerprint in text.replace(" ", "")


@pytest.mark.parametrize("command", ["show", "verify", "import"])
def test_json_of_a_bundle(uvmirror, bundle, host, command):
    lines = uvmirror(command, "--json", bundle).lines
    assert lines and all(isinstance(line, dict) for line in lines)


def test_json_of_an_error(uvmirror, host, folder):
    result = uvmirror("verify", "--json", folder / "nothing", code=None)
    assert result.code != 0
    assert all(isinstance(line, dict) for line in result.lines)


def test_list_as_a_table(uvmirror, bundle, host):
    uvmirror("import", bundle)
    lines = uvmirror("list").out.decode().splitlines()
    assert lines[0].split() == ["RELEASE", "ARCH", "LABEL", "VERSION", "STATE", "SIZE", "USED-BY"]
    assert lines[1].split()[:5] == ["noble", "amd64", "release", OLD, "ready"]
    assert len(lines) == 2


def test_list_of_nothing(uvmirror, host):
    assert uvmirror("list", "--json").lines == []


def test_list_takes_filters(uvmirror, bundle, host):
    uvmirror("import", bundle)
    assert len(uvmirror("list", "--json", "release=noble").lines) == 1
    assert uvmirror("list", "--json", "release=jammy").lines == []


def test_quiet(uvmirror, bundle, host):
    result = uvmirror("import", "--quiet", bundle)
    assert result.err == b""


def test_a_name_that_is_no_text(uvmirror, bundle, host, folder):
    """Sticks hold names of any kind: JSON stays JSON, and nothing speaks to the terminal."""
    path = os.fsencode(folder) + b"/\xff\x1b[31m.tar.zst"
    shutil.copyfile(bundle, path)
    for command in ("show", "verify"):
        assert [line for line in uvmirror(command, "--json", os.fsdecode(path)).lines
                if line.get("file", "").endswith("/??[31m.tar.zst")]
        result = uvmirror(command, os.fsdecode(path))
        assert b"\x1b" not in result.out + result.err


def test_an_error_names_the_bundle_once(uvmirror, bundle, host, stranger, folder):
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    bad = folder / "bad.tar.zst"
    bad.write_bytes(data)
    for result in (uvmirror("verify", bad, code=5),
                   uvmirror("verify", "--origin-keyring", stranger.keyring, bundle, code=4)):
        assert result.err.count(b".tar.zst: ") == 1, str(result)


def test_closed_output_is_an_error(uvmirror, bundle, host):
    result = uvmirror("show", bundle, code=None, wrap=("sh", "-c", 'exec "$@" >/dev/full', "sh"))
    assert result.code == 1 or result.code == 6, str(result)


def test_keys(uvmirror, bare_host, folder):
    state, other = folder / "one", folder / "two"
    uvmirror("key", "generate", "--state-dir", state)
    key = uvmirror("key", "export", "--state-dir", state).out
    assert key.startswith(b"-----BEGIN PGP PUBLIC KEY BLOCK-----")
    (folder / "key.asc").write_bytes(key)
    assert b"PRIVATE" not in key
    uvmirror("key", "trust", "--yes", "--state-dir", other, folder / "key.asc")
    listed = uvmirror("key", "list", "--state-dir", other).out.decode().replace(" ", "")
    generated = uvmirror("key", "list", "--state-dir", state).out.decode().replace(" ", "")
    (fingerprint,) = fingerprints(key)
    assert fingerprint in listed and fingerprint in generated


def fingerprints(key):
    shown = subprocess.run(["gpg", "--show-keys", "--with-colons"], input=key, check=True,
                           capture_output=True).stdout.decode()
    return [line.split(":")[9] for line in shown.splitlines() if line.startswith("fpr:")][:1]


def test_trust_asks(uvmirror, bare_host, site, folder):
    """Without --yes and without a terminal, nothing is trusted."""
    uvmirror("key", "trust", "--state-dir", folder / "x", site.keyring, code=None)
    listed = uvmirror("key", "list", "--state-dir", folder / "x").out.decode().replace(" ", "")
    assert site.key.fingerprint not in listed


def test_secret_key_is_kept_safe(uvmirror, folder):
    uvmirror("key", "generate", "--state-dir", folder / "x")
    assert (folder / "x" / "gnupg").stat().st_mode & 0o777 == 0o700


def test_trust_refuses_what_is_no_key(uvmirror, bare_host, folder):
    (folder / "x.asc").write_text("no key\n")
    uvmirror("key", "trust", "--yes", folder / "x.asc", code=4)
