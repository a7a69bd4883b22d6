# The machines of the deployment, as the client handles them.
# shellcheck shell=bash
# The knobs come from devtest_variables.sh.
# shellcheck disable=SC2153

# quiet_machines: whatever runs in the TE is switched off (a lease comes clean; a second run in the same lease does not).
quiet_machines() {
    local domain
    while read -r domain; do
        say "switching $domain off"
        gateway "LC_ALL=C virsh destroy $domain" >/dev/null || true
    done < <(gateway 'LC_ALL=C virsh list' | awk 'NR > 2 && NF { print $2 }')
}

# copy_seed IMAGE: through the gateway. One that tells the checksum of what arrived is taken at its word.
copy_seed() {
    local said=$DEVTEST_WORK/copyseed.out sum
    say "copying the seed image, $(du -m "$1" | cut -f1) MiB, through the gateway"
    to gateway "copyseed $TE_NUM" <"$1" 2>&1 | tee "$said" | grep -v '^Calling ' | say_lines 'gateway: ' || fail "copyseed"
    sum=$(grep -oE 'sha256 [0-9a-f]{64}' "$said" | cut -d' ' -f2 || true)
    if [ -n "$sum" ] && [ "$sum" != "$(sha256sum <"$1" | cut -d' ' -f1)" ]; then
        fail "the gateway received another image than we sent: sha256 $sum"
    fi
    rm -f "$1"
}

# set_callback_host: where the seed finds us: our own address on the way to the TE host.
set_callback_host() {
    [ -z "$DEVTEST_CALLBACK_HOST" ] || return 0
    DEVTEST_CALLBACK_HOST=$(ip -4 route get "$TE_HOST_IP" | grep -oE 'src [0-9.]+' | cut -d' ' -f2)
    [ -n "$DEVTEST_CALLBACK_HOST" ] || fail "no route to $TE_HOST_IP"
}

# start_listener: the callback port, open until stop_listener.
start_listener() {
    rm -f "$DEVTEST_WORK/callback"
    ! listening || refuse "port $DEVTEST_CALLBACK_PORT is in use here; set DEVTEST_CALLBACK_PORT to a free one"
    busybox nc -ll -p "$DEVTEST_CALLBACK_PORT" -e "$DEVTEST_ROOT/lib/callback_answer.sh" </dev/null 2>"$DEVTEST_WORK/listener.err" &
    LISTENER=$!
    local tries=0
    until listening; do
        tries=$((tries + 1))
        if [ "$tries" -gt 50 ] || ! kill -0 "$LISTENER" 2>/dev/null; then
            fail "cannot listen on port $DEVTEST_CALLBACK_PORT: $(cat "$DEVTEST_WORK/listener.err")"
        fi
        sleep 0.1
    done
}

listening() { [ -n "$(ss -Hltn "sport = :$DEVTEST_CALLBACK_PORT")" ]; }

stop_listener() {
    [ -z "${LISTENER:-}" ] || kill "$LISTENER" 2>/dev/null || true
    LISTENER=''
}

# await_callback: until our seed has called, with its time limit; sets the seed's address.
await_callback() {
    local end=$((SECONDS + DEVTEST_CALLBACK_TIMEOUT_S)) next=$((SECONDS + 10)) ip
    until [ -f "$DEVTEST_WORK/callback" ]; do
        [ "$SECONDS" -lt "$end" ] || fail "the seed did not call back on port $DEVTEST_CALLBACK_PORT within $DEVTEST_CALLBACK_TIMEOUT_S s"
        kill -0 "$LISTENER" 2>/dev/null || fail "the listener died: $(cat "$DEVTEST_WORK/listener.err")"
        if [ "$SECONDS" -ge "$next" ]; then
            say "waiting for the seed's callback, $((end - SECONDS)) s left"
            next=$((next + 10))
        fi
        sleep 0.2
    done
    ip=$(sed -n 's/.* IP=\([0-9.]*\) .*/\1/p' "$DEVTEST_WORK/callback")
    if [ -n "$TE_SEED_IP" ] && [ "$ip" != "$TE_SEED_IP" ]; then
        fail "the seed got $ip by DHCP, but the TE JSON promises $TE_SEED_IP"
    fi
    echo "$ip" >"$DEVTEST_WORK/seed_ip"
    say "seed $ip called back $(sed -n 's/.*UPTIME=\([0-9.]*\).*/\1/p' "$DEVTEST_WORK/callback") s after its kernel's start"
}

# await_ssh NAME: until the machine answers over ssh with the key that we know.
await_ssh() {
    local end=$((SECONDS + DEVTEST_SSH_TIMEOUT_S)) last
    until last=$(to "$1" true </dev/null 2>&1); do
        [ "$SECONDS" -lt "$end" ] || fail "no ssh to $1 within $DEVTEST_SSH_TIMEOUT_S s: $last"
        sleep 0.5
    done
}

