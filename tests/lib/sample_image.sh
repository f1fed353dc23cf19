#!/usr/bin/env bash
# Makes a small Linux that boots from disk by itself, as a compressed qcow2 like the vendor's:
#
#     tests/lib/sample_image.sh VERSION OUTPUT
#
# The disk is one FAT file system without partitions: syslinux, a distribution's kernel, an initramfs
# of busybox and the virtio modules. Nothing is mounted and no kernel is installed. The guest checks
# that its disk can be written, says so on its serial console and stays up:
#
#     uvmirror sample 20241004: guest is up, boot 1
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/kernel.sh"

disk_bytes=$((48 << 20))
mark_offset=$((disk_bytes - 512)) # the last sector, behind the file system, counts the boots
modules=(virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk)

# Puts the kernel and the modules into a folder of the cache: $1/vmlinuz, $1/*.ko
fetch_kernel() {
    local to=$1 temp
    make_temp temp
    unpack_kernel "$temp/files"
    collect_kernel "$temp/files" "$temp/kernel"
    rm -rf "$to"
    mv "$temp/kernel" "$to"
}

# Modules that the kernel has built in are no files.
collect_kernel() {
    local files=$1 to=$2 module found
    mkdir -p "$to"
    cp "$files"/boot/vmlinuz-* "$to/vmlinuz"
    for module in "${modules[@]}"; do
        found=$(find "$files" -name "$module.ko*" -print -quit)
        case $found in
            *.ko) cp "$found" "$to/$module.ko" ;;
            *.xz) xz -dc "$found" >"$to/$module.ko" ;;
            *.zst) zstd -qdc "$found" >"$to/$module.ko" ;;
        esac
    done
}

# The guest's first and only program.
write_init() {
    cat <<END
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
for module in ${modules[*]}; do
    [ ! -e /\$module.ko ] || insmod /\$module.ko
done
while [ ! -b /dev/vda ]; do sleep 0.1; done

boots=\$(dd if=/dev/vda bs=512 skip=$((mark_offset / 512)) count=1 2>/dev/null | tr -dc 0-9)
boots=\$((\${boots:-0} + 1))
printf '%-512s' \$boots | dd of=/dev/vda bs=512 seek=$((mark_offset / 512)) conv=fsync 2>/dev/null
echo 3 >/proc/sys/vm/drop_caches
now=\$(dd if=/dev/vda bs=512 skip=$((mark_offset / 512)) count=1 2>/dev/null | tr -dc 0-9)
if [ "\$now" = "\$boots" ]; then
    echo "uvmirror sample $version: guest is up, boot \$boots" >/dev/ttyS0
else
    echo "uvmirror sample $version: the disk cannot be written" >/dev/ttyS0
fi
while true; do sleep 3600; done
END
}

make_initramfs() {
    local root=$1
    mkdir -p "$root"/{bin,dev,proc}
    cp "$(command -v busybox)" "$root/bin/busybox"
    find "$kernel" -name '*.ko' -exec cp -t "$root" {} +
    write_init >"$root/init"
    chmod 0755 "$root/init"
    (cd "$root" && find . | LC_ALL=C sort | busybox cpio -o -H newc -R 0:0 2>/dev/null | gzip -9n)
}

# Something that differs from version to version and that compresses about half, as real content does.
make_payload() {
    head -c $((3 << 20)) /dev/zero |
        openssl enc -aes-128-ctr -pass "pass:$version" -nosalt -pbkdf2
    seq -f "version $version, line %.0f" 1 100000
}

make_disk() {
    local disk=$1 files=$2
    truncate -s $((disk_bytes - 1024)) "$disk"
    mkfs.vfat -n SAMPLE -i "$version" "$disk" >/dev/null
    mcopy -i "$disk" "$files"/* ::/
    syslinux --install "$disk"
    truncate -s "$disk_bytes" "$disk"
}

make_image() {
    local temp
    make_temp temp
    mkdir "$temp/files"
    cp "$kernel/vmlinuz" "$temp/files/vmlinuz"
    make_initramfs "$temp/root" >"$temp/files/initrd"
    make_payload >"$temp/files/payload"
    cat >"$temp/files/syslinux.cfg" <<'END'
DEFAULT linux
PROMPT 0
LABEL linux
    LINUX vmlinuz
    INITRD initrd
    APPEND console=ttyS0 quiet panic=-1 tsc=unstable mitigations=off
END
    make_disk "$temp/disk" "$temp/files"
    qemu-img convert -c -f raw -O qcow2 "$temp/disk" "$temp/image"
    cp "$temp/image" "$output.part"
    mv "$output.part" "$output"
}

[ $# -eq 2 ] || die "usage: ${0##*/} VERSION OUTPUT"
version=$1 output=$2
[ "$(uname -m)" = x86_64 ] || die "the sample image boots on x86-64 only"
kernel=$(cache_dir)/kernel
[ -e "$kernel/vmlinuz" ] || fetch_kernel "$kernel"
make_image
