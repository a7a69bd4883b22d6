#!/bin/bash
# The job's gate: takes a test environment, unless it has one already, and runs toci_devtest.sh with it. The origin's
# script of this name, for the deployment of examples/devtest. README.md has the control variables.
set -euo pipefail
. "$(dirname "$0")/toci_variables.sh"
set_variables

# set_region: GEARDSERVER and http_proxy of the region that NODE_NAME is in. What the job sets itself counts (the
# origin overwrote it).
set_region() {
    local pattern geard proxy
    while read -r pattern geard proxy; do
        case $pattern in '' | '#'*) continue ;; esac
        # The pattern is meant to be one.
        # shellcheck disable=SC2053
        if [[ $NODE_NAME == $pattern ]]; then
            : "${GEARDSERVER:=${geard#-}}"
            : "${http_proxy:=${proxy#-}}"
            break
        fi
    done <"$TOCI_REGIONS"
    [ -n "${GEARDSERVER:-}" ] || refuse "no line of $TOCI_REGIONS fits the node $NODE_NAME"
    export GEARDSERVER
    if [ -n "${http_proxy:-}" ]; then export http_proxy; else unset http_proxy; fi
    bypass_proxy
}

# testenv_client: by its name of 2014, or as the program that answers to it.
testenv_client() {
    local toci
    if command -v "${TESTENV_CLIENT:-testenv-client}" >/dev/null; then
        exec "${TESTENV_CLIENT:-testenv-client}" "$@"
    fi
    toci=$(command -v toci) || refuse "neither testenv-client nor toci is on this node; set TESTENV_CLIENT, or let the job declare testenv"
    exec -a testenv-client "$toci" "$@"
}

set_region
mkdir -p "$WORKSPACE/logs"
tell_variables
if [ -n "${TE_DATAFILE:-}" ]; then
    say "the test environment of $TE_DATAFILE was taken before the job started"
    # TERM lets it collect its logs; it has a minute for that.
    exec timeout -k 60 "$TIMEOUT_SECS" "$TOCI_ROOT/toci_devtest.sh"
fi
case $GEARDSERVER in *:*) broker=$GEARDSERVER ;; *) broker=$GEARDSERVER:4730 ;; esac
say "taking a test environment of $broker"
testenv_client -b "$broker" -t "$TIMEOUT_SECS" -- "$TOCI_ROOT/toci_devtest.sh"
