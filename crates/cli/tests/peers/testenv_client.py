"""A testenv-client that behaves as the one of 2014 does (origin.md 2.2), on PyPI's gear."""
import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading

import gear


def connect(kind, client_id, brokers):
    peer = kind(client_id)
    for broker in brokers.split(","):
        host, _, port = broker.partition(":")
        peer.addServer(host, int(port or 4730))
    peer.waitForServer()
    return peer


class Callback(threading.Thread):
    def __init__(self, name, options):
        super().__init__(daemon=True)
        self.name_, self.options, self.rv = name, options, None
        self.worker = connect(gear.Worker, "testenv-client-" + name, options.geard)
        self.worker.registerFunction(name)

    def run(self):
        try:
            job = self.worker.getJob()
        except gear.InterruptedError:
            return
        with tempfile.NamedTemporaryFile("wb") as file:
            file.write(job.arguments)
            file.flush()
            os.environ["TE_DATAFILE"] = file.name
            try:
                self.rv = subprocess.call(self.options.command)
            except Exception:
                self.rv = 2
        job.sendWorkComplete(b"")


class Lock(gear.Client):
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


parser = argparse.ArgumentParser()
parser.add_argument("-b", "--geard", default="127.0.0.1:4730")
parser.add_argument("-n", "--jobnum", default="py")
parser.add_argument("-t", "--timeout", default="10800")
parser.add_argument("command", nargs="+")
options = parser.parse_args()
name = "callback_" + options.jobnum
callback = Callback(name, options)
callback.start()
client = connect(Lock, "testenv-client-" + name, options.geard)
wish = {"callback_name": name, "timeout": options.timeout}
client.submitJob(gear.Job(b"lockenv", json.dumps(wish).encode()))
client.over.wait()
callback.worker.stopWaitingForJobs()
if callback.rv is None:
    print("The command hasn't completed but the testenv worker has released the environment.", flush=True)
    os.killpg(0, signal.SIGKILL)
sys.exit(callback.rv)
