"""Split bundles, and the media that they travel on: sticks that are small, full, slow, pulled or broken."""

import datetime
import hashlib
import os
import re
import shutil
import subprocess

import pytest

from media import bad_stick, everything, ext4, fat, inject, visible
from program import SANITIZER_EXIT
from sample_mirror import PRODUCT
from terminal import Terminal
from test_crash import strace

OLD = "20241004"
PART = 200 << 10

pytestmark = pytest.mark.usefixtures("host")  # which trusts the site


def parts_of(path):
    """The parts of a split bundle, in their order."""
    return sorted(path.parent.glob(path.name + ".[0-9][0-9][0-9]"))


def sums_of(path):
    return path.with_name(path.name + ".sums")


def flip(path, at=None):
    """One bit of a file changes."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 1
    path.write_bytes(data)


@pytest.fixture
def split(make_bundle, make_image, folder):
    """split(name, image): the path that the parts have in common, on a "stick" of that name."""

    def make(name="good", image="a", *args):
        bundle = make_bundle(f"{name}/{name}", {OLD: make_image(image, 2 << 20)}, "release=noble",
                             "--split", PART, *args)
        return bundle

    (folder / "good").mkdir()
    (folder / "other").mkdir()
    return make


def test_plain_cuts(split, folder, site, uvmirror, host):
    bundle = split()
    parts = parts_of(bundle)
    assert len(parts) > 3 and not bundle.exists()
    assert [path.stat().st_size for path in parts[:-1]] == [PART] * (len(parts) - 1)
    # By hand: everybody's glob, everybody's tools.
    out = folder / "out"
    out.mkdir()
    subprocess.run(f"cat {bundle}.* | tar --zstd -x -C {out}", shell=True, check=True)
    assert (out / "uvmirror" / "manifest.json").exists()
    text = site.key.gpg("--decrypt", sums_of(bundle))
    subprocess.run(["sha256sum", "--check", "--strict"], input=text, cwd=bundle.parent, check=True,
                   stdout=subprocess.DEVNULL)
    subprocess.run(["gpgv", "--keyring", site.keyring, sums_of(bundle)], check=True)
    for arguments in ([bundle.parent], parts, reversed(parts), [parts[1]], [sums_of(bundle)]):
        result = uvmirror("verify", *arguments)
        assert f"{len(parts)} parts".encode() in result.out, str(result)
    uvmirror("import", parts[0])


# ---- parts, wherever they are -------------------------------------------------------------------


@pytest.fixture
def sticks(split, folder):
    """A bundle whose parts lie on three sticks, the sums on the first."""
    bundle = split()
    made = [folder / f"stick{number}" for number in range(3)]
    for stick in made:
        stick.mkdir()
    for number, path in enumerate(parts_of(bundle)):
        shutil.move(path, made[number % 3] / path.name)
    shutil.move(sums_of(bundle), made[0])
    return made


def test_several_folders(sticks, uvmirror, host):
    uvmirror("verify", *sticks)
    uvmirror("import", *reversed(sticks))
    assert len(host.metadata()) == 1


def test_missing_parts_are_named(sticks, uvmirror, host):
    before = host.view()
    for command in ("verify", "import"):
        result = uvmirror(command, *sticks[:2], code=1)
        assert b"missing: good.tar.zst.003, good.tar.zst.006" in result.err, str(result)
        assert b"--parts 3,6" in result.err, str(result)
    assert host.view() == before
    uvmirror("show", sticks[0])  # the first part has all that it wants


def test_every_damaged_part_is_named(split, uvmirror, host):
    bundle, before = split(), host.view()
    parts = parts_of(bundle)
    for number in (1, 3):
        flip(parts[number])
    for command in ("verify", "import"):
        result = uvmirror(command, bundle.parent, code=5)
        assert host.view() == before
    result = uvmirror("verify", bundle.parent, code=5)
    assert b"--parts 2,4" in result.err, str(result)
    for number, path in enumerate(parts):
        assert (path.name.encode() in result.err.splitlines()[-1]) == (number in (1, 3)), str(result)


@pytest.mark.parametrize("change", ["short", "long", "empty", "other", "folder"])
def test_what_is_no_part_is_refused_at_once(split, uvmirror, host, change):
    bundle, before = split(), host.view()
    victim = parts_of(bundle)[2]
    if change == "folder":
        victim.unlink()
        victim.mkdir()
    else:
        data = victim.read_bytes()
        victim.write_bytes({"short": data[:-1], "long": data + b"x", "empty": b"",
                            "other": os.urandom(len(data))}[change])
    for command in ("verify", "import"):
        result = uvmirror(command, bundle.parent, code=5)
        assert b"damaged, or of another bundle: " + bytes(victim) in result.err, str(result)
    assert host.view() == before


def test_renamed_parts_are_found(split, uvmirror, folder):
    bundle = split()
    parts = parts_of(bundle)
    # Two that have changed places, and one with a name of its own.
    parts[1].rename(folder / "x")
    parts[2].rename(parts[1])
    (folder / "x").rename(parts[2])
    parts[3].rename(parts[3].with_name("holiday.jpg"))
    uvmirror("verify", bundle.parent)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    odd = parts[3].with_name("holiday.jpg").rename(elsewhere / "part four")
    uvmirror("verify", bundle.parent, odd)


def test_of_two_copies_the_sound_one_is_taken(split, uvmirror, folder):
    bundle = split()
    copy = folder / "copy"
    shutil.copytree(bundle.parent, copy)
    uvmirror("verify", bundle.parent, copy)
    for number, path in enumerate(parts_of(bundle)):
        flip(path if number % 2 else copy / path.name, -1)
    uvmirror("verify", bundle.parent, copy)
    uvmirror("verify", copy, bundle.parent)
    uvmirror("verify", copy, code=5)


def test_parts_of_two_bundles(split, uvmirror, host):
    one, two, before = split(), split("other", "b"), host.view()
    mixed = [*parts_of(one)[:2], *parts_of(two)[2:]]
    for command in ("verify", "import"):
        result = uvmirror(command, *mixed, sums_of(one), code=5)
        assert b"is no part of good.tar.zst" in result.err, str(result)
        result = uvmirror(command, sums_of(one), sums_of(two), code=2)
        assert b"one bundle at a time" in result.err, str(result)
    # Under one name, too.
    parts_of(one)[2].write_bytes(parts_of(two)[2].read_bytes())
    result = uvmirror("verify", one.parent, code=5)
    assert b"good.tar.zst.003" in result.err, str(result)
    # And the sums of the other.
    sums_of(one).write_bytes(sums_of(two).read_bytes())
    result = uvmirror("verify", sums_of(one), code=1)
    assert b"missing: other.tar.zst.001, other.tar.zst.002, other.tar.zst.004" in result.err
    assert host.view() == before


def test_without_sums(split, uvmirror, host):
    bundle, before = split(), host.view()
    sums_of(bundle).unlink()
    for argument in (bundle.parent, parts_of(bundle)[0], parts_of(bundle)[-1]):
        result = uvmirror("verify", argument)
        assert b"taken by their numbers" in result.err, str(result)
    parts_of(bundle)[-1].rename(bundle.parent / "x")
    result = uvmirror("import", bundle.parent, code=5)
    assert re.search(b"without sums.*: it is truncated", result.err), str(result)
    (bundle.parent / "x").rename(parts_of(bundle)[-1].with_name("good.tar.zst.009"))
    uvmirror("verify", bundle.parent, code=5)
    parts_of(bundle)[0].unlink()
    result = uvmirror("import", bundle.parent / "good.tar.zst.002", code=1)
    assert b"good.tar.zst.001: there is no such part" in result.err, str(result)
    assert host.view() == before


@pytest.mark.parametrize("how", ["flip", "cut", "longer", "text", "unsigned", "stranger", "head"])
def test_sums_that_are_not_the_site_s(split, uvmirror, host, site, stranger, how):
    bundle, before = split(), host.view()
    sums = sums_of(bundle)
    data, text = sums.read_bytes(), site.key.gpg("--decrypt", sums)
    sums.write_bytes({
        "flip": data.replace(b"serial 1", b"serial 2"),
        "cut": data[:len(data) // 2],
        "longer": data + b"\n",
        "text": b"hello\n",
        "unsigned": text,
        "stranger": stranger.clearsign(text),
        "head": b"\x51" + data[1:],
    }[how])
    for command in ("verify", "import", "show"):
        uvmirror(command, bundle.parent, code=5 if how in ("cut", "longer") else 4)
    assert host.view() == before
    # As anybody may sign them again.
    sums.write_bytes(site.key.clearsign(text))
    uvmirror("verify", bundle.parent)


def test_the_newest_of_a_folder(split, make_bundle, make_image, uvmirror, folder):
    split()
    stick = folder / "good"
    whole = make_bundle("good/whole", {"20241018": make_image("b")})
    result = uvmirror("show", "--json", stick)
    assert result.lines[-1]["file"] == str(whole)
    split("other", "b")
    for path in (folder / "other").iterdir():
        shutil.move(path, stick)
    assert "other.tar.zst (" in uvmirror("show", "--json", stick).lines[-1]["file"]
    # What is not committed counts for nothing as long as there is something else.
    (stick / "other.tar.zst.sums").unlink()
    assert uvmirror("show", "--json", stick).lines[-1]["file"] == str(whole)


def test_arguments(split, make_bundle, make_image, uvmirror, folder):
    split()
    whole = make_bundle("whole", {"20241018": make_image("b")})
    (folder / "empty").mkdir()
    for code, words, arguments in (
            (2, b"stands alone", ["-", whole]),
            (2, b"one bundle at a time", [whole, shutil.copy(whole, folder / "copy.tar.zst")]),
            (2, b"which bundle", []),
            (1, b"No such file", [whole, folder / "nothing"]),
            (1, b"no bundle", [folder / "empty"]),
            (5, b"is no part of", [folder / "good", whole])):
        result = uvmirror("verify", *arguments, code=code)
        assert words in result.err, str(result)


def test_read_only_media(split, uvmirror, host):
    bundle = split()
    stick = bundle.parent
    subprocess.run(["mount", "--bind", stick, stick], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", stick], check=True)
    try:
        uvmirror("verify", stick)
        uvmirror("import", stick)
    finally:
        subprocess.run(["umount", stick], check=True)
    assert len(host.metadata()) == 1


# ---- one stick after the other ------------------------------------------------------------------


@pytest.mark.parametrize("command", ["verify", "import"])
def test_the_next_stick_is_asked_for(sticks, uvmirror, host, folder, command):
    drive = folder / "drive"
    sticks[0].rename(drive)
    terminal = Terminal([uvmirror.path, command, drive], uvmirror.environment())
    terminal.until(r"Insert the medium with good\.tar\.zst\.002")
    terminal.type("\n")  # too early
    terminal.until(r"(?s)Insert the medium.*Insert the medium with good\.tar\.zst\.002")
    for number, name in ((2, "b"), (3, "c")):
        # The first is put where the last one was, the others' folders are named.
        path = sticks[number - 1].rename(folder / name)
        terminal.type(f"{path}\n")
        if number == 2:
            terminal.until(r"Insert the medium with good\.tar\.zst\.003")
    assert terminal.end() == 0, terminal.screen.text
    assert len(host.metadata()) == (1 if command == "import" else 0)


@pytest.mark.parametrize("answer", ["\x03", "\x04"], ids=["interrupt", "end"])
def test_nobody_brings_the_next_stick(sticks, uvmirror, host, answer):
    before = host.view()
    terminal = Terminal([uvmirror.path, "import", sticks[0]], uvmirror.environment())
    terminal.until(r"Insert the medium with good\.tar\.zst\.002")
    terminal.type(answer)
    assert terminal.end() == 130, terminal.screen.text
    assert host.view() == before


# ---- parts, once more ---------------------------------------------------------------------------


@pytest.fixture
def again(uvmirror, folder, site):
    def run(bundle_id, parts, *args, **options):
        return uvmirror("bundle", "--mirror", folder / "mirror", "--state-dir", site.state, "--again",
                        bundle_id, "--parts", parts, *args, **options)

    return run


def identity(uvmirror, path):
    return uvmirror("show", "--json", path).lines[-1]["id"]


def test_parts_are_written_again(split, uvmirror, again, folder):
    bundle = split()
    bundle_id, parts = identity(uvmirror, bundle.parent), parts_of(bundle)
    wanted = {number: parts[number - 1].read_bytes() for number in (1, 3, len(parts))}
    for number in wanted:
        flip(parts[number - 1])
    uvmirror("verify", bundle.parent, code=5)
    for args in ((), ("--read-back",)):
        out = folder / f"new{len(args)}"
        out.mkdir()
        numbers = ",".join(map(str, wanted))
        result = again(bundle_id, numbers, "-o", out, "--json", *args)
        assert sorted(path.name for path in out.iterdir()) == [
            parts[number - 1].name for number in wanted]
        assert result.lines[-1]["files"] == [str(out / parts[number - 1].name) for number in wanted]
        for number, data in wanted.items():
            assert (out / parts[number - 1].name).read_bytes() == data
    # Into their places, and as the message of verify says.
    message = uvmirror("verify", bundle.parent, code=5).err.decode()
    words = re.search(r"--again (\S+) --parts (\S+)'", message)
    again(words[1], words[2], cwd=bundle.parent)
    uvmirror("verify", bundle.parent)


def test_parts_that_cannot_be_written_again(split, make_bundle, make_image, uvmirror, again, folder,
                                            site):
    bundle = split()
    bundle_id = identity(uvmirror, bundle.parent)
    whole = identity(uvmirror, make_bundle("whole", {"20241018": make_image("b")},
                                           "--max", "2", "release=noble"))
    out = folder / "out"
    out.mkdir()
    for code, words, arguments in (
            (1, b"has written no such bundle", ("uvmirror-21000101T000000Z-00000000", "1")),
            (1, b"has written no such bundle", ("another", "1")),
            (1, b"does not keep it", ("uvmirror-20200101T000000Z-00000000", "1")),
            (2, b"no bundle's id", ("../../x", "1")),
            (2, b"no part 99", (bundle_id, "1,99")),
            (2, b"no list of numbers", (bundle_id, "1,,2")),
            (2, b"no list of numbers", (bundle_id, "0")),
            (2, b"was not split", (whole, "1")),
            (2, b"is no folder", (bundle_id, "1", "-o", out / "x")),
            (2, b"not expected", (bundle_id, "1", "release=noble")),
            (2, b"of other options", (bundle_id, "1", "--split", "1M"))):
        options = () if "-o" in arguments else ("-o", out)
        result = again(*arguments, *options, code=code)
        assert words in result.err, str(result)
    # The mirror has lost the image, or keeps other sums than come out.
    kept = folder / "mirror" / "uvmirror" / "bundles" / bundle_id / "uvmirror" / "parts.sums"
    text = kept.read_bytes()
    kept.write_bytes(re.sub(rb"\n[0-9a-f]{64}", b"\n" + b"0" * 64, text))
    assert b"nothing says why" in again(bundle_id, "2", "-o", out, code=5).err
    kept.write_bytes(re.sub(rb"\n[0-9a-f]{64}", b"\n" + b"0" * 64,
                            text.replace(b"encoder libzstd 1.", b"encoder libzstd 0.")))
    assert b"was written by libzstd 0." in again(bundle_id, "2", "-o", out, code=5).err
    kept.write_bytes(text)
    for path in (folder / "mirror").rglob(f"*{OLD}*/*.img"):
        path.unlink()
    assert b"no longer holds noble amd64 20241004" in again(bundle_id, "2", "-o", out, code=1).err
    assert not list(out.iterdir())


def backdate(kept, days, split):
    """What the mirror would have kept of a bundle that was written so many days ago; its id."""
    made = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=days)
    made_id = f"uvmirror-{made:%Y%m%dT%H%M%SZ}-0000000{int(split)}"
    folder = kept / made_id / "uvmirror"
    folder.mkdir(parents=True)
    for name in ("manifest.json", "manifest.json.sig", *(["parts.sums"] if split else [])):
        (folder / name).write_text("x")
    return made_id


def test_what_is_kept_for_parts(split, uvmirror, again, folder, site):
    """Of old bundles the newest eight of each kind and those of thirty days, whenever it is killed."""
    bundle_id = identity(uvmirror, split().parent)
    kept = folder / "mirror" / "uvmirror" / "bundles"
    young = [backdate(kept, days, False) for days in range(1, 29)]
    parts = [backdate(kept, days, True) for days in range(100, 111)]
    old = [backdate(kept, days, False) for days in range(40, 60)]
    other = kept / "somebody's own"
    other.mkdir()

    def names():
        return {path.name for path in kept.iterdir()}

    bundle = ("bundle", "--mirror", folder / "mirror", "--state-dir", site.state, "-o",
              folder / "next.tar.zst")
    everything = names()
    uvmirror(*bundle, code=-9, **strace(os.devnull, "-e", "trace=renameat", "-e",
                                        "inject=renameat:signal=KILL:when=3"))
    swept = {*parts[7:], *old}
    for name in everything:  # all of it or nothing
        path = kept / name / "uvmirror"
        assert not (name in swept and path.exists()) or (path / "manifest.json").exists()
    uvmirror(*bundle)
    left = names()
    assert left >= {bundle_id, *young, *parts[:7], "somebody's own"}
    assert not left & swept and not [name for name in left if name.startswith(".")]
    said = again(parts[9], "1", "-o", folder, code=1).err
    assert b"does not keep it" in said and b"newest 8" in said and b"30 days" in said
    out = folder / "out"
    out.mkdir()
    again(bundle_id, "1", "-o", out)


# ---- writing ------------------------------------------------------------------------------------


@pytest.fixture
def stick(folder):
    path = folder / "stick"
    path.mkdir()
    return path


@pytest.fixture
def bundle_of(fetch, uvmirror, mirror, make_image, folder, site):
    """bundle_of(*arguments): `uvmirror bundle` of an image that was fetched before."""
    mirror.add_image(OLD, make_image("a", 2 << 20))
    mirror.write()
    fetch("--no-bundle", "release=noble")

    def run(*args, **options):
        if "strace" in options.get("wrap", ()):  # under which there is no looking for leaks
            options["env"] = {"ASAN_OPTIONS": f"detect_leaks=0:exitcode={SANITIZER_EXIT}"}
        return uvmirror("bundle", "--mirror", folder / "mirror", "--state-dir", site.state,
                        "release=noble", *args, **options)

    return run


SHAPES = pytest.mark.parametrize("shape", [(), ("--split", PART)], ids=["one", "parts"])


@SHAPES
def test_read_back(bundle_of, stick, shape):
    result = bundle_of("-o", stick / "x.tar.zst", "--read-back", *shape)
    assert b"OK on the medium: every byte was read back" in result.err, str(result)
    # On the mirror's own file system it need not be; on another one it is.
    assert b"OK on the medium" not in bundle_of("-o", stick / "x.tar.zst", *shape).err
    with ext4(stick, 8 << 20):
        options = ("-o", stick / "x.tar.zst", *shape)
        assert b"OK on the medium" in bundle_of(*options).err
        assert b"OK on the medium" not in bundle_of(*options, "--no-read-back").err
        bundle_of(*options, "--read-back", "--no-read-back", code=2)


@SHAPES
def test_a_stick_that_is_too_small(bundle_of, stick, shape):
    with ext4(stick, 1 << 20):
        result = bundle_of("-o", stick, *shape, code=6)
        assert re.search(rb"the bundle needs .* are free", result.err), str(result)
        assert visible(stick) == []


@SHAPES
@pytest.mark.parametrize("fault, code, words", [
    ("full", 6, b"No space left"),
    ("dies", 1, b"Input/output error"),
    ("lies", 5, b"gives back other bytes than were written"),
    ("small-files", 6, b"a file cannot be larger there: split the bundle"),
    ("stalls", 0, b"OK on the medium"),
])
def test_bad_sticks(bundle_of, uvmirror, stick, shape, fault, code, words):
    behind = stick.parent / "behind"
    behind.mkdir()
    if shape and fault == "small-files":
        code, words = 0, b"OK on the medium"
    with bad_stick(behind, stick, fault, PART + 1000) as wrap:
        result = bundle_of("-o", stick, *shape, code=None if wrap else code, wrap=wrap)
        assert wrap or words in result.err, str(result)
    made = stick if wrap else behind
    if result.code == 0:
        uvmirror("verify", made)
    else:
        # What a dead stick holds cannot be taken back.
        assert visible(made) == [] and (fault == "dies" or everything(made) == []), str(result)


FAULTS = ([("fsync", n) for n in range(1, 24, 2)] + [("rename", n) for n in range(1, 12, 3)]
          + [("renameat", n) for n in range(1, 9)] + [("syncfs", 1), ("syncfs", 2), ("mkdir", 1)])


def test_whatever_fails_leaves_nothing(bundle_of, stick, uvmirror, folder):
    """One call after the other fails: there is a whole bundle, or nothing."""
    failed = 0
    for calls, number in FAULTS:
        result = bundle_of("-o", stick / "x.tar.zst", "--split", PART, "--read-back", code=None,
                           wrap=inject(calls, "error=EIO", number))
        failed += result.code != 0
        if result.code == 0:
            uvmirror("verify", stick)
        else:
            assert visible(stick) == [], f"{calls} {number}: {result}"
        for path in stick.iterdir():
            path.unlink()
    assert failed > 15


@SHAPES
@pytest.mark.parametrize("calls", ["renameat2", "renameat2,linkat"])
def test_a_file_system_without_exclusive_renames(bundle_of, stick, uvmirror, shape, calls):
    for count in (1, 2):
        bundle_of("-o", stick, *shape, wrap=inject(calls, "error=EINVAL"))
        firsts = [name for name in visible(stick) if name.endswith((".zst", ".zst.001"))]
        assert len(firsts) == count
        assert everything(stick) == visible(stick)
        uvmirror("verify", stick)


def test_a_killed_run_leaves_nothing_for_long(bundle_of, stick, uvmirror):
    bundle_of("-o", stick / "x.tar.zst", "--split", PART, code=None,
              wrap=inject("renameat", "signal=KILL", 3))
    hidden = [path for path in stick.iterdir() if path.name.startswith(".")]
    assert len(hidden) == 1 and not sums_of(stick / "x.tar.zst").exists()
    bundle_of("-o", stick / "x.tar.zst", "--split", PART)
    assert not [path for path in stick.iterdir() if path.name.startswith(".")]
    uvmirror("verify", stick)


def test_the_same_name_again(bundle_of, stick, uvmirror):
    bundle = stick / "x.tar.zst"
    bundle_of("-o", bundle, "--split", "100k")
    count = len(parts_of(bundle))
    bundle_of("-o", bundle, "--split", PART)
    assert 1 < len(parts_of(bundle)) < count
    uvmirror("verify", bundle.parent)
    uvmirror("verify", *parts_of(bundle))
    # What fits into one part is a bundle like any other.
    for path in stick.iterdir():
        path.unlink()
    bundle_of("-o", bundle, "--split", "1G")
    assert visible(stick) == ["x.tar.zst"]
    uvmirror("verify", bundle)


def test_split_options(bundle_of, fetch, stick):
    for code, words, args in (
            (2, b"at least 64k", ("--split", "10k")),
            (2, b"neither 'fat32' nor 'auto'", ("--split", "big")),
            (2, b"takes no parts", ("--split", "1M", "-o", "-")),
            (2, b"a plainer or shorter name", ("--split", PART, "-o", stick / "a\\b")),
            (2, b"a plainer or shorter name", ("--split", PART, "-o", stick / ("x" * 210)))):
        options = () if "-o" in args else ("-o", stick)
        result = bundle_of(*options, *args, code=code)
        assert words in result.err, str(result)
    fetch("--no-bundle", "--split", "1M", "release=noble", code=2)
    assert visible(stick) == []
    result = bundle_of("-o", stick, "--split", "100k", "--json")
    files = result.lines[-1]["files"]
    assert [os.path.basename(path) for path in files] == visible(stick)


def test_a_file_size_limit(bundle_of, stick):
    """As a file system that takes no larger file says it."""
    limit = ["prlimit", f"--fsize={1 << 20}"]
    result = bundle_of("-o", stick, code=6, wrap=limit)
    assert b"a file cannot be larger there: split the bundle (--split fat32)" in result.err
    assert visible(stick) == []
    bundle_of("-o", stick, "--split", "1M", wrap=limit)


def test_fat(bundle_of, mirror, fetch, stick, uvmirror, host):
    with fat(stick):
        bundle_of("-o", stick, "--split", "auto")
        assert [path for path in visible(stick) if not path.endswith(".tar.zst")] == []
        bundle_of("-o", stick / "split.tar.zst", "--split", PART)
        uvmirror("verify", stick)
        uvmirror("import", sums_of(stick / "split.tar.zst"))
        before = visible(stick)
        # An image that no file of FAT32 can hold is not even downloaded.
        item = mirror.products[PRODUCT]["versions"][OLD]["items"]["disk1.img"]
        item["size"] = (1 << 32) + 1
        item["sha256"] = hashlib.sha256(b"").hexdigest()
        mirror.write()
        result = fetch("-o", stick, "release=noble", code=6)
        assert b"takes files of up to 4.29 GB: split the bundle (--split fat32)" in result.err
        for size in ("5G", "4G"):
            assert b"takes files" in fetch("-o", stick, "--split", size, "release=noble", code=6).err
        result = fetch("-o", stick, "--split", "auto", "release=noble", code=None)
        assert b"takes files" not in result.err and result.code != 0, str(result)
        assert visible(stick) == before
    assert len(host.metadata()) == 1
