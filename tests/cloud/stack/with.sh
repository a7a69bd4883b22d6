#!/bin/bash
# with.sh COMMAND...: runs a command while the cloud is up. A cloud that was down before is down afterwards, also when the
# command fails or is interrupted.
set -euo pipefail
path=$PATH
# shellcheck source=tests/cloud/stack/lib.sh
. "$(dirname "$0")/lib.sh"

if [ -z "$(sandbox_pid)" ]; then
    trap '"$HERE/down.sh"' EXIT
    trap 'exit 130' INT TERM HUP
fi
"$HERE/up.sh"
PATH=$path "$@"
