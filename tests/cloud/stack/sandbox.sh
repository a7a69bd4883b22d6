#!/bin/bash
# sandbox.sh STATE: the sandbox's first process. Makes its mounts private and its own, then waits for ever: when it ends,
# all that is in here ends.
set -euo pipefail

mount --make-rprivate /
# The network interfaces in /sys are this namespace's, and libvirt makes no control groups, which are nobody's namespace.
grep -o '^[^ ]* /sys[^ ]*' /proc/self/mounts | cut -d' ' -f2 | tac | while read -r point; do umount -l "$point" || true; done
mount -t sysfs sysfs /sys
# The machine's own daemons have their sockets, locks and settings in these folders.
cd "$1"
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/{cloud,lock,libvirt,openvswitch,netns,sshd}
mount --bind . /run/cloud
cd /
for folder in /etc/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt; do
    mkdir -p "$folder"
    mount -t tmpfs -o mode=755 tmpfs "$folder"
done
mkdir -p /etc/libvirt/{qemu/networks,hooks,storage,secrets,nwfilter} /var/lib/libvirt/{qemu,images,boot,dnsmasq} /var/log/libvirt/qemu
cat >/etc/libvirt/qemu.conf <<CONF
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
CONF
printf 'auth_unix_rw = "none"\nauth_unix_ro = "none"\n' >/etc/libvirt/libvirtd.conf
# The share of volumes is a file system of its own, so that Nova sees that it is mounted; mount.nfs is ours.
mkdir /run/cloud/volumes
mount -t tmpfs -o mode=755 tmpfs /run/cloud/volumes
mount -t overlay -o lowerdir=/run/cloud/sbin:/usr/sbin overlay /usr/sbin
ip link set lo up
sysctl -q -w net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
touch /run/cloud/sock/ready
while :; do
    sleep 3600 &
    wait $!
done
