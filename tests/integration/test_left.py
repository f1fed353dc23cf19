"""Nothing is left of any run: no agent, no temporary folder or file; of one that was killed, not once the next
one is done."""

import os
import shutil
import signal
import subprocess
import time

import pytest

from test_signatures import agents, assert_agents

OLD = "20241004"
# When a run is stopped: after these parts of the time that a good one takes.
MOMENTS = [pytest.param((0.35, 0.75), id="some"),
           pytest.param([step / 30 for step in range(30)], id="many", marks=pytest.mark.long)]


class Scene:
    """A site, a host and a stick, with folders of their own for all that a run may leave something in."""

    def __init__(self, folder, mirror, vendor, host, uvmirror):
        self.source, self.vendor, self.host, self.uvmirror = mirror, vendor, host, uvmirror
        self.pristine, self.present = folder / "pristine", folder / "present"
        self.tmp, self.bundle = folder / "tmp", folder / "b.tar.zst"
        for path in (self.pristine / "out", self.tmp):
            path.mkdir(parents=True)

    def options(self, name):
        """The arguments of each command, in folders that begin anew."""
        here = self.present
        own = ["--state-dir", here / "site"]
        fetching = [*own, "--mirror", here / "mirror", "-o", here / "out", "release=noble"]
        return {
            "fetch": ["fetch", "--source", self.source.root, "--keyring", self.vendor.keyring, *fetching],
            "split": ["bundle", *fetching, "--split", "200k"],
            "bundle": ["bundle", *fetching],
            "verify": ["verify", "--keyring", here / "site.gpg", self.bundle],
            "show": ["show", "--keyring", here / "site.gpg", self.bundle],
            "import": ["import", "--keyring", here / "site.gpg", self.bundle],
            "generate": ["key", "generate", "--state-dir", here / "new"],
            "list": ["key", "list", *own],
            "export": ["key", "export", *own, "-o", here / "out" / "key.asc"],
            "trust": ["key", "trust", "--yes", "--state-dir", here / "new", here / "site.gpg"],
            "rotate": ["key", "rotate", *own, "-o", here / "out" / "next.asc"],
        }[name]

    def begin(self, name):
        shutil.rmtree(self.present, ignore_errors=True)
        shutil.copytree(self.pristine, self.present)
        if name == "import":
            self.host.reset()
            self.host.make_uvtool_pool()

    def env(self):
        return {"TMPDIR": self.tmp}

    def run(self, name, code=0):
        return self.uvmirror(*self.options(name), code=code, env=self.env())

    def start(self, name):
        return self.uvmirror.start(*self.options(name), env=self.env(), stdin=subprocess.DEVNULL)

    def left(self):
        """What has no place after a run."""
        found = [str(path) for path in self.tmp.iterdir()]
        for folder in (self.present, "/var/lib/uvmirror", "/etc/uvmirror", "/var/lib/uvtool"):
            for where, folders, files in os.walk(folder):
                found += [os.path.join(where, name) for name in folders + files
                          if ".uvm-" in name or name == "uvmirror-agent"]
        return found

    def age(self):
        """What is empty may be somebody's who has not come to lock it yet: it goes a minute later."""
        for path in self.left():
            if os.path.isfile(path) and os.path.getsize(path) == 0:
                os.utime(path, (0, 0))


@pytest.fixture
def scene(folder, mirror, vendor, host, uvmirror, make_image):
    made = Scene(folder, mirror, vendor, host, uvmirror)
    mirror.add_image(OLD, make_image("left", 2 << 20))
    mirror.write()
    made.present.mkdir()
    shutil.copytree(made.pristine, made.present, dirs_exist_ok=True)
    uvmirror("key", "generate", "--state-dir", made.present / "site")
    made.run("fetch")
    uvmirror("key", "export", "--state-dir", made.present / "site", "-o", made.present / "site.gpg")
    (bundle,) = (made.present / "out").iterdir()
    bundle.rename(made.bundle)
    shutil.rmtree(made.pristine)
    made.present.rename(made.pristine)
    return made


@pytest.fixture
def nothing_is_left(scene):
    """nothing_is_left(): since the beginning of the test."""
    running, shared = agents(), sorted(os.listdir("/dev/shm"))

    def check(what):
        assert_agents(running)
        assert sorted(os.listdir("/dev/shm")) == shared, what
        assert scene.left() == [], what

    return check


def wait_for_helpers(scene):
    """GnuPG that a killed process has started may be at work for another moment."""
    mark = bytes(scene.present).rsplit(b"/", 1)[0]
    end = time.monotonic() + 10
    while time.monotonic() < end and any(mark in command for command in helpers()):
        time.sleep(0.01)


def helpers():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                command = file.read()
        except OSError:
            continue
        if command.split(b"\0")[0].rsplit(b"/", 1)[-1] in (b"gpg", b"gpgconf", b"gpgsm"):
            yield command


COMMANDS = ["fetch", "split", "bundle", "verify", "show", "import", "generate", "list", "export",
            "trust", "rotate"]


def test_good_runs(scene, nothing_is_left):
    for name in COMMANDS:
        scene.begin(name)
        scene.run(name)
        nothing_is_left(name)


def test_runs_that_fail(scene, nothing_is_left, stranger):
    def spoil(path):
        data = bytearray(path.read_bytes())
        data[-200] ^= 1
        path.write_bytes(data)

    def other_key():
        shutil.copyfile(stranger.keyring, scene.present / "site.gpg")

    def no_key():
        shutil.rmtree(scene.present / "site" / "gnupg")

    good = scene.bundle.read_bytes()
    for name, code, cause in (
            ("verify", 5, lambda: spoil(scene.bundle)), ("import", 5, lambda: spoil(scene.bundle)),
            ("verify", 4, other_key), ("show", 4, other_key), ("import", 4, other_key),
            ("fetch", 4, no_key), ("bundle", 4, no_key), ("rotate", 4, no_key), ("export", 4, no_key),
            ("trust", 4, lambda: (scene.present / "site.gpg").write_bytes(b"no key")),
            ("export", 1, lambda: (scene.present / "out").rmdir())):
        scene.begin(name)
        cause()
        scene.run(name, code=code)
        nothing_is_left(f"{name}, code {code}")
        scene.bundle.write_bytes(good)


def stop(scene, moments, number):
    """Stops a run of each command at each moment: yields its name, how it ended, and what it said."""
    for name in COMMANDS:
        scene.begin(name)
        begun = time.monotonic()
        scene.run(name)
        duration = time.monotonic() - begun
        for moment in moments:
            scene.begin(name)
            process = scene.start(name)
            time.sleep(duration * moment)
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
            wait_for_helpers(scene)
            what = f"{name}, stopped after {moment:.2f} of {duration:.2f} s: {said.decode()}"
            yield name, process.returncode, what


@pytest.mark.parametrize("moments", MOMENTS)
def test_interrupted(scene, nothing_is_left, moments):
    for _, code, what in stop(scene, moments, signal.SIGINT):
        # Before anything is begun, and in what takes no time, nobody minds the signal.
        assert code in (0, 130, -signal.SIGINT), what
        nothing_is_left(what)


@pytest.mark.parametrize("moments", MOMENTS)
def test_killed(scene, nothing_is_left, moments):
    for name, _, what in stop(scene, moments, signal.SIGKILL):
        # A key that was made before the end is not made again.
        made = name == "generate" and (scene.present / "new" / "gnupg" / "pubring.kbx").exists()
        scene.age()
        scene.run(name, code=None if made else 0)
        nothing_is_left(what)
