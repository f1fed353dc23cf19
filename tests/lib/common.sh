# shellcheck shell=bash
# Sourced by the scripts of tests/ and by docs/quickstart.sh: messages, temporary folders, cleanup.

say() {
    printf '%s\n' "$*"
}

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

need_root() {
    [ "$(id -u)" -eq 0 ] || die "needs root: a mount namespace with its own libvirtd (try: sudo $0)"
}

# Commands that run when the script ends, last one first, however it ends.
exit_commands=()

at_exit() {
    exit_commands=("$*" "${exit_commands[@]}")
}

run_exit_commands() {
    local command
    for command in "${exit_commands[@]}"; do
        eval "$command" || true
    done
}

trap run_exit_commands EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Makes a temporary folder that goes with the script, and puts its name into the variable $1. Others
# may enter it: QEMU runs as a user of its own.
make_temp() {
    local made
    made=$(mktemp -d "${TMPDIR:-/tmp}/uvm.XXXXXX")
    chmod 0755 "$made"
    at_exit "rm -rf --one-file-system -- '$made'"
    printf -v "$1" '%s' "$made"
}

# Where things that are slow to make outlive a run: a kernel, the sample images, QEMU's capabilities.
cache_dir() {
    printf '%s\n' "${UVMIRROR_TEST_CACHE:-/var/cache/uvmirror-tests}"
}
