#!/bin/bash
# agent.sh FOLDER: what bare metal needs beside Debian's packages, into FOLDER: sushy-tools, which stands for management
# controllers, in "site"; and "agent.kernel" and "agent.ramdisk", the system that Ironic boots on a machine to write a server's
# image onto its disk: ironic-python-agent with Debian's Python and its libraries as they are installed here, on Debian's
# kernel. Both come from PyPI, the first time; built with the tools of examples/devtest.
set -euo pipefail
# Debian's Python, and no other that a developer may have.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
unset PYTHONPATH PYTHONDONTWRITEBYTECODE
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
DEVTEST_ROOT=$(cd "$here/../../../examples/devtest" && pwd)
: "${TOCI_DEVTEST_CACHE:=${HOME:-/root}/.cache/toci-devtest}"
# shellcheck source=examples/devtest/lib/ui.sh
. "$DEVTEST_ROOT/lib/ui.sh"
# shellcheck source=examples/devtest/lib/image.sh
. "$DEVTEST_ROOT/lib/image.sh"
# shellcheck source=examples/devtest/lib/node_guest.sh
. "$DEVTEST_ROOT/lib/node_guest.sh"

# Of the time of Debian's Ironic; what they import is in Debian.
FROM_PYPI="sushy-tools==1.0.1 ironic-python-agent==9.4.0"
# What the agent starts on the way from a blank disk to a written one.
PROGRAMS='python3 lsblk blkid blockdev parted partprobe sgdisk wipefs fuser findfs findmnt lscpu file mount umount dmidecode ethtool ip'
# What is opened by name: by cryptography, and by pytz.
FILES='/usr/lib/x86_64-linux-gnu/ossl-modules/legacy.so
    /usr/share/zoneinfo/tzdata.zi /usr/share/zoneinfo/UTC /usr/share/zoneinfo/zone.tab /usr/share/zoneinfo/zone1970.tab
    /usr/share/zoneinfo/iso3166.tab'

# fetch OUT: a tar of what pip brings.
fetch() {
    local site
    site=$(mktemp -d)
    # shellcheck disable=SC2086
    python3 -m pip -q install --root-user-action ignore --no-deps --no-compile --only-binary :all: --target "$site" $FROM_PYPI
    tar -c -C "$site" . >"$1"
    rm -rf "$site"
}

# script TEXT FILE
script() { printf '#!/bin/sh\n%s\n' "$1" >"$2" && chmod 755 "$2"; }

# build_agent SITE OUT
build_agent() {
    local root version module found file folder
    root=$(mktemp -d)
    version=$(basename "$KERNEL_FOLDER"/lib/modules/*)
    mkdir -p "$root"/{bin,sbin,dev,proc,sys,tmp,run,root,etc,lib/modules.d,var/log,var/tmp,usr/bin,usr/sbin,opt/agent}
    install -m 755 "$(busybox_path)" "$root/bin/busybox"
    ln -s busybox "$root/bin/sh"
    for module in $MODULES; do
        found=$(find "$KERNEL_FOLDER/lib/modules/$version/kernel" -name "$module.ko" | head -n 1)
        [ -n "$found" ] || { echo "the kernel package has no module $module" >&2; return 1; }
        install -m 644 "$found" "$root/lib/modules.d/$module.ko"
    done
    tr ' ' '\n' <<<"$MODULES" >"$root/lib/modules.list"
    cp -r "$1"/ironic_python_agent* "$here/start.py" "$root/opt/agent/"
    PYTHONPATH=$1 PYTHONDONTWRITEBYTECODE=1 python3 "$here/imported.py" >"$root/folders"
    while read -r folder; do
        mkdir -p "$root$(dirname "$folder")"
        cp -rL "$folder" "$root$folder"
    done <"$root/folders"
    find "$root" \( -name tests -o -name test -o -name locale -o -name __pycache__ \) -prune -exec rm -rf {} +
    # Once, and not at each boot. Some of Debian's files are none of this Python's.
    python3 -m compileall -q -j 2 --invalidation-mode unchecked-hash -s "$root" "$root/usr/lib" "$root/opt/agent" || :
    # shellcheck disable=SC2086
    { program_files $PROGRAMS; printf '%s\n' $FILES; } | while read -r file; do add_file "$root" "$file"; done
    ln -s "$(basename "$(readlink -f /usr/bin/python3)")" "$root/usr/bin/python3"
    find "$root/usr/lib" -name '*.so' -exec ldd {} + 2>/dev/null | grep -oE '=> /[^ ]+' | cut -c4- | sort -u |
        while read -r file; do [ -e "$root$file" ] || add_file "$root" "$file"; done
    # There is neither udev nor an init that would listen.
    script : "$root/usr/bin/udevadm"
    script 'exec busybox poweroff -f' "$root/usr/sbin/poweroff"
    install -m 755 "$here/init" "$root/init"
    install -m 644 "$here/agent.conf" "$root/etc/agent.conf"
    install -m 755 "$here/../guest/udhcpc.sh" "$root/lib/udhcpc.sh"
    echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
    printf 'root:x:0:\ndisk:x:6:\n' >"$root/etc/group"
    echo '127.0.0.1 localhost' >"$root/etc/hosts"
    rm "$root/folders"
    (cd "$root" && find . -mindepth 1 -print0 | LC_ALL=C sort -z | cpio -0 -o -H newc -R 0:0 --quiet | zstd -q -f -5 -T1 -o "$2")
    rm -rf "$root"
}

out=$(realpath -m "$1")
need_image_tools
mkdir -p "$TOCI_DEVTEST_CACHE" "$out/site"
package_folders
# shellcheck disable=SC2086
tar -x -C "$out/site" -f "$(cached cloudpython "$(hash_of "=$FROM_PYPI")" fetch)"
# What is installed is what is copied.
ramdisk=$(cached cloudagent "$(hash_of "$here"/* "$here/../guest/udhcpc.sh" "=$FROM_PYPI" "=$KERNEL_FOLDER" "=$MODULES" "=$(dpkg-query -W 'python3*' 'libc6')")" \
    build_agent "$out/site")
cp "$ramdisk" "$out/agent.ramdisk.part"
mv "$out/agent.ramdisk.part" "$out/agent.ramdisk"
install -m 644 "$KERNEL_FOLDER"/boot/vmlinuz-* "$out/agent.kernel"
