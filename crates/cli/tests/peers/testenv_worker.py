"""A testenv-worker that behaves as the one of 2014 does (origin.md 2.1), on PyPI's gear."""
import argparse
import json
import signal
import threading
import time

import gear


def connect(kind, client_id, brokers):
    peer = kind(client_id)
    for broker in brokers.split(","):
        host, _, port = broker.partition(":")
        peer.addServer(host, int(port or 4730))
    peer.waitForServer()
    return peer


class Callback(gear.Client):
    def __init__(self, client_id):
        super().__init__(client_id)
        self.over = threading.Event()

    def handleWorkComplete(self, packet):
        super().handleWorkComplete(packet)
        self.over.set()

    def handleWorkFail(self, packet):
        super().handleWorkFail(packet)
        self.over.set()

    def handleWorkException(self, packet):
        super().handleWorkException(packet)
        self.over.set()

    def handleStatusRes(self, packet):
        try:
            super().handleStatusRes(packet)
        except gear.UnknownJobError:
            pass


def serve(options, data):
    worker = connect(gear.Worker, "testenv-worker-" + options.tenum, options.geard)
    worker.registerFunction("lockenv")
    job = worker.getJob()
    try:
        wish = json.loads(job.arguments.decode())
        limit = int(wish.get("timeout", options.timeout))
        client = connect(Callback, "testenv-worker-" + options.tenum, options.geard)
        callback = gear.Job(wish["callback_name"].encode(), data)
        client.submitJob(callback)
        if not client.over.wait(30):
            status = gear.Packet(gear.constants.REQ, gear.constants.GET_STATUS, callback.handle)
            callback.connection.sendPacket(status)
            time.sleep(10)
            if callback.running:
                client.over.wait(max(0, limit - 40))
        client.shutdown()
        job.sendWorkComplete(b"")
    finally:
        worker.shutdown()


parser = argparse.ArgumentParser()
parser.add_argument("-t", "--timeout", default=10800, type=int)
parser.add_argument("-n", "--tenum", default="x")
parser.add_argument("-b", "--geard", default="127.0.0.1:4730")
parser.add_argument("datafile")
options = parser.parse_args()
with open(options.datafile, "rb") as file:
    data = file.read()
signal.signal(signal.SIGTERM, signal.SIG_DFL)
while True:
    serve(options, data)
    time.sleep(2)
