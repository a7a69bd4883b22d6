# What the scripts of the cloud share.
# shellcheck shell=bash

# Python's and apt's settings of a developer's shell are not for services; Debian's own programs come first.
unset PYTHONDONTWRITEBYTECODE PYTHONUNBUFFERED PYTHONPATH PYENV_ROOT VIRTUAL_ENV
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# The state folder as it is called outside; inside of the sandbox it is /run/cloud, so that all settings are fixed files.
: "${TOCI_CLOUD_STATE:=$(cd "$HERE/../../.." && pwd)/target/cloud}"
# What is made once for all clouds: databases.
: "${TOCI_CLOUD_CACHE:=${HOME:-/root}/.cache/toci-cloud}"
# Moment 0 of the times shown.
: "${CLOUD_STARTED_MS:=$(date +%s%3N)}"
export TOCI_CLOUD_STATE TOCI_CLOUD_CACHE CLOUD_STARTED_MS
CLOUD=/run/cloud

say() {
    local ms=$(($(date +%s%3N) - CLOUD_STARTED_MS))
    printf '[%3d.%d s] %s\n' $((ms / 1000)) $((ms % 1000 / 100)) "$*"
}

fail() { say "FAILED: $*" >&2; exit 1; }

# wait_for SECONDS WHAT COMMAND...: until the command works.
wait_for() {
    local end=$(($(date +%s) + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$(date +%s)" -lt "$end" ] || fail "$what is not there in time; logs: $TOCI_CLOUD_STATE/log"
        sleep 0.2
    done
    say "$what"
}

# sandbox_pid: the sandbox's first process as seen from outside; nothing when the cloud is down. A number that somebody
# else got since does not count.
sandbox_pid() {
    local pid
    pid=$(cat "$TOCI_CLOUD_STATE/sandbox.pid" 2>/dev/null) || return 1
    tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -qxF "$TOCI_CLOUD_STATE" && echo "$pid"
}

# query SQL: asks the cloud's database server, from inside.
query() { mariadb --no-defaults -uroot -S "$CLOUD/sock/mysql.sock" -N -e "$1"; }
