# The hooks of a devstack-gate job. Sourced: `. gate_hook.sh`, then devstack_gate_wrap.sh calls them.
# shellcheck shell=bash
TOCI_HOOK_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export TOCI_HOOK_ROOT

gate_hook() { bash -e "$TOCI_HOOK_ROOT/toci_gate_test.sh"; }
export -f gate_hook
