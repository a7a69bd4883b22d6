"""Starts ironic-python-agent as its command does, where logging has locks of threads.

oslo.log gives logging a lock of eventlet's whenever eventlet is there. This agent is greenlets, its API among them, and
threads: heartbeats and commands. Python holds the lock of logging while a thread forks, and eventlet wakes a greenlet that
waits for it from the thread that had it, which greenlets refuse ("cannot switch to a different thread",
https://github.com/eventlet/eventlet/issues/662). When the heartbeats' `ip route get` was in the way of the API's first line
in the log, the API never served. Later versions of oslo.log can be told: fix_eventlet=False.
"""
from oslo_log import log


def keep_locks_of_threads():
    """Before logging is set up."""
    # That it is there: otherwise this would do nothing, and nobody would know.
    if not hasattr(log, "_fix_eventlet_logging"):
        raise AttributeError("oslo.log does it otherwise now: see what start.py is for")
    log._fix_eventlet_logging = lambda: None


if __name__ == "__main__":
    keep_locks_of_threads()
    from ironic_python_agent.cmd.agent import run

    run()
