"""The site's signing key, from its making to its successor, and the keys that a host trusts."""

import fcntl
import os
import pathlib
import shutil
import subprocess

import pytest

import hypervisor
from keys import Key
from program import Program
from terminal import Terminal
from test_crash import strace

VERSION = "20241004"
SYSTEM = pathlib.Path(hypervisor.CONFIG) / "trusted.d"


@pytest.fixture
def key(uvmirror, bare_host, folder):
    """key(verb, *arguments): on the internet host; key.fingerprint(role, state=...)"""
    return Keys(uvmirror, folder / "state")


class Keys:
    def __init__(self, uvmirror, state):
        self.uvmirror, self.state = uvmirror, state

    def __call__(self, *args, **options):
        result = self.uvmirror("key", *args, "--state-dir", self.state, **options)
        for line in (result.out + result.err).decode().splitlines():
            assert len(line) <= 80 or line.startswith(("uvmirror: ", "{")) or "/" in line, line
        return result

    def listed(self, role):
        """The fingerprints of that role."""
        return [line["fingerprint"] for line in self("list", "--json").lines if line["role"] == role]


@pytest.fixture
def receiver(uvmirror, bare_host, folder):
    """Another host's keys."""
    return Keys(uvmirror, folder / "receiver")


@pytest.fixture
def publish(mirror, vendor, make_image, uvmirror, folder, key):
    """publish(name): a bundle, signed by the key of `key`."""
    mirror.add_image(VERSION, make_image("a"))
    mirror.write()

    def run(name, *args, **options):
        path = folder / f"{name}.tar.zst"
        uvmirror("fetch", "--source", mirror.root, "--keyring", vendor.keyring, "--mirror",
                 folder / "mirror", "--state-dir", key.state, "-o", path, *args, "release=noble",
                 **options)
        return path

    return run


@pytest.fixture
def verify(uvmirror, receiver):
    """verify(bundle, code=..., says=...): on the other host."""

    def run(bundle, *args, says=None, **options):
        result = uvmirror("verify", "--state-dir", receiver.state, bundle, *args, **options)
        assert says is None or says in result.err.decode(), str(result)
        return result

    return run


def new_key(folder, name, *options, expires="never"):
    return Key(folder / name, f"{name} <{name}@example.org>", expires=expires, options=options)


def keyring(path, *keys):
    path.write_bytes(b"".join(key.gpg("--export", key.fingerprint) for key in keys))
    return path


# ---- making, showing ----------------------------------------------------------------------------


def test_generate_with_an_end(key):
    result = key("generate", "--name", "Site", "--expire", "30", "--json").lines[-1]
    (made,) = [line for line in key("list", "--json").lines if line["role"] == "signing"]
    assert made["fingerprint"] == result["fingerprint"] and made["name"] == "Site"
    assert made["expires"] - made["created"] == 30 * 86400
    key("generate", code=2)
    assert len(key.listed("signing")) == 1


def test_export(key, folder):
    fingerprint = key("generate", "--json").lines[-1]["fingerprint"]
    armored = key("export").out.decode()
    shown = key("export", "--json").lines
    assert shown == [{"event": "result", "fingerprint": fingerprint, "key": armored}]
    assert key("export", "--json", "-o", folder / "x.gpg").lines[-1]["file"] == str(folder / "x.gpg")
    assert (folder / "x.gpg").read_text() == armored


# ---- rotation -----------------------------------------------------------------------------------


