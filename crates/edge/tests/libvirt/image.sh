#!/bin/bash
# image.sh ROLE OUT: a small image for nodes, as qcow2: busybox, dropbear and what a run needs on a node (docs/nodes.md:
# bash, git, GNU's tar, find and head), on Debian's kernel; up in seconds also under TCG. ROLE is what it does with its
# seed: node (as it should), liar (leaves another marker), stranger (uses a host key of its own), dead (says why it
# dies, and never answers). Built with the tools of examples/devtest.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
DEVTEST_ROOT=$(cd "$here/../../../../examples/devtest" && pwd)
: "${TOCI_DEVTEST_CACHE:=${HOME:-/root}/.cache/toci-devtest}"
# shellcheck source=examples/devtest/lib/ui.sh
. "$DEVTEST_ROOT/lib/ui.sh"
# shellcheck source=examples/devtest/lib/image.sh
. "$DEVTEST_ROOT/lib/image.sh"

PROGRAMS='dropbear dropbearkey dropbearconvert bash tar setsid git find head'

program_files() {
    local program
    # shellcheck disable=SC2086
    for program in $(PATH=$PATH:/usr/sbin:/usr/lib/dropbear command -v $PROGRAMS); do
        readlink -f "$program"
        ldd "$program" | grep -oE '/[^ ]+'
    done | sort -u
}

# build_guest KERNEL OUT: the initramfs that is all of the system.
build_guest() {
    local root version module found file
    root=$(mktemp -d)
    version=$(basename "$1"/lib/modules/*)
    mkdir -p "$root"/{bin,sbin,dev,proc,sys,tmp,run,root,etc,lib/modules.d,var/log,var/tmp,usr/bin,usr/sbin,usr/share/git-core/templates}
    install -m 755 "$(busybox_path)" "$root/bin/busybox"
    ln -s busybox "$root/bin/sh"
    for module in $MODULES; do
        found=$(find "$1/lib/modules/$version/kernel" -name "$module.ko" | head -n 1)
        [ -n "$found" ] || { echo "the kernel package has no module $module" >&2; return 1; }
        install -m 644 "$found" "$root/lib/modules.d/$module.ko"
    done
    tr ' ' '\n' <<<"$MODULES" >"$root/lib/modules.list"
    while read -r file; do add_file "$root" "$file"; done < <(program_files)
    [ -e "$root/bin/bash" ] || ln -s /usr/bin/bash "$root/bin/bash"
    install -m 755 "$here/init" "$root/init"
    install -m 755 "$here/udhcpc.sh" "$root/lib/udhcpc.sh"
    echo 'root:x:0:0:root:/root:/bin/bash' >"$root/etc/passwd"
    echo 'root:x:0:' >"$root/etc/group"
    echo '/bin/bash' >"$root/etc/shells"
    pack "$root" "$2"
    rm -rf "$root"
}

# build_image ROLE KERNEL GUEST OUT
build_image() {
    local raw
    raw=$(mktemp)
    build_disk "$1" "$raw" vmlinuz="$2" guest.img="$3"
    qemu-img convert -q -f raw -O qcow2 "$raw" "$4"
    rm -f "$raw"
}

need_image_tools
need git git
mkdir -p "$TOCI_DEVTEST_CACHE"
package_folders
kernel=$(echo "$KERNEL_FOLDER"/boot/vmlinuz-*)
mapfile -t files < <(program_files)
guest=$(cached testguest "$(hash_of "$DEVTEST_ROOT/lib/image.sh" "$here/image.sh" "$here/init" "$here/udhcpc.sh" "=$KERNEL_FOLDER" "${files[@]}" "$(busybox_path)")" build_guest "$KERNEL_FOLDER")
image=$(cached "testnode_$1" "$(hash_of "$DEVTEST_ROOT/lib/image.sh" "$kernel" "$guest")" build_image "$1" "$kernel" "$guest")
cp "$image" "$2.part"
mv "$2.part" "$2"
