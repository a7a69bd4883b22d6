#!/usr/bin/python3
"""Service users, endpoints, and the tenant "ci" that CI runs as. Done once, when the databases are made."""
import openstack

SERVICES = (
    ("nova", "compute", "http://127.0.0.1:8774/v2.1"),
    ("neutron", "network", "http://127.0.0.1:9696"),
    ("glance", "image", "http://127.0.0.1:9292"),
    ("placement", "placement", "http://127.0.0.1:8778"),
    # Only a test that needs volumes starts the service, and has it in the catalogue meanwhile.
    ("cinder", None, None),
    ("ironic", "baremetal", "http://127.0.0.1:6385"),
)


def main():
    identity = openstack.connect(cloud="admin").identity
    roles = {role.name: role for role in identity.roles()}
    roles["service"] = identity.create_role(name="service")
    services = identity.create_project(name="service", domain_id="default")
    for name, kind, url in SERVICES:
        user = identity.create_user(name=name, password="secret", domain_id="default", default_project_id=services.id)
        for role in ("admin", "service"):
            identity.assign_project_role_to_user(services, user, roles[role])
        if kind is None:
            continue
        service = identity.create_service(name=name, type=kind)
        for interface in ("public", "internal", "admin"):
            identity.create_endpoint(service_id=service.id, interface=interface, url=url, region_id="RegionOne")
    project = identity.create_project(name="ci", domain_id="default")
    user = identity.create_user(name="ci", password="ci", domain_id="default", default_project_id=project.id)
    identity.assign_project_role_to_user(project, user, roles["member"])


main()