def test_a_rotation_cuts_no_host_off(key, receiver, publish, verify, folder):
    old = key("generate", "--name", "Site", "--json").lines[-1]["fingerprint"]
    key("export", "-o", folder / "old.gpg")
    receiver("trust", "--yes", folder / "old.gpg")

    begun = key("rotate", "--json", "-o", folder / "new.gpg").lines[-1]
    new = begun["fingerprint"]
    assert begun["vouched_by"] == old and new != old
    assert key.listed("signing") == [old] and key.listed("next") == [new]
    assert (key.state / "gnupg.next").stat().st_mode & 0o777 == 0o700
    assert key("list").out.decode().splitlines()[3] == "next    Site"
    verify(publish("before"))

    # It is asked for again: the same key.
    assert key("rotate", "--json").lines[-1]["fingerprint"] == new
    key("rotate", "--name", "Another", code=2)
    assert b"there is a signing key already" in key("generate", code=2).err

    # It is offered, and never taken silently.
    receiver("trust", folder / "new.gpg", code=2)
    assert receiver.listed("trusted") == [old]
    offered = receiver("trust", "--yes", folder / "new.gpg").out.decode()
    grouped = " ".join(old[i:i + 4] for i in range(0, 40, 4))
    assert f"signed by {grouped},\n        which this host trusts already: it is offered" in offered
    again = receiver("trust", "--yes", "--json", folder / "new.gpg").lines
    assert again[0]["vouched_by"] == new and again[1]["trusted"] == [new]
    verify(publish("between"))

    done = key("rotate", "--finish", "--json").lines[-1]
    aside = key.state / "gnupg.old" / old
    assert done == {"event": "result", "fingerprint": new, "name": "Site", "kept_in": str(aside)}
    assert key.listed("signing") == [new] and key.listed("next") == []
    assert key("list", "--homedir", aside, "--json").lines[0]["fingerprint"] == old
    after = publish("after")
    verify(after)
    assert b"there is no next key" in key("rotate", "--finish", code=2).err

    # A host that comes late is offered the successor by what `export` gives, too.
    receiver("remove", "--yes", new)
    verify(after, code=4, says=new)
    key("export", "-o", folder / "late.gpg")
    assert receiver("trust", "--yes", "--json", folder / "late.gpg").lines[0]["vouched_by"] == old
    verify(after)


def test_a_successor_on_a_terminal(key, receiver, folder, uvmirror):
    """Nobody who says anything but yes has said it."""
    key("generate", "--name", "Site")
    key("export", "-o", folder / "old.gpg")
    key("rotate", "-o", folder / "new.gpg")
    receiver("trust", "--yes", folder / "old.gpg")
    command = [uvmirror.path, "key", "trust", "--state-dir", receiver.state, folder / "new.gpg"]
    for answer, code, count in (("\n", 4, 1), ("no\n", 4, 1), ("y\n", 0, 2)):
        terminal = Terminal(command, uvmirror.environment())
        terminal.until(r"offered as its successor(.|\n)*\[y/N\]")
        terminal.type(answer)
        assert terminal.end() == code, terminal.raw
        assert len(receiver.listed("trusted")) == count


def vouch(signer, key, *options):
    """A certification by gpg itself; returns the key with it."""
    signer.gpg("--import", data=key.gpg("--export", key.fingerprint))
    signer.gpg(*options, "--quick-sign-key", key.fingerprint)
    return signer.gpg("--export", key.fingerprint)


def test_who_does_not_vouch(receiver, folder, stranger):
    """A certification counts only when it is good, and by a key that is trusted and may be used."""
    boss, new = new_key(folder, "boss"), new_key(folder, "new")
    past = ("--faked-system-time", "20200101T000000")
    late = new_key(folder, "late", *past, expires="1y")
    (SYSTEM.parent / "trusted.d").mkdir()
    keyring(SYSTEM / "all.gpg", boss, late)
    path = folder / "new.gpg"

    def voucher(data):
        path.write_bytes(data)
        return receiver("trust", path, "--json", code=2).lines[0]["vouched_by"]

    plain = new.gpg("--export", new.fingerprint)
    assert voucher(plain) is None
    said = receiver("trust", path, code=2).out.decode()
    assert "no key that this host trusts vouches for it" in said
    assert voucher(vouch(stranger, new)) is None
    # With the stranger's key in the same file, which does not make it a trusted one.
    path.write_bytes(stranger.gpg("--export", new.fingerprint, stranger.fingerprint))
    lines = receiver("trust", path, "--json", code=2).lines
    assert [line["vouched_by"] for line in lines[:2]] == [None, None]
    old = Key(folder / "faked", "Faked", options=past)
    assert voucher(vouch(late, old, *past)) is None, "a key that has expired since"
    good = vouch(boss, new)
    assert voucher(good) == boss.fingerprint
    broken = bytearray(good)
    broken[-5] ^= 1
    assert voucher(bytes(broken)) is None
    boss.gpg("--quick-revoke-sig", new.fingerprint, boss.fingerprint)
    assert voucher(boss.gpg("--export", new.fingerprint)) is None, "it was taken back"
    for made in (boss, new, late, old):
        made.close()


