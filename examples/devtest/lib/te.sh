# The test environment: what the TE JSON says, and its gateway over OpenSSH.
# shellcheck shell=bash
# Variables that are set here are used by the other parts.
# shellcheck disable=SC2034

# te_key FILTER: one value of the TE JSON as text; empty when it is not there.
te_key() { jq -r "($1) // empty" "$TE_DATAFILE"; }

# load_te: reads the TE JSON into variables and writes ssh_config, keys and known_hosts below DEVTEST_WORK.
load_te() {
    [ -n "$TE_DATAFILE" ] || refuse "TE_DATAFILE is not set; run this by: toci lease run -- $0"
    [ -r "$TE_DATAFILE" ] || refuse "cannot read the TE JSON $TE_DATAFILE"
    jq -e . "$TE_DATAFILE" >/dev/null || refuse "$TE_DATAFILE is not JSON"
    local key
    for key in host-ip ssh-user ssh-key env-num; do
        [ -n "$(te_key ".[\"$key\"]")" ] || refuse "the TE JSON has no \"$key\""
    done
    TE_HOST_IP=$(te_key '.["host-ip"]')
    TE_USER=$(te_key '.["ssh-user"]')
    TE_NUM=$(te_key '.["env-num"]')
    TE_SEED_IP=$(te_key '.["seed-ip"]')
    TE_ROUTE_DEV=$(te_key '.["seed-route-dev"]')
    TE_REMOTE_HOST=$(te_key '.["remote-host"]')
    TE_GATEWAY_PORT=$(te_key '.toci.gateway.port')
    : "${TE_GATEWAY_PORT:=22}"
    TE_CIDR=$(te_key '.["baremetal-network"].cidr')
    : "${TE_CIDR:=192.0.2.0/24}"
    TE_PRIVATE_SEED_IP=$(te_key '.["baremetal-network"].seed.ip')
    : "${TE_PRIVATE_SEED_IP:=192.0.2.1}"
    TE_PREFIX=${TE_CIDR#*/}
    [ "$TE_PREFIX" = 24 ] || refuse "baremetal-network.cidr is $TE_CIDR; this devtest only knows /24"
    TE_NETMASK=255.255.255.0
    TE_SEED_RANGE=$(te_key '.["baremetal-network"].seed["range-start"]')
    : "${TE_SEED_RANGE:=192.0.2.2}"
    TE_UNDERCLOUD_RANGE=$(te_key '.["baremetal-network"].undercloud["range-start"]')
    : "${TE_UNDERCLOUD_RANGE:=192.0.2.21}"
    TE_SEED_DOMAIN=seed_$TE_NUM
    TE_NAME=$(te_key '.toci.testenv')
    : "${TE_NAME:=$TE_REMOTE_HOST-$TE_NUM}"
    write_keys
    write_ssh_config
}

# write_keys: the lease's key for the gateway, and our own key pair for the machines of this run.
write_keys() {
    (
        umask 077
        te_key '.["ssh-key"]' >"$DEVTEST_WORK/lease_key"
        [ -f "$DEVTEST_WORK/run_key" ] ||
            ssh-keygen -q -t ed25519 -N '' -C devtest -f "$DEVTEST_WORK/run_key" </dev/null
    )
    ssh-keygen -y -P '' -f "$DEVTEST_WORK/lease_key" >/dev/null 2>&1 ||
        refuse "ssh-key of the TE JSON is not a private key that OpenSSH reads"
    touch "$DEVTEST_WORK/known_hosts"
    local host_key
    host_key=$(te_key '.toci.gateway.host_key')
    if [ -n "$host_key" ]; then
        know_host gateway "$host_key"
    elif [ -n "${DEVTEST_GATEWAY_KNOWN_HOSTS:-}" ]; then
        sed 's/^[^ ]* /gateway /' "$DEVTEST_GATEWAY_KNOWN_HOSTS" >>"$DEVTEST_WORK/known_hosts"
    elif ! grep -q '^gateway ' "$DEVTEST_WORK/known_hosts"; then
        refuse "the TE JSON has no toci.gateway.host_key; name a file with the gateway's key in DEVTEST_GATEWAY_KNOWN_HOSTS"
    fi
}

# know_host NAME KEY: NAME has this host key and no other. KEY is "type base64 [comment]".
know_host() {
    local known=$DEVTEST_WORK/known_hosts
    grep -v "^$1 " "$known" >"$known.new" || true
    printf '%s %s\n' "$1" "$(cut -d' ' -f1,2 <<<"$2")" >>"$known.new"
    mv "$known.new" "$known"
}

# write_ssh_config: names gateway, seed and (after node_hosts) every node. Host keys are known or refused.
write_ssh_config() {
    cat >"$DEVTEST_WORK/ssh_config" <<CONFIG
Host *
    StrictHostKeyChecking yes
    UserKnownHostsFile $DEVTEST_WORK/known_hosts
    GlobalKnownHostsFile /dev/null
    IdentitiesOnly yes
    IdentityAgent none
    PasswordAuthentication no
    BatchMode yes
    ConnectTimeout 20
    ServerAliveInterval 10
    ServerAliveCountMax 6
    LogLevel ERROR
Host gateway
    HostName $TE_HOST_IP
    Port $TE_GATEWAY_PORT
    User $TE_USER
    IdentityFile $DEVTEST_WORK/lease_key
    HostKeyAlias gateway
Host seed
    HostName $(seed_address)
    User root
    IdentityFile $DEVTEST_WORK/run_key
    HostKeyAlias seed
CONFIG
    [ ! -f "$DEVTEST_WORK/nodes" ] || node_hosts >>"$DEVTEST_WORK/ssh_config"
}

# seed_address: as it told us itself, or as the TE JSON foretells it.
seed_address() {
    if [ -s "$DEVTEST_WORK/seed_ip" ]; then cat "$DEVTEST_WORK/seed_ip"; else echo "${TE_SEED_IP:-0.0.0.0}"; fi
}

# node_hosts: the nodes are reached through the seed, so no route of the client is needed.
node_hosts() {
    local name address
    while read -r name _ _ address _; do
        cat <<CONFIG
Host $name
    HostName $address
    User root
    IdentityFile $DEVTEST_WORK/run_key
    HostKeyAlias $name
    ProxyCommand ssh -F $DEVTEST_WORK/ssh_config -W %h:%p seed
CONFIG
    done <"$DEVTEST_WORK/nodes"
}

to() { ssh -F "$DEVTEST_WORK/ssh_config" "$@"; }

# gateway COMMAND-LINE: one of the gateway's. It echoes each command on stderr, as in 2014; we do not.
gateway() { to gateway "$@" </dev/null 2> >(grep -v '^Calling ' >&2); }

# list_nodes: writes DEVTEST_WORK/nodes, a line "name role mac address domain" for each blank node;
# node 1 of the TE becomes the undercloud, the others the overcloud. A domain is found by its MAC,
# as Ironic's ssh driver does it.
list_nodes() {
    local -A domain_of=()
    local domain mac
    gateway 'LC_ALL=C virsh list --all' >"$DEVTEST_WORK/domains.txt" ||
        fail "the gateway $TE_USER@$TE_HOST_IP did not list the machines of the TE"
    while read -r domain; do
        while read -r mac; do domain_of[$mac]=$domain; done < <(
            gateway "LC_ALL=C virsh dumpxml $domain" | grep -o "mac address=['\"][0-9a-fA-F:]*" | grep -oE '([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}' | tr 'A-F' 'a-f'
        )
    done < <(awk 'NR > 2 && $2 ~ /^baremetal/ { print $2 }' "$DEVTEST_WORK/domains.txt")
    local index=0 name role address last base
    : >"$DEVTEST_WORK/nodes.new"
    while read -r mac; do
        if [ "$index" = 0 ]; then
            name=undercloud role=undercloud address=$TE_SEED_RANGE
        else
            base=${TE_UNDERCLOUD_RANGE%.*} last=${TE_UNDERCLOUD_RANGE##*.}
            name=overcloud-$index role=overcloud address=$base.$((last + index - 1))
        fi
        [ -n "${domain_of[$mac]:-}" ] || fail "no machine of the TE has the MAC $mac of the TE JSON's nodes"
        echo "$name $role $mac $address ${domain_of[$mac]}" >>"$DEVTEST_WORK/nodes.new"
        index=$((index + 1))
    done < <(jq -r '.nodes[].mac[0]' "$TE_DATAFILE" | tr 'A-F' 'a-f')
    mv "$DEVTEST_WORK/nodes.new" "$DEVTEST_WORK/nodes"
    write_ssh_config
}
