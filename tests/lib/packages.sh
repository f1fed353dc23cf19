# shellcheck shell=bash
# shellcheck disable=SC2034  # whoever sources this uses the lists
# Sourced after common.sh: which Debian or Ubuntu packages each job needs, and how they get there.
# A name with '?' at its end is installed where the distribution has it.

# To build uvmirror.
packages_build=(
    gcc libc6-dev meson ninja-build pkg-config
    libarchive-dev libcurl4-openssl-dev libgpgme-dev libinih-dev libjansson-dev libpcre2-dev
    libssl-dev libvirt-dev libxml2-dev libzstd-dev zlib1g-dev
)

# To run it: gpg; and a host with libvirt and QEMU to import into.
packages_host=(
    gnupg python3
    dnsmasq-base libvirt-clients libvirt-daemon-system 'libvirt-daemon-driver-qemu?'
    qemu-system-x86 qemu-utils
)

# To make the sample image.
packages_sample=(busybox-static dosfstools mtools openssl syslinux syslinux-common xz-utils zstd)

packages_unit=(libcmocka-dev qemu-utils)

packages_style=(clang clang-format codespell mandoc shellcheck)

packages_fuzz=(clang)

packages_integration=(
    curl dbus dosfstools e2fsprogs faketime fuse3 fusefat nginx-light openssl procps python3-fusepy
    python3-libvirt python3-pytest strace systemd tar
)

packages_bench=(busybox-static curl nginx-light openssl python3-libvirt tar time zstd)

# To make the images of tests/bench/images.sh.
packages_images=(busybox-static debootstrap e2fsprogs qemu-utils xz-utils zstd)

package_installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Prints those of the given names that are not installed.
packages_missing() {
    local name
    for name; do
        package_installed "${name%\?}" || printf '%s\n' "$name"
    done
}

# Of the given names, those that apt can install; a name that must be there stays even if unknown, so
# that apt's own message names it.
packages_available() {
    local name
    for name; do
        case $name in
            *\?) apt-cache show "${name%\?}" >/dev/null 2>&1 && printf '%s\n' "${name%\?}" ;;
            *) printf '%s\n' "$name" ;;
        esac
    done
    return 0
}

# While packages are installed here, their services are not started: this machine's libvirt and web
# server are none of our business.
hold_services() {
    local policy=/usr/sbin/policy-rc.d
    [ ! -e "$policy" ] || return 0
    at_exit "rm -f $policy"
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 0755 "$policy"
}

# Installs what is missing of the given packages.
install_packages() {
    local missing wanted
    mapfile -t missing < <(packages_missing "$@")
    # Optional names that this distribution does not have are always missing: no reason for apt.
    mapfile -t wanted < <(packages_available "${missing[@]}")
    [ "${#wanted[@]}" -gt 0 ] || return 0

    [ "$(id -u)" -eq 0 ] || die "these packages are missing: ${wanted[*]}"
    command -v apt-get >/dev/null ||
        die "needs Debian or Ubuntu (apt-get), or these packages by hand: ${wanted[*]}"
    say "Installing: ${wanted[*]}"
    hold_services
    apt_quietly update
    mapfile -t wanted < <(packages_available "${missing[@]}")
    apt_quietly install -y --no-install-recommends "${wanted[@]}"
}

clang_has_libfuzzer() {
    echo 'int LLVMFuzzerTestOneInput(void); int LLVMFuzzerTestOneInput(void) { return 0; }' |
        clang -fsanitize=fuzzer,address -x c -o /dev/null - 2>/dev/null
}

# libFuzzer stands in a package of its own, named after clang's version (libclang-rt-14-dev); older
# distributions have it in clang's.
install_libfuzzer() {
    clang_has_libfuzzer || install_packages "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev"
}

# Says nothing unless it fails.
apt_quietly() {
    local output
    output=$(DEBIAN_FRONTEND=noninteractive apt-get -q=2 -o Dpkg::Use-Pty=0 "$@" </dev/null 2>&1) || {
        printf '%s\n' "$output" | tail -n 40 >&2
        die "apt-get $1 failed"
    }
}
