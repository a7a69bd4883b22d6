#!/bin/sh
# Run over ssh: a tar of what explains this machine, on stdout. No keys: neither the lease's nor
# the machine's own.
OUT=/run/collect
rm -rf "$OUT"
mkdir -p "$OUT/etc" "$OUT/run"
section() {
    echo "== $*"
    timeout 10 "$@" 2>&1
}
{
    section uname -a
    section cat /proc/cmdline
    section uptime
    section ps -o pid,ppid,rss,args
    section free
    section df -h
    section ip addr
    section ip route
    section ip neigh
    section netstat -lnt
    section lsmod
} >"$OUT/host_info.txt"
dmesg >"$OUT/dmesg.txt" 2>&1
cp -r /var/log "$OUT/log"
cp -r /run/reports /run/report.txt /run/repos /run/udhcpd.conf /run/udhcpd.leases /run/dhcp.* "$OUT/run/" 2>/dev/null
cp /etc/devtest/machine.conf /etc/devtest/deploy/nodes /etc/devtest/deploy/deploy.conf "$OUT/etc/" 2>/dev/null
cp -r /srv/www/nodes /srv/www/index.html "$OUT/" 2>/dev/null
tar -c -f - -C "$OUT" .
