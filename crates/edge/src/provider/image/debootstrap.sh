#!/bin/bash
# Builds a bootable qcow2 image of Debian with debootstrap. Its root file system grows to the disk at the first boot.
# Runs in mount and pid namespaces of its own (see build.rs), so that nothing of it stays when it is killed.
#
# Environment: OUT (file to make), WORK (empty folder), SUITE, MIRROR (may be empty), PACKAGES (more of them, with
# spaces), SIZE_MIB (of the root file system), CUSTOMISE (shell text that is run in the new system at the end).
set -euo pipefail
# shellcheck source=crates/edge/src/provider/image/disk.sh
source "$(dirname "$0")/disk.sh"

# What makes it a node: a kernel, an SSH server, DHCP, and the least that jobs expect (bash, git, python3, sudo).
NODE_PACKAGES="linux-image-cloud-amd64 initramfs-tools systemd-sysv udev dbus openssh-server ifupdown isc-dhcp-client iproute2 fdisk
 ca-certificates sudo git python3-minimal rsync procps less"

need debootstrap debootstrap
need_for_disks

root=$WORK/root
include=$(tr -s ' \n' ',' <<<"$NODE_PACKAGES $PACKAGES")
include=${include%,}
say "debootstrap $SUITE: $include"
debootstrap --variant=minbase --include="$include" "$SUITE" "$root" ${MIRROR:+"$MIRROR"}

say "configuring"
echo 'LABEL=toci-root / ext4 errors=remount-ro 0 1' >"$root/etc/fstab"
printf 'auto lo\niface lo inet loopback\nauto eth0\niface eth0 inet dhcp\n' >"$root/etc/network/interfaces"
echo node >"$root/etc/hostname"
# No two machines may share what is made once: host keys, the machine's id, logs of the build.
rm -f "$root"/etc/ssh/ssh_host_*
: >"$root/etc/machine-id"
mkdir -p "$root/etc/ssh/sshd_config.d"
printf 'PasswordAuthentication no\nPermitRootLogin prohibit-password\nUseDNS no\n' >"$root/etc/ssh/sshd_config.d/toci.conf"

cat >"$root/usr/local/sbin/toci-node-setup" <<'SETUP'
#!/bin/sh
# Before networking and sshd: takes the keys from the seed disk, and grows the root file system to the disk.
set -eu
mkdir -p /run/toci/seed
mount -o ro LABEL=CIDATA /run/toci/seed
seed=/run/toci/seed/toci
hostname=$(cat "$seed/hostname")
echo "$hostname" >/etc/hostname
hostname "$hostname"
printf '127.0.0.1 localhost\n127.0.1.1 %s\n::1 localhost ip6-localhost\n' "$hostname" >/etc/hosts
install -m 600 "$seed/host_key" /etc/ssh/ssh_host_ed25519_key
install -m 644 "$seed/host_key.pub" /etc/ssh/ssh_host_ed25519_key.pub
echo 'HostKey /etc/ssh/ssh_host_ed25519_key' >/etc/ssh/sshd_config.d/toci-host-key.conf
user=$(cat "$seed/user")
if ! id "$user" >/dev/null 2>&1; then
    useradd --create-home --shell /bin/bash "$user"
    echo "$user ALL=(ALL) NOPASSWD:ALL" >/etc/sudoers.d/toci
fi
home=$(getent passwd "$user" | cut -d: -f6)
install -d -m 700 -o "$user" -g "$(id -g "$user")" "$home/.ssh"
install -m 600 -o "$user" -g "$(id -g "$user")" "$seed/authorized_keys" "$home/.ssh/authorized_keys"
install -m 600 "$seed/marker" /run/toci/marker-to-be
umount /run/toci/seed
echo ', +' | sfdisk --quiet --no-reread --force -N 2 /dev/vda || echo "toci-node: the partition was not grown"
partx --update --nr 2 /dev/vda && resize2fs /dev/vda2 || echo "toci-node: the file system was not grown"
SETUP

cat >"$root/usr/local/sbin/toci-node-ready" <<'READY'
#!/bin/sh
# When all is up: tells the address on the console, and leaves the marker that the node is known by.
set -eu
address=$(ip -4 -o address show scope global | awk '{ sub("/.*", "", $4); print $4; exit }')
echo "toci-node: address $address" >/dev/console
install -m 644 /run/toci/marker-to-be /run/toci/boot-marker.new
mv /run/toci/boot-marker.new /run/toci/boot-marker
READY
chmod 755 "$root"/usr/local/sbin/toci-node-*

cat >"$root/etc/systemd/system/toci-node-setup.service" <<'UNIT'
[Unit]
Description=Keys of this CI node
After=local-fs.target systemd-remount-fs.service
Before=ssh.service networking.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/toci-node-setup
StandardOutput=journal+console
StandardError=journal+console

[Install]
WantedBy=multi-user.target
UNIT
cat >"$root/etc/systemd/system/toci-node-ready.service" <<'UNIT'
[Unit]
Description=Tell that this CI node is up
Requires=toci-node-setup.service
After=toci-node-setup.service networking.service ssh.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/toci-node-ready
StandardOutput=journal+console
StandardError=journal+console

[Install]
WantedBy=multi-user.target
UNIT
chroot "$root" systemctl --quiet enable toci-node-setup.service toci-node-ready.service
# A node lives for one job: nothing that changes the system by itself, or only costs time at the boot.
chroot "$root" systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer e2scrub_reap.service

if [ -n "${CUSTOMISE:-}" ]; then
    say "running the image's own commands"
    # The resolver of this machine, as debootstrap itself used it.
    cp /etc/resolv.conf "$root/etc/resolv.conf"
    mount -t proc proc "$root/proc"
    printf '%s\n' "$CUSTOMISE" | chroot "$root" /usr/bin/env DEBIAN_FRONTEND=noninteractive bash -e -s
    umount "$root/proc"
fi
chroot "$root" apt-get clean
rm -f "$root/etc/resolv.conf"
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/log/*.log "$root"/tmp/*

write_disk "$root" "$SIZE_MIB"
