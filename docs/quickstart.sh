#!/usr/bin/env bash
# Shows uvmirror's main job on this machine, in two minutes:
#
#     sudo docs/quickstart.sh
#
# A laptop fetches a (sample) image from a signed mirror into a bundle on a stick; a hypervisor
# without network imports it and boots a guest from it. Both are played in private namespaces with a
# libvirtd of their own: nothing of this machine's libvirt is touched, and everything is gone at the
# end, but for packages that were missing, build/release and a cache in /var/cache/uvmirror-tests.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$top"
# shellcheck source-path=SCRIPTDIR/..
. tests/lib/common.sh
. tests/lib/build.sh
. tests/lib/packages.sh
. tests/lib/samples.sh

build=build/release
console=/var/log/libvirt/web1.log # of the sandbox
vendor_url=http://127.0.0.1:8099/

# ---- outside: what is needed ----------------------------------------------------------------------

prepare() {
    local log
    need_root
    install_packages "${packages_build[@]}" "${packages_host[@]}" "${packages_sample[@]}"
    make_temp log
    say "Building uvmirror in $build ..."
    give_build_back
    build_in "$build" --buildtype=release >"$log/build" 2>&1 || {
        tail -n 30 "$log/build" >&2
        die "the build failed"
    }
    say "Making the sample image ..."
    prepare_samples samples
}

# ---- the scene ------------------------------------------------------------------------------------

# Colours on a terminal only.
bold='' cyan='' plain=''
if [ -t 1 ]; then
    bold=$'\033[1m' cyan=$'\033[36m' plain=$'\033[0m'
fi

headline() {
    printf '\n%s--- %s%s\n' "$bold" "$*" "$plain"
}

# Everything is in the sandbox's folder: a vendor's web server, a laptop's home, the stick.
set_scene() {
    scene=$UVMIRROR_SANDBOX
    laptop_home=$scene/laptop
    stick=$scene/stick
    mkdir "$laptop_home" "$stick" "$scene/bin"
    install -m 0755 "$top/$build/cmd/uvmirror" "$scene/bin/uvmirror"
    export PATH=$scene/bin:$PATH
    PYTHONDONTWRITEBYTECODE=1 tests/lib/sample_mirror.py --root "$scene/vendor" \
        --gnupg "$scene/vendor-key" --keyring "$laptop_home/vendor.gpg" \
        "${sample_versions[0]}=$samples/${sample_versions[0]}.qcow2"
    chown -R nobody: "$laptop_home" "$stick"
    busybox httpd -f -p "${vendor_url:7:-1}" -h "$scene/vendor" &
    web=$!
}

# Prints a command as a person types it, and runs it with the stick as the present folder.
laptop() {
    printf '\n%slaptop$%s %s\n' "$cyan" "$plain" "$*"
    (cd "$stick" && HOME=$laptop_home setpriv --reuid=nobody --regid="$(id -g nobody)" \
        --clear-groups --no-new-privs bash -c "$*")
}

hypervisor() {
    printf '\n%shypervisor#%s %s\n' "$cyan" "$plain" "$*"
    (cd "$stick" && bash -c "$*" </dev/null) # on a terminal virsh would look for polkit
}

# ---- the play -------------------------------------------------------------------------------------

on_the_laptop() {
    headline "A laptop with network. The present folder is the USB stick."
    laptop "uvmirror key generate"
    laptop "uvmirror key export -o site-key.asc"
    laptop "uvmirror fetch --source $vendor_url \\
            --keyring ~/vendor.gpg -o . release=noble"
    laptop "ls -sh"
    kill "$web"
}

on_the_hypervisor() {
    headline "The hypervisor has no network. The stick is plugged in."
    bundle=$(cd "$stick" && ls -- *.tar.zst)
    hypervisor "uvmirror key trust --yes site-key.asc"
    hypervisor "uvmirror show $bundle"
    hypervisor "uvmirror verify $bundle"
    hypervisor "uvmirror init"
    hypervisor "uvmirror import $bundle"
    hypervisor "uvmirror list"
}

# What `uvt-kvm create web1` does, without uvtool.
boot_a_guest() {
    headline "A guest whose disk is an overlay on the imported image."
    local volume
    volume=$(virsh -q vol-list uvtool </dev/null | awk '/x-uvt-b64-/ { print $1 }')
    write_guest >"$stick/web1.xml"
    hypervisor "virsh -q vol-create-as uvtool web1.qcow 48M --format qcow2 \\
            --backing-vol-format qcow2 --backing-vol \\
            $volume"
    hypervisor "virsh -q create web1.xml"
    wait_for_guest
    hypervisor "cat $console"
    hypervisor "uvmirror list"
}

write_guest() {
    cat <<END
<domain type='qemu'>
  <name>web1</name>
  <memory unit='MiB'>256</memory>
  <os><type arch='x86_64'>hvm</type></os>
  <features><acpi/></features>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='/var/lib/uvtool/libvirt/images/web1.qcow'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <serial type='file'><source path='$console'/></serial>
  </devices>
</domain>
END
}

wait_for_guest() {
    local second
    printf '\n(waiting for the guest'
    for second in {1..120}; do
        if grep -q 'guest is up' "$console" 2>/dev/null; then
            printf ' %s s)\n' "$second"
            return 0
        fi
        printf .
        sleep 1
    done
    printf ')\n'
    die "the guest did not come up in $second seconds"
}

play() {
    set_scene
    on_the_laptop
    on_the_hypervisor
    boot_a_guest
    headline "Done. Guest, pool and daemon go now; README.md says how to go on."
}

if [ "${1:-}" = --play ]; then
    samples=$2
    play
else
    [ $# -eq 0 ] || die "takes no arguments"
    prepare
    tests/lib/sandbox.sh "$top/docs/quickstart.sh" --play "$samples"
fi
