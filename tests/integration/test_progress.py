"""What a person sees of a long run: on a terminal, in a log, and as JSON."""

import re

import pytest

from terminal import Terminal
from web import Web

VERSION = "20241004"
RELEASES = ["noble", "jammy", "focal"]
MOVING = re.compile(r"^(download|noble|jammy|focal) .* \d+ %", re.M)


@pytest.fixture
def slow(folder, mirror, make_image):
    """A vendor with three images, and a web server that gives each in a second or so."""
    for number, release in enumerate(RELEASES):
        image = make_image(f"slow-{release}")
        mirror.add_image(VERSION, image, f"com.ubuntu.cloud:server:{number}:amd64", release=release)
    mirror.write()
    rate = image.stat().st_size
    server = Web(folder / "slow", mirror.root, f"location ~ [.]img$ {{ limit_rate {rate}; }}")
    yield server.url
    server.close()


@pytest.fixture
def arguments(slow, vendor, site, folder):
    return ["fetch", "--source", slow, "--keyring", vendor.keyring, "--mirror", folder / "mirror",
            "--state-dir", site.state, "--no-bundle"]


@pytest.fixture
def terminal(uvmirror, arguments):
    def run(*more, rows=24, columns=80, **env):
        return Terminal([uvmirror.path, *arguments, *more], {**uvmirror.environment(), **env}, rows,
                        columns)

    return run


def test_moving_lines(terminal):
    """A line for each download and one for all; at the end only what is done is told."""
    term = terminal()
    assert term.end() == 0, term.screen.text
    busy = [text for text in term.screens if "download total " in text]
    assert busy, term.raw
    for release in RELEASES:
        assert re.search(rf"^download {release} amd64 {VERSION} +\d+ % of ", "\n".join(busy), re.M)
        assert f"downloaded {release} amd64 {VERSION}" in term.screen.text
    assert re.search(r"^download .* \d+ % of .*B  .*B/s  \d+:\d\d left$", "\n".join(busy), re.M)
    assert not MOVING.search(term.screen.text), term.screen.text
    assert (term.screen.column, term.screen.lines[term.screen.row]) == (0, "")
    # What was told stands there once.
    assert len([line for line in term.screen.lines if line.startswith("downloaded ")]) == 3


def test_a_narrow_and_low_terminal(terminal):
    """Nothing is wider than the terminal: a line that wraps could not be taken away again."""
    term = terminal(rows=6, columns=40)
    assert term.end() == 0, term.screen.text
    busy = [text for text in term.screens if re.search(r"^total .* \d+ %", text, re.M)]
    assert busy and any("and 2 more" in text or MOVING.search(text) for text in busy), term.raw
    assert not MOVING.search(term.screen.text), term.screen.text


def test_ctrl_c_leaves_a_clean_terminal(terminal):
    term = terminal()
    term.until(r"^download total ")
    term.type("\x03")
    assert term.end() == 130, term.screen.text
    assert not MOVING.search(term.screen.text), term.screen.text
    assert "interrupted; what was downloaded is kept" in " ".join(term.screen.text.split())
    assert term.screen.column == 0


@pytest.mark.parametrize("more, env", [
    (["--no-progress"], {}), (["--quiet"], {}), ([], {"TERM": "dumb"}),
], ids=["no-progress", "quiet", "dumb"])
def test_nothing_moves_when_nothing_may(terminal, more, env):
    term = terminal(*more, **env)
    assert term.end() == 0, term.screen.text
    assert "\x1b" not in term.raw and "\r" not in term.raw.replace("\r\n", "\n")
    assert not MOVING.search(term.screen.text)
    told = term.screen.text.count("downloaded ")
    assert told == (0 if "--quiet" in more else 3)


def test_a_log_has_no_control_characters(uvmirror, arguments):
    result = uvmirror(*arguments, env={"TERM": "xterm"})
    assert result.err.count(b"downloaded ") == 3
    assert b"\x1b" not in result.err and b"\r" not in result.err


def test_json_tells_how_far_it_is(uvmirror, arguments):
    lines = uvmirror(*arguments, "--json").lines
    for release in RELEASES:
        subject = f"{release} amd64 {VERSION}"
        moves = [line for line in lines
                 if line["event"] == "progress" and line["subject"] == subject]
        assert moves and all(line["step"] == "download" for line in moves)
        assert all(0 <= line["done"] <= line["total"] for line in moves)
        assert [line["event"] for line in lines if line.get("subject") == subject][-1] == "done"
