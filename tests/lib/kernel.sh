# shellcheck shell=bash
# Sourced after common.sh: the distribution's kernel for virtual machines, without installing it.

kernel_packages=(linux-image-cloud-amd64 linux-image-virtual linux-image-generic linux-image-amd64)

# The package named "$2<number>..." that package $1 depends on, or nothing.
dependency_of() {
    { apt-cache depends "$1" 2>/dev/null || true; } |
        sed -n "/Depends: $2[0-9]/{s/.*Depends: //p;q}"
}

# The package with a kernel that the first known of the meta packages depends on.
find_kernel_package() {
    local meta package
    for meta in "${kernel_packages[@]}"; do
        package=$(dependency_of "$meta" linux-image-)
        [ -z "$package" ] || break
    done
    printf '%s\n' "$package"
}

# Downloads packages into the present folder, once more with fresh lists when that fails.
download_packages() {
    apt-get -q=2 download "$@" >&2 && return 0
    apt-get -q=2 update >&2 && apt-get -q=2 download "$@" >&2
}

# Puts the files of the kernel and its modules into a new folder: $1/boot, $1/lib/modules
unpack_kernel() {
    local to=$1 temp package module_package deb
    package=$(find_kernel_package)
    if [ -z "$package" ]; then
        apt-get -q=2 update >&2 || true
        package=$(find_kernel_package)
    fi
    [ -n "$package" ] || die "no kernel for an image: apt knows none of ${kernel_packages[*]}"
    module_package=$(dependency_of "$package" linux-modules-)
    make_temp temp
    ! id -u _apt >/dev/null 2>&1 || chown _apt "$temp"
    (cd "$temp" && download_packages "$package" ${module_package:+"$module_package"}) ||
        die "cannot download $package, an image's kernel"
    for deb in "$temp"/*.deb; do
        dpkg-deb -x "$deb" "$to"
    done
    rm "$temp"/*.deb
}
