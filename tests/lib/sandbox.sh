#!/usr/bin/env bash
# Runs a command on a hypervisor of its own: a real libvirtd that has nothing to do with the machine's.
#
#     tests/lib/sandbox.sh COMMAND [ARGUMENT...]
#
# The command, libvirtd and every guest live in private namespaces:
#
#     mount    temporary folders stand over /etc/libvirt, /var/lib/libvirt, /var/lib/uvtool, ...
#     network  loopback only: no port can collide, nothing can reach the outside
#     process  when the command ends, the kernel ends everything that it left behind
#
# On the machine itself nothing changes but for empty folders to mount over, where they are missing;
# the last sandbox that ends takes them away again. The command finds its temporary folder in
# $UVMIRROR_SANDBOX.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# What the command and libvirtd may write to.
private_dirs=(
    /run/libvirt /run/dbus /etc/libvirt /etc/uvmirror
    /var/lib/libvirt /var/lib/uvtool /var/lib/uvmirror /var/log/libvirt
)

# Mount points that a sandbox made stand in this file; it is also the lock that counts sandboxes.
mount_points_file=/run/lock/uvmirror-sandbox

make_mount_points() {
    local dir
    mkdir -p "${mount_points_file%/*}"
    exec 9>>"$mount_points_file"
    flock -s 9
    for dir in "${private_dirs[@]}" /var/cache/libvirt; do
        if [ ! -e "$dir" ] && mkdir "$dir"; then
            printf '%s\n' "$dir" >&9
        fi
    done
    at_exit remove_mount_points
}

# Removing a folder that another namespace has mounted over would take that mount away, too: only
# the last one cleans up.
remove_mount_points() {
    local dir
    flock -xn 9 || return 0
    while read -r dir; do
        rmdir --ignore-fail-on-non-empty "$dir" || true
    done <"$mount_points_file"
    rm -f "$mount_points_file"
}

outside() {
    local work cache status=0
    need_root
    cache=$(cache_dir)
    mkdir -p "$cache/libvirt"
    make_temp work
    make_mount_points
    unshare --mount --net --pid --fork --kill-child --propagation private --mount-proc \
        "$0" --inside "$work" "$cache" "$@" 9>&- || status=$?
    return "$status"
}

mount_over() {
    local dir
    for dir in "${private_dirs[@]}"; do
        mkdir -p "$work$dir"
        mount --bind "$work$dir" "$dir"
    done
    mount --bind "$cache/libvirt" /var/cache/libvirt
    # Without KVM, libvirt would find what it knows about QEMU "outdated" at every call wherever the
    # user libvirt-qemu may not open /dev/kvm; and TCG is what every machine has.
    if [ -e /dev/kvm ]; then
        : >"$work/kvm"
        chmod 0000 "$work/kvm"
        mount --bind "$work/kvm" /dev/kvm
    fi
}

# No network is defined: the private /etc/libvirt holds these three files and nothing else.
configure_libvirt() {
    cat >/etc/libvirt/libvirtd.conf <<'END'
unix_sock_group = "libvirt"
unix_sock_rw_perms = "0770"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
END
    # Guests join no control group and no AppArmor profile: both belong to the machine.
    cat >/etc/libvirt/qemu.conf <<'END'
namespaces = []
cgroup_controllers = []
cgroup_device_acl = ["/dev/null", "/dev/full", "/dev/zero", "/dev/random", "/dev/urandom", "/dev/ptmx"]
security_driver = "none"
END
    : >/etc/libvirt/virtlogd.conf
}

start_libvirt() {
    virtlogd -d -p "$work/virtlogd.pid"
    libvirtd -d -p "$work/libvirtd.pid"
    local tries
    for tries in {1..300}; do
        ! virsh -q -c qemu:///system version >/dev/null 2>&1 || return 0
        kill -0 "$(cat "$work/libvirtd.pid" 2>/dev/null || echo $$)" || break
        sleep 0.1
    done
    tail -n 5 /var/log/libvirt/libvirtd.log >&2 || true
    die "libvirtd did not come up (tried $tries times)"
}

# This shell is process 1 of its namespace: with it, everything ends.
inside() {
    work=$1 cache=$2
    shift 2
    mount_over
    configure_libvirt
    busybox ip link set lo up
    start_libvirt
    mkdir -m 0700 "$work/home"
    mkdir -m 1777 "$work/tmp"
    # What a killed program leaves in its temporary folder goes with the sandbox.
    export UVMIRROR_SANDBOX=$work HOME=$work/home TMPDIR=$work/tmp
    unset XDG_RUNTIME_DIR XDG_DATA_HOME XDG_CONFIG_HOME XDG_CACHE_HOME GNUPGHOME LIBVIRT_DEFAULT_URI
    unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
    "$@"
}

[ $# -gt 0 ] || die "usage: ${0##*/} COMMAND [ARGUMENT...]"
if [ "$1" = --inside ]; then
    shift
    inside "$@"
else
    outside "$@"
fi
