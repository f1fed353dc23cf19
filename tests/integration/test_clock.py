"""Clocks that are wrong. What has expired stays so when a host's clock is behind: the newest bundle that
it has taken knows better. And no message leaves the clock out."""

import json
import os

import pytest

import hypervisor
from bundles import Bundle
from keys import Key
from test_rollback import at

SEEN = os.path.join(hypervisor.STATE, "seen.json")


def in_2020(month):
    return ("--faked-system-time", f"2020{month:02}15T000000!")


def key_that_expires(folder):
    """The key as a whole, on 2020-06-14."""
    return Key(folder, "Key <key@example.org>", expires="90d", options=in_2020(3))


def subkey_that_expires(folder):
    """The key is good for ever, and what it signs with until 2020-06-14."""
    key = Key(folder, "Subkey <subkey@example.org>", options=in_2020(3))
    key.gpg("--passphrase", "", "--quick-add-key", key.fingerprint, "ed25519", "sign", "90d")
    return key


def signature_that_expires(folder):
    """The key is good for ever, and what it says until 2020-06-14."""
    key = Key(folder, "Signature <signature@example.org>", options=in_2020(3))
    key.options += ["--default-sig-expire", "90d"]
    return key


@pytest.fixture
def host_with(uvmirror, mirror, fetch, folder, make_image, host):
    """host_with(key): the host has taken today's bundle; returns one of 2020, signed by that key."""
    mirror.add_image("20241004", make_image("a"))
    mirror.write()
    today, old = folder / "today.tar.zst", folder / "old.tar.zst"
    fetch("-o", today, "release=noble")

    def run(key):
        bundle = Bundle.read(today)
        bundle.sign(key, {**bundle.manifest, "created": "2020-04-01T00:00:00Z"})
        bundle.save(old)
        keyring = key.export(os.path.join(hypervisor.CONFIG, "trusted.d", "old.gpg"))
        key.close()
        assert os.path.getsize(keyring)
        uvmirror("import", today)
        return old

    return run


def clock(year, month):
    past = at(year)
    return {**past, "wrap": ("faketime", "-m", f"{year}-{month:02}-01 12:00:00")}


@pytest.mark.parametrize("make, says", [
    (key_that_expires, "a key that expired on 2020-06-1"),
    (subkey_that_expires, "a key that expired on 2020-06-1"),
    (signature_that_expires, "the signature by"),
], ids=["key", "subkey", "signature"])
def test_expired_by_what_was_taken(uvmirror, host_with, folder, make, says):
    key = make(folder / "signer")
    bundle = host_with(key)
    refused = uvmirror("verify", bundle, code=4).err.decode()
    assert says in refused and "(it is 20" in refused
    for command in ("verify", "show", "import"):
        said = uvmirror(command, bundle, code=4, **clock(2020, 5)).err.decode()
        assert says in said and "expired on 2020-06-1" in said, said
        assert "the clock here says 2020-05-01" in said and SEEN in said and "a bundle of 202" in said
        # The way out, should the record be wrong.
        assert "--allow-older" in said
        uvmirror(command, "--allow-older", bundle, **clock(2020, 5))
        uvmirror(command, "--allow-older", bundle, code=4, **clock(2020, 7))
    # It has lowered the record, so that the clock counts again.
    uvmirror("verify", bundle, **clock(2020, 5))


def test_nothing_was_taken_yet(uvmirror, host_with, folder):
    bundle = host_with(key_that_expires(folder / "signer"))
    os.unlink(SEEN)
    uvmirror("verify", bundle, **clock(2020, 5))
    with open(SEEN, "w", encoding="utf-8") as file:
        file.write("{")
    uvmirror("show", bundle, **clock(2020, 5))


def test_a_clock_in_1970(uvmirror, host_with, folder, site):
    """Behind the creation of every key: no reason to call one bad."""
    host_with(key_that_expires(folder / "signer"))
    uvmirror("verify", folder / "today.tar.zst", **at(1970))
    os.unlink(SEEN)
    uvmirror("verify", folder / "today.tar.zst", **at(1970))
    uvmirror("import", folder / "today.tar.zst", **at(1970))


def test_an_age_limit(uvmirror, host_with, folder):
    """A bundle does not get younger, either."""
    bundle = host_with(Key(folder / "signer", "Signer", options=in_2020(3)))
    for command in ("verify", "show"):
        uvmirror(command, "--max-age", "40", bundle, code=4, **clock(2020, 5))
        uvmirror(command, "--max-age", "40", "--allow-older", bundle, **clock(2020, 5))


def test_a_host_in_2036(uvmirror, mirror, fetch, folder, make_image, host):
    """It took a bundle from a host whose clock stood there: all keys have expired now, until somebody
    says which clock was wrong."""
    mirror.add_image("20241004", make_image("a"))
    mirror.write()
    future, today = folder / "future.tar.zst", folder / "today.tar.zst"
    fetch("-o", future, "release=noble", **at(2036))
    signer = Key(folder / "signer", "Signer", expires="2y")
    signer.export(os.path.join(hypervisor.CONFIG, "trusted.d", "signer.gpg"))
    fetch("-o", today, "--mirror", folder / "mirror-2", "--homedir", signer.homedir, "release=noble")
    signer.close()
    uvmirror("verify", today)
    uvmirror("import", future)
    with open(SEEN, encoding="utf-8") as file:
        assert json.load(file)["created"] > 2 ** 31 - 10 ** 8
    said = uvmirror("import", today, code=4).err.decode()
    assert "a bundle of 2036-06-01" in said and "--allow-older" in said
    uvmirror("import", "--allow-older", today)
    uvmirror("verify", today)


# ---- the internet host ---------------------------------------------------------------------------


@pytest.mark.parametrize("args", [("fetch",), ("bundle",), ("key", "rotate")],
                         ids=["fetch", "bundle", "rotate"])
def test_signing_in_1970(uvmirror, mirror, vendor, site, folder, make_image, args):
    """GnuPG's own words are "Unusable secret key"."""
    mirror.add_image("20241004", make_image("a"))
    mirror.write()
    state = folder / "state"
    state.mkdir()
    key = Key(state / "gnupg", "Site")
    key.close()
    common = ("--state-dir", state)
    source = ("--source", mirror.root, "--keyring", vendor.keyring, "release=noble")
    uvmirror("fetch", "--no-bundle", *common, *source)
    options = source if args == ("fetch",) else ()
    output = ("-o", folder / "out.gpg" if args[0] == "key" else folder)
    said = uvmirror(*args, *common, *options, *output, code=4, **at(1970)).err.decode()
    assert f"key {key.fingerprint} was made on 20" in said and "the clock here says 1970-06-01" in said
    assert "timedatectl" in said and "Unusable" not in said
    assert not list(folder.glob("*.tar.zst")) and not (folder / "out.gpg").exists()


def test_signing_in_2036(uvmirror, fetch, mirror, folder, make_image):
    mirror.add_image("20241004", make_image("a"))
    mirror.write()
    key = Key(folder / "own", "Own", expires="1y")
    key.close()
    said = fetch("--homedir", key.homedir, "-o", folder / "x.tar.zst", "release=noble", code=4,
                 **at(2036)).err.decode()
    assert f"the signing key {key.fingerprint} expired on 20" in said
    assert "(it is 2036-06-01T12:00:" in said and "key generate" in said
