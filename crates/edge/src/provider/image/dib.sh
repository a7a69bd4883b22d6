#!/bin/bash
# Builds a bootable qcow2 image with diskimage-builder: it fills a root file system and hands it over as a tar, and the disk
# is ours (disk.sh), so that neither loop devices nor the device mapper are needed. Runs in mount and pid namespaces of its
# own (see build.rs), so that nothing of it stays when it is killed, and with a /dev of its own: diskimage-builder binds /dev
# into the root, and packages that are installed there change what they find.
#
# Environment: OUT (file to make), WORK (empty folder), ELEMENTS (with spaces), SIZE_MIB (of the root file system; empty: what
# it takes and half as much again), and whatever the elements want.
set -euo pipefail
# shellcheck source=crates/edge/src/provider/image/disk.sh
source "$(dirname "$0")/disk.sh"

need disk-image-create diskimage-builder
need sudo sudo
need_for_disks
for element in $ELEMENTS; do
    case $element in
        vm | bootloader | grub2 | baremetal | block-device-*)
            echo "element $element wants a block device: leave it out, the disk and its boot loader are made without" >&2
            exit 2
            ;;
    esac
done

mount --make-rprivate /
dev=$WORK/dev
mkdir "$dev"
mount -t tmpfs -o mode=755 tmpfs "$dev"
for node in null zero full random urandom tty; do cp -a "/dev/$node" "$dev/$node"; done
mkdir "$dev/pts" "$dev/shm"
ln -s pts/ptmx "$dev/ptmx"
ln -s /proc/self/fd "$dev/fd"
for number in 0 1 2; do ln -s "/proc/self/fd/$number" "$dev/$(sed -n "$((number + 1))p" <<<$'stdin\nstdout\nstderr')"; done
mount -t devpts -o newinstance,mode=620,ptmxmode=666 devpts "$dev/pts"
mount --rbind "$dev" /dev

# Says that there is a block device already, with nothing to be mounted and nothing to be cleaned up: only a tar is made of what
# is in the folder where it would be. The two files are what diskimage-builder 3 itself would have left (no steps, one image).
element=$WORK/elements/toci-no-disk/block-device.d
mkdir -p "$element"
cat >"$element/10-toci-no-disk" <<'HOOK'
#!/bin/sh
set -e
state=${TMP_MOUNT_PATH%/mnt}/states/block-device
mkdir -p "$TMP_MOUNT_PATH" "$state"
printf '{"blockdev": {"image0": {"image": "/dev/null", "device": "/dev/null"}}}' >"$state/state.json"
printf '(lp0\n.' >"$state/nodes.pickle"
echo IMAGE_BLOCK_DEVICE=/dev/null
HOOK
chmod 755 "$element/10-toci-no-disk"

say "diskimage-builder: $ELEMENTS"
export ELEMENTS_PATH=$WORK/elements${ELEMENTS_PATH:+:$ELEMENTS_PATH} TMP_DIR=$WORK
# shellcheck disable=SC2086
disk-image-create -x --no-tmpfs -t tar -o "$WORK/image" $ELEMENTS toci-no-disk

root=$WORK/root
mkdir "$root"
tar -xpf "$WORK/image.tar" --numeric-owner --xattrs --xattrs-include='*' -C "$root"
rm -f "$WORK/image.tar"
mkdir -p "$root"/{proc,sys,dev,run,tmp}
chmod 1777 "$root/tmp"
echo 'LABEL=toci-root / ext4 errors=remount-ro 0 1' >"$root/etc/fstab"
# No two machines may share what is made once.
rm -f "$root"/etc/ssh/ssh_host_*
: >"$root/etc/machine-id"
used=$(du -smx "$root" | cut -f1)
write_disk "$root" "${SIZE_MIB:-$((used * 3 / 2 + 256))}"
