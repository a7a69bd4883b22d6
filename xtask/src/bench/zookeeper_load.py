"""ZooKeeper's lock through kazoo: clients that take and give back, each a lock of its own.

    zookeeper_load.py ADDRESS CLIENTS SECONDS

Prints one line of JSON, as crates/client/examples/lease_load does. Clients are spread over
processes, since one Python process would be the bottleneck.
"""
import json
import multiprocessing
import sys
import threading
import time

from kazoo.client import KazooClient

PROCESSES = 4


def client(address, name, end, times):
    zk = KazooClient(hosts=address, timeout=30)
    zk.start(timeout=60)
    lock = zk.Lock("/te/" + name, name)
    while time.monotonic() < end.value:
        asked = time.monotonic()
        lock.acquire()
        times.append(time.monotonic() - asked)
        lock.release()
    zk.stop()


def process(address, names, ready, go, end, results):
    times = []
    ready.release()
    go.wait()
    threads = [threading.Thread(target=client, args=(address, n, end, times)) for n in names]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    results.put(times)


def main():
    address, clients, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    ready, go = multiprocessing.Semaphore(0), multiprocessing.Event()
    end, results = multiprocessing.Value("d", 0.0), multiprocessing.Queue()
    names = ["te%06d" % n for n in range(clients)]
    groups = [g for g in (names[i::PROCESSES] for i in range(PROCESSES)) if g]
    running = [
        multiprocessing.Process(target=process, args=(address, g, ready, go, end, results))
        for g in groups
    ]
    for p in running:
        p.start()
    for _ in running:
        ready.acquire()
    started = time.monotonic()
    end.value = started + seconds
    go.set()
    times = sorted(t for _ in running for t in results.get())
    took = time.monotonic() - started
    for p in running:
        p.join()

    def at(per_mille):
        i = -(-(len(times) - 1) * per_mille // 1000)
        return times[i] * 1e3 if times else 0.0

    print(
        json.dumps(
            {
                "cycles": len(times),
                "cycles_per_s": len(times) / took,
                "p50_ms": at(500),
                "p99_ms": at(990),
                "p999_ms": at(999),
                "max_ms": at(1000),
            }
        )
    )


main()
