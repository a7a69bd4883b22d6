"""forks.py: the API of ironic-python-agent, a greenlet, logs for the first time while the heartbeats, a thread, fork."""
import os
import sys
import threading

assert "logging" not in sys.modules, "logging has its own steps around a fork; this one has to be among them"
logs, logged = threading.Event(), threading.Event()
# What logging did before the fork is undone after this: its lock is held. The greenlet has half a second to come to it.
os.register_at_fork(after_in_parent=lambda: logs.wait(10) and logged.wait(0.5))

import logging
import time

# As ironic-python-agent does.
import eventlet

eventlet.monkey_patch(all=False, socket=True)
from oslo_config import cfg
from oslo_log import log

from start import keep_locks_of_threads

LIMIT_SECONDS = 10


def api():
    logs.set()
    logging.getLogger("api").info("serves")
    logged.set()


def heartbeats():
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


keep_locks_of_threads()
log.register_options(cfg.CONF)
cfg.CONF([])
log.setup(cfg.CONF, "agent")
threading.Thread(target=heartbeats, daemon=True).start()
eventlet.spawn(api)
end = time.monotonic() + LIMIT_SECONDS
while not logged.is_set() and time.monotonic() < end:
    eventlet.sleep(0.1)
print("the API logged" if logged.is_set() else f"the API still waits to log after {LIMIT_SECONDS} s", flush=True)
os._exit(0 if logged.is_set() else 1)
