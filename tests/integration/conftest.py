"""Fixtures of the integration tests. They run inside tests/lib/sandbox.sh (tests/run.sh does that):
a real libvirtd, GnuPG, nginx and QEMU, and a network of loopback only."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))

# pylint: disable=wrong-import-position
from keys import Key  # noqa: E402
from sample_mirror import SampleMirror  # noqa: E402

import hypervisor  # noqa: E402
from program import Program  # noqa: E402
from web import Web  # noqa: E402

if "UVMIRROR_SANDBOX" not in os.environ or "UVMIRROR" not in os.environ:
    pytest.exit("run these by: sudo tests/run.sh integration [-k NAME]", returncode=2)


def pytest_configure(config):
    config.addinivalue_line("markers", "long: takes minutes; only tests/run.sh long runs it")


@pytest.fixture(scope="session")
def work():
    """A folder of the whole run that everybody may enter."""
    path = pathlib.Path(os.environ["UVMIRROR_SANDBOX"]) / "tests"
    path.mkdir()
    path.chmod(0o755)
    return path


@pytest.fixture(scope="session")
def uvmirror():
    return Program(os.environ["UVMIRROR"])


# ---- images -------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def samples():
    """{version: a qcow2 that boots}"""
    folder = pathlib.Path(os.environ["UVMIRROR_SAMPLES"])
    return {path.stem: path for path in sorted(folder.glob("*.qcow2"))}


@pytest.fixture(scope="session")
def make_image(work):
    """make_image(name, size=...): a small compressed qcow2 with content of its own, quickly made."""
    folder = work / "images"
    folder.mkdir()

    def make(name, size=1 << 20, *options):
        path = folder / f"{name}.qcow2"
        if not path.exists():
            raw = folder / f"{name}.raw"
            # Random, text, and a hole: clusters of every kind.
            raw.write_bytes(os.urandom(size // 2)
                            + (f"{name} ".encode() * (size // 2))[:size // 2])
            os.truncate(raw, size * 2)
            hypervisor.qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", *options, raw, path)
            raw.unlink()
        return path

    return make


# ---- keys ---------------------------------------------------------------------------------------


class Site:
    """The internet host's own state folder with the site's signing key."""

    def __init__(self, folder):
        self.state = folder
        self.key = Key(folder / "gnupg", "Sample Site <site@example.org>")
        self.keyring = self.key.export(folder / "site.gpg")


@pytest.fixture(scope="session")
def vendor(work):
    """The vendor's key; `vendor.keyring` is its public part."""
    key = Key(work / "vendor", "Sample Vendor <vendor@example.org>")
    key.keyring = key.export(work / "vendor.gpg")
    yield key
    key.close()


@pytest.fixture(scope="session")
def site(work):
    made = Site(work / "site")
    yield made
    made.key.close()


@pytest.fixture(scope="session")
def stranger(work):
    """A key that nobody trusts."""
    key = Key(work / "stranger", "Some Stranger <stranger@example.org>")
    key.keyring = key.export(work / "stranger.gpg")
    yield key
    key.close()


# ---- the internet host --------------------------------------------------------------------------


@pytest.fixture
def folder(work):
    """A fresh folder for one test."""
    path = work / "test"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    return path


@pytest.fixture
def mirror(folder, vendor):
    """The vendor's mirror, still empty."""
    return SampleMirror(folder / "vendor-mirror", vendor)


@pytest.fixture
def web(folder, mirror):
    """The vendor's mirror behind nginx."""
    os.makedirs(mirror.root, exist_ok=True)
    server = Web(folder / "nginx", mirror.root)
    yield server
    server.close()


@pytest.fixture
def fetch(uvmirror, mirror, vendor, site, folder):
    """fetch(*arguments): `uvmirror fetch` on the internet host, from the mirror's folder unless a
    --source says otherwise."""

    def run(*args, code=0, source=None, keyring=None, **options):
        return uvmirror("fetch", "--source", source or mirror.root,
                        "--keyring", keyring or vendor.keyring, "--mirror", folder / "mirror",
                        "--state-dir", site.state, *args, code=code, **options)

    return run


@pytest.fixture
def make_bundle(mirror, fetch, folder):
    """make_bundle("name", {version: image}): the vendor publishes these, and we fetch them."""

    def make(name, images, *args, **details):
        for version, image in images.items():
            mirror.add_image(version, image, **details)
        mirror.write()
        path = folder / f"{name}.tar.zst"
        fetch("-o", path, *(args or ("release=noble",)))
        return path

    return make


# ---- the air-gapped host ------------------------------------------------------------------------


@pytest.fixture(scope="session")
def hypervisor_connection(work):
    guests = work / "guests"
    guests.mkdir()
    return hypervisor.Hypervisor(guests)


@pytest.fixture
def bare_host(hypervisor_connection):
    """A host on which not even `uvmirror init` was run."""
    hypervisor_connection.reset()
    yield hypervisor_connection
    hypervisor_connection.reset()


@pytest.fixture
def host(bare_host, site):
    """A host with uvtool's pool, that trusts the site's key (as configuration management would)."""
    bare_host.make_uvtool_pool()
    trusted = pathlib.Path(hypervisor.CONFIG) / "trusted.d"
    trusted.mkdir()
    shutil.copyfile(site.keyring, trusted / "site.gpg")
    return bare_host


@pytest.fixture
def unpack(folder):
    """unpack(bundle): what plain tar makes of it, as a folder."""

    def run(bundle, name="unpacked"):
        path = folder / name
        path.mkdir()
        subprocess.run(["tar", "--zstd", "-xf", bundle, "-C", path], check=True)
        return path

    return run
