#!/bin/sh
# Called by udhcpc, which sets these variables.
# shellcheck disable=SC2154
case $1 in
bound | renew)
    ip addr flush dev "$interface"
    ip addr add "$ip/$mask" dev "$interface"
    [ -z "$mtu" ] || ip link set "$interface" mtu "$mtu"
    # With classless routes the default route is among them; the first card's stays.
    # shellcheck disable=SC2086
    set -- ${staticroutes:-${router:+0.0.0.0/0 ${router%% *}}}
    while [ $# -ge 2 ]; do
        if [ "$2" = 0.0.0.0 ]; then
            ip route add "$1" dev "$interface" 2>/dev/null
        else
            ip route add "$1" via "$2" dev "$interface" 2>/dev/null
        fi
        shift 2
    done
    for server in $dns; do echo "nameserver $server"; done >>/etc/resolv.conf
    echo "guest: $interface has $ip/$mask"
    ;;
esac
exit 0
