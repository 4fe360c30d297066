"""Fixtures: a broker, and containers and clients that are stopped after the test.

Tests run on an embedded broker, or on the one at NAMEKO_TEST_AMQP_URI. Names on the broker contain
``uid``, so that tests do not interfere on a shared broker.
"""

import json
import logging
import os
import signal
import threading
import uuid
from contextlib import contextmanager
from importlib.util import find_spec

import amqp
import kombu
import pytest
from program import Folder

from nameko._nameko import Broker
from nameko.amqp.publish import get_connection
from nameko.containers import ServiceContainer
from nameko.standalone.rpc import ClusterRpcProxy

# They need the environment of `make test-community`.
collect_ignore = [] if find_spec("nameko_sqlalchemy") else ["community"]

EXTERNAL_URI = os.environ.get("NAMEKO_TEST_AMQP_URI")


def pytest_configure(config):
    # A shell starts background jobs with SIGINT ignored, and the processes of tests inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # The fixtures of nameko.testing.pytest use the same broker.
    if EXTERNAL_URI:
        config.option.RABBIT_AMQP_URI = EXTERNAL_URI


@pytest.fixture(scope="session")
def broker_uri():
    if EXTERNAL_URI:
        yield EXTERNAL_URI
        return
    broker = Broker()
    yield broker.uri
    broker.stop()


@pytest.fixture
def own_broker():
    """An embedded broker that the test may stop."""
    broker = Broker()
    yield broker
    broker.stop()


@pytest.fixture
def config(broker_uri):
    return {"AMQP_URI": broker_uri}


@pytest.fixture
def uid():
    return uuid.uuid4().hex[:8]


@pytest.fixture
def folder(tmp_path, uid):
    """A directory with the module ``hello``, for the command line."""
    return Folder(tmp_path, uid)


@pytest.fixture
def serve(config):
    """``serve(cls, **config)`` starts a container for a service class and returns it."""
    containers = []

    def start(service_cls, **extra):
        container = ServiceContainer(service_cls, {**config, **extra})
        containers.append(container)
        container.start()
        return container

    yield start
    for container in containers:
        container.kill()
    if EXTERNAL_URI:
        _delete_entities([ext for container in containers for ext in container.extensions])


def _delete_entities(extensions):
    queues = [ext.queue for ext in extensions if getattr(ext, "queue", None) is not None]
    exchanges = [queue.exchange for queue in queues]
    exchanges += [ext.exchange for ext in extensions if getattr(ext, "exchange", None) is not None]
    with get_connection(EXTERNAL_URI) as connection, connection.channel() as channel:
        for queue in queues:
            if not queue.exclusive:  # deleted with their connection
                channel.queue_delete(queue.name)
        for name in {exchange.name for exchange in exchanges}:
            if name.endswith(".events"):
                channel.exchange_delete(name)


@pytest.fixture
def cluster(config):
    """A client of all services, with a timeout of 10 seconds."""
    with ClusterRpcProxy(config, timeout=10) as proxy:
        yield proxy


class Caller:
    """Sends raw requests through kombu and reads the replies."""

    def __init__(self, channel, connection, uid):
        self.channel, self.connection = channel, connection
        self.reply_to = "reply-" + uid
        self.exchange = kombu.Exchange("nameko-rpc", type="topic", durable=True)
        queue = kombu.Queue(
            "rpc.reply-raw-" + uid, self.exchange, self.reply_to, auto_delete=True, durable=False
        )
        self.replies = []
        self.consumer = kombu.Consumer(
            channel, [queue], on_message=self.replies.append, no_ack=True
        )
        self.consumer.consume()
        self.producer = kombu.Producer(channel)

    def send(self, routing_key, body, **properties):
        """Sends ``body`` unchanged, without waiting for a reply."""
        properties.setdefault("content_type", "application/json")
        properties.setdefault("content_encoding", "utf-8")
        if isinstance(body, str):
            body = body.encode()
        properties["application_headers"] = properties.pop("headers", {})
        message = amqp.Message(body, **properties)
        self.channel.basic_publish(message, exchange="nameko-rpc", routing_key=routing_key)

    def call(self, routing_key, body, **properties):
        """Sends a request and returns the decoded body of the reply."""
        properties.setdefault("reply_to", self.reply_to)
        self.send(routing_key, body, **properties)
        self.reply = self.next_reply()
        return json.loads(self.reply.body)

    def next_reply(self):
        while not self.replies:
            self.connection.drain_events(timeout=10)
        return self.replies.pop(0)


@pytest.fixture
def caller(broker_uri, uid):
    with kombu.Connection(broker_uri) as connection, connection.channel() as channel:
        yield Caller(channel, connection, uid)


@pytest.fixture
def expect_log():
    """``with expect_log(logger, text):`` waits at its end for a log record with the text."""

    @contextmanager
    def expect(name, text, level=logging.DEBUG):
        logged = threading.Event()

        class Handler(logging.Handler):
            def emit(self, record):
                if text in record.getMessage():
                    logged.set()

        logger, handler = logging.getLogger(name), Handler()
        before = logger.level
        logger.addHandler(handler)
        logger.setLevel(level)
        try:
            yield
            assert logged.wait(10), "{!r} was not logged".format(text)
        finally:
            logger.removeHandler(handler)
            logger.setLevel(before)

    return expect
