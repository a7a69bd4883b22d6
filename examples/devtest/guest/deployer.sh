# What a machine needs in order to deploy others: HTTP with the kernel, the deploy ramdisk and the
# image, the place where reports arrive. The seed does it for the undercloud, the undercloud for
# the overcloud, with the same code. Sourced.
# shellcheck shell=sh

WWW=/srv/www
REPORTS=/run/reports

start_http() {
    mkdir -p "$WWW/cgi-bin" "$WWW/nodes" "$REPORTS"
    ln -sf /boot/vmlinuz "$WWW/vmlinuz"
    ln -sf /boot/base.img "$WWW/base.img"
    # Only the seed carries the image; the undercloud fetches it (fetch_image) before it deploys.
    [ ! -f /boot/user.img ] || ln -sf /boot/user.img "$WWW/user.img"
    cp /boot/image.cnf "$WWW/image.conf" 2>/dev/null || true
    cp /lib/devtest/report.cgi "$WWW/cgi-bin/report"
    chmod 755 "$WWW/cgi-bin/report"
    serve_www
}

# fetch_image SERVER: the image and its checksum, from the machine that deployed this one.
fetch_image() {
    [ ! -f "$WWW/user.img" ] || return 0
    timeout 30 wget -q -O "$WWW/image.conf" "http://$1/image.conf" || return 1
    . "$WWW/image.conf"
    timeout 30 wget -q -O "$WWW/user.part" "http://$1/user.img" || return 1
    [ "$(sha256sum <"$WWW/user.part" | cut -d' ' -f1)" = "$IMAGE_SHA256" ] || return 1
    mv "$WWW/user.part" "$WWW/user.img"
}

# write_boot_files NODES SERVER: what iPXE asks for. A card whose MAC is not in NODES gets nothing.
write_boot_files() {
    {
        echo '#!ipxe'
        echo "chain http://$2/nodes/\${net0/mac:hexhyp}.ipxe"
    } >"$WWW/boot.ipxe"
    while read -r name _ mac _ _; do
        cat >"$WWW/nodes/$(echo "$mac" | tr ':' '-').ipxe" <<IPXE
#!ipxe
kernel http://$2/vmlinuz console=ttyS0,115200 quiet panic=5 devtest.role=deploy devtest.server=$2 devtest.name=$name initrd=base.img
initrd http://$2/base.img
boot
IPXE
    done <"$1"
}

# write_node_configs NODES PREFIX GATEWAY SERVER: one configuration partition a node.
write_node_configs() {
    while read -r name role _ address _; do
        rm -rf "/run/config/$name"
        mkdir -p "/run/config/$name"
        cat >"/run/config/$name/machine.conf" <<CONF
NAME=$name
ROLE=$role
ADDRESS=$address
PREFIX=$2
GATEWAY=$3
DEPLOYER=$4
CONF
        cp "$CONFIG/authorized_keys" "/run/config/$name/"
        tar -c -f "$WWW/nodes/$name.tar" -C "/run/config/$name" .
    done <"$1"
}

# start_dhcp NODES INTERFACE NETMASK SERVER: only the nodes' cards get an answer, because the range
# is exactly their addresses and each of those is reserved for its card. So a seed and an
# undercloud serve the same wire without getting in each other's way.
start_dhcp() {
    {
        echo "start $(awk 'NR == 1 { print $4 }' "$1")"
        echo "end $(awk 'END { print $4 }' "$1")"
        echo "interface $2"
        echo "lease_file /run/udhcpd.leases"
        echo "pidfile /run/udhcpd.pid"
        echo "siaddr $4"
        echo "boot_file http://$4/boot.ipxe"
        # iPXE's own option "no ProxyDHCP here": saves the 3 s that it waits for one.
        echo "option 0xaf b00101"
        echo "option subnet $3"
        awk '{ print "static_lease", $3, $4 }' "$1"
    } >/run/udhcpd.conf
    : >/run/udhcpd.leases
    [ ! -s /run/udhcpd.pid ] || kill "$(cat /run/udhcpd.pid)" 2>/dev/null || true
    udhcpd -f /run/udhcpd.conf >>/var/log/devtest/udhcpd.log 2>&1 &
}

# start_router_advertisements INTERFACE: iPXE asks for an IPv6 router as well and waits 16 s before
# it believes that there is none. This tells it at once: an advertisement without router and prefix.
start_router_advertisements() {
    [ ! -f /run/radvd.pid ] || return 0
    echo "interface $1 { AdvSendAdvert on; AdvDefaultLifetime 0; };" >/run/radvd.conf
    radvd -C /run/radvd.conf -p /run/radvd.pid -m logfile -l /var/log/devtest/radvd.log
}
