#!/bin/bash
# up.sh: brings a small real OpenStack up, in a sandbox of its own: mount, network, pid and ipc namespaces. Its state is in
# TOCI_CLOUD_STATE (default: target/cloud); every state folder is a cloud of its own. Nothing is done when it is up.
set -euo pipefail
# shellcheck source=tests/cloud/stack/lib.sh
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" = 0 ] || fail "the sandbox needs namespaces and mounts: run this as root"
mkdir -p "$TOCI_CLOUD_STATE" "$TOCI_CLOUD_CACHE"
exec 9>"$TOCI_CLOUD_STATE.lock"
flock 9
if [ -n "$(sandbox_pid)" ]; then
    [ ! -e "$TOCI_CLOUD_STATE/up" ] || { say "the cloud is up already ($TOCI_CLOUD_STATE)"; exit 0; }
    say "a cloud that did not come up is here: it goes first"
fi
"$HERE/down.sh"
# From nothing each time: no test sees what another left.
find "$TOCI_CLOUD_STATE" -mindepth 1 -delete
mkdir -p "$TOCI_CLOUD_STATE"/{pid,log,sock,lock,keys,tmp,images}
cp -r "$HERE"/{etc,sbin} "$TOCI_CLOUD_STATE"

image="$HERE/../guest/image.sh"
for role in node dead; do
    "$image" "$role" "$TOCI_CLOUD_STATE/images/$role.qcow2" >"$TOCI_CLOUD_STATE/log/image-$role.log" 2>&1 ||
        fail "the guest's image: $(tail -n 3 "$TOCI_CLOUD_STATE/log/image-$role.log")"
done
"$HERE/../metal/agent.sh" "$TOCI_CLOUD_STATE/images" >"$TOCI_CLOUD_STATE/log/agent.log" 2>&1 ||
    say "there will be no bare metal: $(tail -n 1 "$TOCI_CLOUD_STATE/log/agent.log")"
say "images of the guest"

setsid unshare --mount --net --pid --ipc --fork --kill-child --mount-proc -- bash "$HERE/sandbox.sh" "$TOCI_CLOUD_STATE" \
    </dev/null >"$TOCI_CLOUD_STATE/log/sandbox.log" 2>&1 9>&- &
outer=$!
# Until down.sh knows its process id, a start that is interrupted takes it along.
trap 'kill -KILL "$outer"' EXIT
sandbox_is_ready() {
    [ -e "$TOCI_CLOUD_STATE/sock/ready" ] && ps -o pid= --ppid "$outer" | tr -d ' ' >"$TOCI_CLOUD_STATE/sandbox.pid"
}
wait_for 20 "sandbox" sandbox_is_ready
trap - EXIT
disown
if ! "$HERE/enter.sh" bash "$HERE/inside.sh" 9>&-; then
    say "the cloud did not come up; what its services said is in $TOCI_CLOUD_STATE/log" >&2
    "$HERE/down.sh"
    exit 1
fi
touch "$TOCI_CLOUD_STATE/up"
say "UP: cargo xtask cloud enter openstack --os-cloud ci server list"
