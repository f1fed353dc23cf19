"""Fixtures of the integration tests. They run inside tests/lib/sandbox.sh (tests/run.sh does that):
a real libvirtd, GnuPG, nginx and QEMU, and a network of loopback only."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))

# pylint: disable=wrong-import-position
from keys import Key  # noqa: E402
from sample_mirror import PRODUCT, SampleMirror  # noqa: E402

import hypervisor  # noqa: E402
import scenarios  # noqa: E402
import uvtool_view  # noqa: E402
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
        path = folder / f"{size}{''.join(options)}" / f"{name}.qcow2"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
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


# ---- an internet host on which nothing may change ------------------------------------------------

# What may change in a mirror although a fetch is refused: its lock, the record of which files were
# verified when, what was downloaded so far, and the serial that a bundle begun would have had. Of a
# stream's record it is the note of what a download awaits.
PASSING = re.compile(r"uvmirror/(lock$|verified\.json$|partial/|serial$)")
RECORD = re.compile(r"uvmirror/streams/.*\.json$")


def content_of(path, name):
    """A file's bytes, a link's target, None for a folder."""
    if path.is_symlink():
        return os.readlink(path)
    if RECORD.match(name):
        return {key: value for key, value in json.loads(path.read_bytes()).items() if key != "awaits"}
    return None if path.is_dir() else path.read_bytes()


def contents(folder):
    """{relative path: its content}, but for what may change."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if PASSING.search(name):
            continue
        found[name] = content_of(path, name)
    return found


class Standing:
    """An internet host that has fetched version 20241004 of noble before: its folders `mirror`, `out`
    (with a bundle in it) and `tmp` (empty)."""

    def __init__(self, folder, uvmirror, site, make):
        self.folder, self.uvmirror, self.site, self.make = folder, uvmirror, site, make
        self.mirror, self.out, self.tmp = (folder / name for name in ("mirror", "out", "tmp"))
        self.spoiled = True

    def fetch(self, source, keyring, *args, env=None, **options):
        bundle = () if "--no-bundle" in args else ("-o", self.out)
        return self.uvmirror("fetch", "--source", source, "--keyring", keyring, "--mirror",
                             self.mirror, "--state-dir", self.site.state, *bundle, *args,
                             env={"TMPDIR": self.tmp, **(env or {})}, **options)

    def look(self):
        return {path: contents(path) for path in (self.mirror, self.out, self.tmp)}

    def prepare(self):
        """What an earlier test left of a download is not taken up by the next one; and when one did
        more than that, it all begins anew."""
        if self.spoiled:
            shutil.rmtree(self.folder, ignore_errors=True)
            for path in (self.mirror, self.out, self.tmp):
                path.mkdir(parents=True)
            self.make(self)
        partial = self.mirror / "uvmirror" / "partial"
        for path in partial.iterdir():
            path.unlink()
        self.spoiled = True  # until it has shown that nothing changed


@pytest.fixture(scope="session")
def standing(work, uvmirror, vendor, site, make_image):
    def make(host):
        source = SampleMirror(host.folder / "source", vendor)
        source.add_image("20241004", make_image("a"))
        source.write(updated=1728034200)
        host.fetch(source.root, vendor.keyring, "release=noble")

    return Standing(work / "standing", uvmirror, site, make)


@pytest.fixture
def published(mirror, make_image):
    """A vendor's mirror with the version that `standing` has, and the next one."""
    mirror.add_image("20241004", make_image("a"))
    mirror.add_image("20241018", make_image("b"))
    mirror.write()
    return mirror


@pytest.fixture
def refuses(standing, mirror, vendor):
    """refuses(words, *arguments, code=...): fetch ends so, says why in one line that holds the words
    (a string or several), and changes nothing."""

    def run(words, *args, code, source=None, keyring=None, **options):
        standing.prepare()
        before = standing.look()
        result = standing.fetch(source or mirror.root, keyring or vendor.keyring,
                                *(args or ("release=noble",)), code=code, **options)
        after = standing.look()
        changed = [folder / name for folder, was in before.items()
                   for name in {**was, **after[folder]}
                   if was.get(name, 0) != after[folder].get(name, 0)]
        assert not changed, f"this has changed: {changed}\n{result}"
        standing.spoiled = False
        said = result.err.decode()
        assert not re.search(r"[^\n -~\u00a0-\U0010ffff]", said), str(result)  # nothing for a terminal
        errors = [line for line in said.splitlines() if line.startswith("uvmirror: ")]
        assert len(errors) == 1 and said.splitlines()[-1] == errors[0], str(result)
        for word in (words,) if isinstance(words, str) else words:
            assert word in errors[0], f"it does not say '{word}'\n{result}"
        return result

    return run


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
def prepared(uvmirror, bare_host, site):
    """A host that root has prepared by uvmirror itself: nothing is wrong on it."""
    uvmirror("init")
    uvmirror("key", "trust", "--yes", site.keyring)
    return bare_host


@pytest.fixture
def base(uvmirror, make_bundle, make_image, host):
    """The path of an image, imported as version 20241004, that was retired since: unless needed, the
    next cleanup takes it."""
    name = uvtool_view.encode(PRODUCT, "20241004")
    uvmirror("import", make_bundle("one", {"20241004": make_image("a")}))
    host.retire(name)
    return host.volume_path(name)


@pytest.fixture(scope="session")
def scenario_bundles(work, uvmirror, vendor, site, make_image):
    """({version: image}, {version: bundle}), as the vendor publishes one after the other."""
    folder = work / "scenarios"
    mirror = SampleMirror(folder / "vendor-mirror", vendor)
    images, bundles = {}, {}
    for version in (scenarios.OLD, scenarios.NEW):
        images[version] = make_image(f"image-{version}")
        bundles[version] = folder / f"{version}.tar.zst"
        mirror.add_image(version, images[version])
        mirror.write()
        uvmirror("fetch", "--source", mirror.root, "--keyring", vendor.keyring, "--mirror",
                 folder / "mirror", "--state-dir", site.state, "-o", bundles[version], "release=noble")
    return images, bundles


@pytest.fixture
def scenario(uvmirror, host, folder, scenario_bundles):
    """scenario(class): one of those of scenarios.py."""
    images, bundles = scenario_bundles
    return lambda kind: kind(uvmirror, host, folder, images, bundles=bundles)


@pytest.fixture
def unpack(folder):
    """unpack(bundle): what plain tar makes of it, as a folder."""

    def run(bundle, name="unpacked"):
        path = folder / name
        path.mkdir()
        subprocess.run(["tar", "--zstd", "-xf", bundle, "-C", path], check=True)
        return path

    return run
