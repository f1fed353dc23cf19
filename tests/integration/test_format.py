"""Format versions: what was written once stays readable, and what is not known yet is refused."""

import pathlib
import subprocess
import sys

import pytest

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS / "specimens"))

# pylint: disable=wrong-import-position
from bundles import Bundle  # noqa: E402
from specimen import Specimen  # noqa: E402

FORMATS = ["format-1"]


@pytest.fixture(params=FORMATS)
def specimen(request):
    return Specimen(request.param)


@pytest.fixture
def written(specimen, folder):
    return specimen.write(folder / "specimen.tar.zst")


@pytest.fixture
def trusting(specimen):
    return ("--keyring", specimen.site, "--require-origin", "--origin-keyring", specimen.vendor,
            "--origin-keyring", specimen.distribution)


@pytest.fixture
def bundle(make_bundle, make_image):
    return make_bundle("good", {"20241004": make_image("a")})


def test_every_specimen_is_read(specimen, written, trusting, uvmirror, host):
    uvmirror("verify", "--keyring", specimen.site, written)
    uvmirror("verify", *trusting, written)
    (shown,) = uvmirror("show", "--json", *trusting, written).lines
    assert {image["version"]: image["carried"] for image in shown["images"]} == {
        "20241004": True, "20240911": False, "1": True}
    uvmirror("import", *trusting, written)
    assert len(host.volumes()) == 2


def test_every_specimen_is_read_by_the_other_reader(specimen, written, folder):
    keyring = folder / "site.gpg"
    keyring.write_bytes(subprocess.run(["gpg", "--dearmor"], input=specimen.site.read_bytes(), check=True,
                                       stdout=subprocess.PIPE).stdout)
    subprocess.run([sys.executable, TESTS / "lib" / "read_bundle.py", written, keyring, folder / "out"],
                   check=True)


def test_there_is_a_specimen_of_what_is_written(bundle):
    assert f"format-{Bundle.read(bundle).manifest['format']}" in FORMATS


def test_format_that_can_be_written(fetch, bundle, folder):
    fetch("--format", "1", "-o", folder / "one.tar.zst", "release=noble")
    assert Bundle.read(folder / "one.tar.zst").manifest["format"] == 1
    # A limit: the lowest one that can say what is needed is written.
    fetch("--format", "2", "-o", folder / "two.tar.zst", "release=noble")
    assert Bundle.read(folder / "two.tar.zst").manifest["format"] == 1
    result = fetch("--format", "3", "-o", folder / "three.tar.zst", "release=noble", code=2)
    assert b"writes formats 1 to 2" in result.err
    assert not (folder / "three.tar.zst").exists()


def test_a_newer_format_is_refused(bundle, site, uvmirror, host, folder):
    content = Bundle.read(bundle)
    content.sign(site.key, dict(content.manifest, format=3))
    path = content.save(folder / "newer.tar.zst")
    for command in ("verify", "show", "import"):
        result = uvmirror(command, path, code=5)
        assert b"format version 3 is unknown to this uvmirror, which reads up to 2" in result.err
        assert b"--format 2" in result.err
    assert not host.volumes()
