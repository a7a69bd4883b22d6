# Variables of the devtest, with their defaults. Sourced by every stage; each may be set in the
# environment. README.md explains them in one table.
# shellcheck shell=bash
# A failure inside $(...) is a failure.
shopt -s inherit_errexit
DEVTEST_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

: "${TE_DATAFILE:=}"                              # the TE JSON; toci lease run sets it
: "${TOCI_LEASE:=}"                               # toci lease run sets it
: "${WORKSPACE:=}"
if [ -z "${DEVTEST_LOGS:-}" ]; then
    if [ -n "$WORKSPACE" ]; then DEVTEST_LOGS=$WORKSPACE/logs; else DEVTEST_LOGS=$PWD/logs-${TOCI_LEASE:-local}; fi
fi
: "${TOCI_DEVTEST_CACHE:=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/toci-devtest}"
: "${DEVTEST_CALLBACK_PORT:=27410}"               # as in 2014
: "${DEVTEST_CALLBACK_HOST:=}"                    # default: our address on the way to host-ip
: "${DEVTEST_CALLBACK_TIMEOUT_S:=480}"            # as in 2014
: "${DEVTEST_SSH_TIMEOUT_S:=30}"                  # seed's sshd after its callback
: "${DEVTEST_DEPLOY_TIMEOUT_S:=240}"              # power on to "image written", one node, one attempt
: "${DEVTEST_UP_TIMEOUT_S:=180}"                  # boot from disk to "reported in"
: "${DEVTEST_PARALLEL:=2}"                        # nodes deployed at the same time
: "${DEVTEST_COLLECT_TIMEOUT_S:=60}"              # logs of one machine
: "${DEVTEST_CONSOLE_COMMAND:=}"                  # run with DOMAIN as argument; default: toci te console
: "${DEVTEST_RELAY_PORT:=2222}"                   # on the seed: way of the nodes to the power gateway
: "${DEVTEST_SAMPLE_REPO:=$DEVTEST_ROOT/sample-project}"
: "${DEVTEST_STACK_NEW:=/opt/stack/new}"          # where devstack-gate puts the repositories under test
: "${DEVTEST_TOCI:=toci}"
export TE_DATAFILE TOCI_LEASE DEVTEST_LOGS TOCI_DEVTEST_CACHE

# Keys and state of one run. devtest.sh makes it and removes it; set it yourself to run the stages one by one.
if [ -z "${DEVTEST_WORK:-}" ]; then
    echo "devtest: set DEVTEST_WORK to a folder that the stages share (mode 0700, it holds keys), or run devtest.sh" >&2
    exit 2
fi
export DEVTEST_WORK
(umask 077 && mkdir -p "$DEVTEST_WORK")

for devtest_lib in ui te image repos machines collect; do
    # shellcheck source=/dev/null
    . "$DEVTEST_ROOT/lib/$devtest_lib.sh"
done
unset devtest_lib
