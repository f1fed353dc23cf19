"""Killed or interrupted at any moment, fetch leaves what the next run can go on from: it ends with a
right mirror and a right bundle, and downloads no finished file again."""

import hashlib
import json
import os
import random
import shutil
import signal
import time

import pytest

from bundles import Bundle
from test_signatures import agents, assert_agents
from web import Web

SIZE = 1 << 20
IMAGES = 6
# Of each connection: slow enough that there are moments to be killed at.
RATE = "limit_rate 4m;"
# What is on its way between server and program when that is killed: full socket buffers at both ends.
ON_ITS_WAY = 384 << 10
SEED = int(os.environ.get("UVMIRROR_SEED", "3"))


@pytest.fixture
def many(mirror):
    """{path: bytes} of what the vendor publishes, all of noble."""
    source = random.Random(SEED)
    contents = {}
    for number in range(IMAGES):
        data = source.randbytes(SIZE + number)
        image = os.path.join(mirror.root, ".image")
        os.makedirs(mirror.root, exist_ok=True)
        with open(image, "wb") as out:
            out.write(data)
        item = mirror.add_image(f"2024100{number}", image)
        contents[item["path"]] = data
        os.unlink(image)
    mirror.write()
    return contents


class Fetching:
    """A fetch of all images with a bundle, at its server's pace."""

    def __init__(self, uvmirror, mirror, vendor, site, folder):
        self.uvmirror, self.site, self.folder, self.source = uvmirror, site, folder, mirror
        self.mirror, self.out = folder / "mirror", folder / "out"
        self.web, self.tmp, self.vendor, self.count = None, None, vendor, 0

    def clear(self):
        """A mirror, an output folder and a server without a past."""
        for path in (self.mirror, self.out):
            shutil.rmtree(path, ignore_errors=True)
        self.out.mkdir()
        self.new_tmp()
        self.web = Web(self.folder / f"nginx-{self.count}", self.source.root, RATE)

    def new_tmp(self):
        """A killed run's GnuPG may live on for a moment, and change what is in the old one."""
        self.count += 1
        self.tmp = self.folder / f"tmp-{self.count}"
        self.tmp.mkdir()

    @property
    def arguments(self):
        return ("fetch", "--source", self.web.url, "--keyring", self.vendor.keyring, "--mirror",
                self.mirror, "--state-dir", self.site.state, "-o", self.out, "--max", str(IMAGES),
                "--jobs", "2", "release=noble")

    def start(self):
        return self.uvmirror.start(*self.arguments, env={"TMPDIR": self.tmp})

    def run(self):
        return self.uvmirror(*self.arguments, env={"TMPDIR": self.tmp})

    def kill(self, delay):
        """Starts a run and kills it. Half a bundle goes once nobody can still be writing it: so what
        it left is made to look old. Returns whether it was killed before its end."""
        process = self.start()
        time.sleep(delay)
        process.kill()
        process.communicate()
        for path in self.out.glob(".*"):
            os.utime(path, (1e9, 1e9))
        self.new_tmp()
        return process.returncode == -signal.SIGKILL

    def finished(self, contents):
        """The images that have their names."""
        return [path for path in contents if (self.mirror / path).exists()]


@pytest.fixture
def fetching(uvmirror, mirror, vendor, site, folder):
    return Fetching(uvmirror, mirror, vendor, site, folder)


def check_result(fetching, contents):
    """Hashes everything, by other means than the program's own."""
    for path, data in contents.items():
        assert (fetching.mirror / path).read_bytes() == data, path
    (bundle,) = [path for path in fetching.out.iterdir() if not path.name.startswith(".")]
    assert [path.name for path in fetching.out.iterdir()] == [bundle.name]
    fetching.uvmirror("verify", "--keyring", fetching.site.keyring, bundle)
    members = {member.name: member.data for member in Bundle.read(bundle).members}
    for path, data in contents.items():
        assert members[path] == data, path
    assert os.listdir(fetching.mirror / "uvmirror" / "partial") == []
    records = json.loads((fetching.mirror / "uvmirror" / "verified.json").read_text())
    assert hashlib.sha256(next(iter(contents.values()))).hexdigest() in json.dumps(records)


