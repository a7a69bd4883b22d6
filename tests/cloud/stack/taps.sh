#!/bin/bash
# taps.sh: sets taps up that Open vSwitch has left down. Its userspace datapath opens a tap before libvirt has set it up, counts
# that as its own doing, and takes it back when it opens the tap anew, because another port came or went at that moment. One tap
# in ten was dead beside a loop of such changes. Runs until it is killed.
set -euo pipefail
ip -o monitor link | while read -r _ name flags _; do
    case $name$flags in
    tap*UP*) ;;
    tap*:\<*) ip link set dev "${name%%:*}" up 2>/dev/null || : ;; # It may be gone.
    esac
done
