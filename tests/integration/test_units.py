"""The nightly fetch: systemd's own opinion of the units, and the service as systemd runs it."""

import os
import pathlib
import shutil
import subprocess

import pytest

from init_system import boot
from stand_in import StandIn, parse
from web import Web

OLD, NEW = "20241004", "20241018"
UNITS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "systemd"
SERVICE, TIMER = "uvmirror-fetch.service", "uvmirror-fetch.timer"
STATE = pathlib.Path("/var/lib/uvmirror")
# Folders of the sandbox that the service sees: it has a /tmp of its own, and no /home.
BINARIES = pathlib.Path("/var/lib/uvtool/bin")
CONFIG = pathlib.Path("/etc/uvmirror")

# Runs where the service runs, and writes down what it can do there.
PROBE = """#!/bin/sh
may() { "$@" >/dev/null 2>&1 && echo "may $*"; }
exec >/var/lib/uvmirror/probe
grep -E '^(CapEff|NoNewPrivs):' /proc/self/status
may touch /etc/default/x
may touch /var/lib/uvtool/x
for home in gnupg gnupg.next gnupg.old; do may cat /var/lib/uvmirror/$home/secret; done
may cat /etc/shadow
may ls /root/.
may ls /home/.
may chown 1 /var/lib/uvmirror/probe
may mount -t tmpfs tmpfs /tmp
exec >/var/lib/uvmirror/probe-calls
grep '^Seccomp:' /proc/self/status
may unshare --user true
exit 0
"""


def install_units(folder):
    """The units as meson installs them."""
    service = (UNITS / f"{SERVICE}.in").read_text(encoding="utf-8")
    (folder / SERVICE).write_text(service.replace("@bindir@", str(BINARIES)), encoding="utf-8")
    shutil.copy(UNITS / TIMER, folder)


@pytest.fixture
def binaries(bare_host, uvmirror):
    BINARIES.mkdir()
    shutil.copy(uvmirror.path, BINARIES / "uvmirror")


@pytest.fixture
def units(folder, binaries):
    install_units(folder)
    return [folder / SERVICE, folder / TIMER]


