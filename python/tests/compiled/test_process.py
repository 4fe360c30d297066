"""Process-wide state: the I/O thread, its shutdown, and forks."""

import queue
import subprocess
import sys

import pytest
from topology import DEADLINE

from nameko import _nameko


class TestProcess:
    def test_probes_for_a_listener(self, amqp_uri):
        assert _nameko.probe(amqp_uri)
        assert not _nameko.probe("amqp://127.0.0.1:1")

    def test_reports_a_port_in_use(self):
        broker = _nameko.Broker()
        with pytest.raises(OSError, match=str(broker.port)):
            _nameko.Broker(port=broker.port)
        broker.stop()
        broker.stop()

    def run(self, code, *arguments):
        """Runs code in a new process and returns its output, split into words."""
        done = subprocess.run(
            # Python 3.12 and newer warn about a fork of a process with threads.
            [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, *arguments],
            capture_output=True,
            text=True,
            timeout=DEADLINE * 3,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.split()

    def test_a_forked_child_has_its_own_connection(self, options, make_service, amqp_uri):
        came = queue.Queue()
        name = make_service(came.put, max_threads=1)
        code = """
import os, sys
from nameko import _nameko
uri, name = sys.argv[1:]
def publish(body):
    publisher = _nameko.Publisher(_nameko.Options(uri))
    publisher.publish(("", name, body, {}), mandatory=True, timeout=10)
publish(b"parent")
child = os.fork()
if not child:
    publish(b"child")
    _nameko.shutdown()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
publish(b"parent again")
_nameko.shutdown()
"""
        self.run(code, amqp_uri, name)
        assert [came.get(timeout=DEADLINE).body for _ in range(3)] == [
            b"parent",
            b"child",
            b"parent again",
        ]

    def test_pending_calls_fail_on_shutdown(self):
        code = """
from nameko import _nameko
broker = _nameko.Broker()
options = _nameko.Options(broker.uri)
consumers = _nameko.Consumers(options)
replies = _nameko.ReplyListener(consumers, {"name": "replies"})
assert consumers.start(10)
away = _nameko.Publisher(_nameko.Options("amqp://127.0.0.1:1"))
pending = [replies.expect("c"), away.start_publish(("", "x", b"", {}), _nameko.Retry(None))]
_nameko.shutdown()
for call in pending:
    try:
        call.wait(10)
    except _nameko.AmqpError as error:
        print(error.kind)
"""
        assert self.run(code) == ["lost", "lost"]

    def test_shutdown_ends_all_threads_and_can_be_repeated(self):
        code = """
import os, threading, time
from nameko import _nameko
from nameko.utils.jobs import run_jobs
def threads():
    # A joined thread may be listed for a moment longer.
    end = time.monotonic() + 10
    while len(tasks := os.listdir("/proc/self/task")) > 1 and time.monotonic() < end:
        os.sched_yield()
    return [open(f"/proc/self/task/{task}/comm").read() for task in tasks]
def use():
    broker = _nameko.Broker()
    options = _nameko.Options(broker.uri)
    consumers = _nameko.Consumers(options)
    def spawn(jobs):
        threading.Thread(target=run_jobs, args=(jobs,)).start()
    jobs = _nameko.Jobs(2, spawn)
    spawn(jobs)
    done = threading.Event()
    consumers.add({"name": "q", "auto_delete": True}, lambda delivery: done.set(), jobs)
    assert consumers.start(10)
    _nameko.Publisher(options).publish(("", "q", b"", {}))
    assert done.wait(10)
    consumers.stop()
    jobs.stop()
    broker.stop()
    _nameko.shutdown()
    for thread in threading.enumerate():
        if thread is not threading.main_thread():
            thread.join(10)
for _ in range(2):
    use()
    assert threading.active_count() == 1
    assert len(threads()) == 1, threads()
_nameko.shutdown()
print("done")
"""
        assert self.run(code) == ["done"]
