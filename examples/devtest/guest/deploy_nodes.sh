#!/bin/sh
# Run over ssh on the seed or on the undercloud: deploys the nodes of /etc/devtest/deploy/nodes and
# says on stdout what happens. Ends with 0 only when each of them has booted from its disk and
# reported in.
# shellcheck shell=sh
. /lib/devtest/common.sh
. /lib/devtest/deployer.sh
DEPLOY=$CONFIG/deploy
. "$DEPLOY/deploy.conf" # SELF INTERFACE PREFIX NETMASK GATEWAY POWER_HOST POWER_PORT POWER_USER PARALLEL IMAGE_FROM *_TIMEOUT_S
export HOME=/root

ATTEMPTS=2

# power COMMAND-LINE: one of the gateway's commands, e.g. "virsh start baremetalbrbm1_0". What it
# said is only shown when it refuses.
power() {
    timeout 60 dbclient -i "$DEPLOY/power.key" -p "$POWER_PORT" "$POWER_USER@$POWER_HOST" "$1" \
        </dev/null >"/run/power.$domain" 2>&1 || { cat "/run/power.$domain"; return 1; }
}

# As Ironic's ssh driver sets the boot device (origin.md 2.3, command line 7).
set_boot_device() {
    power "EDITOR=\"sed -i '/<boot \\(dev\\|order\\)=*\\>/d;/<\\/os>/i\\<boot dev=\\\"$2\\\"/>'\" LC_ALL=C /usr/bin/virsh edit $1"
}

# power_off: a machine that is off already is what we want, so the answer does not matter; whether
# it is really off shows when it is started.
power_off() { power "LC_ALL=C /usr/bin/virsh destroy $1" >/dev/null || true; }

# power_on_from DOMAIN DEVICE
power_on_from() {
    power_off "$1"
    set_boot_device "$1" "$2" && power "LC_ALL=C /usr/bin/virsh start $1"
}

elapsed() { cut -d. -f1 /proc/uptime; }

# await NAME STAGE SECONDS: until the report is there; says on the way what else was reported.
await() {
    end=$(($(elapsed) + $3)) next=$(($(elapsed) + 15))
    until [ -f "$REPORTS/$1.$2" ]; do
        for stage in booted writing; do
            if [ -f "$REPORTS/$1.$stage" ] && [ ! -f "$REPORTS/$1.$stage.said" ]; then
                echo "$1: $(cat "$REPORTS/$1.$stage")"
                : >"$REPORTS/$1.$stage.said"
            fi
        done
        if [ -f "$REPORTS/$1.failed" ]; then
            echo "$1: FAILED on the node: $(cat "$REPORTS/$1.failed")"
            return 2
        fi
        if [ "$(elapsed)" -ge "$end" ]; then
            echo "$1: no report '$2' within $3 s"
            return 1
        fi
        if [ "$(elapsed)" -ge "$next" ]; then
            echo "$1: waiting for '$2', $((end - $(elapsed))) s left"
            next=$((next + 15))
        fi
        usleep 200000
    done
}

deploy_node() {
    name=$1 domain=$2 started=$(elapsed)
    rm -f "$REPORTS/$name".*
    echo "$name: starting $domain from the network"
    power_on_from "$domain" network || { echo "$name: the gateway did not start $domain"; return 1; }
    await "$name" deployed "$DEPLOY_TIMEOUT_S" || return
    echo "$name: $(cat "$REPORTS/$name.deployed") ($(($(elapsed) - started)) s); starting $domain from its disk"
    power_on_from "$domain" hd || { echo "$name: the gateway did not start $domain"; return 1; }
    await "$name" up "$UP_TIMEOUT_S" || return
    echo "$name: up and reported in after $(($(elapsed) - started)) s"
}

# A second attempt only helps against the world (a lost frame in iPXE); it is said aloud.
deploy_with_attempts() {
    attempt=1
    until deploy_node "$@"; do
        [ "$attempt" -lt "$ATTEMPTS" ] && [ ! -f "$REPORTS/$1.failed" ] || return 1
        attempt=$((attempt + 1))
        echo "$1: attempt $attempt of $ATTEMPTS"
    done
}

if [ -n "$IMAGE_FROM" ]; then
    echo "fetching the image from $IMAGE_FROM"
    fetch_image "$IMAGE_FROM" || { echo "the image did not arrive whole from $IMAGE_FROM"; exit 1; }
fi
mkdir -p "$REPORTS"
write_node_configs "$DEPLOY/nodes" "$PREFIX" "$GATEWAY" "$SELF"
write_boot_files "$DEPLOY/nodes" "$SELF"
start_router_advertisements "$INTERFACE"
start_dhcp "$DEPLOY/nodes" "$INTERFACE" "$NETMASK" "$SELF"

# At most PARALLEL at a time: this starts them in groups.
running='' count=0 failed=0
wait_group() {
    for pid in $running; do wait "$pid" || failed=1; done
    running='' count=0
}
while read -r name _ _ _ domain; do
    deploy_with_attempts "$name" "$domain" </dev/null &
    running="$running $!" count=$((count + 1))
    [ "$count" -lt "$PARALLEL" ] || wait_group
done <"$DEPLOY/nodes"
wait_group
kill "$(cat /run/udhcpd.pid)" 2>/dev/null || true
exit "$failed"
