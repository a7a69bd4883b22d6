#!/bin/bash
# inside.sh: starts what makes the cloud, inside of the sandbox, as much of it at once as can be.
set -euo pipefail
# shellcheck source=tests/cloud/stack/lib.sh
. "$(dirname "$0")/lib.sh"

start() { for name in "$@"; do "$HERE/service.sh" start "$name"; done; }
ready() { for name in "$@"; do "$HERE/service.sh" ready "$name"; done; }
mkdir -p $CLOUD/{glance,nova/instances,neutron,cinder}

start rabbitmq ovsdb virtlogd
"$HERE/databases.sh"
start mariadb libvirtd
ready mariadb ovsdb
start ovs-vswitchd taps keystone
ready rabbitmq
start placement glance-api nova-conductor nova-api neutron-server nova-scheduler
ready ovs-vswitchd
for bridge in br-ex br-test br-lab; do
    ovs-vsctl --may-exist add-br $bridge -- set bridge $bridge datapath_type=netdev
    ip link set $bridge up
done
# The outer network's own router: here floating addresses are reached from.
ip address replace 203.0.113.1/24 dev br-ex
# What is sent from here to a guest may not be larger than a frame: to a Debian guest it crawls otherwise.
ethtool -K br-ex tso off gso off
ready keystone neutron-server
start neutron-l2 neutron-dhcp neutron-l3 neutron-metadata
ready placement libvirtd
start nova-compute
# A port of DHCP or of a router that is made before there is an agent to plug it in stays on the dead VLAN.
ready glance-api nova-api neutron-l2
"$HERE/operator.py"
say "networks, flavors, images, quotas"
ready nova-conductor nova-scheduler nova-compute neutron-dhcp neutron-l3 neutron-metadata
has_room() { [ "$(query 'select (select count(*) from nova_api.host_mappings) > 0 and (select count(*) from placement.inventories) >= 3')" = 1 ]; }
wait_for 60 "the scheduler knows the compute node" has_room
