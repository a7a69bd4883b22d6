#!/bin/bash
# enter.sh COMMAND...: runs a command in the sandbox, in the folder where it was called. The API is on its 127.0.0.1.
set -euo pipefail
path=$PATH
# shellcheck source=tests/cloud/stack/lib.sh
. "$(dirname "$0")/lib.sh"

pid=$(sandbox_pid) || fail "the cloud is not up: cargo xtask cloud up"
export PATH=$PATH:$path TMPDIR=$CLOUD/tmp OS_CLIENT_CONFIG_FILE=$CLOUD/etc/clouds.yaml
exec nsenter --target "$pid" --mount --net --pid --ipc --wdns="$PWD" -- "$@"