def analyze(*arguments):
    done = subprocess.run(["systemd-analyze", "--no-pager", *map(str, arguments)],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_systemd_understands_the_units(units):
    assert analyze("verify", "--man=no", *units).stderr == ""


def test_the_service_is_well_confined(units):
    """Of 10: what is left is that it is root, without powers, and talks to the internet."""
    analyze("security", "--offline=true", "--threshold=25", units[0])


@pytest.fixture(params=[boot, StandIn], ids=["systemd", "stand-in"])
def systemd(folder, binaries, request):
    """The real one, where it can be had; and what stands in for it elsewhere, so that both agree."""
    system = request.param(folder / "systemd")
    install_units(system.units)
    yield system
    system.close()


@pytest.fixture
def nightly(systemd, web, mirror, vendor, make_image):
    """A host that mirrors noble from the vendor's web server, and a probe in the service's place."""
    mirror.add_image(OLD, make_image("a"))
    mirror.write()
    shutil.copy(vendor.keyring, CONFIG / "vendor.gpg")
    (BINARIES / "probe").write_text(PROBE, encoding="utf-8")
    (BINARIES / "probe").chmod(0o755)
    # What the sanitizers of a test build want of the system is not what the program wants.
    drop_in = systemd.units / f"{SERVICE}.d"
    drop_in.mkdir()
    (drop_in / "test.conf").write_text(
        f"[Service]\nEnvironment=ASAN_OPTIONS=detect_leaks=0\nExecStartPost={BINARIES}/probe\n"
        f"StandardError=append:{systemd.log}\n", encoding="utf-8")
    (systemd.default / "uvmirror-fetch").write_text(
        f"UVMIRROR_FETCH_ARGS=--source {web.url} --keyring {CONFIG}/vendor.gpg release=noble\n",
        encoding="utf-8")
    systemd("daemon-reload")
    return systemd


def mirrored():
    return sorted(path.parent.name.removeprefix("release-")
                  for path in (STATE / "mirror").rglob("*.img"))


def test_a_night(nightly, mirror, make_image, folder, uvmirror, site):
    nightly("start", SERVICE)
    assert mirrored() == [OLD]
    image = next((STATE / "mirror").rglob("*.img"))
    assert image.stat().st_uid == 0 and image.stat().st_mode & 0o777 == 0o644
    assert not list(STATE.rglob("*.tar.zst")), "the nightly fetch writes no bundle"

    # The next night the vendor has a new one; what it replaces goes.
    mirror.add_image(NEW, make_image("b"))
    mirror.write()
    nightly("start", SERVICE)
    assert mirrored() == [NEW]

    # In the morning somebody plugs the stick.
    bundle = folder / "stick.tar.zst"
    uvmirror("bundle", "--homedir", site.state / "gnupg", "-o", bundle)
    assert NEW in uvmirror("show", "--keyring", site.keyring, bundle).out.decode()


def test_a_bundle_each_night(nightly, site):
    """The drop-in of the manual, with the key where the service sees it: GnuPG works in there."""
    (STATE / "outgoing").mkdir()
    shutil.copytree(site.state / "gnupg", STATE / "gnupg",
                    ignore=lambda _, names: [name for name in names if name.startswith("S.")])
    drop_in = nightly.units / f"{SERVICE}.d" / "bundle.conf"
    drop_in.write_text(
        "[Service]\nInaccessiblePaths=\nExecStart=\n"
        f"ExecStart={BINARIES}/uvmirror fetch -o {STATE}/outgoing $UVMIRROR_FETCH_ARGS\n",
        encoding="utf-8")
    nightly("daemon-reload")
    nightly("start", SERVICE)
    assert len(list((STATE / "outgoing").glob("*.tar.zst"))) == 1


def test_what_the_service_may_do(nightly):
    for name in ("gnupg", "gnupg.next", "gnupg.old"):
        (STATE / name).mkdir(mode=0o700)
        (STATE / name / "secret").write_text("a key of the site", encoding="utf-8")
    nightly("start", SERVICE)
    assert (STATE / "probe").read_text(encoding="utf-8").split() == [
        "CapEff:", "0" * 16, "NoNewPrivs:", "1"]
    if nightly.filters_calls:
        assert (STATE / "probe-calls").read_text(encoding="utf-8").split() == ["Seccomp:", "2"]


def test_a_night_without_network_is_a_failure(nightly, web):
    """systemd shows it, with the documented exit code; the next night may go better."""
    web.close()
    args = (nightly.default / "uvmirror-fetch").read_text(encoding="utf-8")
    (nightly.default / "uvmirror-fetch").write_text(args.replace("release", "--retries 0 release"),
                                                    encoding="utf-8")
    nightly("start", SERVICE, code=1)
    assert nightly.property(SERVICE, "ExecMainStatus") == "3"


def test_the_settings_may_be_missing(nightly):
    """Then it asks the vendor, who cannot be reached from here; the options are understood."""
    (nightly.default / "uvmirror-fetch").unlink()
    drop_in = nightly.units / f"{SERVICE}.d" / "more.conf"
    drop_in.write_text("[Service]\nEnvironment=https_proxy=http://127.0.0.1:9\n", encoding="utf-8")
    nightly("daemon-reload")
    nightly("start", SERVICE, code=1)
    assert nightly.property(SERVICE, "ExecMainStatus") in ("3", "4")


def test_the_timer_means_every_night(units):
    when = parse([units[1]])["OnCalendar"]
    assert "Next elapse:" in analyze("calendar", when).stdout


@pytest.mark.parametrize("systemd", [boot], indirect=True)
def test_the_timer(nightly):
    if not nightly.filters_calls:
        return  # nothing stands in for systemd's clock
    nightly("start", TIMER)
    assert nightly.property(TIMER, "ActiveState") == "active"
    assert nightly.property(TIMER, "NextElapseUSecRealtime") not in ("", "0")
    assert nightly("is-enabled", TIMER, code=1).stdout.strip() == "disabled"
