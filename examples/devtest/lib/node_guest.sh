# The system of small CI nodes: busybox, dropbear and what a run needs on a node (docs/nodes.md: bash, git, GNU's tar,
# find and head). Tests of providers put their own first process into it.
# shellcheck shell=bash

NODE_PROGRAMS='dropbear dropbearkey dropbearconvert bash tar setsid git find head'

# program_files NAME...: the programs, and the libraries that they need.
program_files() {
    local program
    for program in $(PATH=$PATH:/usr/sbin:/usr/lib/dropbear command -v "$@"); do
        readlink -f "$program"
        ldd "$program" 2>/dev/null | grep -oE '/[^ ]+' || true
    done | LC_ALL=C sort -u
}

# node_program_files: those of every node.
node_program_files() {
    # shellcheck disable=SC2086
    program_files $NODE_PROGRAMS
}

# build_node_guest KERNEL OWN OUT: the initramfs that is all of the system; OWN has its init and udhcpc.sh.
build_node_guest() {
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
    while read -r file; do add_file "$root" "$file"; done < <(node_program_files)
    [ -e "$root/bin/bash" ] || ln -s /usr/bin/bash "$root/bin/bash"
    install -m 755 "$2/init" "$root/init"
    install -m 755 "$2/udhcpc.sh" "$root/lib/udhcpc.sh"
    echo 'root:x:0:0:root:/root:/bin/bash' >"$root/etc/passwd"
    echo 'root:x:0:' >"$root/etc/group"
    echo '/bin/bash' >"$root/etc/shells"
    pack "$root" "$3"
    rm -rf "$root"
}

# build_node_image ROLE KERNEL SEGMENT... OUT: a disk that boots them, as qcow2.
build_node_image() {
    local role=$1 kernel=$2 raw parts=()
    shift 2
    while [ $# -gt 1 ]; do
        parts+=("guest${#parts[@]}.img=$1")
        shift
    done
    raw=$(mktemp)
    build_disk "$role" "$raw" vmlinuz="$kernel" "${parts[@]}"
    qemu-img convert -q -f raw -O qcow2 "$raw" "$1"
    rm -f "$raw"
}

# cached_node_image KIND OWN ROLE [SEGMENT...]: prints the path of the image; KIND says whose it is in the cache, segments
# of an initramfs are laid over the guest.
cached_node_image() {
    local kernel guest files lib=$DEVTEST_ROOT/lib
    kernel=$(echo "$KERNEL_FOLDER"/boot/vmlinuz-*)
    mapfile -t files < <(node_program_files)
    guest=$(cached "$1guest" "$(hash_of "$lib/image.sh" "$lib/node_guest.sh" "$2/init" "$2/udhcpc.sh" "=$KERNEL_FOLDER" "=$MODULES" "${files[@]}" "$(busybox_path)")" \
        build_node_guest "$KERNEL_FOLDER" "$2")
    cached "$1node_$3" "$(hash_of "$lib/image.sh" "$lib/node_guest.sh" "$kernel" "$guest" "${@:4}")" \
        build_node_image "$3" "$kernel" "$guest" "${@:4}"
}
