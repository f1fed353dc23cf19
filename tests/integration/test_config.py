"""/etc/uvmirror/uvmirror.conf: a host's policy holds whatever the command line says."""

import pathlib

import pytest

import hypervisor

CONF = pathlib.Path(hypervisor.CONFIG) / "uvmirror.conf"


@pytest.fixture
def bundle(make_bundle, make_image, host):
    return make_bundle("b", {"20241004": make_image("a")})


@pytest.mark.parametrize("command", ["verify", "show", "import"])
def test_require_origin(uvmirror, bundle, vendor, stranger, command):
    CONF.write_text(f"require-origin = yes\norigin-keyring = {stranger.keyring}\n", encoding="utf-8")
    result = uvmirror(command, bundle, code=None)
    assert (result.code, b"origin of stream" in result.err) == (4, True), str(result)
    CONF.write_text(f"require-origin = yes\norigin-keyring = {vendor.keyring}\n", encoding="utf-8")
    uvmirror(command, bundle)


def test_an_option_tightens_and_never_loosens(uvmirror, bundle, vendor):
    CONF.write_text(f"max-age = 30\norigin-keyring = {vendor.keyring}\n", encoding="utf-8")
    uvmirror("verify", "--max-age", "7", bundle)
    for arguments in (["--max-age", "31"], ["--max-age", "0"], ["--origin-keyring", vendor.keyring]):
        assert str(CONF).encode() in uvmirror("verify", *arguments, bundle, code=2).err


def test_defaults(uvmirror, host):
    CONF.write_text("connect = test:///default\n", encoding="utf-8")
    uvmirror("list", code=7)
    uvmirror("list", "--connect", "qemu:///system")


def test_a_slip_of_the_pen_is_no_policy(uvmirror, bundle):
    CONF.write_text("requier-origin = yes\n", encoding="utf-8")
    assert b"line 1: there is no setting 'requier-origin'" in uvmirror("verify", bundle, code=2).err
    assert b"Usage:" in uvmirror("verify", "--help").out
