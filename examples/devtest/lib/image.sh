# Images out of Debian packages, without root, loop devices or mounts. Everything that does not
# change between runs is cached under the hash of what it was made of.
# shellcheck shell=bash

SECTOR=512
FAT_START_SECTORS=2048            # 1 MiB, as everybody aligns
CONFIG_MAX_BYTES=1048576          # partition 2: the node's configuration
CACHE_KEEP=4                      # images of one kind that stay in the cache
KERNEL_PACKAGE=linux-image-cloud-amd64
# Dependency order. The cloud kernel has these as modules.
MODULES='virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci failover net_failover virtio_net virtio_blk virtio-rng fat vfat nls_cp437 nls_ascii nls_utf8'
MBR=/usr/lib/syslinux/mbr/mbr.bin
KERNEL_ARGUMENTS='console=ttyS0,115200 quiet panic=5'
# Nothing may depend on the moment of the build, or the same inputs would give two images.
export SOURCE_DATE_EPOCH=1414800000 TZ=UTC MTOOLS_SKIP_CHECK=1 MTOOLSRC=/dev/null

need_image_tools() {
    need busybox busybox-static dropbear dropbear-bin dropbearkey dropbear-bin dropbearconvert dropbear-bin \
        cpio cpio zstd zstd mformat mtools mcopy mtools syslinux syslinux qemu-img qemu-utils dpkg-deb dpkg
    [ -f "$MBR" ] || refuse "$MBR is missing: apt-get install syslinux-common"
    file_is_static "$(busybox_path)" || refuse "busybox is not static: apt-get install busybox-static"
}

busybox_path() { command -v busybox; }
file_is_static() { ! LC_ALL=C ldd "$1" >/dev/null 2>&1; }

# hash_of ITEM...: of the contents of files and folders, and of words (with a leading =).
hash_of() {
    local item
    for item in "$@"; do
        case $item in
        =*) echo "$item" ;;
        *) if [ -d "$item" ]; then tree_digest "$item"; else sha256sum <"$item"; fi ;;
        esac
    done | sha256sum | cut -c1-16
}

# cached KIND HASH BUILDER ARG...: prints the path of the image; builds it first when it is not there.
# Written elsewhere and renamed, so an interrupted or concurrent build leaves nothing half made.
cached() {
    local kind=$1 path=$TOCI_DEVTEST_CACHE/$1-$2.img part
    shift 2
    if [ ! -s "$path" ]; then
        say "building $kind" >&2
        part=$(mktemp "$TOCI_DEVTEST_CACHE/.$kind.XXXXXX")
        # Not in a condition's context: set -e must hold inside the builder.
        ( set -e; "$@" "$part" ) >&2
        chmod 644 "$part"
        mv "$part" "$path"
    fi
    touch "$path"
    prune_cache "$kind" >&2
    echo "$path"
}

# prune_cache KIND: all but the last used CACHE_KEEP go, and remains of builds that were killed.
prune_cache() {
    local old
    while read -r old; do rm -f -- "$old"; done < <(
        find "$TOCI_DEVTEST_CACHE" -maxdepth 1 -name "$1-*.img" -printf '%T@ %p\n' | sort -rn | tail -n +$((CACHE_KEEP + 1)) | cut -d' ' -f2-
        find "$TOCI_DEVTEST_CACHE" -maxdepth 1 -name ".$1.*" -mmin +60
    )
}

# kernel_package: the package behind linux-image-cloud-amd64.
kernel_package() { LC_ALL=C apt-cache depends "$KERNEL_PACKAGE" 2>/dev/null | sed -n 's/^ *Depends: //p' | head -n 1; }

