#!/usr/bin/env bash
# Measures fetch, import and verify against what a user would type instead: see bench.py.
#
#     sudo tests/run.sh bench [MEGABYTES [ROUNDS]]
#     sudo tests/bench/run.sh fetch|host|compact [MEGABYTES [ROUNDS]]      one part alone
#
# MEGABYTES (default 640) go into the image before compression: about 200 MB as qcow2 come out. What is
# measured of compact bundles has images of its own, which images.sh makes when they are not there.
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
case " $* " in
    *" fetch "* | *" host "*) ;;
    *) tests/bench/images.sh ;;
esac
export PYTHONDONTWRITEBYTECODE=1 UVMIRROR=$PWD/$build/cmd/uvmirror UVMIRROR_BUILDS
UVMIRROR_BUILDS=$(cache_dir)/builds
tests/lib/sandbox.sh /usr/bin/python3 tests/bench/bench.py "$@"
tests/lib/sandbox.sh /usr/bin/python3 tests/bench/scale.py
