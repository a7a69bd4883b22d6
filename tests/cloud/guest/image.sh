#!/bin/bash
# image.sh ROLE OUT: the cloud's small image, as qcow2: busybox, dropbear and what a run needs on a node (docs/nodes.md),
# on Debian's kernel; it boots by a BIOS and is up in seconds also under TCG, in 192 MiB. ROLE is node (a server as it
# should be), dead (it never answers) or devtest (what examples/devtest needs is there as well; 512 MiB). Built with the
# tools of examples/devtest.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
DEVTEST_ROOT=$(cd "$here/../../../examples/devtest" && pwd)
: "${TOCI_DEVTEST_CACHE:=${HOME:-/root}/.cache/toci-devtest}"
# shellcheck source=examples/devtest/lib/ui.sh
. "$DEVTEST_ROOT/lib/ui.sh"
# shellcheck source=examples/devtest/lib/image.sh
. "$DEVTEST_ROOT/lib/image.sh"
# shellcheck source=examples/devtest/lib/node_guest.sh
. "$DEVTEST_ROOT/lib/node_guest.sh"
# A config drive is a CD on an IDE bus.
MODULES="$MODULES scsi_common scsi_mod libata ata_piix cdrom sr_mod isofs"

need_image_tools
need git git
mkdir -p "$TOCI_DEVTEST_CACHE"
package_folders
segments=()
if [ "$1" = devtest ]; then
    # shellcheck source=tests/cloud/guest/devtest.sh
    . "$here/devtest.sh"
    segments=("$(devtest_segment)")
fi
image=$(cached_node_image cloud "$here" "$1" "${segments[@]}")
cp "$image" "$2.part"
mv "$2.part" "$2"
