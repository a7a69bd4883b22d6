"""python's gear as client and worker of a broker: gear_peer.py PORT [CA CERT KEY]."""

import sys
import threading
import time

import gear

PORT = int(sys.argv[1])
TLS = dict(zip(("ssl_ca", "ssl_cert", "ssl_key"), sys.argv[2:5]))
LIMIT = 20


def wait(what, condition):
    end = time.time() + LIMIT
    while not condition():
        if time.time() > end:
            raise SystemExit("nothing within %s s: %s" % (LIMIT, what))
        time.sleep(0.002)


def connect(kind, name):
    peer = kind(name)
    peer.addServer("127.0.0.1", PORT, **TLS)
    peer.waitForServer(timeout=LIMIT)
    return peer


def work(worker):
    while True:
        job = worker.getJob()
        if job.arguments == b"fail":
            job.sendWorkFail()
        elif job.arguments == b"exception":
            job.sendWorkException(b"boom")
        elif job.arguments == b"wait":
            pass
        else:
            job.sendWorkData(b"part")
            job.sendWorkWarning(b"careful")
            job.sendWorkStatus(1, 2)
            job.sendWorkComplete(job.arguments[::-1])


def submit(client, arguments, **options):
    job = gear.Job(b"lockenv", arguments, unique=b"u-" + arguments)
    client.submitJob(job, **options)
    return job


def admin(client, request):
    client.active_connections[0].sendAdminRequest(request, timeout=LIMIT)
    return request.response


worker = connect(gear.Worker, "te worker")
worker.registerFunction("lockenv")
threading.Thread(target=work, args=(worker,), daemon=True).start()
client = connect(gear.Client, "client")

for n in range(50):
    job = submit(client, b"abc", precedence=n % 3)
    wait("completion", lambda: job.complete)
    assert job.data == [b"part", b"careful", b"cba"], job.data
    assert job.warning
    assert not job.failure and job.handle.startswith(b"H:"), job.handle
    assert job.fraction_complete == 0.5, job.fraction_complete

job = submit(client, b"fail")
wait("failure", lambda: job.complete)
assert job.failure and job.exception is None

job = submit(client, b"exception")
wait("exception", lambda: job.complete)
assert job.failure and job.exception == b"boom", job.exception

submit(client, b"background", background=True)

# A worker that dies in the middle of a job.
job = submit(client, b"wait")
wait("the job to run", lambda: b"lockenv\t1\t1\t1" in admin(client, gear.StatusAdminRequest()))
assert b"te_worker : lockenv" in admin(client, gear.WorkersAdminRequest())
assert admin(client, gear.CancelJobAdminRequest(job.handle)) == b"ERR UNKNOWN_JOB\n"
worker.shutdown()
wait("loss of the worker", lambda: job.complete)
assert job.failure

# A queued job is cancelled.
job = submit(client, b"queued")
assert admin(client, gear.CancelJobAdminRequest(job.handle)) == b"OK\n"
assert b"lockenv\t0\t0\t0" in admin(client, gear.StatusAdminRequest())
assert admin(client, gear.ShowJobsAdminRequest()) == b".\n"
assert admin(client, gear.ShowUniqueJobsAdminRequest()) == b".\n"
assert admin(client, gear.VersionAdminRequest()).startswith(b"OK ")
client.shutdown()
print("gear is content")