def as_subkey(owner, key, when):
    """Makes `key`, which was made at that instant, a subkey of another one, too: what it has signed is
    by a subkey now."""
    listed = key.gpg("--with-colons", "--with-keygrip", "--list-keys", key.fingerprint).decode()
    keygrip = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("grp:"))
    secret = pathlib.Path("private-keys-v1.d", f"{keygrip}.key")
    shutil.copy(pathlib.Path(key.homedir, secret), pathlib.Path(owner.homedir, secret))
    subprocess.run(["gpg", "--homedir", owner.homedir, "--quiet", "--no-tty", "--expert",
                    "--pinentry-mode", "loopback", "--passphrase", "", *when, "--command-fd", "0",
                    "--edit-key", owner.fingerprint, "addkey"],
                   input=f"13\n{keygrip}\nq\n0\nsave\n".encode(), capture_output=True, check=True)
    listed = owner.gpg("--with-colons", "--with-subkey-fingerprint", "--list-keys", owner.fingerprint)
    assert f":{key.fingerprint}:" in listed.decode()


def test_who_seems_to_vouch(receiver, folder):
    """Good certifications, which say something else: by a subkey, for a day that has passed, over
    another name than the one that is shown, by a key that was revoked."""
    past = ("--faked-system-time", "20240101T000000!")
    boss, new = new_key(folder, "boss", *past), new_key(folder, "new", *past)
    boss.options, new.options = [], []
    ring = folder / "boss.gpg"
    receiver("trust", "--yes", keyring(ring, boss))
    path = folder / "offer.gpg"

    def voucher(data, key=new):
        path.write_bytes(data)
        lines = receiver("trust", path, "--json", code=2).lines
        return next(line["vouched_by"] for line in lines if line["fingerprint"] == key.fingerprint)

    by_subkey = new_key(folder, "subkey", *past)
    forged = vouch(by_subkey, new)
    as_subkey(boss, by_subkey, past)
    receiver("trust", "--yes", keyring(ring, boss))
    assert voucher(forged) is None
    assert voucher(forged + boss.gpg("--export", boss.fingerprint)) is None

    day = ("--ask-cert-expire", "--default-cert-expire", "1d", *past)
    assert voucher(vouch(boss, new, *day)) is None
    assert voucher(vouch(boss, new)) == boss.fingerprint

    # Its owner has the certification, and takes another name.
    new.gpg("--import", data=boss.gpg("--export", new.fingerprint))
    new.gpg("--passphrase", "", "--quick-add-uid", new.fingerprint, "Somebody Important")
    new.gpg("--quick-set-primary-uid", new.fingerprint, "Somebody Important")
    assert voucher(new.gpg("--export", new.fingerprint)) is None
    assert "Somebody Important" in receiver("trust", path, code=2).out.decode()
    new.gpg("--quick-set-primary-uid", new.fingerprint, "new <new@example.org>")
    assert voucher(new.gpg("--export", new.fingerprint)) == boss.fingerprint

    revoked(boss)
    receiver("trust", "--yes", keyring(ring, boss), code=4)
    shutil.copy(ring, receiver.state / "trusted.d" / f"{boss.fingerprint}.gpg")
    assert voucher(new.gpg("--export", new.fingerprint)) is None
    for made in (boss, new, by_subkey):
        made.close()


def test_a_forged_rotation(key, folder, stranger):
    """Whoever has exchanged the next key does not get it into the place of the present one."""
    old = key("generate", "--name", "Site", "--json").lines[-1]["fingerprint"]
    key("export", "-o", folder / "old.gpg")
    key("rotate", "-o", folder / "new.gpg")
    following = key.state / "gnupg.next"
    aside = following.rename(folder / "aside")

    def refused(forged):
        if following.exists():
            shutil.rmtree(following)
        shutil.copytree(forged.homedir, following, ignore=shutil.ignore_patterns("S.*"))
        said = key("rotate", "--finish", code=4).err.decode()
        assert forged.fingerprint in said, said
        assert key.listed("signing") == [old] and key.listed("next") == [forged.fingerprint]
        return said

    plain = new_key(folder, "plain")
    assert "no good signature by the present one" in refused(plain)
    plain.gpg("--import", data=vouch(stranger, plain))
    plain.gpg("--import", data=stranger.gpg("--export", stranger.fingerprint))
    assert "--abort" in refused(plain)
    # By a key that has the present one's name.
    namesake = Key(folder / "namesake", "Site")
    plain.gpg("--import", data=vouch(namesake, plain))
    plain.gpg("--import", data=(folder / "old.gpg").read_bytes())
    refused(plain)
    past = new_key(folder, "past", "--faked-system-time", "20200101T000000", expires="1y")
    assert "is expired" in refused(past)

    # The site's own key may sign it all the same, once somebody says so.
    shutil.rmtree(following)
    shutil.copytree(plain.homedir, following, ignore=shutil.ignore_patterns("S.*"))
    key("rotate", "-o", folder / "new.gpg")
    key("rotate", "--finish")
    assert key.listed("signing") == [plain.fingerprint]
    assert aside.exists()
    for made in (plain, namesake, past):
        made.close()


