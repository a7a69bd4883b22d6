#!/bin/bash
# with.sh [--keep] COMMAND...: runs a command while the cloud is up. A cloud that was down before is down afterwards, also
# when the command fails or is interrupted; with --keep it stays up when the command has worked.
set -euo pipefail
path=$PATH
# shellcheck source=tests/cloud/stack/lib.sh
. "$(dirname "$0")/lib.sh"

keep=''
if [ "${1:-}" = --keep ]; then
    keep=yes
    shift
fi
if [ -z "$(sandbox_pid)" ]; then
    trap '"$HERE/down.sh"' EXIT
    trap 'exit 130' INT TERM HUP
fi
"$HERE/up.sh"
PATH=$path "$@"
[ -z "$keep" ] || trap - EXIT
