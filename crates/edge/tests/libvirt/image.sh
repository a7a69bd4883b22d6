#!/bin/bash
# image.sh ROLE OUT: a small image for nodes, as qcow2, on Debian's kernel; up in seconds also under TCG. ROLE is what it
# does with its seed: node (as it should), liar (leaves another marker), stranger (uses a host key of its own), dead
# (says why it dies, and never answers). Built with the tools of examples/devtest.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
DEVTEST_ROOT=$(cd "$here/../../../../examples/devtest" && pwd)
: "${TOCI_DEVTEST_CACHE:=${HOME:-/root}/.cache/toci-devtest}"
# shellcheck source=examples/devtest/lib/ui.sh
. "$DEVTEST_ROOT/lib/ui.sh"
# shellcheck source=examples/devtest/lib/image.sh
. "$DEVTEST_ROOT/lib/image.sh"
# shellcheck source=examples/devtest/lib/node_guest.sh
. "$DEVTEST_ROOT/lib/node_guest.sh"

need_image_tools
need git git
mkdir -p "$TOCI_DEVTEST_CACHE"
package_folders
image=$(cached_node_image test "$here" "$1")
cp "$image" "$2.part"
mv "$2.part" "$2"
