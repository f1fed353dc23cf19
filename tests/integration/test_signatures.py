"""Whose word counts: signatures that are none, damaged, of the wrong key, of a key that no longer
counts; and a GnuPG that is hostile, or missing."""

import os
import re
import signal
import subprocess
import time

import pytest

from bundles import SIGNATURE, Bundle
from keys import Key
from sample_mirror import CONTENT_ID, INDEX_PATH, PRODUCTS_PATH

PATHS = pytest.mark.parametrize("path", [INDEX_PATH, PRODUCTS_PATH], ids=["index", "products"])
BEGIN, SIGNED = b"-----BEGIN PGP SIGNED MESSAGE-----\n", b"-----BEGIN PGP SIGNATURE-----\n"


def read(mirror, path):
    with open(mirror.path(path), "rb") as file:
        return file.read()


def put(mirror, path, data):
    with open(mirror.path(f"{path}.sjson"), "wb") as out:
        out.write(data)


def sign(mirror, path, key, *options):
    """The same text, signed by another key or in another way."""
    put(mirror, path, key.clearsign(read(mirror, f"{path}.json"), *options))


# ---- damaged ------------------------------------------------------------------------------------


def put_before(mark, text):
    return lambda data: data.replace(mark, text + mark, 1)


def armor_of(data):
    return data[data.index(SIGNED):]


UNSIGNED, NOT_ONE = "is not signed", "is not one clear-signed text"

