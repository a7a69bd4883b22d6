"""sdk.py FOLDER: nodes as a program makes them with openstacksdk alone."""
import pathlib
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import openstack

from common import LIMIT_S, first_command, make_key, obey

KEY_NAME = "bench-sdk"
cloud = openstack.connect(cloud="ci")
key, public = make_key(pathlib.Path(sys.argv[1]))
nodes = []


def create(name):
    return cloud.create_server(
        name, image="tiny", flavor="tiny", network="private", key_name=KEY_NAME,
        wait=True, timeout=LIMIT_S, auto_ip=True, reuse_ips=False,
    )


def delete(server):
    if not cloud.delete_server(server.id, wait=True, timeout=LIMIT_S, delete_ips=True):
        raise RuntimeError("%s was gone already" % server.name)


def demand():
    server = create("sdk-%d" % len(nodes))
    # What comes back may be from before it had its floating address.
    first_command(server.public_v4 or cloud.get_server(server.id).public_v4, key)
    nodes.append(server)


def give_back():
    delete(nodes.pop())


def churn(count, at_once):
    """Servers of Nova's fake driver: ACTIVE, a floating address, gone. Nothing is asked of them."""
    begun = time.monotonic()
    with ThreadPoolExecutor(int(at_once)) as pool:
        list(pool.map(lambda number: delete(create("sdk-churn-%d" % number)), range(int(count))))
    return {"took_s": time.monotonic() - begun}


def end():
    cloud.delete_keypair(KEY_NAME)


cloud.delete_keypair(KEY_NAME)
cloud.create_keypair(KEY_NAME, public)
obey({"demand": demand, "give-back": give_back, "churn": churn, "end": end})
