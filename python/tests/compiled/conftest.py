"""Fixtures for tests of the compiled module alone.

They use the embedded broker, or the one at NAMEKO_TEST_AMQP_URI.
"""

import contextlib
import logging
import os
import queue
import sys
import threading
import uuid

import pytest
from topology import DEADLINE, a_queue, a_reply_queue

from nameko import _nameko, _process
from nameko.utils.jobs import run_jobs

EXTERNAL = os.environ.get("NAMEKO_TEST_AMQP_URI")


@pytest.fixture(scope="module")
def amqp_uri():
    if EXTERNAL:
        yield EXTERNAL
    else:
        broker = _nameko.Broker()
        yield broker.uri
        broker.stop()


@pytest.fixture
def options(amqp_uri):
    return _nameko.Options(amqp_uri)


class Pool:
    """A job queue and its threads."""

    def __init__(self, max_threads=10):
        self.threads = []
        self.jobs = _nameko.Jobs(max_threads, self._spawn)
        self._spawn(self.jobs)

    def _spawn(self, jobs):
        thread = threading.Thread(target=run_jobs, args=(jobs,), daemon=True)
        self.threads.append(thread)
        thread.start()

    def stop(self, discard=False):
        self.jobs.stop(discard)
        for thread in self.threads:
            thread.join(DEADLINE)
            assert not thread.is_alive()


@pytest.fixture
def make_pool():
    with contextlib.ExitStack() as stack:

        def make(max_threads=10):
            pool = Pool(max_threads)
            stack.callback(pool.stop, discard=True)
            return pool

        yield make


@pytest.fixture
def make_consumers(options):
    with contextlib.ExitStack() as stack:

        def make(**callbacks):
            consumers = _nameko.Consumers(options, **callbacks)
            stack.callback(consumers.stop)
            return consumers

        yield make


@pytest.fixture
def unraisable(monkeypatch):
    """A queue of the exceptions passed to sys.unraisablehook."""
    hooked = queue.Queue()
    monkeypatch.setattr(sys, "unraisablehook", lambda args: hooked.put(args.exc_value))
    return hooked


@pytest.fixture
def log_records():
    """A queue of the log records of the compiled half, which `logging` does not get meanwhile."""
    records = queue.Queue()
    _nameko.on_log(lambda *record: records.put(record), logging.WARNING)
    yield records
    _process.forward_logs()


@pytest.fixture
def make_service(make_consumers, make_pool):
    """``make_service(handler)`` consumes a new queue with a handler and returns its name."""

    def make(handler, max_threads=10, prefetch=None):
        declared = a_queue()
        consumers = make_consumers()
        consumers.add(declared, handler, make_pool(max_threads).jobs, prefetch)
        assert consumers.start(DEADLINE)
        return declared["name"]

    return make


@pytest.fixture
def client(options, make_consumers):
    """``client(queue, body)`` sends a request and returns a Pending."""
    declared, key = a_reply_queue()
    consumers = make_consumers()
    replies = _nameko.ReplyListener(consumers, declared)
    assert consumers.start(DEADLINE)
    publisher = _nameko.Publisher(options)

    def call(name, body=b""):
        correlation_id = str(uuid.uuid4())
        pending = replies.expect(correlation_id)
        properties = {"reply_to": key, "correlation_id": correlation_id}
        publisher.call(pending, ("", name, body, properties))
        return pending

    call.replies, call.consumers, call.publisher, call.key = replies, consumers, publisher, key
    return call


@pytest.fixture
def echo(options, make_service):
    """``echo(wait)`` starts a service that returns its argument; `wait` is that of respond()."""

    def echo(wait):
        def handler(delivery):
            delivery.respond(
                options, "test-rpc", delivery.body, "text/x", "utf-8", ack=True, wait=wait
            )

        return make_service(handler)

    return echo