# deployer_config NAME: what the machine needs to deploy others, as a tar on stdout. The lease's
# key for the gateway goes over ssh when the machine runs; no image ever holds it.
deployer_config() {
    local dir=$DEVTEST_WORK/deploy-$1 role=overcloud self=$TE_SEED_RANGE interface=eth0
    local power_host=$TE_PRIVATE_SEED_IP power_port=$DEVTEST_RELAY_PORT image_from=$TE_PRIVATE_SEED_IP
    if [ "$1" = seed ]; then
        role=undercloud self=$TE_PRIVATE_SEED_IP interface=eth1
        power_host=$TE_HOST_IP power_port=$TE_GATEWAY_PORT image_from=''
    fi
    rm -rf "$dir"
    (
        umask 077
        mkdir -p "$dir/etc/devtest/deploy" "$dir/root/.ssh"
        dropbearconvert openssh dropbear "$DEVTEST_WORK/lease_key" "$dir/etc/devtest/deploy/power.key" 2>/dev/null
        awk -v role="$role" '$2 == role' "$DEVTEST_WORK/nodes" >"$dir/etc/devtest/deploy/nodes"
        sed -n "s/^gateway /$power_host /p" "$DEVTEST_WORK/known_hosts" >"$dir/root/.ssh/known_hosts"
        cp "$DEVTEST_WORK/run_key.pub" "$dir/etc/devtest/authorized_keys"
        cat >"$dir/etc/devtest/deploy/deploy.conf" <<CONF
SELF=$self
INTERFACE=$interface
PREFIX=$TE_PREFIX
NETMASK=$TE_NETMASK
GATEWAY=$TE_PRIVATE_SEED_IP
POWER_HOST=$power_host
POWER_PORT=$power_port
POWER_USER=$TE_USER
PARALLEL=$DEVTEST_PARALLEL
IMAGE_FROM=$image_from
DEPLOY_TIMEOUT_S=$DEVTEST_DEPLOY_TIMEOUT_S
UP_TIMEOUT_S=$DEVTEST_UP_TIMEOUT_S
CONF
    )
    tar -c --owner=0 --group=0 -f - -C "$dir" etc root
    rm -rf "$dir"
}

# deploy_from NAME: hands the configuration over and lets the machine deploy its nodes, saying what it says.
deploy_from() {
    deployer_config "$1" | to "$1" 'tar -x -f - -C / && chmod 700 /root /root/.ssh'
    to "$1" 'sh /lib/devtest/deploy_nodes.sh' </dev/null 2>&1 | say_lines "$1: " ||
        fail "the $1 did not deploy its nodes"
}

# take_report NAME FROM: fetches the report that NAME sent to its deployer FROM; it tells NAME's host key.
take_report() {
    local file=$DEVTEST_WORK/report-$1 key
    if [ "$1" = "$2" ]; then to "$2" 'cat /run/report.txt' </dev/null >"$file"; else to "$2" "cat /run/reports/$1.up" </dev/null >"$file"; fi
    key=$(sed -n 's/^host_key //p' "$file")
    [ -n "$key" ] || fail "the report of $1 has no host key"
    [ "$1" = seed ] || know_host "$1" "$key"
}

# check_report NAME: the code under test ran there, at the revision that git names here.
check_report() {
    local file=$DEVTEST_WORK/report-$1 name sha digest reported_sha reported_digest code ran=0
    while read -r name sha digest; do
        read -r reported_sha reported_digest code < <(sed -n "s/^repo $name //p" "$file") ||
            fail "$1 does not have the repository $name"
        [ "$reported_sha" = "$sha" ] || fail "$1 has $name at $reported_sha, not $sha"
        [ "$reported_digest" = "$digest" ] || fail "$1 has $name with other contents than revision $sha"
        case $code in
        none) ;;
        0) ran=$((ran + 1)) ;;
        *) fail "hooks of $name ended with $code on $1 (see its logs)" ;;
        esac
    done <"$DEVTEST_WORK/repos"
    [ "$ran" -gt 0 ] || fail "nothing of the repositories under test ran on $1"
    say "$1: reported in, ran the code under test: $(awk '{ printf "%s%s %.12s", s, $1, $2; s = ", " }' "$DEVTEST_WORK/repos")"
}

# smoke_test: from the seed, over the private network, to every node.
smoke_test() {
    mkdir -p "$DEVTEST_LOGS"
    local code=0
    awk '{ print $1, $4 }' "$DEVTEST_WORK/nodes" | to seed 'sh /lib/devtest/smoke.sh' >"$DEVTEST_LOGS/smoke.txt" || code=$?
    say_lines 'smoke test: ' <"$DEVTEST_LOGS/smoke.txt"
    [ "$code" = 0 ] || fail "smoke test"
    local name role
    while read -r name role _; do
        grep -qx "page $name $name $role" "$DEVTEST_LOGS/smoke.txt" || fail "smoke test: another machine answers at the address of $name"
    done <"$DEVTEST_WORK/nodes"
}

# try_route: the way to the private network, as in 2014, where we have the card that the TE JSON names
# (seed-route-dev). The seed passes packets on and the TE host lets answers through. Nothing here needs
# it: where we may not change routes, everything goes through ssh to the seed. A route that does not work
# is taken away again.
try_route() {
    [ -n "$TE_ROUTE_DEV" ] && ip link show "$TE_ROUTE_DEV" >/dev/null 2>&1 || return 0
    local seed
    seed=$(seed_address)
    ip route replace "$TE_CIDR" via "$seed" dev "$TE_ROUTE_DEV" 2>/dev/null || return 0
    if ping -c 1 -W 2 "$TE_PRIVATE_SEED_IP" >/dev/null 2>&1; then
        say "route to $TE_CIDR via $seed dev $TE_ROUTE_DEV"
    else
        ip route del "$TE_CIDR" via "$seed" dev "$TE_ROUTE_DEV" 2>/dev/null || true
        say "no route to $TE_CIDR: nothing comes back through the seed; using ssh to it"
    fi
}
