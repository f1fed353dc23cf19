"""`uvmirror fetch -o - | uvmirror import -`: over a pipe that is slow, that stalls, and that breaks at either
end. Nothing comes to the host then, and the next run goes through."""

import os
import shlex
import signal
import subprocess
import time

import pytest

import uvtool_view
from sample_mirror import PRODUCT

VERSION = "20241004"
SIZE = 4 << 20
BLOCK = 64 << 10
STALL = 2.5  # seconds; a reader looks at whether to stop several times in it
HEAD = 1500  # bytes that come one by one: most of the first frame


@pytest.fixture
def commands(mirror, make_image, vendor, site, uvmirror, folder):
    """What the two ends are called as."""
    mirror.add_image(VERSION, make_image("pipe", SIZE))
    mirror.write()
    fetching = ["fetch", "--source", mirror.root, "--keyring", vendor.keyring, "--mirror",
                folder / "mirror", "--state-dir", site.state, "-o", "-", "release=noble"]
    return [[uvmirror.path, *map(str, fetching)], [uvmirror.path, "import", "-"]]


class Pipeline:
    """Both ends, and a relay between them, which is the test's own."""

    def __init__(self, commands, env, folder):
        self.said = [folder / "sender", folder / "receiver"]
        logs = [open(path, "wb") for path in self.said]
        self.sender = subprocess.Popen(commands[0], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                       stderr=logs[0], env=env, bufsize=0)
        self.receiver = subprocess.Popen(commands[1], stdin=subprocess.PIPE, stdout=logs[1],
                                         stderr=logs[1], env=env, bufsize=0)
        for log in logs:
            log.close()

    def take(self, length):
        return self.sender.stdout.read(length)

    def give(self, data):
        while data:
            data = data[self.receiver.stdin.write(data):]

    def relay(self, most=None):
        """All that comes, or this many bytes of it at least. Returns how many."""
        done = 0
        while most is None or done < most:
            data = self.take(BLOCK)
            if not data:
                break
            self.give(data)
            done += len(data)
        return done

    def close(self, *ends):
        for end in ends or (self.sender.stdout, self.receiver.stdin):
            try:
                end.close()
            except BrokenPipeError:
                pass

    def end(self):
        """(exit code, what it said) of the sender, then of the receiver."""
        self.close()
        return [(process.wait(timeout=120), path.read_text(encoding="utf-8"))
                for process, path in zip((self.sender, self.receiver), self.said)]


@pytest.fixture
def pipeline(commands, uvmirror, folder):
    def start():
        return Pipeline(commands, uvmirror.environment(), folder)

    return start


@pytest.fixture
def arrives(host, uvmirror, commands):
    """The next run: an ordinary pipe of the shell's. It leaves the host as it should be."""
    def run():
        line = " | ".join(shlex.join(command) for command in commands)
        done = subprocess.run(["bash", "-o", "pipefail", "-c", line], env=uvmirror.environment(),
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr.decode()
        check_arrived(host)

    return run


def check_arrived(host):
    name = uvtool_view.encode(PRODUCT, VERSION)
    assert host.volumes() == [name] and list(host.metadata()) == [name]
    assert uvtool_view.problems(host) == []
    assert all(pool == "uvtool" or host.volumes(pool) == [] for pool in host.pools())


def assert_nothing_came(host, before):
    """Also none of what was on its way: the pool of that is empty, or was never made."""
    assert host.view()[:2] == before[:2]
    assert all(host.volumes(pool) == [] for pool in host.pools())


def test_a_pipe(arrives):
    arrives()
    arrives()  # once more is a repair


def test_a_pipe_that_is_slow_and_stalls(pipeline, host):
    run = pipeline()
    for _ in range(HEAD):
        run.give(run.take(1))
    time.sleep(STALL)
    assert run.relay(SIZE // 2) > 0
    time.sleep(STALL)
    for _ in range(HEAD):
        run.give(run.take(1))
    run.relay()
    assert [code for code, _ in run.end()] == [0, 0], run.end()
    check_arrived(host)


def first_frame(run):
    run.relay(1)


def middle(run):
    run.relay(SIZE // 4)


MOMENTS = pytest.mark.parametrize("moment", [first_frame, middle])


@MOMENTS
def test_the_line_is_cut(pipeline, host, arrives, moment):
    before = host.view()
    run = pipeline()
    moment(run)
    (sent, sender), (received, receiver) = run.end()
    assert sent == 1 and "standard output: write: Broken pipe" in sender, sender
    assert received == 5 and "standard input" in receiver and "truncated" in receiver, receiver
    assert_nothing_came(host, before)
    arrives()


@MOMENTS
def test_the_writer_is_killed(pipeline, host, arrives, moment):
    before = host.view()
    run = pipeline()
    moment(run)
    run.sender.kill()
    run.relay()
    (sent, _), (received, receiver) = run.end()
    assert sent == -signal.SIGKILL
    assert received == 5 and "standard input" in receiver and "truncated" in receiver, receiver
    assert_nothing_came(host, before)
    arrives()


@MOMENTS
def test_the_reader_is_killed(pipeline, host, arrives, moment):
    before = host.view()
    run = pipeline()
    moment(run)
    run.receiver.kill()
    run.receiver.wait()
    with pytest.raises(BrokenPipeError):
        run.relay()
    (sent, sender), (received, _) = run.end()
    assert sent == 1 and "standard output: write: Broken pipe" in sender, sender
    assert received == -signal.SIGKILL
    assert host.view()[:2] == before[:2]
    arrives()  # which removes what was on its way


def test_the_reader_refuses(pipeline, host, arrives):
    """It trusts nobody, and says so; the writer is told nothing but that nobody reads any more."""
    before = host.view()
    trusted = "/etc/uvmirror/trusted.d/site.gpg"
    os.rename(trusted, trusted + ".not")
    run = pipeline()
    try:
        run.relay()
    except BrokenPipeError:
        pass
    (sent, _), (received, receiver) = run.end()
    os.rename(trusted + ".not", trusted)
    assert sent in (0, 1) and received == 4 and "trust" in receiver, receiver
    assert_nothing_came(host, before)
    arrives()


def test_the_writer_fails(pipeline, host, arrives, mirror):
    """An image turns out not to be what was signed, when some of it may have gone through."""
    before = host.view()
    path = mirror.path(mirror.products[PRODUCT]["versions"][VERSION]["items"]["disk1.img"]["path"])
    flip_last(path)
    run = pipeline()
    run.relay()
    (sent, sender), (received, receiver) = run.end()
    assert sent == 5 and "its checksum is not the signed one" in sender, sender
    assert received == 5 and ("truncated" in receiver or "an empty file" in receiver), receiver
    assert_nothing_came(host, before)
    flip_last(path)
    arrives()


def flip_last(path):
    with open(path, "r+b") as image:
        image.seek(-1, os.SEEK_END)
        byte = image.read(1)[0]
        image.seek(-1, os.SEEK_END)
        image.write(bytes([byte ^ 1]))


@MOMENTS
def test_ctrl_c(pipeline, host, arrives, moment):
    """At a terminal it comes to both."""
    before = host.view()
    run = pipeline()
    moment(run)
    for process in (run.sender, run.receiver):
        process.send_signal(signal.SIGINT)
    for process in (run.sender, run.receiver):
        process.wait(timeout=60)
    (sent, sender), (received, receiver) = run.end()
    assert sent == 130 and "interrupted" in sender, sender
    assert received == 130 and "interrupted" in receiver, receiver
    assert_nothing_came(host, before)
    arrives()
