#!/bin/bash
# Put here by `toci host deploy`: keeps toci-host running on a machine without systemd. TERM ends it, USR2 has the agent
# make way for the version that is installed now. Its process id is in /run/toci-host.pid.
set -u
log=/var/log/toci-host.log
LOG_MAX_BYTES=$((16 << 20))
PAUSE_S=2
child=
ending=

ask() { [ -z "$child" ] || kill "-$1" "$child" 2>/dev/null; }
trap 'ask USR2' USR2
trap 'ending=yes; ask TERM' TERM INT

while [ -z "$ending" ]; do
    if [ "$(stat -c %s "$log" 2>/dev/null || echo 0)" -gt $LOG_MAX_BYTES ]; then
        mv -f "$log" "$log.1"
        exec >>"$log" 2>&1
    fi
    /usr/local/sbin/toci-host run --config /etc/toci/toci-host.toml &
    child=$!
    # A trapped signal ends `wait`, not the child.
    while :; do
        wait "$child"
        code=$?
        kill -0 "$child" 2>/dev/null || break
    done
    child=
    # 2: refused; it would be refused again.
    case $code in 0 | 2) exit "$code" ;; esac
    [ -n "$ending" ] || sleep $PAUSE_S
done
