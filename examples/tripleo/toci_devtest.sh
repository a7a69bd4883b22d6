#!/bin/bash
# Deploys what TRIPLEO_TEST says onto the test environment of TE_DATAFILE, with the repositories that lie below
# /opt/stack/new. The origin's script of this name, for the deployment of examples/devtest.
set -euo pipefail
. "$(dirname "$0")/toci_variables.sh"
. "$TOCI_ROOT/workarounds.sh"
set_variables
bypass_proxy

# guard_node: a node is used for one run only (bug 1370275: a used node came back and its results were mixed).
guard_node() {
    local used=$WORKSPACE/logs/already-used own
    own=$(printf 'LOG_PATH=%s\nZUUL_UUID=%s' "${LOG_PATH:-}" "${ZUUL_UUID:-}")
    if [ -e "$used" ] && [ "$(cat "$used")" != "$own" ]; then
        say 'this node was used before, by:' >&2
        cat "$used" >&2
        fail 'a node is used for one run only; this one should have been deleted'
    fi
    printf '%s\n' "$own" >"$used"
}

# check_scale: the overcloud takes every node of the test environment but the first; there must be enough for its controllers.
check_scale() {
    local nodes
    nodes=$(jq '.nodes | length' "$TE_DATAFILE" 2>/dev/null) || nodes=''
    # An empty file is no error to jq.
    [ -n "$nodes" ] || refuse "$TE_DATAFILE is not a TE JSON"
    case $TRIPLEO_TEST in
    overcloud)
        [ "$nodes" -gt "$OVERCLOUD_CONTROLSCALE" ] ||
            refuse "OVERCLOUD_CONTROLSCALE is $OVERCLOUD_CONTROLSCALE; with the undercloud that takes $((OVERCLOUD_CONTROLSCALE + 1)) nodes, the test environment has $nodes"
        ;;
    seed | undercloud | vlan) ;;
    esac
}

# node_info: what this node says of itself, within limits.
node_info() {
    local command
    for command in 'date -u' uptime 'df -h' 'free -m' 'ps -ef' 'ip address' 'ip route' 'ss -ltnp'; do
        echo "== $command"
        # Words of a command line, split on purpose.
        # shellcheck disable=SC2086
        timeout 20 $command 2>&1 | head -c 1000000 || true
    done >"$WORKSPACE/logs/node_info.txt"
}

# debug: TRIPLEO_DEBUG=1 writes every command of this script to logs/trace.txt. Not of the devtest: it handles keys.
debug() {
    exec {BASH_XTRACEFD}>"$WORKSPACE/logs/trace.txt"
    set -x
}

# stop: the time is up, or the lease ended. The devtest collects what can still be had.
stop() {
    say 'told to stop'
    [ -z "${devtest:-}" ] || { kill "$devtest" 2>/dev/null && wait "$devtest"; } || true
    exit 143
}

[ -e "${TE_DATAFILE:-}" ] || { say "Couldn't find data file (TE_DATAFILE is '${TE_DATAFILE:-}')" >&2; exit 1; }
mkdir -p "$WORKSPACE/logs"
guard_node
[ "$TRIPLEO_DEBUG" = 0 ] || debug
check_scale
apply_workarounds
node_info

case $TRIPLEO_TEST in
seed) last=seed ;;
undercloud) last=undercloud ;;
overcloud) last=overcloud ;;
vlan)
    # As in 2014: nothing is deployed after the seed.
    say 'vlan: the seed alone; test environments here have no tagged network'
    last=seed
    ;;
esac

trap stop TERM INT HUP
export DEVTEST_LOGS=${DEVTEST_LOGS:-$WORKSPACE/logs}
"$TOCI_DEVTEST/devtest.sh" --stop-after "$last" &
devtest=$!
code=0
wait "$devtest" || code=$?
[ "$code" = 0 ] || { say "devtest.sh --stop-after $last ended with $code" >&2; exit "$code"; }
say 'Run completed.'
