"""The two programs of the 2014 test environment pool, in small, on PyPI's gear (origin.md 2.1 and 2.2).

    testenv_peer.py client HOST PORT JOBNUM TIMEOUT COMMAND...   as testenv-client
    testenv_peer.py silent HOST PORT JOBNUM TIMEOUT              asks for lockenv and never serves its callback
    testenv_peer.py worker HOST PORT DATAFILE                    as testenv-worker, for one job

Events are printed one a line, for the test that started it.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading

import gear


def say(*words):
    print(*words, flush=True)


class WaitingClient(gear.Client):
    """A client that knows when its job has ended."""

    def __init__(self, client_id):
        super().__init__(client_id)
        self.ended = threading.Event()
        self.outcome = None

    def _end(self, outcome, job):
        self.outcome = outcome
        self.ended.set()
        return job

    def handleWorkComplete(self, packet):
        return self._end("complete", super().handleWorkComplete(packet))

    def handleWorkException(self, packet):
        return self._end("exception", super().handleWorkException(packet))

    def handleWorkFail(self, packet):
        return self._end("fail", super().handleWorkFail(packet))


class Callback(threading.Thread):
    """Waits for the callback job and runs the command with TE_DATAFILE."""

    def __init__(self, host, port, name, command):
        super().__init__(daemon=True)
        self.name_of_callback = name
        self.command = command
        self.code = None
        self.worker = gear.Worker("testenv-client-" + name)
        self.worker.addServer(host, port)

    def run(self):
        self.worker.waitForServer()
        self.worker.registerFunction(self.name_of_callback)
        job = self.worker.getJob()
        say("callback taken")
        with tempfile.NamedTemporaryFile("wb") as datafile:
            datafile.write(job.arguments)
            datafile.flush()
            environment = dict(os.environ, TE_DATAFILE=datafile.name)
            self.code = subprocess.call(self.command, env=environment)
        job.sendWorkComplete(b"")


def client(host, port, jobnum, timeout, command):
    name = "callback_" + jobnum
    callback = Callback(host, port, name, command)
    callback.start()
    asker = WaitingClient("testenv-client-" + jobnum)
    asker.addServer(host, port)
    asker.waitForServer()
    arguments = json.dumps({"callback_name": name, "timeout": timeout}).encode()
    asker.submitJob(gear.Job(b"lockenv", arguments))
    asker.ended.wait()
    say("lockenv", asker.outcome)
    if callback.code is None:
        # The original kills its whole process group here.
        say("released before the command had ended")
        return 3
    return callback.code


def silent(host, port, jobnum, timeout):
    asker = WaitingClient("testenv-client-" + jobnum)
    asker.addServer(host, port)
    asker.waitForServer()
    arguments = json.dumps({"callback_name": "callback_" + jobnum, "timeout": timeout}).encode()
    asker.submitJob(gear.Job(b"lockenv", arguments))
    asker.ended.wait()
    say("lockenv", asker.outcome)
    return 0


def worker(host, port, datafile):
    with open(datafile, "rb") as source:
        content = source.read()
    taker = gear.Worker("testenv-worker-0")
    taker.addServer(host, port)
    taker.waitForServer()
    taker.registerFunction("lockenv")
    say("registered")
    job = taker.getJob()
    arguments = json.loads(job.arguments.decode())
    caller = WaitingClient("testenv-worker-0-callback")
    caller.addServer(host, port)
    caller.waitForServer()
    caller.submitJob(gear.Job(arguments["callback_name"].encode(), content))
    caller.ended.wait()
    job.sendWorkComplete(b"")
    say("served", arguments["callback_name"])
    # Closing at once would cut off what was just sent.
    sys.stdin.read()
    return 0


def main():
    role, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if role == "client":
        return client(host, port, sys.argv[4], sys.argv[5], sys.argv[6:])
    if role == "silent":
        return silent(host, port, sys.argv[4], sys.argv[5])
    return worker(host, port, sys.argv[4])


# Threads of gear never end by themselves.
sys.stdout.flush()
os._exit(main())
