"""What the benches share: the two ways to run something, medians, and the table that is printed."""

import os
import pathlib
import statistics
import subprocess
import time

MEGABYTE, MEGA = 1 << 20, 1e6
UVMIRROR = os.environ.get("UVMIRROR", "uvmirror")


def shell(script, **variables):
    """Runs a script as a user would type it."""
    env = dict(os.environ, **{name: str(value) for name, value in variables.items()})
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], env=env, check=True,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


class Meter:
    """Runs uvmirror and keeps its peak memory, in MiB, and the seconds of all CPUs that the last run
    took."""

    def __init__(self, work):
        self.report = pathlib.Path(work) / "time"
        self.peak = self.cpu = 0

    def __call__(self, *args, code=0):
        done = subprocess.run(["/usr/bin/time", "-q", "-f", "%M %U %S", "-o", self.report, UVMIRROR,
                               *map(str, args)], check=False, stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert done.returncode == code, done.stderr.decode(errors="replace")
        peak, user, system = map(float, self.report.read_text().split()[-3:])
        self.peak, self.cpu = max(self.peak, peak / 1024), user + system


def seconds(step):
    """A step is a generator that prepares up to `yield`, and does what is measured behind it."""
    steps = step()
    next(steps)
    os.sync()
    start = time.monotonic()
    for _ in steps:
        pass
    return time.monotonic() - start


def medians(rounds, *steps):
    """The median of each step, measured in turns."""
    times = [[seconds(step) for step in steps] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*times)]


def print_heading():
    print(f"{'step':26} uvmirror   by hand   ratio    goal    peak memory     goal", flush=True)


def compare(name, meter, rounds, goal, memory_goal, ours, by_hand, beside=None):
    """A row of the table, and one for each step of `beside` ({name: step}), with the ratio to it."""
    beside = beside or {}
    meter.peak = 0
    fast, slow, *others = medians(rounds, ours, by_hand, *beside.values())
    print(f"{name:26} {fast:6.2f} s  {slow:6.2f} s {fast / slow:7.2f}  <= {goal:<4g} "
          f"{meter.peak:9.0f} MiB    <= {memory_goal}", flush=True)
    for other, time_of in zip(beside, others):
        print(f"  {other:24} {'':8}  {time_of:6.2f} s {fast / time_of:7.2f}", flush=True)


def measure(name, meter, step):
    """A row for what nobody does by hand."""
    meter.peak = 0
    print(f"{name:26} {seconds(step):6.2f} s {'':31} {meter.peak:7.0f} MiB", flush=True)


def make_image(work, megabytes):
    """What a cloud image is made of: programs and their files, packed with deflate; and holes."""
    raw, image = work / "disk.raw", work / "disk.qcow2"
    shell('''{ tar -c -C / usr/bin usr/lib usr/share 2>/dev/null || true
               openssl enc -aes-128-ctr -pass pass:x -nosalt -pbkdf2 -in /dev/zero 2>/dev/null
             } | head -c "$SIZE" >"$RAW" || true
             truncate -s 2G "$RAW"
             qemu-img convert -c -f raw -O qcow2 "$RAW" "$IMAGE"
             rm "$RAW"''', SIZE=megabytes * MEGABYTE, RAW=raw, IMAGE=image)
    return image
