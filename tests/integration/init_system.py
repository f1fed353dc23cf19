"""A real systemd as process 1 of namespaces of its own, with nothing to start but a test's units; where
it cannot be had, something that stands in for it."""

import os
import pathlib
import shutil
import subprocess
import time
import warnings

from stand_in import StandIn

PROGRAM = "/lib/systemd/systemd"

# Units that every other unit wants by default; here there is nothing behind them.
TARGETS = ("basic", "network-online", "shutdown", "sysinit", "time-set", "time-sync", "timers", "quiet")

# $1: folder of the units; $2: copy of /etc/default. systemd gets a /run and control groups of its own;
# what else it might write to as process 1 of a machine cannot be written.
BOOT = """
set -e
mount --bind "$2" /etc/default
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount -t tmpfs tmpfs /var/lib/systemd
mount -t tmpfs -o mode=0755 tmpfs /run
umount --recursive --lazy /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec env -i PATH="$PATH" container=test SYSTEMD_UNIT_PATH="$1" \
    {program} --system --unit=quiet.target --show-status=false
"""

# Nothing but process 1 joins the control group, or systemd could not divide it.
JOIN = 'echo 0 >"$0/cgroup.procs" && exec unshare --cgroup "$@"'


def control_group():
    """A fresh folder of the version 2 hierarchy, or None where there is none to write to."""
    for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        if os.path.exists(f"{root}/cgroup.procs") and os.path.exists(f"{root}/cgroup.controllers"):
            group = pathlib.Path(root, f"uvmirror-test-{os.getpid()}")
            try:
                group.mkdir()
            except OSError:
                return None
            return group
    return None


class CannotBoot(Exception):
    """This machine does not let it."""


class Systemd:
    """`units` and `default` are the folders of the units and of /etc/default; `log` is the file for
    what they say. Call it with the arguments of systemctl."""

    filters_calls = True

    def __init__(self, folder, group):
        self.group = group
        self.units, self.default, self.log = folder / "units", folder / "default", folder / "log"
        for path in (folder, self.units, self.default):
            path.mkdir()
        for name in TARGETS:
            (self.units / f"{name}.target").write_text(f"[Unit]\nDescription={name}\n")
        with open(self.log, "wb") as log:
            self.outer = subprocess.Popen(
                ["unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child",
                 "--mount-proc", "--propagation", "private", "sh", "-c", JOIN, group,
                 "sh", "-c", BOOT.format(program=PROGRAM), "sh", self.units, self.default],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._wait()

    def _wait(self):
        for _ in range(200):
            if self.outer.poll() is not None:
                break
            if self._inside() and self("list-units", code=None).returncode == 0:
                return
            time.sleep(0.05)
        self.close()
        raise CannotBoot(self.log.read_text(encoding="utf-8"))

    def _inside(self):
        """Process 1 there, as it is called here."""
        children = f"/proc/{self.outer.pid}/task/{self.outer.pid}/children"
        return pathlib.Path(children).read_text(encoding="ascii").split()

    def run(self, *command, code=0):
        done = subprocess.run(["nsenter", "-t", self._inside()[0], "-m", "-p", "-u", "-i", "-C",
                               *map(str, command)], capture_output=True, timeout=120, check=False,
                              text=True)
        assert code is None or done.returncode == code, f"{done}\n{self.log.read_text()}"
        return done

    def __call__(self, *arguments, code=0):
        return self.run("systemctl", "--no-pager", *arguments, code=code)

    def property(self, unit, name):
        return self("show", "--value", "-p", name, unit).stdout.strip()

    def close(self):
        """With process 1 goes all that it started."""
        self.outer.kill()
        self.outer.wait(timeout=10)
        for _ in range(100):
            if self._remove_groups():
                return
            time.sleep(0.05)

    def _remove_groups(self):
        try:
            for path, _, _ in os.walk(self.group, topdown=False):
                os.rmdir(path)
        except OSError:
            return False
        return True


def boot(folder):
    """A systemd, or (with a warning) what stands in for it: no test depends on this machine's control
    groups."""
    group = control_group()
    try:
        if group:
            return Systemd(folder, group)
        reason = "no control group can be made"
    except CannotBoot as error:
        shutil.rmtree(folder)
        reason = str(error)
    warnings.warn(f"no systemd can be started here: {reason}")
    return StandIn(folder)