DAMAGES = {
    "unsigned": (lambda data: data.split(b"\n\n", 1)[1].split(SIGNED)[0], UNSIGNED),
    "empty": (lambda data: b"", UNSIGNED),
    "blank": (lambda data: b"\n", UNSIGNED),
    "signature alone": (armor_of, UNSIGNED),
    "text before": (lambda data: b"hello\n" + data, NOT_ONE),
    "an empty line before": (lambda data: b"\n" + data, NOT_ONE),
    "byte order mark": (lambda data: b"\xef\xbb\xbf" + data, NOT_ONE),
    "text behind": (lambda data: data + b"hello\n", NOT_ONE),
    "a signature behind": (lambda data: data + armor_of(data), NOT_ONE),
    "two messages": (lambda data: data + data, NOT_ONE),
    "a message in the text": (lambda data: data.replace(b"\n\n", b"\n\n" + BEGIN, 1), NOT_ONE),
    "text between": (put_before(SIGNED, b"hello\n"), "changed"),
    "text in the armor": (lambda data: data.replace(SIGNED, SIGNED + b"hello\n", 1), ""),
    "NotDashEscaped": (put_before(b"Hash:", b"NotDashEscaped: yes\n"), NOT_ONE),
    "odd header": (put_before(b"Hash:", b"Comment: hi\n"), NOT_ONE),
    "header without blank": (lambda data: data.replace(b"Hash: ", b"Hash:", 1), NOT_ONE),
    "another hash": (lambda data: re.sub(rb"Hash: \w+", b"Hash: MD5", data, count=1), ""),
    "no head": (lambda data: data.replace(b"\n\n", b"\n", 1), ""),
    "cut in the signature": (lambda data: data[:-40], NOT_ONE),
    "cut in the text": (lambda data: data[:len(data) // 3], NOT_ONE),
    "no last line": (lambda data: data[:data.rindex(b"-----END")], NOT_ONE),
    "one bit of the text": (lambda data: data.replace(b"20", b"21", 1), "changed"),
    "a word of the text": (lambda data: data.replace(b"image-downloads", b"image-download", 1),
                           "changed"),
    "one letter of the signature": (lambda data: data[:-60] + bytes([data[-60] ^ 1]) + data[-59:], ""),
    "NUL": (lambda data: data.replace(b"1.0", b"1\0" b"0", 1), ""),
}


@pytest.mark.parametrize("damage, words", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_index(published, refuses, damage, words):
    put(published, INDEX_PATH, damage(read(published, f"{INDEX_PATH}.sjson")))
    refuses((words, f"{INDEX_PATH}.sjson"), code=4)


@pytest.mark.parametrize("name", ["unsigned", "empty", "text before", "text behind", "two messages",
                                  "cut in the text", "a word of the text"])
def test_damaged_products(published, refuses, name):
    """Verification does not end with the index."""
    damage, words = DAMAGES[name]
    put(published, PRODUCTS_PATH, damage(read(published, f"{PRODUCTS_PATH}.sjson")))
    refuses((words, f"{PRODUCTS_PATH}.sjson"), code=4)


def test_legal_dress(published, fetch):
    """Line ends of another system, and blanks behind the last line."""
    for path in (INDEX_PATH, PRODUCTS_PATH):
        data = read(published, f"{path}.sjson")
        put(published, path, data.replace(b"\n", b"\r\n") + b" \n\n")
    fetch("-n", "release=noble")


@pytest.mark.parametrize("options", [("--sign",), ("--armor", "--sign"), ("--detach-sign",)],
                         ids=["binary", "armored", "detached"])
def test_signed_in_another_way(published, vendor, refuses, options):
    """Good signatures, but no clear-signed text."""
    text = read(published, f"{INDEX_PATH}.json")
    put(published, INDEX_PATH, vendor.gpg("--local-user", vendor.fingerprint, *options, data=text))
    refuses(UNSIGNED, code=4)


# ---- somebody else ------------------------------------------------------------------------------


@PATHS
def test_unknown_key(published, refuses, stranger, path):
    sign(published, path, stranger)
    refuses((stranger.fingerprint, "not trusted here"), code=4)


def test_wrong_keyring(published, refuses, vendor, stranger):
    refuses(vendor.fingerprint, code=4, keyring=stranger.keyring)


def test_no_keyring(published, refuses, folder):
    refuses("nothing.gpg", code=4, keyring=folder / "nothing.gpg")
    (folder / "empty.gpg").write_bytes(b"")
    refuses("empty.gpg", code=4, keyring=folder / "empty.gpg")
    refuses("vendor-mirror", code=4, keyring=published.root)


def test_a_secret_key_as_keyring(published, refuses, vendor, folder):
    (folder / "secret.gpg").write_bytes(vendor.gpg("--export-secret-keys"))
    refuses("secret key", code=4, keyring=folder / "secret.gpg")


def both(data, other):
    """One text with the signatures of two."""
    def packets(text):
        return subprocess.run(["gpg", "--dearmor"], input=armor_of(text), check=True,
                              capture_output=True).stdout
    joined = subprocess.run(["gpg", "--enarmor"], input=packets(data) + packets(other), check=True,
                            capture_output=True).stdout
    joined = joined.replace(b"ARMORED FILE", b"SIGNATURE").replace(
        b"Comment: Use \"gpg --dearmor\" for unpacking\n", b"")
    return data[:data.index(SIGNED)] + joined


@PATHS
@pytest.mark.parametrize("good_first", [True, False], ids=["good, bad", "bad, good"])
def test_good_and_bad(published, refuses, vendor, stranger, path, good_first):
    text = read(published, f"{path}.json")
    good, bad = vendor.clearsign(text), stranger.clearsign(text)
    put(published, path, both(good, bad) if good_first else both(bad, good))
    refuses((stranger.fingerprint, "not trusted here"), code=4)


def test_good_and_changed(published, refuses, vendor):
    """The vendor's signature over this text, and the vendor's over another."""
    data = read(published, f"{INDEX_PATH}.sjson")
    put(published, INDEX_PATH, both(data, vendor.clearsign(b"{}\n")))
    refuses("changed", code=4)


def test_two_good_ones(published, fetch, vendor, stranger, folder):
    """As while a vendor changes its key: both count."""
    keyring = join(folder, vendor, stranger)
    for path in (INDEX_PATH, PRODUCTS_PATH):
        text = read(published, f"{path}.json")
        put(published, path, both(vendor.clearsign(text), stranger.clearsign(text)))
    fetch("-n", "release=noble", keyring=keyring)


def test_the_right_key_over_another_stream(published, refuses):
    """The vendor has signed it: as the daily stream. The path alone does not make it this one."""
    def daily(stream):
        stream["content_id"] = "com.ubuntu.cloud:daily:download"

    index = read(published, f"{INDEX_PATH}.sjson")
    published.write(change=daily)
    put(published, INDEX_PATH, index)
    refuses(("com.ubuntu.cloud:daily:download", CONTENT_ID), code=5)


def test_the_right_key_over_another_file(published, refuses):
    """An index where products should be, and products that are no stream at all."""
    put(published, PRODUCTS_PATH, read(published, f"{INDEX_PATH}.sjson"))
    refuses("index:1.0", code=5)
    put(published, PRODUCTS_PATH, published.key.clearsign(b"Dear Sir or Madam,\n"))
    refuses("JSON", code=5)


# ---- keys and signatures that no longer count ---------------------------------------------------


def join(folder, *keys):
    """A keyring of several keys."""
    path = folder / "joined.gpg"
    path.write_bytes(b"".join(key.gpg("--export") for key in keys))
    return path


@pytest.fixture(scope="module")
def make_key(work):
    """make_key(name, ...): as keys.Key, with a home folder of its own."""
    made = []

    def make(name, *args, **options):
        made.append(Key(work / "keys" / name, f"{name} <{name}@example.org>", *args, **options))
        return made[-1]

    yield make
    for key in made:
        key.close()


def clock(time_text):
    return ("--faked-system-time", f"{time_text}T000000!")


@pytest.fixture(scope="module")
def expired(make_key):
    """Was good for the year 2020, and signs in it."""
    return make_key("expired", expires="1y", options=clock("20200601"))


@pytest.fixture(scope="module")
def old(make_key):
    """Good for ever; RSA, since that may sign by any hash."""
    return make_key("old", "rsa2048", options=clock("20200601"))


@PATHS
def test_expired_key(published, refuses, vendor, expired, folder, path):
    sign(published, path, expired)
    refuses((expired.fingerprint, "expired"), code=4, keyring=join(folder, vendor, expired))


@PATHS
def test_revoked_key(published, refuses, fetch, vendor, make_key, folder, path):
    """The signature was made while the key was good; once it is revoked, that does not count."""
    key = make_key("revoked-index" if path == INDEX_PATH else "revoked-products")
    sign(published, path, key)
    fetch("-n", "release=noble", keyring=join(folder, vendor, key))
    # GnuPG has put a colon there, so that nobody revokes a key by mistake.
    with open(f"{key.homedir}/openpgp-revocs.d/{key.fingerprint}.rev", "rb") as file:
        key.gpg("--import", data=file.read().replace(b":-----BEGIN", b"-----BEGIN"))
    refuses((key.fingerprint, "revoked"), code=4, keyring=join(folder, vendor, key))


@PATHS
def test_expired_signature(published, refuses, fetch, vendor, old, folder, path):
    keyring = join(folder, vendor, old)
    sign(published, path, old)
    fetch("-n", "release=noble", keyring=keyring)
    sign(published, path, old, "--default-sig-expire", "30d")
    refuses((old.fingerprint, "expired"), code=4, keyring=keyring)


@PATHS
def test_weak_hash(published, refuses, vendor, old, folder, path):
    sign(published, path, old, "--digest-algo", "SHA1", "--allow-weak-digest-algos")
    refuses("SHA1", code=4, keyring=join(folder, vendor, old))


@pytest.fixture(scope="module")
def subkey(make_key):
    """A primary key that certifies, and a subkey that does the signing."""
    key = make_key("subkey", "rsa2048")
    key.gpg("--passphrase", "", "--quick-add-key", key.fingerprint, "rsa2048", "sign")
    return key


def test_signing_subkey(published, fetch, vendor, subkey, folder):
    """It is the primary key's fingerprint that counts."""
    sign(published, INDEX_PATH, subkey)
    signer = subprocess.run(["gpg", "--list-packets"], input=armor_of(
        read(published, f"{INDEX_PATH}.sjson")), check=True, capture_output=True).stdout
    assert subkey.fingerprint[-16:].encode() not in signer
    fetch("-n", "release=noble", keyring=join(folder, vendor, subkey))


def test_encryption_only_subkey(published, refuses, vendor, subkey, folder):
    """The key's owner says of the subkey that signed: it is for encryption alone."""
    sign(published, INDEX_PATH, subkey)
    subkey.gpg("--no-tty", "--command-fd", "0", "--edit-key", subkey.fingerprint,
               data=b"key 1\nchange-usage\nS\nE\nQ\nsave\n")
    usage = [line.split(b":")[11] for line in subkey.gpg("--with-colons", "--list-keys").splitlines()
             if line.startswith(b"sub:")]
    assert usage == [b"e"]
    refuses("", code=4, keyring=join(folder, vendor, subkey))


# ---- bundles ------------------------------------------------------------------------------------


def other_signature(kind):
    """What stands in place of a bundle's detached signature."""
    def change(bundle, site):
        return {"inline": lambda: site.key.clearsign(bundle["uvmirror/manifest.json"]),
                "inline, binary": lambda: site.key.gpg("--sign", data=b"anything"),
                "empty": lambda: b"",
                "a key": lambda: site.key.gpg("--armor", "--export")}[kind]()
    return change


@pytest.mark.parametrize("kind", ["inline", "inline, binary", "empty", "a key"])
def test_something_else_as_detached_signature(published, fetch, uvmirror, site, folder, kind):
    """Inline signatures carry a text of their own, which GnuPG would check in place of ours."""
    fetch("-o", folder / "b.tar.zst", "release=noble")
    bundle = Bundle.read(folder / "b.tar.zst")
    bundle[SIGNATURE] = other_signature(kind)(bundle, site)
    result = uvmirror("verify", "--keyring", site.keyring, bundle.save(folder / "bad.tar.zst"),
                      code=4)
    assert b"signed" in result.err or b"signature" in result.err


# ---- the user's own GnuPG -----------------------------------------------------------------------

HOSTILE_CONFIGURATIONS = {
    "trust for all": "trust-model always\nkeyring {home}/pubring.kbx\n",
    "weak hashes": "allow-weak-digest-algos\nignore-valid-from\n",
    "what stops GnuPG": "no-such-option\n",
    "a program to run": "verify-options show-photos\nphoto-viewer \"touch {home}/ran\"\n",
}


@pytest.fixture(params=["GNUPGHOME", "HOME"])
def hostile_home(request, folder, stranger):
    """make(configuration) -> environment: the stranger's key lies in the user's own GnuPG folder."""
    def make(configuration):
        home = folder / ".gnupg"
        home.mkdir(mode=0o700)
        subprocess.run(["gpg", "--homedir", home, "--batch", "--quiet", "--no-autostart", "--import",
                        stranger.keyring], check=True, capture_output=True)
        (home / "gpg.conf").write_text(configuration.format(home=home))
        if request.param == "HOME":
            return {"HOME": folder}
        return {"GNUPGHOME": home, "HOME": "/nonexistent"}

    return make


@pytest.mark.parametrize("configuration", HOSTILE_CONFIGURATIONS.values(),
                         ids=HOSTILE_CONFIGURATIONS.keys())
def test_own_configuration_plays_no_part(published, refuses, fetch, stranger, folder, hostile_home,
                                         configuration):
    env = hostile_home(configuration)
    fetch("-n", "release=noble", env=env)
    sign(published, INDEX_PATH, stranger)
    refuses("not trusted here", code=4, env=env)
    assert not (folder / ".gnupg" / "ran").exists()


SILENT_GPG = """#!/bin/sh
case "$*" in
    *--version*) exec "$(dirname "$0")/gpg.real" --version ;;
esac
exit 0
"""


def without(programs):
    """Runs the program where these files cannot be executed."""
    binds = "".join(f"mount --bind /dev/null {program} && " for program in programs)
    return ("unshare", "--mount", "sh", "-c", f'{binds}exec "$@"', "sh")


@pytest.mark.parametrize("programs", [["/usr/bin/gpg"], ["/usr/bin/gpg", "/usr/bin/gpgconf"]],
                         ids=["gpg", "all of GnuPG"])
def test_gnupg_is_missing(published, refuses, programs):
    """Nothing is trusted, and the message says what to install."""
    refuses("GnuPG", code=4, wrap=without(programs))
    refuses("GnuPG", "--no-bundle", "release=noble", code=4, wrap=without(programs))


def test_gnupg_says_nothing(published, refuses, folder):
    """A gpg that ends well without a word: that is no signature."""
    script = folder / "gpg"
    script.write_text(SILENT_GPG.replace('$(dirname "$0")/gpg.real', str(folder / "gpg.real")))
    script.chmod(0o755)
    (folder / "gpg.real").touch()
    bind = (f"mount --bind /usr/bin/gpg {folder}/gpg.real && "
            f"mount --bind {script} /usr/bin/gpg && ")
    refuses("", "--no-bundle", "release=noble", code=4,
            wrap=("unshare", "--mount", "sh", "-c", f'{bind}exec "$@"', "sh"))


# ---- agents -------------------------------------------------------------------------------------


def agents():
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                command = file.read().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if "gpg-agent" in command or "keyboxd" in command or "dirmngr" in command:
            found.append(command)
    return sorted(found)


def assert_agents(before):
    """One that was told to end may need a moment."""
    end = time.monotonic() + 3
    while agents() != before and time.monotonic() < end:
        time.sleep(0.05)
    assert agents() == before


def test_no_agent_is_left(published, uvmirror, vendor, folder):
    """Neither of making a key, nor of signing with it, nor of verifying."""
    before = agents()
    state = folder / "state"
    uvmirror("key", "generate", "--state-dir", state)
    uvmirror("fetch", "--source", published.root, "--keyring", vendor.keyring, "--mirror",
             folder / "mirror", "--state-dir", state, "-o", folder / "b.tar.zst", "release=noble")
    assert_agents(before)


def test_no_agent_is_left_by_a_refused_fetch(published, uvmirror, stranger, folder):
    state = folder / "state"
    uvmirror("key", "generate", "--state-dir", state)
    before = agents()
    uvmirror("fetch", "--source", published.root, "--keyring", stranger.keyring, "--mirror",
             folder / "mirror", "--state-dir", state, "-o", folder / "b.tar.zst", "release=noble",
             code=4)
    assert_agents(before)


def test_a_users_agent_stays(published, fetch, site, folder):
    """One that ran before us may hold passphrases, and is none of ours to end."""
    site.key.detach_sign(b"")
    before = agents()
    assert any(str(site.key.homedir) in command for command in before)
    fetch("-o", folder / "b.tar.zst", "release=noble")
    assert agents() == before


def test_ctrl_c_while_gnupg_runs(published, fetch, uvmirror, site, folder):
    """Ctrl-C ends GnuPG as well, which must not look like a signature that is no good."""
    fetch("-o", folder / "b.tar.zst", "release=noble")
    (folder / "tmp").mkdir()
    codes = set()
    for step in range(12):
        process = uvmirror.start("verify", "--keyring", site.keyring, folder / "b.tar.zst",
                                 env={"TMPDIR": folder / "tmp"}, start_new_session=True)
        wait_for_gnupg(process, folder / "tmp")
        time.sleep(step * 0.003)
        try:
            os.killpg(process.pid, signal.SIGINT)
        except ProcessLookupError:
            pass
        process.communicate(timeout=30)
        codes.add(process.returncode)
        assert os.listdir(folder / "tmp") == []
    assert codes <= {0, 130} and 130 in codes


def wait_for_gnupg(process, folder):
    """Until it has a home folder, or the process has ended."""
    while not os.listdir(folder) and process.poll() is None:
        time.sleep(0.001)
