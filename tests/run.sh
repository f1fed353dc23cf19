#!/usr/bin/env bash
# Runs the tests, and installs what they need before.
#
#     sudo tests/run.sh                        everything but `bench`, `fuzz` and `long`
#     sudo tests/run.sh PART...                unit, style, integration, long, fuzz, bench
#     sudo tests/run.sh integration -k NAME    arguments behind the parts go to pytest
#     sudo tests/run.sh fuzz [SECONDS]         each target, with clang and libFuzzer; 60 unless told
#
# The last line is "N passed, N failed, N skipped". The exit status is not 0 when anything failed, or
# (with CI=true) when anything was skipped. The tests touch nothing of the machine's own libvirt: see
# tests/lib/sandbox.sh. What is slow to make is kept in /var/cache/uvmirror-tests
# ($UVMIRROR_TEST_CACHE).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tests/lib/common.sh
. tests/lib/build.sh
. tests/lib/packages.sh
. tests/lib/samples.sh

exec </dev/null
export PYTHONDONTWRITEBYTECODE=1
build=build/tests

passed=0 failed=0 skipped=0

count() {
    passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
}

headline() {
    printf '\n== %s\n' "$*"
}

# A check that counts as one test: its output is shown when it fails.
check() {
    local name=$1 output
    shift
    if output=$("$@" 2>&1); then
        say "ok      $name"
        count 1 0 0
    else
        printf '%s\n' "$output" | tail -n 60
        say "FAILED  $name"
        count 0 1 0
        return 1
    fi
}

# ---- building -----------------------------------------------------------------------------------

build_tests() {
    headline "build with sanitizers"
    give_build_back
    check "build" build_in "$build" -Db_sanitize=address,undefined -Db_lundef=false -Dwerror=true
}

# tests/fuzz/meson.build makes fuzzers where the compiler prepares for them.
build_fuzzers() {
    [ -e "$1/build.ninja" ] ||
        CC=clang meson setup "$1" -Db_sanitize=address,undefined -Db_lundef=false \
            -Dc_args="-fsanitize=fuzzer-no-link -fno-sanitize-recover=undefined"
    ninja -C "$1" fuzzers
}

# ---- the parts ----------------------------------------------------------------------------------

run_unit() {
    headline "unit tests"
    local log=$build/meson-logs/testlog.json counts status=0
    rm -f "$log"
    CMOCKA_MESSAGE_OUTPUT=TAP meson test -C "$build" --suite unit --no-rebuild --print-errorlogs ||
        status=1
    counts=$(tests/lib/unit_results.py "$log") || counts="0 1 0"
    [ "$status" -eq 0 ] || say "(unit tests failed; the whole log: $build/meson-logs/testlog.txt)"
    # It did not come to its end: no result, no success.
    case "$status $counts" in
        "1 "*" 0 "*) counts="0 1 0" ;;
    esac
    # shellcheck disable=SC2086  # three numbers
    count $counts
}

shell_scripts() {
    find tests docs -name '*.sh'
    echo .ci/run
}

run_style() {
    headline "style"
    local scripts
    mapfile -t scripts < <(shell_scripts)
    check "the arrows between the folders" tests/style/layers.sh || true
    check "no banned functions" tests/style/banned.sh || true
    check "shellcheck" shellcheck -x "${scripts[@]}" || true
    check "spelling" codespell -q 3 -L fpr,nd,ot README.md cmd mirror bundle pool tests docs || true
    check "manual pages" lint_manuals || true
    check "clang builds it without a warning" tests/style/clang.sh || true
}

lint_manuals() {
    local pages
    mapfile -t pages < <(find "$build/docs" -name "*.[15]")
    mandoc -T lint -W warning "${pages[@]}"
}

# pytest in the sandbox; $1 is the marker expression, the rest goes to pytest.
run_pytest() {
    local marker=$1 log=$build/pytest.log samples status=0
    shift
    prepare_samples samples
    UVMIRROR=$PWD/$build/cmd/uvmirror UVMIRROR_SAMPLES=$samples tests/lib/sandbox.sh \
        /usr/bin/python3 -m pytest -p no:cacheprovider -ra --durations=10 -m "$marker" \
        tests/integration "$@" 2>&1 | tee "$log" || status=$?
    count_pytest "$log" "$status"
}

