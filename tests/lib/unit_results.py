#!/usr/bin/python3
"""Counts the single cmocka tests of a meson test run: unit_results.py testlog.json
Prints "PASSED FAILED SKIPPED". A program that ended badly without a failed test counts as one."""

import json
import re
import sys


def count(entry):
    text = entry.get("stdout", "")
    # cmocka says "not ok 1 # SKIP name" of a skipped test, newer ones "ok 1 # SKIP name".
    skipped = len(re.findall(r"^(?:not )?ok \d+.*# SKIP", text, re.M))
    passed = len(re.findall(r"^ok \d+(?!.*# SKIP)", text, re.M))
    failed = len(re.findall(r"^not ok \d+(?!.*# SKIP)", text, re.M))
    if entry["result"] in ("SKIP",):
        return 0, 0, max(skipped, 1)
    if entry["result"] not in ("OK", "EXPECTEDFAIL"):
        failed = max(failed, 1)
    elif passed + failed + skipped == 0:
        passed = 1
    return passed, failed, skipped


def main():
    with open(sys.argv[1], encoding="utf-8") as log:
        counts = [count(json.loads(line)) for line in log if line.strip()]
    print(*(map(sum, zip(*counts)) if counts else (0, 0, 0)))


if __name__ == "__main__":
    main()
