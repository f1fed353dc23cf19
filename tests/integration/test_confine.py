"""What a command that reads a bundle can still do, told by a GnuPG that it starts: one that was taken over."""

import ctypes
import json
import os
import shutil

import pytest

OLD = "20241004"
GPG = "/usr/bin/gpg"

# Tries what nobody who checks signatures needs, notes what came of it, and goes on as the real one.
TAKEN_OVER = """#!/usr/bin/python3
import json, os, socket, sys
NOTE = {note!r}

def make(path):
    open(path, "w").close()
    os.unlink(path)

def outcome(try_it, *what):
    try:
        try_it(*what)
        return "done"
    except OSError as error:
        return error.strerror

if not os.path.exists(NOTE):
    tries = {{path: outcome(make, path + "/new") for path in {folders!r}}}
    tries["change"] = outcome(open, {bundle!r}, "r+b")
    for family in ("AF_UNIX", "AF_INET", "AF_NETLINK"):
        tries[family] = outcome(lambda: socket.socket(getattr(socket, family), socket.SOCK_DGRAM).close())
    with open("/proc/self/status") as status:
        tries["status"] = dict(line.split(":\\t") for line in status if ":\\t" in line)
    with open(NOTE, "w") as note:
        json.dump(tries, note)
os.execv({real!r}, ["gpg", *sys.argv[1:]])
"""

# CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FSETID, CAP_LEASE
KEPT = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 28
DENIED, DONE = "Permission denied", "done"


def landlock_version():
    return ctypes.CDLL(None).syscall(444, None, 0, 1)


@pytest.fixture
def bundle(make_bundle, make_image):
    return make_bundle("good", {OLD: make_image("a")})


@pytest.fixture
def tries(uvmirror, host, folder, bundle):
    """tries(folders, command, *arguments): what came of each, and what the command said."""

    def run(folders, *command, code=0):
        tmp, note = folder / "tmp", folder / "tmp" / "note"
        shutil.rmtree(tmp, ignore_errors=True)
        tmp.mkdir()
        evil, real = folder / "gpg", folder / "real-gpg"
        shutil.copy(GPG, real)
        evil.write_text(TAKEN_OVER.format(note=str(note), folders=[str(path) for path in (*folders, tmp)],
                                          real=str(real), bundle=str(bundle)))
        evil.chmod(0o755)
        wrap = ("unshare", "--mount", "sh", "-c", f'mount --bind "{evil}" {GPG} && exec "$@"', "sh")
        result = uvmirror(*command, wrap=wrap, env={"TMPDIR": tmp}, code=code)
        made = json.loads(note.read_text())
        note.unlink()
        assert not list(tmp.iterdir()), "something is left in the temporary folder"
        assert made.pop(str(tmp)) == DONE
        assert made["status"]["NoNewPrivs"].strip() == "1"
        assert int(made["status"]["CapEff"], 16) & ~KEPT == 0
        assert int(made["status"]["CapPrm"], 16) & ~KEPT == 0
        return made, result

    return run


@pytest.mark.parametrize("command", ["verify", "show"])
def test_readers_change_nothing_and_talk_to_nobody(tries, bundle, folder, command):
    made, result = tries([folder, "/", "/etc", "/var/lib"], command, "--verbose", bundle)
    said = result.err.decode()
    assert made["AF_UNIX"] == made["AF_INET"] == made["AF_NETLINK"] == "Operation not permitted"
    assert "confined: opens no sockets" in said
    if landlock_version() < 1:
        assert "this kernel has no Landlock" in said
        return
    assert f"confined: changes files in {folder}/tmp alone" in said
    assert {made[path] for path in ("change", str(folder), "/", "/etc", "/var/lib")} == {DENIED}


def test_import_writes_where_it_must(tries, bundle, host, folder):
    state, metadata = "/var/lib/uvmirror", "/var/lib/uvtool/libvirt/metadata"
    reports = folder / "reports"
    reports.mkdir()
    made, result = tries([state, metadata, reports, folder, "/etc", "/var/lib", "/var/lib/libvirt"], "import",
                         "--verbose", "--report", reports / "r.json", bundle)
    assert len(host.volumes()) == 1 and (reports / "r.json").exists()
    assert made["AF_UNIX"] == DONE
    assert made["AF_INET"] == made["AF_NETLINK"] == "Operation not permitted"
    assert b"confined: opens no network" in result.err
    if landlock_version() < 1:
        return
    assert made[state] == made[metadata] == made[str(reports)] == DONE
    assert {made[path] for path in ("change", str(folder), "/etc", "/var/lib", "/var/lib/libvirt")} == {DENIED}


def test_a_dry_run_writes_nothing(tries, bundle, host):
    os.makedirs("/var/lib/uvmirror", exist_ok=True)
    made, _ = tries(["/var/lib/uvmirror"], "import", "--dry-run", bundle)
    assert made["/var/lib/uvmirror"] == (DENIED if landlock_version() >= 1 else DONE)


def test_where_others_are_started_nothing_is_given_up(uvmirror, bundle, host):
    """libvirt's client runs ssh, which needs the network and its own files."""
    result = uvmirror("import", "--verbose", "--connect", "qemu+ssh://nobody@127.0.0.1:9/system", bundle,
                      code=7)
    assert b"not confined: " in result.err
    assert b"confined: opens" not in result.err