# pytest's last line: "==== 1 failed, 12 passed, 2 skipped in 34.56s ===="
count_pytest() {
    local log=$1 status=$2 last
    last=$(tail -n 1 "$log")
    number_of() {
        grep -oE "[0-9]+ $1" <<<"$last" | grep -oE '[0-9]+' || echo 0
    }
    local bad=$(($(number_of failed) + $(number_of error)))
    # It did not come to its end, or no test has such a name.
    [ "$status" -eq 0 ] || [ "$bad" -gt 0 ] || bad=1
    count "$(number_of passed)" "$bad" "$(number_of skipped)"
}

# What the README promises first; its last list must show the image.
quickstart() {
    local log=$build/quickstart.log status=0
    docs/quickstart.sh >"$log" 2>&1 || status=1
    cat "$log"
    [ "$status" -eq 0 ] && grep -q ' ready ' "$log"
}

run_integration() {
    headline "integration tests"
    run_pytest "not long" "$@"
    # Who chose tests by name wants no others.
    [ $# -gt 0 ] || check "the quickstart" quickstart || true
}

# What is measured must not be a sanitizer's.
run_long() {
    headline "long integration tests"
    check "build without sanitizers" build_in build/release --buildtype=release || return 0
    export UVMIRROR_RELEASE=$PWD/build/release/cmd/uvmirror
    run_pytest "long" "$@"
    [ $# -eq 0 ] || return 0
    check "every bit of a bundle" \
        env UVM_TEST_THOROUGH=1 "$build/tests/unit/test_bundle_damage" || true
    run_fuzz 60
}

# Every target looks for inputs that break it. What it finds on the way is kept in build/fuzz/found, where
# the next run goes on; what broke something, in build/fuzz/broken.
run_fuzz() {
    headline "fuzzing with libFuzzer"
    local seconds=${1:-60} folder=build/fuzz targets target TMPDIR
    install_libfuzzer
    give_build_back
    check "build for libFuzzer" build_fuzzers "$folder" || return 0
    make_temp TMPDIR
    export TMPDIR
    mapfile -t targets < <(ls tests/fuzz/corpus)
    for target in "${targets[@]}"; do
        mkdir -p "$folder/found/$target" "$folder/broken"
        check "fuzz $target" "$folder/tests/fuzz/fuzz_$target" -max_total_time="$seconds" \
            -max_len=4096 -verbosity=0 -artifact_prefix="$folder/broken/$target-" \
            "$folder/found/$target" "tests/fuzz/corpus/$target" || true
    done
}

run_bench() {
    headline "bench"
    tests/bench/run.sh "$@"
}

# ---- what to run --------------------------------------------------------------------------------

packages_of() {
    case $1 in
        unit) printf '%s\n' "${packages_unit[@]}" ;;
        style) printf '%s\n' "${packages_style[@]}" "${packages_unit[@]}" ;;
        fuzz) printf '%s\n' "${packages_fuzz[@]}" ;;
        bench) printf '%s\n' "${packages_host[@]}" "${packages_bench[@]}" ;;
        integration | long)
            printf '%s\n' "${packages_host[@]}" "${packages_sample[@]}" "${packages_integration[@]}"
            [ "$1" != long ] || packages_of fuzz
            ;;
    esac
}

parts=()
while [ $# -gt 0 ]; do
    case $1 in
        unit | style | integration | long | fuzz | bench) parts+=("$1") ;;
        -h | --help)
            sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' tests/run.sh
            exit 0
            ;;
        -* | [0-9]*) break ;;
        *) die "no such part: $1 (unit, style, integration, long, fuzz, bench)" ;;
    esac
    shift
done
[ "${#parts[@]}" -gt 0 ] || parts=(unit style integration)

packages=("${packages_build[@]}")
for part in "${parts[@]}"; do
    mapfile -t -O "${#packages[@]}" packages < <(packages_of "$part")
done
install_packages "${packages[@]}"

# Some build for themselves.
case ${parts[*]} in
    bench | fuzz) built=true ;;
    *) build_tests && built=true || built=false ;;
esac
if "$built"; then
    for part in "${parts[@]}"; do
        "run_$part" "$@"
    done
fi

printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" -eq 0 ] || exit 1
[ "${CI:-}" != true ] || [ "$skipped" -eq 0 ] || exit 1
