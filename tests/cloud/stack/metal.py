#!/usr/bin/python3
"""enrol: makes the machines known to Ironic, with a network and a flavor for them. retire: takes that back. forget: takes back what the
services have told of themselves, when they are stopped."""
import sys
import xml.etree.ElementTree as xml

import libvirt
import openstack

REDFISH = "http://127.0.0.1:8001"
# In this order the cards are cabled.
CABLES = ("physnet-lab", "physnet-test")

cloud = openstack.connect(cloud="admin", compute_api_version="2.61", baremetal_api_version="1.78")


def machines():
    for domain in libvirt.open("qemu:///system").listAllDomains():
        if domain.name().startswith("machine"):
            cards = xml.fromstring(domain.XMLDesc()).findall("devices/interface/mac")
            yield domain.name(), domain.UUIDString(), [card.get("address") for card in cards]


def enrol():
    ci = cloud.identity.find_project("ci")
    network = cloud.network.create_network(
        name="metal", project_id=ci.id, provider_network_type="flat", provider_physical_network=CABLES[0]
    )
    cloud.network.create_subnet(
        name="metal-subnet", network_id=network.id, project_id=ci.id, ip_version=4, cidr="198.19.0.0/24", gateway_ip="198.19.0.1",
        allocation_pools=[{"start": "198.19.0.100", "end": "198.19.0.199"}],
    )
    flavor = cloud.compute.create_flavor(name="metal", ram=512, vcpus=1, disk=4)
    # A machine is had whole.
    specs = {"resources:CUSTOM_MACHINE": "1", "resources:VCPU": "0", "resources:MEMORY_MB": "0", "resources:DISK_GB": "0"}
    cloud.compute.create_flavor_extra_specs(flavor, specs)
    nodes = []
    for name, uuid, cards in machines():
        node = cloud.baremetal.create_node(
            name=name, driver="redfish", resource_class="machine",
            driver_info={"redfish_address": REDFISH, "redfish_system_id": "/redfish/v1/Systems/" + uuid, "redfish_username": "", "redfish_password": ""},
            properties={"cpu_arch": "x86_64", "cpus": 1, "memory_mb": 1024, "local_gb": 4, "capabilities": "boot_mode:bios"},
        )
        for card, cable in zip(cards, CABLES):
            cloud.baremetal.create_port(node_id=node.id, address=card, physical_network=cable)
        nodes.append(node)
    for state, reached in (("manage", "manageable"), ("provide", "available")):
        for node in nodes:
            cloud.baremetal.set_node_provision_state(node, state)
        cloud.baremetal.wait_for_nodes_provision_state(nodes, reached, timeout=120)


def retire():
    for node in list(cloud.baremetal.nodes()):
        if node.provision_state not in ("available", "manageable", "enroll"):
            print("machine %s is %s: %s" % (node.name, node.provision_state, node.last_error))
            cloud.baremetal.set_node_maintenance(node, "ended by metal.sh")
        cloud.baremetal.delete_node(node)
    for flavor in list(cloud.compute.flavors()):
        if flavor.name == "metal":
            cloud.compute.delete_flavor(flavor)
    network = cloud.network.find_network("metal")
    if network:
        for port in list(cloud.network.ports(network_id=network.id)):
            cloud.network.delete_port(port)
        cloud.network.delete_network(network)


def forget():
    for service in list(cloud.compute.services()):
        if service.host == "metal1":
            cloud.compute.delete_service(service)
    for agent in list(cloud.network.agents()):
        if agent.binary == "ironic-neutron-agent":
            cloud.network.delete_agent(agent)


{"enrol": enrol, "retire": retire, "forget": forget}[sys.argv[1]]()