# package_folder PACKAGE: the unpacked package; downloaded by the package manager, not installed.
package_folder() {
    local package=$1 version deb folder
    version=$(LC_ALL=C apt-cache policy "$package" 2>/dev/null | sed -n 's/^ *Candidate: //p')
    folder=$TOCI_DEVTEST_CACHE/$package-$version
    if [ -z "$package" ] || [ -z "$version" ]; then
        refuse "apt does not know ${package:-$KERNEL_PACKAGE}: apt-get update"
    fi
    if [ ! -d "$folder" ]; then
        say "downloading $package $version" >&2
        deb=$(mktemp -d "$TOCI_DEVTEST_CACHE/.deb.XXXXXX")
        (cd "$deb" && apt-get -q -o APT::Sandbox::User=root download "$package=$version") >&2 ||
            fail "apt-get download $package failed (run $DEVTEST_ROOT/devtest_images.sh where there is a network; the result is cached)"
        dpkg-deb -x "$deb"/*.deb "$deb/root"
        mv "$deb/root" "$folder" 2>/dev/null || [ -d "$folder" ]
        rm -rf "$deb"
    fi
    echo "$folder"
}

# package_folders: sets KERNEL_FOLDER and RADVD_FOLDER. Asking apt takes two seconds, so the answer is
# kept as long as its package lists stay as they are.
package_folders() {
    local kept
    kept=$TOCI_DEVTEST_CACHE/packages-$(stat -c %Y /var/lib/apt/lists 2>/dev/null || echo none)
    if [ -s "$kept" ]; then
        { read -r KERNEL_FOLDER && read -r RADVD_FOLDER; } <"$kept"
        [ ! -d "$KERNEL_FOLDER" ] || [ ! -d "$RADVD_FOLDER" ] || return 0
    fi
    KERNEL_FOLDER=$(package_folder "$(kernel_package)")
    RADVD_FOLDER=$(package_folder radvd)
    rm -f "$TOCI_DEVTEST_CACHE"/packages-*
    printf '%s\n' "$KERNEL_FOLDER" "$RADVD_FOLDER" >"$kept.$$"
    mv "$kept.$$" "$kept"
}

# pack ROOT OUT: an initramfs segment, the same bytes for the same files.
pack() {
    find "$1" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    (cd "$1" && find . -mindepth 1 -print0 | LC_ALL=C sort -z | cpio -0 -o -H newc -R 0:0 --reproducible --quiet) |
        zstd -q -f -15 -T1 -o "$2"
}

# add_file ROOT FILE: at the same path as here.
add_file() { install -D -m 755 "$(readlink -f "$2")" "$1$2"; }

# build_base KERNEL OUT: busybox, the modules and the guest's scripts. It alone is the deploy ramdisk.
build_base() {
    local root version module found
    root=$(mktemp -d)
    version=$(basename "$1"/lib/modules/*)
    mkdir -p "$root"/{bin,dev,proc,sys,tmp,run,root,etc,lib/devtest/modules.d,var/log,usr/bin,usr/sbin}
    install -m 755 "$(busybox_path)" "$root/bin/busybox"
    ln -s busybox "$root/bin/sh"
    for module in $MODULES; do
        found=$(find "$1/lib/modules/$version/kernel" -name "$module.ko" | head -n 1)
        [ -n "$found" ] || { echo "the kernel package has no module $module" >&2; return 1; }
        install -m 644 "$found" "$root/lib/devtest/modules.d/$module.ko"
    done
    tr ' ' '\n' <<<"$MODULES" >"$root/lib/devtest/modules"
    cp "$DEVTEST_ROOT"/guest/* "$root/lib/devtest/"
    mv "$root/lib/devtest/init" "$root/init"
    chmod 755 "$root/init" "$root"/lib/devtest/*.sh "$root/lib/devtest/report.cgi"
    echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
    echo 'root:x:0:' >"$root/etc/group"
    echo '/bin/sh' >"$root/etc/shells"
    pack "$root" "$2"
    rm -rf "$root"
}

# service_files RADVD: the programs, and the libraries that they need.
service_files() {
    local program
    for program in dropbear dropbearkey dbclient; do
        PATH=$PATH:/usr/sbin command -v "$program"
    done
    for program in $(PATH=$PATH:/usr/sbin command -v dropbear dbclient) "$1"; do
        ldd "$program" | grep -oE '/[^ ]+'
    done | sort -u
}

# build_services RADVD OUT: dropbear and radvd with their libraries. Not in the deploy ramdisk,
# which iPXE has to load.
build_services() {
    local root file
    root=$(mktemp -d)
    while read -r file; do add_file "$root" "$file"; done < <(service_files "$1")
    install -D -m 755 "$1" "$root/usr/sbin/radvd"
    pack "$root" "$2"
    rm -rf "$root"
}

# build_repos TREES OUT: the code under test, at /opt/stack/new.
build_repos() {
    local root
    root=$(mktemp -d)
    mkdir -p "$root/opt/stack/new"
    cp -r "$1"/. "$root/opt/stack/new/"
    pack "$root" "$2"
    rm -rf "$root"
}

little_endian_32() {
    local i n=$1
    for i in 0 8 16 24; do printf '%b' "\\x$(printf '%02x' $(((n >> i) & 255)))"; done
}

# partition_entry ACTIVE TYPE START SECTORS
partition_entry() {
    printf '%b' "\\x$1\\xfe\\xff\\xff\\x$2\\xfe\\xff\\xff"
    little_endian_32 "$3"
    little_endian_32 "$4"
}

# fat_sectors FILE...: size of a FAT that takes them, with room to spare; whole MiB.
fat_sectors() {
    local bytes
    bytes=$(stat -L -c %s "$@" | awk '{ s += $1 } END { print s }')
    echo $((((bytes + bytes / 32 >> 20) + 2) * 1048576 / SECTOR))
}

# build_disk ROLE OUT NAME=FILE...: a whole disk: MBR, FAT with syslinux, kernel and initramfs
# segments (those whose names end in .img, in this order; user.img is not one), partition 2 for a
# node's configuration.
build_disk() {
    local role=$1 out=$2 sectors initrd='' pair work
    shift 2
    sectors=$(fat_sectors "${@#*=}")
    work=$(mktemp -d)
    for pair in "$@"; do
        install -m 644 "${pair#*=}" "$work/${pair%%=*}"
        case ${pair%%=*} in user.img) ;; *.img) initrd=$initrd,${pair%%=*} ;; esac
    done
    printf 'SERIAL 0 115200\nDEFAULT devtest\nPROMPT 0\nLABEL devtest\n  KERNEL vmlinuz\n  INITRD %s\n  APPEND %s devtest.role=%s\n' \
        "${initrd#,}" "$KERNEL_ARGUMENTS" "$role" >"$work/syslinux.cfg"
    find "$work" -exec touch -d "@$SOURCE_DATE_EPOCH" {} +
    : >"$out"
    truncate -s $(((FAT_START_SECTORS + sectors) * SECTOR + CONFIG_MAX_BYTES)) "$out"
    mformat -i "$out@@$((FAT_START_SECTORS * SECTOR))" -T "$sectors" -h 255 -s 63 -H "$FAT_START_SECTORS" -N 64657674 -v DEVTEST ::
    mcopy -m -i "$out@@$((FAT_START_SECTORS * SECTOR))" "$work"/* ::
    syslinux --offset $((FAT_START_SECTORS * SECTOR)) --install "$out"
    dd if="$MBR" of="$out" bs=440 count=1 conv=notrunc status=none
    {
        partition_entry 80 0e "$FAT_START_SECTORS" "$sectors"
        partition_entry 00 83 $((FAT_START_SECTORS + sectors)) $((CONFIG_MAX_BYTES / SECTOR))
        head -c 32 /dev/zero
        printf '\x55\xaa'
    } | dd of="$out" bs=1 seek=446 conv=notrunc status=none
    rm -rf "$work"
}

# build_user KERNEL BASE SERVICES REPOS OUT: the image that is written to the nodes' disks.
build_user() {
    build_disk node "$5" vmlinuz="$1" base.img="$2" services.img="$3" repos.img="$4"
}

# prepare_images: builds or finds all that can be cached; sets KERNEL_IMAGE, BASE_IMAGE,
# SERVICES_IMAGE, REPOS_IMAGE and USER_IMAGE.
prepare_images() {
    need_image_tools
    mkdir -p "$TOCI_DEVTEST_CACHE"
    local folder radvd builder
    package_folders
    folder=$KERNEL_FOLDER
    radvd=$RADVD_FOLDER/usr/sbin/radvd
    builder=$DEVTEST_ROOT/lib/image.sh
    KERNEL_IMAGE=$(echo "$folder"/boot/vmlinuz-*)
    BASE_IMAGE=$(cached base "$(hash_of "$builder" "$DEVTEST_ROOT/guest" "=$(basename "$folder")" "$(busybox_path)")" build_base "$folder")
    local files
    mapfile -t files < <(service_files "$radvd")
    SERVICES_IMAGE=$(cached services "$(hash_of "$builder" "$radvd" "${files[@]}")" build_services "$radvd")
    REPOS_IMAGE=$(cached repos "$(hash_of "$builder" "$DEVTEST_WORK/repos.d")" build_repos "$DEVTEST_WORK/repos.d")
    USER_IMAGE=$(cached user "$(hash_of "$builder" "$KERNEL_IMAGE" "$BASE_IMAGE" "$SERVICES_IMAGE" "$REPOS_IMAGE" "$MBR")" \
        build_user "$KERNEL_IMAGE" "$BASE_IMAGE" "$SERVICES_IMAGE" "$REPOS_IMAGE")
}

# build_seed OUT: the seed's image of this run, which is never cached: it holds the seed's host
# key, our public key and the id by which its callback is known.
build_seed() {
    local root=$DEVTEST_WORK/seed_root bytes
    rm -rf "$root"
    mkdir -p "$root/etc/devtest"
    cp "$DEVTEST_WORK/run_key.pub" "$root/etc/devtest/authorized_keys"
    (umask 077 && dropbearkey -t ed25519 -f "$root/etc/devtest/host_key" >/dev/null 2>&1)
    know_host seed "$(dropbearkey -y -f "$root/etc/devtest/host_key" 2>/dev/null | grep '^ssh-')"
    cat >"$root/etc/devtest/machine.conf" <<CONF
NAME=seed
ROLE=seed
ADDRESS=$TE_PRIVATE_SEED_IP
PREFIX=$TE_PREFIX
CALLBACK_HOST=$DEVTEST_CALLBACK_HOST
CALLBACK_PORT=$DEVTEST_CALLBACK_PORT
SEED_IMAGE_ID=$SEED_IMAGE_ID
CONF
    pack "$root" "$DEVTEST_WORK/run.img"
    bytes=$(stat -c %s "$USER_IMAGE")
    cat >"$DEVTEST_WORK/image.cnf" <<CONF
IMAGE_BYTES=$((bytes - CONFIG_MAX_BYTES))
IMAGE_SHA256=$(head -c $((bytes - CONFIG_MAX_BYTES)) "$USER_IMAGE" | sha256sum | cut -d' ' -f1)
CONFIG_OFFSET_BYTES=$((bytes - CONFIG_MAX_BYTES))
CONFIG_MAX_BYTES=$CONFIG_MAX_BYTES
CONF
    head -c $((bytes - CONFIG_MAX_BYTES)) "$USER_IMAGE" >"$DEVTEST_WORK/user.img"
    build_disk seed "$DEVTEST_WORK/seed.raw" vmlinuz="$KERNEL_IMAGE" base.img="$BASE_IMAGE" services.img="$SERVICES_IMAGE" \
        repos.img="$REPOS_IMAGE" run.img="$DEVTEST_WORK/run.img" user.img="$DEVTEST_WORK/user.img" image.cnf="$DEVTEST_WORK/image.cnf"
    qemu-img convert -q -f raw -O qcow2 "$DEVTEST_WORK/seed.raw" "$1"
    rm -rf "$DEVTEST_WORK/seed.raw" "$DEVTEST_WORK/user.img" "$root"
}
