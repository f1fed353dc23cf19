#!/usr/bin/env bash
# Makes what the benches of compact bundles measure with, as compressed qcow2 in the test cache:
#
#     sudo tests/bench/images.sh
#
#     debian-a.qcow2    this distribution's release as it came out (its last point release), with a
#                       kernel, by debootstrap: what a cloud image is made of
#     debian-b.qcow2    the same, made anew, with security and other updates: the next daily build
#     small.qcow2       like CirrOS: a kernel, some of its modules, and busybox
#
# About 170, 170 and 25 MB. The packages come from where the machine's own apt sources say. What is
# there is not made again: to have newer ones, remove it.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR/../lib
. "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
# shellcheck source-path=SCRIPTDIR/../lib
. "$(dirname "${BASH_SOURCE[0]}")/../lib/kernel.sh"
# shellcheck source-path=SCRIPTDIR/../lib
. "$(dirname "${BASH_SOURCE[0]}")/../lib/packages.sh"

disk_size=2G
small_size=112M
# What every vendor's image holds beside the kernel.
contents=(
    ca-certificates cloud-init curl dbus iproute2 less locales netbase openssh-server openssl python3
    sudo systemd-sysv vim-tiny
)
# Of the kernel's modules, what a small system for virtual machines has.
small_modules=(
    drivers/block drivers/net drivers/scsi drivers/virtio fs/{ext4,fat,isofs,jbd2,nls} lib
    net/{core,ipv4,ipv6,packet}
)

# "URI SUITE" of the distribution's own main package indexes that apt has on this machine.
apt_sources() {
    # shellcheck disable=SC2016  # apt expands these
    apt-get indextargets --format '$(ORIGIN) $(COMPONENT) $(REPO_URI) $(RELEASE)' \
        'Created-By: Packages' |
        awk -v id="$id" 'tolower($1) == id && $2 == "main" { print $3, $4 }' | sort -u
}

# Lines for sources.list: the release with each of the endings to its name ("" is the release itself).
sources_list() {
    local ending
    for ending; do
        apt_sources | awk -v suite="$release$ending" '$2 == suite { print "deb", $1, $2, "main" }'
    done
}

# Sets id, release, mirror, and the name of the kernel's package.
look_around() {
    id=$(. /etc/os-release && printf '%s\n' "${ID:-}")
    release=$(. /etc/os-release && printf '%s\n' "${VERSION_CODENAME:-}")
    mirror=$(sources_list "" | awk '{ print $2; exit }')
    [ -n "$mirror" ] ||
        die "apt on this machine knows no packages of its own release '$release' (try: apt-get update)"
    [ -n "$(sources_list -security -updates)" ] ||
        die "apt on this machine has no updates to '$release', which the second build needs"
    for kernel in "${kernel_packages[@]}"; do
        ! apt-cache show "$kernel" >/dev/null 2>&1 || return 0
    done
    die "apt on this machine knows no kernel for virtual machines: ${kernel_packages[*]}"
}

# debootstrap and the apt in the chroot know nothing of this machine's apt.conf.
take_over_proxy() {
    local http='' https=''
    eval "$(apt-config shell http Acquire::http::Proxy https Acquire::https::Proxy)"
    [ -z "$http" ] || export http_proxy=$http
    [ -z "$https" ] || export https_proxy=$https
}

# apt in the chroot $1.
apt_in() {
    local root=$1
    shift
    DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get -q=2 -o Dpkg::Use-Pty=0 "$@" </dev/null
}

# make_tree FOLDER ENDING...: installs the release into the folder, from the sources with these endings.
make_tree() {
    local root=$1
    shift
    debootstrap --variant=minbase "$release" "$root" "$mirror"
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod 0755 "$root/usr/sbin/policy-rc.d"
    sources_list "$@" >"$root/etc/apt/sources.list"
    cat /etc/resolv.conf >"$root/etc/resolv.conf"
    mount -t proc proc "$root/proc"
    mount --bind /dev "$root/dev"
    apt_in "$root" update
    apt_in "$root" dist-upgrade
    apt_in "$root" install --no-install-recommends "$kernel" "${contents[@]}"
    apt_in "$root" clean
    umount "$root/dev" "$root/proc"
    clean_tree "$root"
}

# What a vendor takes out before the image is packed.
clean_tree() {
    local root=$1
    rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/var/log/*.log \
        "$root"/etc/ssh/ssh_host_* "$root"/usr/sbin/policy-rc.d
    : >"$root/etc/resolv.conf"
    : >"$root/etc/machine-id"
}

# pack FOLDER SIZE NAME: the folder as a file system, as a compressed qcow2 in the cache.
pack() {
    local root=$1 size=$2 name=$3
    truncate -s "$size" "$work/disk"
    mkfs.ext4 -q -L root -d "$root" "$work/disk"
    qemu-img convert -c -f raw -O qcow2 "$work/disk" "$cache/$name.part"
    rm "$work/disk"
    mv "$cache/$name.part" "$cache/$name"
}

# make_build NAME ENDING...
make_build() {
    local name=$1
    shift
    [ ! -s "$cache/$name" ] || return 0
    say "making $name: a few minutes"
    make_tree "$work/$name" "$@" >"$work/log" 2>&1 || {
        tail -n 30 "$work/log" >&2
        die "cannot make $name"
    }
    pack "$work/$name" "$disk_size" "$name"
}

# make_root FOLDER: a small system of the kernel, modules and busybox.
make_root() {
    local root=$1 package=$work/kernel modules path
    unpack_kernel "$package"
    mkdir -p "$root"/{bin,boot,dev,etc,proc,sys,tmp,var}
    cp "$(command -v busybox)" "$root/bin/busybox"
    chroot "$root" /bin/busybox --install -s /bin
    modules=$(cd "$package" && echo lib/modules/*/kernel)
    for path in "${small_modules[@]}"; do
        [ -e "$package/$modules/$path" ] || continue # the kernel has it built in
        mkdir -p "$root/$modules/${path%/*}"
        cp -r "$package/$modules/$path" "$root/$modules/$path"
    done
    find "$root/lib" -name '*.zst' -exec zstd -q -d --rm {} +
    find "$root/lib" -name '*.xz' -exec xz -d {} +
    (cd "$root" && find . | LC_ALL=C sort | busybox cpio -o -H newc 2>/dev/null) |
        gzip -9n >"$work/initrd"
    mv "$work/initrd" "$root/boot/initrd"
    cp "$package"/boot/vmlinuz-* "$root/boot/vmlinuz"
}

make_small() {
    [ ! -s "$cache/small.qcow2" ] || return 0
    say "making small.qcow2"
    make_root "$work/root"
    pack "$work/root" "$small_size" small.qcow2
}

need_root
install_packages "${packages_images[@]}"
if [ "${1:-}" != --inside ]; then
    # What is mounted for the builds goes with their namespace, however they end.
    exec unshare --mount --propagation private "$0" --inside
fi
cache=$(cache_dir)/builds
mkdir -p "$cache"
work='' id='' release='' mirror='' kernel=''
make_temp work
look_around
take_over_proxy
make_small
make_build debian-a.qcow2 ""
make_build debian-b.qcow2 "" -updates -security
ls -l "$cache"