def check_requests(answers, contents, finished, killed_at):
    """What was finished when the first run was killed is not asked for again, and of the others
    nothing but what was still on its way is sent twice."""
    for path, data in contents.items():
        mine = [answer for answer in answers if answer.path == path]
        later = [answer for answer in mine if answer.began > killed_at]
        assert not (path in finished and later), f"{path} was finished: {later}"
        assert len(later) <= 1, f"{path}: {later}"
        sent = sum(answer.sent for answer in mine)
        assert sent <= len(data) + ON_ITS_WAY, f"{path}, {len(data)} bytes: {mine}"


def kill_and_go_on(fetching, contents, delay):
    """One round; returns whether the run was killed before its end."""
    fetching.clear()
    killed = fetching.kill(delay)
    killed_at = time.time()
    finished = fetching.finished(contents)
    for path in finished:  # a name is given to right bytes only
        assert (fetching.mirror / path).read_bytes() == contents[path], path
    for path in fetching.out.glob("[!.]*"):  # a bundle's name, too; the next run makes another one
        fetching.uvmirror("verify", "--keyring", fetching.site.keyring, path)
        path.unlink()
    fetching.run()
    check_result(fetching, contents)
    assert os.listdir(fetching.tmp) == []
    fetching.web.close(signal.SIGQUIT)
    check_requests(fetching.web.answers(), contents, finished, killed_at)
    return killed


def rounds(fetching, contents, count):
    """Kills at random moments, spread over the time that a whole run takes."""
    fetching.clear()
    start = time.monotonic()
    fetching.run()
    whole = time.monotonic() - start
    check_result(fetching, contents)
    fetching.web.close()
    moments, killed = random.Random(SEED), 0
    for number in range(count):
        delay = whole * (number + moments.random()) / count
        try:
            killed += kill_and_go_on(fetching, contents, delay)
        except AssertionError as error:
            raise AssertionError(f"killed after {delay:.3f} of {whole:.3f} s: {error}") from error
    assert killed > count // 2, f"only {killed} of {count} runs were killed"


def test_killed_at_random_moments(fetching, many):
    rounds(fetching, many, 6)


@pytest.mark.long
def test_killed_at_50_random_moments(fetching, many):
    rounds(fetching, many, 50)


def test_killed_twice(fetching, many):
    """The second time while it goes on from the first."""
    fetching.clear()
    for delay in (0.5, 0.4):
        fetching.kill(delay)
    for path in fetching.out.glob("[!.]*"):
        path.unlink()
    fetching.run()
    check_result(fetching, many)
    fetching.web.close(signal.SIGQUIT)
    for path, data in many.items():
        sent = sum(answer.sent for answer in fetching.web.answers() if answer.path == path)
        assert sent <= len(data) + 2 * ON_ITS_WAY


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("moment", ["stream", "download", "late"])
def test_interrupted(fetching, many, number, moment):
    """A clean end: it says what is kept, leaves nothing half done and nobody running."""
    fetching.clear()
    before = agents()
    process = fetching.start()
    reached = {"stream": lambda: os.listdir(fetching.tmp),
               "download": lambda: os.listdir(fetching.mirror / "uvmirror" / "partial"),
               "late": lambda: len(fetching.finished(many)) >= IMAGES - 2}[moment]
    wait_until(process, reached)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    last = said.decode().splitlines()[-1]
    assert last.startswith("uvmirror: ") and "the same command goes on" in last, said
    assert os.listdir(fetching.out) == [] and os.listdir(fetching.tmp) == []
    assert_agents(before)
    interrupted_at, finished = time.time(), fetching.finished(many)
    assert finished or moment != "late"
    fetching.run()
    check_result(fetching, many)
    fetching.web.close(signal.SIGQUIT)
    check_requests(fetching.web.answers(), many, finished, interrupted_at)


def wait_until(process, reached):
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        try:
            if reached():
                return
        except FileNotFoundError:
            pass
        time.sleep(0.002)
    raise AssertionError(f"not reached: {process.poll()}")
