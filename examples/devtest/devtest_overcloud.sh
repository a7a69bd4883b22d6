#!/bin/bash
# Stage overcloud: the undercloud deploys the remaining nodes; then the smoke test.
set -euo pipefail
. "$(dirname "$0")/devtest_variables.sh"

load_te
[ -f "$DEVTEST_WORK/report-undercloud" ] || refuse "run devtest_undercloud.sh first"
[ "$(wc -l <"$DEVTEST_WORK/nodes")" -ge 2 ] || refuse "an overcloud needs a TE with at least 2 nodes"
# The way of the undercloud to the power gateway; see guest/relay.sh.
to seed "nc -ll -p $DEVTEST_RELAY_PORT -e /lib/devtest/relay.sh </dev/null >/dev/null 2>&1 &" </dev/null
deploy_from undercloud
mapfile -t overcloud < <(awk '$2 == "overcloud" { print $1 }' "$DEVTEST_WORK/nodes")
# All first: a host key that is known lets the logs be fetched, whatever the check says.
for name in "${overcloud[@]}"; do take_report "$name" undercloud; done
for name in "${overcloud[@]}"; do check_report "$name"; done
smoke_test
