#!/bin/bash
# Stage undercloud: the seed deploys node 1 over PXE; it boots from its disk and reports in.
set -euo pipefail
. "$(dirname "$0")/devtest_variables.sh"

load_te
[ -f "$DEVTEST_WORK/seed_ip" ] || refuse "run devtest_seed.sh first"
deploy_from seed
take_report undercloud seed
check_report undercloud
await_ssh undercloud
