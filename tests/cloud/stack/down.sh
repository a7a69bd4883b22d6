#!/bin/bash
# down.sh: ends the cloud. Its processes, servers, networks and mounts go with the sandbox's first process; its logs stay
# until the next one comes up. Done before, it does nothing.
set -euo pipefail
# shellcheck source=tests/cloud/stack/lib.sh
. "$(dirname "$0")/lib.sh"

pid=$(sandbox_pid) || exit 0
kill -KILL "$pid"
is_gone() { [ ! -d "/proc/$pid" ]; }
wait_for 20 "the cloud is down" is_gone
find "$TOCI_CLOUD_STATE" -mindepth 1 -maxdepth 1 ! -name log -exec rm -rf {} +
