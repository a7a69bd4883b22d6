# The deploy ramdisk: writes the image that the deployer names to the first disk, checks it by
# reading it back, adds the node's configuration, reports, and waits to be switched off.
# shellcheck shell=sh
. /lib/devtest/common.sh

DISK=/dev/vda
server=$(kernel_argument devtest.server)
name=$(kernel_argument devtest.name)

fail() {
    say "deployment FAILED: $*"
    echo "$*" >/run/failure
    report "$server" "$name" failed /run/failure
    exit 1
}

tell() {
    say "$2"
    echo "$2" >/run/progress
    report "$server" "$name" "$1" /run/progress || exit 1
}

wait_until 20 "a network card" link_exists eth0 || exit 1
dhcp eth0 || say "no DHCP answer on eth0"
tell booted "deploy ramdisk is up after $(uptime_s) s"
wait_until 20 "a disk" [ -b "$DISK" ] || fail "there is no $DISK"

wget -q -O /run/image.conf "http://$server/image.conf" || fail "no image.conf"
. /run/image.conf # IMAGE_BYTES IMAGE_SHA256 CONFIG_OFFSET_BYTES CONFIG_MAX_BYTES
wget -q -O /run/config.tar "http://$server/nodes/$name.tar" || fail "no configuration"
[ "$(stat -c %s /run/config.tar)" -le "$CONFIG_MAX_BYTES" ] || fail "the configuration is larger than $CONFIG_MAX_BYTES bytes"
[ "$(blockdev --getsize64 "$DISK")" -ge $((CONFIG_OFFSET_BYTES + CONFIG_MAX_BYTES)) ] || fail "the disk is too small"

tell writing "writing $((IMAGE_BYTES >> 20)) MiB to $DISK"
wget -q -O - "http://$server/user.img" | dd of="$DISK" bs=1M 2>/dev/null || fail "download"
dd if=/run/config.tar of="$DISK" bs=4096 seek=$((CONFIG_OFFSET_BYTES / 4096)) 2>/dev/null || fail "configuration"
sync
echo 3 >/proc/sys/vm/drop_caches
sum=$(head -c "$IMAGE_BYTES" "$DISK" | sha256sum | cut -d' ' -f1)
[ "$sum" = "$IMAGE_SHA256" ] || fail "$DISK reads back as $sum, not $IMAGE_SHA256"
tell deployed "image written and read back, sha256 $sum"
