#!/usr/bin/python3
"""Runs each step of the job with uvmirror and with the tools that a user has without it, in turns on
the same machine and the same images, and prints the ratio of the medians. Nothing is asserted: a
machine may be busy. Runs in tests/lib/sandbox.sh, which tests/bench/run.sh starts."""

import os
import pathlib
import sys

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS / "lib"), str(TESTS / "integration")]

# pylint: disable=wrong-import-position
import compact  # noqa: E402
import fetch  # noqa: E402
import host  # noqa: E402
from tools import MEGA, make_image, print_heading  # noqa: E402

PARTS = {"fetch": fetch, "host": host, "compact": compact}


def main():
    names = [name for name in sys.argv[1:] if name in PARTS] or list(PARTS)
    numbers = [int(number) for number in sys.argv[1:] if number.isdecimal()]
    megabytes, rounds = (*numbers, *(640, 3)[len(numbers):])
    work = pathlib.Path(os.environ["UVMIRROR_SANDBOX"]) / "bench"
    work.mkdir()
    image = None
    print(f"\nmedians of {rounds}; {os.cpu_count()} CPUs")
    if names != ["compact"]:
        image = make_image(work, megabytes)
        print(f"image: {image.stat().st_size / MEGA:.0f} MB as qcow2, {megabytes} MiB in it\n")
        print_heading()
    keys = fetch.Keys(work)
    for name in names:
        PARTS[name].run(work, keys, image, rounds)


if __name__ == "__main__":
    main()