@pytest.mark.parametrize("what", ["expired", "revoked"])
def test_the_present_key_has_ended(key, folder, what):
    """One that has expired did vouch, while it could. One that was revoked does not count."""
    signer = Key(key.state / "gnupg", "Site", expires="2d")
    new = key("rotate", "--json", "-o", folder / "new.gpg").lines[-1]["fingerprint"]
    if what == "revoked":
        revoked(signer)
        assert b"no good signature" in key("rotate", "--finish", code=4).err
        assert key.listed("signing") == [signer.fingerprint]
    else:
        key("rotate", "--finish", **in_days(3))
        assert key.listed("signing") == [new]
    signer.close()


def in_days(days):
    """Runs it with a clock that is ahead."""
    return {"wrap": ("faketime", "-m", "-f", f"+{days}d"),
            "env": {"ASAN_OPTIONS": "verify_asan_link_order=0:detect_leaks=0:exitcode=99"}}


def test_killed_between_the_renames(key, folder):
    """The half that is done is neither undone nor taken for a host without a key."""
    old = key("generate", "--json").lines[-1]["fingerprint"]
    new = key("rotate", "--json", "-o", folder / "new.gpg").lines[-1]["fingerprint"]
    for when in (1, 2):
        key("rotate", "--finish", code=-9,
            **strace(os.devnull, "-e", "trace=renameat2", "-e",
                     f"inject=renameat2:signal=KILL:when={when}"))
    assert key.listed("signing") == [] and key.listed("next") == [new]
    assert b"rotate --finish" in key("generate", code=2).err
    assert b"rotate --finish" in key("rotate", "--abort", "--yes", code=2).err
    assert key("rotate", "--finish", "--json").lines[-1]["fingerprint"] == new
    assert key.listed("signing") == [new] and key.listed("next") == []
    assert (key.state / "gnupg.old" / old).is_dir()


def test_not_under_a_running_signer(key, publish, folder):
    key("generate")
    key("rotate", "-o", folder / "new.gpg")
    home = os.open(key.state / "gnupg", os.O_RDONLY)
    fcntl.flock(home, fcntl.LOCK_SH)
    assert b"try again" in key("rotate", "--finish", code=8).err
    publish("a")
    fcntl.flock(home, fcntl.LOCK_EX)
    publish("b", code=8)
    os.close(home)
    key("rotate", "--finish")


def test_abort(key, folder):
    old = key("generate", "--json").lines[-1]["fingerprint"]
    key("rotate", "--abort", "--yes", code=2)
    new = key("rotate", "--json", "-o", folder / "new.gpg").lines[-1]["fingerprint"]
    key("rotate", "--abort", code=2)
    assert key.listed("next") == [new]
    assert key("rotate", "--abort", "--yes", "--json").lines[-1]["removed"] == new
    assert key.listed("next") == [] and key.listed("signing") == [old]
    key("rotate", "--finish", code=2)
    key("rotate", "--finish", "--abort", code=2)
    key("rotate", "--homedir", folder / "x", code=2)
    assert key("rotate", "--json", "-o", folder / "new.gpg").lines[-1]["fingerprint"] != new


# ---- trust that ends ----------------------------------------------------------------------------


@pytest.fixture
def three(folder):
    keys = [new_key(folder, name) for name in ("alpha", "beta", "alphabet")]
    yield keys
    for made in keys:
        made.close()


