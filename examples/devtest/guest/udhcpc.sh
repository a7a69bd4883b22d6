#!/bin/sh
# Called by udhcpc, which sets these variables. Only a new or renewed lease changes anything.
# shellcheck disable=SC2154
case $1 in
bound | renew)
    ip addr flush dev "$interface"
    ip addr add "$ip/$mask" dev "$interface"
    [ -z "$mtu" ] || ip link set "$interface" mtu "$mtu"
    for gateway in $router; do
        ip route replace default via "$gateway" dev "$interface"
        break
    done
    {
        echo "ip=$ip"
        echo "mask=$mask"
        echo "router=$router"
        echo "serverid=$serverid"
    } >"/run/dhcp.$interface"
    ;;
esac
