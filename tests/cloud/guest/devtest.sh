# What examples/devtest needs on a node, as a segment of its initramfs: programs, and at /media/devtest all that is built
# once for every run. On the node only the repositories under test and the seed's image are left to build.
# shellcheck shell=bash

# GNU's only where busybox's do less: starting one costs ten times as much without KVM.
DEVTEST_PROGRAMS='ssh ssh-keygen jq ip ss ping xz zstd cpio qemu-img syslinux mtools dpkg-deb dbclient ldd date install'
# mtools is called by these names.
MTOOLS='mformat mcopy mattrib mmove mdel'

# build_devtest_segment KERNEL RADVD IMAGE... OUT: folders of the packages, cached images.
build_devtest_segment() {
    local root file name media
    root=$(mktemp -d)
    media=$root/media/devtest
    # shellcheck disable=SC2086
    while read -r file; do add_file "$root" "$file"; done < <(program_files $DEVTEST_PROGRAMS)
    for name in $MTOOLS; do ln -s mtools "$root/usr/bin/$name"; done
    # Labels of FAT file systems have a code page.
    for file in /usr/lib/*/gconv/{gconv-modules.cache,IBM850.so}; do add_file "$root" "$file"; done
    install -D -m 644 "$MBR" "$root$MBR"
    install -D -m 644 "$1"/boot/vmlinuz-* -t "$media/$(basename "$1")/boot"
    install -D -m 755 "$2/usr/sbin/radvd" "$media/$(basename "$2")/usr/sbin/radvd"
    # Where no package lists are, nobody asks apt.
    printf '/media/devtest/%s\n' "$(basename "$1")" "$(basename "$2")" >"$media/packages-none"
    shift 2
    while [ $# -gt 1 ]; do
        install -m 644 "$1" "$media/$(basename "$1")"
        shift
    done
    pack "$root" "$1"
    rm -rf "$root"
}

# devtest_segment: prints its path.
devtest_segment() {
    local work files
    work=$(mktemp -d)
    env -i PATH="$PATH" HOME="$HOME" TOCI_DEVTEST_CACHE="$TOCI_DEVTEST_CACHE" DEVTEST_WORK="$work" DEVTEST_STACK_NEW=/nonexistent \
        "$DEVTEST_ROOT/devtest_images.sh" >&2
    # shellcheck source=/dev/null
    . "$work/images.conf"
    rm -rf "$work"
    # shellcheck disable=SC2086
    mapfile -t files < <(program_files $DEVTEST_PROGRAMS)
    cached clouddevtest "$(hash_of "${BASH_SOURCE[0]}" "=$KERNEL_FOLDER" "$RADVD_FOLDER/usr/sbin/radvd" "$BASE_IMAGE" "$SERVICES_IMAGE" "${files[@]}")" \
        build_devtest_segment "$KERNEL_FOLDER" "$RADVD_FOLDER" "$BASE_IMAGE" "$SERVICES_IMAGE"
}