def test_remove(receiver, three, folder):
    """In the system's folder and in the host's own; a file of several keys keeps the others."""
    alpha, beta, alphabet = three
    SYSTEM.mkdir()
    keyring(SYSTEM / "two.gpg", alpha, beta)
    receiver("trust", "--yes", keyring(folder / "x.gpg", alpha))
    receiver("trust", "--yes", keyring(folder / "x.gpg", alphabet))
    assert len(receiver.listed("trusted")) == 4

    several = receiver("remove", "--yes", "ALPHA", code=2)
    assert b"fits 2 keys" in several.err and several.out.count(b"trusted ") == 2
    for name in ("nobody", "", alpha.fingerprint[:7], alpha.fingerprint + "0"):
        receiver("remove", "--yes", name, code=2)
    receiver("remove", alpha.fingerprint, code=2)  # nobody to ask
    assert len(receiver.listed("trusted")) == 4

    done = receiver("remove", "--yes", "--json", alpha.fingerprint.lower()).lines[-1]
    assert done == {"event": "result", "removed": alpha.fingerprint,
                    "name": "alpha <alpha@example.org>", "remaining": 2}
    assert sorted(receiver.listed("trusted")) == sorted([beta.fingerprint, alphabet.fingerprint])
    assert not (receiver.state / "trusted.d" / f"{alpha.fingerprint}.gpg").exists()
    shown = receiver("list").out.decode().splitlines()
    blanks = next(line for line in shown if beta.fingerprint == line.replace(" ", ""))
    assert b"1 key remains trusted" in receiver("remove", "--yes", *blanks.split()).err
    assert not (SYSTEM / "two.gpg").exists()
    assert b"accepts no bundle" in receiver("remove", "--yes", "alphabet").err
    receiver("remove", "--yes", "alphabet", code=4)


def test_remove_leaves_the_signing_key(key, folder):
    fingerprint = key("generate", "--name", "Site", "--json").lines[-1]["fingerprint"]
    key("export", "-o", folder / "x.gpg")
    key("trust", "--yes", folder / "x.gpg")
    other = new_key(folder, "other")
    key("trust", "--yes", keyring(folder / "y.gpg", other))
    key("remove", "--yes", "site")
    assert key.listed("signing") == [fingerprint]
    assert b"never touches" in key("remove", "--yes", "site", code=2).err
    assert key.listed("signing") == [fingerprint] and key.listed("trusted") == [other.fingerprint]
    other.close()


def test_remove_where_it_may_not(receiver, three, folder):
    """A key in a file that cannot be changed stays trusted: so it stays in all of them."""
    SYSTEM.mkdir()
    keyring(SYSTEM / "a.gpg", three[0])
    folder.chmod(0o755)
    receiver.state.mkdir()
    receiver("trust", "--yes", keyring(folder / "x.gpg", three[0]))
    subprocess.run(["chown", "-R", "nobody", receiver.state], check=True)
    program = folder / "uvmirror"  # where everybody may run it
    shutil.copy(receiver.uvmirror.path, program)
    as_nobody = ("setpriv", "--reuid=nobody", "--clear-groups", "--regid=nogroup")
    result = Keys(Program(str(program)), receiver.state)(
        "remove", "--yes", three[0].fingerprint, code=1, wrap=as_nobody)
    assert str(SYSTEM / "a.gpg") in result.err.decode()
    assert len(receiver.listed("trusted")) == 2


# ---- what is said of a signature -----------------------------------------------------------------


def expired(key):
    key.gpg("--faked-system-time", "20250101T000000!", "--quick-set-expire", key.fingerprint,
            "2025-06-01")


def revoked(key):
    folder = pathlib.Path(key.homedir, "openpgp-revocs.d")
    text = (folder / f"{key.fingerprint}.rev").read_text().replace(":-----BEGIN", "-----BEGIN")
    key.gpg("--import", data=text.encode())


def test_messages(key, publish, verify, folder):
    """The same bundle, and what became of its signer."""
    signer = Key(key.state / "gnupg", "Site", options=("--faked-system-time", "20240601T000000"))
    signer.options = []
    bundle = publish("a")
    other = new_key(folder, "other")
    ring = folder / "ring.gpg"

    def refused(says, ring_key):
        said = verify(bundle, "--keyring", keyring(ring, ring_key), code=4).err.decode()
        assert says in said and signer.fingerprint in said, said
        return said

    verify(bundle, "--keyring", keyring(ring, signer))
    assert "key trust" in refused("which is not trusted here", other)
    good = signer.gpg("--export", signer.fingerprint)
    expired(signer)
    assert "it is 20" in refused("a key that expired on 2025-06-01T", signer)
    revoked(signer)
    refused("a key that was revoked", signer)
    ring.write_bytes(good)
    verify(bundle, "--keyring", ring)
    signer.close()
    other.close()


