#!/bin/bash
# The whole devtest: images, seed, undercloud, overcloud. The COMMAND of `toci lease run`.
set -euo pipefail
usage() {
    cat <<'U'
usage: devtest.sh [--stop-after seed|undercloud|overcloud]
Deploys seed, undercloud and overcloud onto the test environment of TE_DATAFILE.
Exit codes: 0 deployed and checked, 1 something failed, 2 wrong use or missing tools, 143 told to stop.
Knobs: see README.md.
U
}
stop_after=overcloud
while [ $# -gt 0 ]; do
    case $1 in
    --stop-after)
        stop_after=${2:-}
        shift 2 || { usage >&2; exit 2; }
        ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
    esac
done
case $stop_after in seed | undercloud | overcloud) ;; *) usage >&2; exit 2 ;; esac

remove_work=''
if [ -z "${DEVTEST_WORK:-}" ]; then
    DEVTEST_WORK=$(mktemp -d "${TMPDIR:-/tmp}/devtest.XXXXXX")
    remove_work=yes
fi
export DEVTEST_WORK
. "$(dirname "$0")/devtest_variables.sh"
mkdir -p "$DEVTEST_LOGS"
: >"$DEVTEST_LOGS/devtest_perf.log"

# finish: on every way out. What is collected depends on how far the run came; it has time limits.
finish() {
    local code=$?
    trap - EXIT TERM INT HUP
    # Whatever is missing here, the rest must be done.
    set +eu
    if [ -f "$DEVTEST_WORK/nodes" ]; then
        timed logs collect_all
        [ "$code" = 0 ] || show_consoles
    fi
    timed_total "$code"
    write_result "$code" "$stop_after"
    [ -z "$remove_work" ] || rm -rf "$DEVTEST_WORK"
    if [ "$code" = 0 ]; then
        say "Run completed: $stop_after is deployed and checked. Result and logs: $DEVTEST_LOGS"
    else
        say "Run FAILED (exit code $code). Logs: $DEVTEST_LOGS"
    fi
    exit "$code"
}

timed_total() {
    printf '%s total %s %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
        "$(awk -v ms=$(($(date +%s%3N) - DEVTEST_STARTED_MS)) 'BEGIN { printf "%.1f", ms / 1000 }')" "$1" >>"$DEVTEST_LOGS/devtest_perf.log"
}

# stage NAME SCRIPT: in the background and waited for, so that a signal is heard at once.
stage() {
    timed "$1" run_stage "$DEVTEST_ROOT/$2" || exit
}

run_stage() {
    "$1" &
    child=$!
    wait "$child"
}

# kill_tree PID: a stage with everything that it started, children first.
kill_tree() {
    local pid
    local -a children=()
    read -r -a children <"/proc/$1/task/$1/children" 2>/dev/null || true
    for pid in "${children[@]}"; do kill_tree "$pid"; done
    kill "$1" 2>/dev/null || true
}

# The lease ended, or somebody pressed Ctrl-C: stop the stage, keep what can still be had.
interrupted() {
    say "told to stop"
    [ -z "${child:-}" ] || kill_tree "$child"
    export DEVTEST_COLLECT_TIMEOUT_S=8
    exit 143
}

trap finish EXIT
trap interrupted TERM INT HUP

need jq jq ssh openssh-client
load_te
stage images devtest_images.sh
stage seed devtest_seed.sh
if [ "$stop_after" != seed ]; then
    stage undercloud devtest_undercloud.sh
    [ "$stop_after" = undercloud ] || stage overcloud devtest_overcloud.sh
fi
