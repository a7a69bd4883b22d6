#!/bin/bash
# metal.sh up|down [MACHINES]: bare metal for the cloud that is up, inside of the sandbox: Ironic, a second nova-compute whose
# servers are its machines, and the machines: QEMU's, with two cards and a Redfish service that stands for their management
# controllers. The cards are cabled to the network "metal" (198.19.0.0/24, on physnet-lab) and to the test network.
set -euo pipefail
# shellcheck source=tests/cloud/stack/lib.sh
. "$(dirname "$0")/lib.sh"

ADDRESS=198.19.0.1/24
# For the agent, which is in memory whole; servers have no less.
MEMORY_MIB=1024
# The agent takes the first disk of at least 4 GiB.
DISK=5G
SERVICES="ironic-api ironic-conductor ironic-http redfish neutron-metal nova-metal"

start() { for name in "$@"; do "$HERE/service.sh" start "$name"; done; }
ready() { for name in "$@"; do "$HERE/service.sh" ready "$name"; done; }

# machine NUMBER: what virsh is told.
machine() {
    local disk=$CLOUD/metal/machine$1.qcow2
    qemu-img create -q -f qcow2 "$disk" $DISK
    cat <<XML
<domain type='qemu'>
  <name>machine$1</name>
  <memory unit='MiB'>$MEMORY_MIB</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type><boot dev='hd'/></os>
  <features><acpi/></features>
  <cpu mode='maximum'/>
  <devices>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='unsafe'/><source file='$disk'/><target dev='vda' bus='virtio'/></disk>
    $(card "$1" 1 br-lab)
    $(card "$1" 2 br-test)
    <serial type='file'><source path='$CLOUD/log/machine$1.console' append='on'/><target port='0'/></serial>
  </devices>
</domain>
XML
}

# card MACHINE NUMBER BRIDGE
card() {
    echo "<interface type='bridge'><mac address='52:54:00:00:0$1:0$2'/><source bridge='$3'/><virtualport type='openvswitch'/>" \
        "<target dev='tapmetal$1$2'/><model type='virtio'/></interface>"
}

up() {
    [ -s $CLOUD/images/agent.ramdisk ] || fail "there is no agent for bare metal: see $TOCI_CLOUD_STATE/log/agent.log"
    mkdir -p $CLOUD/metal/{http,images/master,tftp/master,redfish}
    ip address replace $ADDRESS dev br-lab
    ethtool -K br-lab tso off gso off
    start ironic-api ironic-conductor ironic-http redfish
    # Virtual media are put into this pool.
    virsh -q pool-info default >/dev/null 2>&1 ||
        { virsh -q pool-define-as default dir --target $CLOUD/metal/redfish && virsh -q pool-start default; }
    for number in $(seq "$1"); do
        machine "$number" >$CLOUD/metal/machine.xml
        virsh -q define $CLOUD/metal/machine.xml
    done
    ready ironic-api ironic-conductor ironic-http redfish
    "$HERE/metal.py" enrol
    say "the machines are enrolled"
    start neutron-metal nova-metal
    ready neutron-metal nova-metal
    has_room() { [ "$(query "select count(*) from placement.inventories i join placement.resource_classes c on c.id = i.resource_class_id
        where c.name = 'CUSTOM_MACHINE' and i.total = 1")" = "$1" ]; }
    wait_for 60 "the scheduler knows the machines" has_room "$1"
    is_mapped() { [ "$(query "select count(*) from nova_api.host_mappings where host = 'metal1'")" = 1 ]; }
    wait_for 60 "the compute node of the machines has its cell" is_mapped
}

down() {
    local domain
    "$HERE/metal.py" retire || say "FAILED: not all of the machines is retired" >&2
    for name in $SERVICES; do "$HERE/service.sh" stop "$name"; done
    "$HERE/metal.py" forget
    for domain in $(virsh -q list --all --name | grep '^machine'); do
        virsh -q destroy "$domain" 2>/dev/null || :
        virsh -q undefine "$domain"
    done
    virsh -q pool-destroy default && virsh -q pool-undefine default
    ip address delete $ADDRESS dev br-lab
    rm -rf $CLOUD/metal
}

case ${1:-} in
up) up "${2:-1}" ;;
down) down ;;
*) fail "usage: $0 up [MACHINES], or down" ;;
esac
