#!/bin/bash
# Stage seed: its image goes to the TE host, it is started, gets its public address, calls back,
# and has run the code under test.
set -euo pipefail
. "$(dirname "$0")/devtest_variables.sh"
trap stop_listener EXIT

need ssh openssh-client jq jq ip iproute2 ss iproute2 busybox busybox-static xz xz-utils
load_te
# shellcheck source=/dev/null
. "$DEVTEST_WORK/images.conf"
list_nodes
say "test environment $TE_NAME: $TE_SEED_DOMAIN and $(wc -l <"$DEVTEST_WORK/nodes") blank nodes"
set_callback_host
quiet_machines

SEED_IMAGE_ID=$(cat /proc/sys/kernel/random/uuid)
export SEED_IMAGE_ID
build_seed "$DEVTEST_WORK/seed.qcow2"
copy_seed "$DEVTEST_WORK/seed.qcow2"

start_listener
gateway "LC_ALL=C virsh start $TE_SEED_DOMAIN" | sed '/^$/d' | say_lines 'gateway: ' || fail "the gateway did not start $TE_SEED_DOMAIN"
say "waiting for the seed to call $DEVTEST_CALLBACK_HOST:$DEVTEST_CALLBACK_PORT"
await_callback
write_ssh_config
await_ssh seed
take_report seed seed
check_report seed

try_route
