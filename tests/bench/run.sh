#!/usr/bin/env bash
# Measures fetch, import and verify against what a user would type instead: see bench.py.
#
#     sudo tests/run.sh bench [MEGABYTES [ROUNDS]]
#     sudo tests/bench/run.sh fetch|host [MEGABYTES [ROUNDS]]      one part alone
#
# MEGABYTES (default 640) go into the image before compression: about 200 MB as qcow2 come out.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source-path=SCRIPTDIR/../..
. tests/lib/common.sh
. tests/lib/build.sh

build=build/release

need_root
log=''
make_temp log
give_build_back
build_in "$build" --buildtype=release >"$log/build" 2>&1 || {
    tail -n 30 "$log/build" >&2
    die "the build failed"
}
export PYTHONDONTWRITEBYTECODE=1 UVMIRROR=$PWD/$build/cmd/uvmirror
tests/lib/sandbox.sh /usr/bin/python3 tests/bench/bench.py "$@"
tests/lib/sandbox.sh /usr/bin/python3 tests/bench/scale.py
