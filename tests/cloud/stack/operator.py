#!/usr/bin/python3
"""What the cloud's operator gives to the tenant "ci": networks, a router, rules, flavors, images, quotas."""
import openstack

cloud = openstack.connect(cloud="admin", compute_api_version="2.61")
ci = cloud.identity.find_project("ci")


def network(name, cidr, subnet, **settings):
    made = cloud.network.create_network(name=name, **settings)
    # A subnet belongs to its network's owner: others' are invisible to a tenant.
    cloud.network.create_subnet(name=name + "-subnet", network_id=made.id, ip_version=4, cidr=cidr, project_id=made.project_id, **subnet)
    return made


def networks():
    pool = [{"start": "203.0.113.100", "end": "203.0.113.199"}]
    public = network(
        "public", "203.0.113.0/24", {"gateway_ip": "203.0.113.1", "enable_dhcp": False, "allocation_pools": pool},
        is_router_external=True, provider_network_type="flat", provider_physical_network="physnet-ext",
    )
    private = network("private", "198.51.100.0/24", {}, project_id=ci.id)
    # Who owns a network may choose MAC addresses on it.
    pool = [{"start": "198.18.0.100", "end": "198.18.0.199"}]
    network(
        "test", "198.18.0.0/24", {"gateway_ip": None, "allocation_pools": pool},
        project_id=ci.id, provider_network_type="flat", provider_physical_network="physnet-test",
    )
    router = cloud.network.create_router(name="router", project_id=ci.id, external_gateway_info={"network_id": public.id})
    cloud.network.add_interface_to_router(router, subnet_id=next(cloud.network.subnets(network_id=private.id)).id)


def rules():
    group = next(group for group in cloud.network.security_groups(project_id=ci.id) if group.name == "default")
    for rule in ({"protocol": "icmp"}, {"protocol": "tcp", "port_range_min": 22, "port_range_max": 22}):
        cloud.network.create_security_group_rule(
            security_group_id=group.id, project_id=ci.id, direction="ingress", ethertype="IPv4", **rule
        )


def images():
    # tiny is a server as it should be; dead boots, and never answers.
    for name, file in (("tiny", "node"), ("dead", "dead")):
        cloud.image.create_image(
            name=name, filename="/run/cloud/images/%s.qcow2" % file, disk_format="qcow2", container_format="bare",
            visibility="public", min_disk=1, min_ram=128, wait=True,
        )


def main():
    networks()
    rules()
    # No machine here has room for the huge one: its servers end in ERROR.
    for name, ram, cpus, disk in (("tiny", 192, 1, 1), ("small", 512, 1, 1), ("te-host", 2560, 2, 12), ("huge", 999999, 64, 1)):
        cloud.compute.create_flavor(name=name, ram=ram, vcpus=cpus, disk=disk)
    cloud.set_compute_quotas(ci.id, cores=20, instances=20, ram=20 * 512, key_pairs=50)
    cloud.set_network_quotas(ci.id, floatingip=30, port=200)
    images()


main()
