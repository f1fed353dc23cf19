#!/usr/bin/python3
"""Runs each step of the job with uvmirror and with the tools that a user has without it, in turns on
the same machine and the same image, and prints the ratio of the medians. Nothing is asserted: a
machine may be busy. Runs in tests/lib/sandbox.sh, which tests/bench/run.sh starts."""

import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS / "lib"), str(TESTS / "integration")]

# pylint: disable=wrong-import-position
import hypervisor  # noqa: E402
import uvtool_view  # noqa: E402
from keys import Key  # noqa: E402
from sample_mirror import INDEX_PATH, PRODUCT, PRODUCTS_PATH, SampleMirror  # noqa: E402
from web import Web  # noqa: E402

VERSION = "20241004"
MEGABYTE = 1 << 20
MEMORY_GOAL = 96  # MiB
UVMIRROR = os.environ.get("UVMIRROR", "uvmirror")


def shell(script, **variables):
    """Runs a script as a user would type it."""
    env = dict(os.environ, **{name: str(value) for name, value in variables.items()})
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], env=env, check=True,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


class Bench:
    def __init__(self, megabytes):
        self.work = pathlib.Path(os.environ["UVMIRROR_SANDBOX"]) / "bench"
        self.work.mkdir()
        self.image = self._make_image(megabytes)
        self.vendor = Key(self.work / "vendor", "Vendor <vendor@example.org>")
        self.vendor_keyring = self.vendor.export(self.work / "vendor.gpg")
        self.state = self.work / "site"
        self.site = Key(self.state / "gnupg", "Site <site@example.org>")
        self.site_keyring = self.site.export(self.work / "site.gpg")
        mirror = SampleMirror(self.work / "source", self.vendor)
        self.path = mirror.add_image(VERSION, self.image)["path"]
        mirror.write()
        self.web = Web(self.work / "nginx", mirror.root)
        self.host = hypervisor.Hypervisor(self.work)
        self.name = uvtool_view.encode(PRODUCT, VERSION)
        self.bundle = self.work / "bundle.tar.zst"
        self.peak = {}

    def _make_image(self, megabytes):
        """What a cloud image is made of: programs and their files, packed with deflate; and holes."""
        raw, image = self.work / "disk.raw", self.work / "disk.qcow2"
        shell('''{ tar -c -C / usr/bin usr/lib usr/share 2>/dev/null || true
                   openssl enc -aes-128-ctr -pass pass:x -nosalt -pbkdf2 -in /dev/zero 2>/dev/null
                 } | head -c "$SIZE" >"$RAW" || true
                 truncate -s 2G "$RAW"
                 qemu-img convert -c -f raw -O qcow2 "$RAW" "$IMAGE"
                 rm "$RAW"''', SIZE=megabytes * MEGABYTE, RAW=raw, IMAGE=image)
        return image

    def uvmirror(self, *args):
        """Runs it, keeps its peak memory and returns seconds."""
        report = self.work / "time"
        subprocess.run(["/usr/bin/time", "-f", "%M", "-o", report, UVMIRROR, *map(str, args)],
                       check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        kilobytes = int(report.read_text().split()[-1])
        self.peak[args[0]] = max(self.peak.get(args[0], 0), kilobytes / 1024)

    # ---- the steps: generators that prepare up to `yield`, and do what is measured behind it

    def fetch(self):
        shutil.rmtree(self.work / "mirror", ignore_errors=True)
        self.bundle.unlink(missing_ok=True)
        yield
        self.uvmirror("fetch", "--quiet", "--source", self.web.url, "--keyring", self.vendor_keyring,
                      "--mirror", self.work / "mirror", "--state-dir", self.state, "-o", self.bundle,
                      "release=noble", "arch=amd64")

    def fetch_by_hand(self):
        folder = self._empty_folder("by-hand")
        for suffix in ("", ".sig"):
            pathlib.Path(f"{folder}.tar.zst{suffix}").unlink(missing_ok=True)
        yield
        shell('''cd "$FOLDER"
                 for path in $PATHS; do curl -sSf --create-dirs -o "$path" "$URL$path"; done
                 sha256sum $PATHS
                 tar -c . | zstd -q -T0 -3 -o ../by-hand.tar.zst
                 gpg --homedir "$KEY" --batch --detach-sign ../by-hand.tar.zst''',
              FOLDER=folder, URL=self.web.url, KEY=self.state / "gnupg",
              PATHS=f"{INDEX_PATH}.sjson {PRODUCTS_PATH}.sjson {self.path}")

    def import_bundle(self):
        self._empty_host()
        yield
        self.uvmirror("import", "--quiet", "--keyring", self.site_keyring, self.bundle)

    def import_by_hand(self):
        self._empty_host()
        folder = self._empty_folder("unpacked")
        yield
        shell('''cd "$FOLDER"
                 gpg --homedir "$KEY" --batch --verify ../by-hand.tar.zst.sig ../by-hand.tar.zst
                 tar --zstd -xf ../by-hand.tar.zst
                 sha256sum "$IMAGE"
                 qemu-img convert -O qcow2 "$IMAGE" disk
                 virsh -q vol-create-as uvtool "$NAME" 0 --format qcow2
                 virsh -q vol-upload "$NAME" disk --pool uvtool''',
              FOLDER=folder, KEY=self.state / "gnupg", IMAGE=self.path, NAME=self.name)

    def verify(self):
        yield
        self.uvmirror("verify", "--quiet", "--keyring", self.site_keyring, self.bundle)

    def verify_by_hand(self):
        yield
        shell('openssl dgst -sha256 "$IMAGE"', IMAGE=self.image)

    def _empty_folder(self, name):
        shutil.rmtree(self.work / name, ignore_errors=True)
        (self.work / name).mkdir()
        return self.work / name

    def _empty_host(self):
        for pool in self.host.pools():
            for volume in self.host.volumes(pool):
                self.host.pool(pool).storageVolLookupByName(volume).delete(0)
        for folder in (hypervisor.METADATA, hypervisor.STATE):
            hypervisor.empty(folder)


def seconds(step):
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


def main():
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 640
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    bench = Bench(megabytes)
    bench.host.make_uvtool_pool()
    size = bench.image.stat().st_size
    print(f"\nimage: {size / 1e6:.0f} MB as qcow2, {megabytes} MiB in it; medians of {rounds}; "
          f"{os.cpu_count()} CPUs\n")
    print("step      uvmirror   by hand   ratio    goal    peak memory     goal", flush=True)
    # Each step finds what the one before it made.
    for name, goal, ours, by_hand in (
            ("fetch", 0.5, bench.fetch, bench.fetch_by_hand),
            ("import", 0.6, bench.import_bundle, bench.import_by_hand),
            ("verify", 1.2, bench.verify, bench.verify_by_hand)):
        fast, slow = medians(rounds, ours, by_hand)
        print(f"{name:8} {fast:7.2f} s {slow:7.2f} s {fast / slow:7.2f}  <= {goal:3.1f} "
              f"{bench.peak[name]:10.0f} MiB    <= {MEMORY_GOAL}", flush=True)
    bench.web.close()


if __name__ == "__main__":
    main()
