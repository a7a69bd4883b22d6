#!/bin/bash
# Makes a bootable qcow2 image of a root file system, without loop devices and without mounting anything: MBR, a FAT with
# syslinux, kernel and initramfs, and an ext4 that whoever boots it may grow to the disk. Read by debootstrap.sh and dib.sh,
# which are given OUT (file to make) and WORK (folder).

SECTOR_BYTES=512
BOOT_START_MIB=1
BOOT_MIB=160                      # kernel and initramfs; twice what they take today
MBR=/usr/lib/syslinux/mbr/mbr.bin

say() { echo "[$(date -u +%H:%M:%S)] $*"; }

need() { # PROGRAM PACKAGE
    command -v "$1" >/dev/null || { echo "$1 is missing on this machine: apt-get install $2" >&2; exit 2; }
}

need_for_disks() {
    need mke2fs e2fsprogs
    need sfdisk fdisk
    need syslinux syslinux
    need mcopy mtools
    need qemu-img qemu-utils
    [ -f "$MBR" ] || { echo "$MBR is missing on this machine: apt-get install syslinux-common" >&2; exit 2; }
}

write_disk() { # ROOT MIB
    local root=$1 mib=$2 raw=$WORK/disk.raw boot=$((BOOT_START_MIB * 1024 * 1024)) kernel initramfs
    say "writing the disk"
    kernel=$(find "$root/boot" -maxdepth 1 -name 'vmlinuz-*' | sort -V | tail -n 1)
    # Debian's name, and Fedora's.
    initramfs=$root/boot/initrd.img-${kernel##*/vmlinuz-}
    [ -f "$initramfs" ] || initramfs=$root/boot/initramfs-${kernel##*/vmlinuz-}.img
    if [ -z "$kernel" ] || [ ! -f "$initramfs" ]; then
        echo "there is no kernel with its initramfs in /boot of the image" >&2
        exit 1
    fi
    truncate -s $((BOOT_START_MIB + BOOT_MIB + mib + 1))M "$raw"
    sfdisk --quiet "$raw" <<TABLE
label: dos
start=${BOOT_START_MIB}MiB, size=${BOOT_MIB}MiB, type=e, bootable
start=$((BOOT_START_MIB + BOOT_MIB))MiB, size=${mib}MiB, type=83
TABLE
    dd if="$MBR" of="$raw" bs=440 count=1 conv=notrunc status=none
    export MTOOLS_SKIP_CHECK=1 MTOOLSRC=/dev/null
    mformat -i "$raw@@$boot" -T $((BOOT_MIB * 1024 * 1024 / SECTOR_BYTES)) -h 255 -s 63 -H $((boot / SECTOR_BYTES)) -v TOCIBOOT ::
    mcopy -i "$raw@@$boot" "$kernel" ::vmlinuz
    mcopy -i "$raw@@$boot" "$initramfs" ::initrd
    mcopy -i "$raw@@$boot" - ::syslinux.cfg <<SYSLINUX
SERIAL 0 115200
DEFAULT node
PROMPT 0
LABEL node
  KERNEL vmlinuz
  INITRD initrd
  APPEND root=LABEL=toci-root ro net.ifnames=0 console=tty0 console=ttyS0,115200 quiet systemd.show_status=true panic=5
SYSLINUX
    syslinux --offset "$boot" --install "$raw"
    mke2fs -q -t ext4 -L toci-root -E "offset=$(((BOOT_START_MIB + BOOT_MIB) * 1024 * 1024))" -d "$root" "$raw" "${mib}M"
    say "compressing holes away"
    qemu-img convert -q -f raw -O qcow2 "$raw" "$OUT"
    say "done: $(du -h "$OUT" | cut -f1)"
}
