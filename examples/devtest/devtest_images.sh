#!/bin/bash
# Builds (or finds in the cache) everything that does not depend on the test environment. Run it
# where there is a network: only this step downloads, by the package manager.
set -euo pipefail
if [ -z "${DEVTEST_WORK:-}" ]; then
    DEVTEST_WORK=$(mktemp -d)
    trap 'rm -rf "$DEVTEST_WORK"' EXIT
fi
. "$(dirname "$0")/devtest_variables.sh"

need git git sha256sum coreutils jq jq
export_repos
prepare_images
: >"$DEVTEST_WORK/images.conf"
for image in KERNEL BASE SERVICES REPOS USER; do
    variable=${image}_IMAGE
    printf '%s=%q\n' "$variable" "${!variable}" >>"$DEVTEST_WORK/images.conf"
    say "$(printf '%-8s %5.1f MiB  %s' "${image,,}" "$(stat -L -c %s "${!variable}" | awk '{ print $1 / 1048576 }')" "${!variable}")"
done
while read -r name sha digest; do
    say "under test: $name at $sha (tree $digest)"
done <"$DEVTEST_WORK/repos"
