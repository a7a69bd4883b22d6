#!/bin/bash
# What devstack-vm-gate-wrap.sh was to a job, as far as it is the job's: hooks with time limits, a log of its own for
# each, and the gate's exit code. The repositories are set up before the job starts.
# usage: devstack_gate_wrap.sh [FILE]   FILE is sourced first; it defines pre_test_hook, gate_hook, post_test_hook.
set -euo pipefail
: "${WORKSPACE:=$PWD}"
: "${DEVSTACK_GATE_TIMEOUT:=60}"
# So many minutes are left for logs after the gate.
RESERVE=5
export WORKSPACE DEVSTACK_GATE_TIMEOUT
started=$SECONDS
if [ $# -gt 0 ]; then
    # shellcheck source=/dev/null
    . "$1"
fi
declare -F gate_hook >/dev/null || { echo "devstack_gate_wrap.sh: there is no function gate_hook; define and export it, or name a file that does" >&2; exit 2; }
mkdir -p "$WORKSPACE/logs"

# stamped: each line with its time.
stamped() {
    local line
    while IFS= read -r line || [ -n "$line" ]; do printf '%(%Y-%m-%d %H:%M:%S)T | %s\n' -1 "$line"; done
}

# left: minutes for the gate.
left() {
    local minutes=$((DEVSTACK_GATE_TIMEOUT - (SECONDS - started) / 60 - RESERVE))
    if [ "$minutes" -gt 1 ]; then echo "$minutes"; else echo 1; fi
}

# hook NAME MINUTES: runs the function, if there is one; what it says goes on and into its log.
hook() {
    declare -F "$1" >/dev/null || return 0
    export -f "${1?}"
    local code=0
    echo "== $1, at most $2 min"
    timeout -k 60 "$2m" bash -c "$1" 2>&1 | stamped | tee "$WORKSPACE/logs/devstack-gate-${1//_/-}.txt" || code=$?
    echo "== $1 ended with $code"
    return "$code"
}

code=0
hook pre_test_hook "$(left)" || code=$?
if [ "$code" = 0 ]; then
    REMAINING_TIME=$(left)
    # What is left is the gate's; the script in it counts by this.
    export DEVSTACK_GATE_TIMEOUT=$REMAINING_TIME
    hook gate_hook "$REMAINING_TIME" || code=$?
fi
[ "$code" != 0 ] || hook post_test_hook "$RESERVE" || code=$?
exit "$code"