# ---- a key that is not ours ----------------------------------------------------------------------

PINENTRY = """#!/bin/sh
echo "OK ready"
while read -r command rest; do
    case $command in
        GETPIN) {answer} ;;
        BYE) echo OK; exit ;;
        *) echo OK ;;
    esac
done
"""
PASSPHRASE = "a long secret"


@pytest.fixture
def own_home(folder):
    """own_home(answer): an existing GnuPG home with a key that has a passphrase, and one more; its
    pinentry answers so."""
    home = folder / "own"
    home.mkdir(mode=0o700)
    pinentry = folder / "pinentry"
    (home / "gpg-agent.conf").write_text(f"pinentry-program {pinentry}\n")
    gpg = ["gpg", "--homedir", home, "--batch", "--quiet", "--pinentry-mode", "loopback"]
    for name, passphrase in (("Officer", PASSPHRASE), ("Other", "")):
        subprocess.run([*gpg, "--passphrase", passphrase, "--quick-gen-key", name, "ed25519", "sign"],
                       check=True, capture_output=True)

    def answers(answer):
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "gpg-agent"], check=True)
        pinentry.write_text(PINENTRY.format(answer=answer))
        pinentry.chmod(0o755)
        return home

    yield answers
    answers("exit")


def test_a_passphrase(own_home, publish, verify, uvmirror, folder):
    home = own_home(f"echo 'D {PASSPHRASE}'; echo OK")
    bundle = publish("a", "--homedir", home, "--sign-key", "Officer")
    uvmirror("key", "export", "--homedir", home, "--sign-key", "Officer", "-o", folder / "x.gpg")
    verify(bundle, "--keyring", folder / "x.gpg")
    again = folder / "again.tar.zst"
    own_home(f"echo 'D {PASSPHRASE}'; echo OK")
    uvmirror("bundle", "--mirror", folder / "mirror", "--homedir", home, "--sign-key", "Officer",
             "-o", again)
    verify(again, "--keyring", folder / "x.gpg")


@pytest.mark.parametrize("answer, code, says", [
    ("echo 'ERR 83886179 Operation cancelled <Pinentry>'", 130, "no passphrase was given"),
    ("echo 'D wrong'; echo OK", 4, "wrong passphrase"),
    (None, 4, "no pinentry"),
], ids=["cancelled", "wrong", "no pinentry"])
def test_no_passphrase(own_home, publish, key, mirror, vendor, uvmirror, folder, answer, code, says):
    home = own_home(answer or "exit")
    if not answer:
        (folder / "pinentry").unlink()
    result = uvmirror("fetch", "--source", mirror.root, "--keyring", vendor.keyring, "--mirror",
                      folder / "mirror", "--homedir", home, "--sign-key", "Officer", "-o",
                      folder / "a.tar.zst", "release=noble", code=code)
    assert says in result.err.decode(), str(result)
    assert not list(folder.glob("*.tar.zst*"))


# ---- what a killed run leaves --------------------------------------------------------------------


def test_the_next_run_sweeps(key, publish, verify, folder, site):
    """Folders for GnuPG that a killed run left go, and nothing else does."""
    key("generate")
    bundle, tmp = publish("a"), folder / "tmp"
    tmp.mkdir()
    keyring_file = folder / "x.gpg"
    key("export", "-o", keyring_file)
    env = strace(os.devnull)["env"]
    verify(bundle, "--keyring", keyring_file, code=-9,
           wrap=("strace", "-qq", "-o", os.devnull, "-e", "trace=unlinkat", "-e",
                 "inject=unlinkat:signal=KILL:when=1"), env={**env, "TMPDIR": tmp})
    left = [tmp / name for name in os.listdir(tmp)]
    assert left
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (elsewhere / "file").touch()
    (tmp / "uvmirror-keys-link00").symlink_to(elsewhere)
    os.utime(elsewhere, (0, 0))
    verify(bundle, "--keyring", keyring_file, env={"TMPDIR": tmp})
    assert os.listdir(tmp) == ["uvmirror-keys-link00"]
    assert (elsewhere / "file").exists()
