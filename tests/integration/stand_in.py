"""What stands in for systemd where it cannot be started: a service's commands, run as the unit says and
under the part of the confinement that mount namespaces and capabilities make. It knows the settings of
our own units; what it does not know (the filter of system calls), it does not do."""

import os
import pathlib
import shlex
import subprocess

# Settings that are one value; all others are lists, which an empty one empties.
SINGLE = ("EnvironmentFile", "NoNewPrivileges", "OnCalendar", "ProtectHome", "ProtectSystem",
          "StandardError", "Type", "UMask")

# $1: an empty file, $2: an empty folder, both of mode 0000; $3 and $4: what can be written to and what
# cannot be entered, separated by blanks; behind them the command. "strict" leaves only the kernel's own
# file systems as they are.
CONFINE = """
set -e
nothing=$1 nowhere=$2 writable=$3 inaccessible=$4
shift 4
for path in $writable; do mount --bind "$path" "$path"; done
for path in $inaccessible /home /root /run/user; do
    [ -e "$path" ] || continue
    if [ -d "$path" ]; then mount --bind "$nowhere" "$path"; else mount --bind "$nothing" "$path"; fi
done
findmnt -rno TARGET,VFS-OPTIONS | while read -r target options; do
    case " $writable " in *" $target "*) continue ;; esac
    case $target/ in /proc/* | /sys/* | /dev/*) continue ;; esac
    mount -o "remount,bind,$options,ro" "$target"
done
mount -t tmpfs -o mode=1777 tmpfs /var/tmp
mount -t tmpfs -o mode=1777 tmpfs /tmp
cd /
exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs "$@"
"""


def parse(paths):
    """{setting: its value or values} of a unit and its drop-ins, in their order."""
    settings = {}
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            name, equals, value = line.partition("=")
            if not equals or line.startswith(("#", ";", "[")):
                continue
            if name in SINGLE:
                settings[name] = value
            elif value:
                settings.setdefault(name, []).append(value)
            else:
                settings[name] = []
    return settings


def assignments(lines):
    """{name: value} of lines such as NAME="a value"."""
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {name: " ".join(shlex.split(value)) for name, _, value in pairs}


def expand(command, variables):
    """The words of a command; a variable that is a word of its own becomes as many as it holds."""
    words = []
    for word in shlex.split(command):
        words += shlex.split(variables.get(word[1:], "")) if word.startswith("$") else [word]
    return words


class StandIn:
    """To be used like init_system.Systemd."""

    filters_calls = False

    def __init__(self, folder):
        self.units, self.default, self.log = folder / "units", folder / "default", folder / "log"
        for path in (folder, self.units, self.default):
            path.mkdir()
        self.nothing, self.nowhere = folder / "nothing", folder / "nowhere"
        self.nothing.touch(mode=0o000)
        self.nowhere.mkdir(mode=0o000)
        self.statuses = {}

    def settings(self, unit):
        return parse([self.units / unit, *sorted((self.units / f"{unit}.d").glob("*.conf"))])

    def _environment(self, settings):
        """/etc/default is the one of this test."""
        path = settings["EnvironmentFile"].removeprefix("-")
        path = self.default / pathlib.Path(path).relative_to("/etc/default")
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return {**assignments(settings.get("Environment", [])), **assignments(lines)}

    def _confined(self, settings):
        """The command line in front of the service's own."""
        assert (settings["ProtectSystem"], settings["ProtectHome"]) == ("strict", "yes")
        assert settings["NoNewPrivileges"] == "yes" and settings["CapabilityBoundingSet"] == []
        inaccessible = " ".join(settings["InaccessiblePaths"]).replace("-/", "/")
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", CONFINE, "sh",
                self.nothing, self.nowhere, " ".join(settings["ReadWritePaths"]), inaccessible]

    def _run(self, command, settings):
        """A '+' in front of a command takes the confinement away."""
        variables = self._environment(settings)
        free = command.startswith("+")
        words = expand(command.removeprefix("+"), variables)
        with open(self.log, "ab") as log:
            return subprocess.run(
                [*([] if free else self._confined(settings)), *words], check=False, timeout=120,
                umask=int(settings["UMask"], 8), env={"PATH": os.environ["PATH"], **variables},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log).returncode

    def _start(self, unit):
        settings = self.settings(unit)
        assert settings["Type"] == "oneshot"
        for kind in ("ExecStartPre", "ExecStart", "ExecStartPost"):
            for command in settings.get(kind, []):
                status = self._run(command, settings)
                if kind == "ExecStart":
                    self.statuses[unit] = status
                if status != 0:
                    return 1
        return 0

    def __call__(self, verb, *units, code=0):
        """`start` and `daemon-reload`, of which there is nothing to do."""
        assert verb in ("start", "daemon-reload"), verb
        for unit in units:
            assert self._start(unit) == code, self.log.read_text(encoding="utf-8")

    def property(self, unit, name):
        assert name == "ExecMainStatus"
        return str(self.statuses[unit])

    def close(self):
        """Each command ended on its own."""
