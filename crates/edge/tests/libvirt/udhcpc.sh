#!/bin/sh
# Called by udhcpc, which sets these variables.
# shellcheck disable=SC2154
case $1 in
bound | renew)
    ip addr flush dev "$interface"
    ip addr add "$ip/$mask" dev "$interface"
    for gateway in $router; do
        ip route replace default via "$gateway" dev "$interface"
        break
    done
    echo "$ip" >/run/address
    ;;
esac
