"""nodepool_load.py FOLDER MIN_READY: nodes by Nodepool, which is asked for them as Zuul asks: by requests in ZooKeeper."""
import pathlib
import subprocess
import sys
import time

import openstack
from nodepool.zk import ZooKeeperClient
from nodepool.zk import zookeeper as zk

from common import LIMIT_S, first_command, make_key, obey

KEY_NAME = "bench-nodepool"
PORT = 2281
# Debian's ZooKeeper names most of what it needs itself; for TLS it needs these two more.
JARS = ":".join("/usr/share/java/%s.jar" % name for name in ("zookeeper", "netty-codec", "netty-resolver"))
ZOO_CFG = """tickTime=2000
dataDir={folder}/zookeeper
secureClientPort={port}
secureClientPortAddress=127.0.0.1
serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory
ssl.keyStore.location={folder}/server.pem
ssl.trustStore.location={folder}/ca.pem
admin.enableServer=false
"""
NODEPOOL_YAML = """zookeeper-servers: [{{host: 127.0.0.1, port: {port}}}]
zookeeper-tls: {{ca: {folder}/ca.pem, cert: {folder}/client.crt, key: {folder}/client.key}}
labels: [{{name: tiny, min-ready: {min_ready}}}]
providers:
  - name: stack
    driver: openstack
    cloud: ci
    boot-timeout: {limit}
    launch-timeout: {limit}
    cloud-images: [{{name: tiny, username: root}}]
    pools:
      - name: main
        max-servers: 20
        networks: [private]
        auto-floating-ip: true
        labels: [{{name: tiny, cloud-image: tiny, flavor-name: tiny, key-name: {key_name}}}]
"""
folder = pathlib.Path(sys.argv[1]) / ("nodepool-" + sys.argv[2])
taken = []


def wait_for(what, condition):
    end = time.monotonic() + LIMIT_S
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise RuntimeError("waited %s s for %s" % (LIMIT_S, what))
        time.sleep(0.02)


def certificates():
    """Nodepool speaks to ZooKeeper by TLS only: a CA, the server and a client."""
    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    openssl("req", "-x509", *new, "-subj", "/CN=bench CA", "-keyout", "ca.key", "-out", "ca.pem")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    for name in ("server", "client"):
        openssl("req", *new[:-2], "-subj", "/CN=localhost", "-keyout", name + ".key", "-out", name + ".csr")
        openssl("x509", "-req", "-in", name + ".csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1",
                "-extfile", "names", "-out", name + ".crt")
    pem = (folder / "server.key").read_text() + (folder / "server.crt").read_text()
    (folder / "server.pem").write_text(pem)


def configure(min_ready):
    text = NODEPOOL_YAML.format(port=PORT, folder=folder, min_ready=min_ready, limit=LIMIT_S, key_name=KEY_NAME)
    (folder / "nodepool.new").write_text(text)
    # Nodepool reads it whenever it likes.
    (folder / "nodepool.new").replace(folder / "nodepool.yaml")


def start(name, *command):
    log = (folder / (name + ".log")).open("w")
    return subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def demand():
    request = zk.NodeRequest()
    request.state, request.node_types, request.requestor = zk.REQUESTED, ["tiny"], "bench"
    book.storeNodeRequest(request)

    def fulfilled():
        now = book.getNodeRequest(request.id)
        if now.state == zk.FAILED:
            raise RuntimeError("the request failed; see %s" % (folder / "launcher.log"))
        return now if now.state == zk.FULFILLED else None

    node = book.getNode(wait_for("a node", fulfilled).nodes[0])
    book.lockNode(node, timeout=LIMIT_S)
    node.state = zk.IN_USE
    book.storeNode(node)
    book.deleteNodeRequest(request)
    first_command(node.interface_ip, key)
    taken.append(node)


def give_back():
    used(taken.pop(0))


def used(node):
    node.state = zk.USED
    book.storeNode(node)
    book.unlockNode(node)
    wait_for("node %s to be gone" % node.id, lambda: book.getNode(node.id) is None)


def nodes():
    return [node for node in book.nodeIterator(cached=False)]


def ready():
    return sum(node.state == zk.READY for node in nodes())


def end():
    def all_gone():
        # Those that are being made are in its hands.
        for node in [node for node in nodes() if node.state == zk.READY]:
            book.lockNode(node, timeout=LIMIT_S)
            used(node)
        return not nodes()

    configure(0)
    wait_for("all nodes to be gone", all_gone)
    launcher.terminate()
    launcher.wait()
    client.disconnect()
    zookeeper.terminate()
    zookeeper.wait()
    cloud.delete_keypair(KEY_NAME)


(folder / "zookeeper").mkdir(parents=True)
key, public = make_key(folder)
cloud = openstack.connect(cloud="ci")
cloud.delete_keypair(KEY_NAME)
cloud.create_keypair(KEY_NAME, public)
certificates()
configure(int(sys.argv[2]))
(folder / "zoo.cfg").write_text(ZOO_CFG.format(folder=folder, port=PORT))
zookeeper = start("zookeeper", "java", "-cp", JARS, "org.apache.zookeeper.server.quorum.QuorumPeerMain", str(folder / "zoo.cfg"))
tls = {"tls_ca": "ca.pem", "tls_cert": "client.crt", "tls_key": "client.key"}
client = ZooKeeperClient("127.0.0.1:%s" % PORT, **{name: str(folder / file) for name, file in tls.items()})
client.connect()
book = zk.ZooKeeper(client, enable_cache=False)
program = str(pathlib.Path(sys.executable).parent / "nodepool-launcher")
launcher = start("launcher", program, "-f", "-d", "--no-webapp", "-c", str(folder / "nodepool.yaml"))
obey({"demand": demand, "give-back": give_back, "ready": ready, "end": end})
