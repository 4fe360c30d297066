"""Connections to the broker: their settings, outages, time limits and ends."""

import contextlib
import json
import socket
import threading
import time
import urllib.request

import pytest

from nameko._nameko import Broker
from nameko.amqp.publish import Publisher
from nameko.containers import ServiceContainer
from nameko.events import EventDispatcher, event_handler
from nameko.exceptions import ConfigurationError, RemoteError, UnknownService
from nameko.messaging import Publisher as MessagePublisher
from nameko.rpc import RpcProxy, rpc
from nameko.standalone.events import event_dispatcher
from nameko.standalone.rpc import ClusterRpcProxy

DEADLINE = 20


class Shop:
    name = "shop"

    dispatch = EventDispatcher()
    publish = MessagePublisher()
    shop = RpcProxy("shop")

    @rpc
    def pay(self):
        self.dispatch("paid", {})
        return "paid"

    @rpc
    def call_pay(self):
        return self.shop.pay()

    @rpc
    def large(self, size):
        return "x" * size

    @rpc
    def call_large(self, size):
        return self.shop.large("x" * size)

    @rpc
    def dispatch_large(self, size):
        self.dispatch("paid", "x" * size)

    @rpc
    def publish_large(self, size):
        self.publish("x" * size, routing_key="queue")

    @event_handler("shop", "paid")
    def on_paid(self, _):
        pass


@pytest.fixture
def containers():
    """Containers to be killed after the test."""
    created = []
    yield created
    for container in created:
        container.kill()


@contextlib.contextmanager
def broker(**options):
    started = Broker(management_port=0, **options)
    try:
        yield started
    finally:
        started.stop()


def connections(running):
    """Returns the connections that the broker lists."""
    uri = running.management_uri.replace("guest:guest@", "")
    request = urllib.request.Request(uri + "/api/connections")
    request.add_header("Authorization", "Basic Z3Vlc3Q6Z3Vlc3Q=")
    with urllib.request.urlopen(request, timeout=DEADLINE) as response:
        return json.load(response)


def run(containers, config):
    container = ServiceContainer(Shop, config)
    containers.append(container)
    container.start()
    return container


@pytest.mark.parametrize(
    ("parameters", "settings", "expected"),
    [
        ("", {"HEARTBEAT": 2}, 2),
        ("?heartbeat=3", {}, 3),
        ("?heartbeat=3", {"HEARTBEAT": 2}, 2),
        ("", {}, 60),
    ],
)
def test_all_connections_have_the_heartbeat(containers, parameters, settings, expected):
    with broker() as running:
        config = {"AMQP_URI": running.uri + parameters, **settings}
        run(containers, config)
        with ClusterRpcProxy(config, timeout=DEADLINE) as cluster:
            assert cluster.shop.call_pay() == "paid"
            event_dispatcher(config)("shop", "paid", {})
            listed = connections(running)
        assert {connection["timeout"] for connection in listed} == {expected}
        assert len(listed) >= 3


def test_unknown_parameters_of_the_uri_are_refused():
    with pytest.raises(ConfigurationError, match="`hartbeat` is unknown; known are heartbeat, "):
        ServiceContainer(Shop, {"AMQP_URI": "amqp://localhost?hartbeat=1"}).start()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_a_service_that_publishes_waits_for_the_broker(containers):
    port = free_port()
    config = {"AMQP_URI": "amqp://guest:guest@127.0.0.1:{}".format(port)}
    container = ServiceContainer(Shop, config)
    containers.append(container)
    starting = threading.Thread(target=container.start)
    starting.start()
    starting.join(1)
    assert starting.is_alive()
    running = Broker(port=port)
    try:
        starting.join(DEADLINE)
        assert not starting.is_alive()
        with ClusterRpcProxy(config, timeout=DEADLINE) as cluster:
            assert cluster.shop.pay() == "paid"
        container.stop()
    finally:
        running.stop()


def test_a_service_waits_for_its_user_and_can_be_stopped(containers):
    with broker() as running:
        uri = running.uri.replace("guest:guest", "guest:wrong")
        container = ServiceContainer(Shop, {"AMQP_URI": uri})
        containers.append(container)
        starting = threading.Thread(target=container.start)
        starting.start()
        starting.join(1)
        assert starting.is_alive()
        container.stop()
        starting.join(DEADLINE)
        assert not starting.is_alive()


def test_a_publish_to_a_port_that_says_nothing_ends_at_its_time_limit():
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = "amqp://guest:guest@127.0.0.1:{}".format(server.getsockname()[1])
        with pytest.raises(TimeoutError, match="no answer from"):
            Publisher(uri).publish({}, routing_key="queue", timeout=0.3)
        dispatch = event_dispatcher({"AMQP_URI": uri, "publish_timeout": 0.3})
        with pytest.raises(TimeoutError, match="no answer from"):
            dispatch("shop", "paid", {})


def test_messages_above_the_brokers_limit_are_errors_at_once(containers):
    refusal = (
        r"message size 1000\d\d is larger than configured max size 100000; "
        r"send less, or raise `max_message_size` in rabbitmq\.conf"
    )
    text = "x" * 100_001
    with broker(max_message_size=100_000) as running:
        config = {"AMQP_URI": running.uri}
        run(containers, config)
        with ClusterRpcProxy(config, timeout=DEADLINE) as cluster:
            for method in ("large", "call_large", "dispatch_large", "publish_large"):
                with pytest.raises(RemoteError, match=refusal):
                    getattr(cluster.shop, method)(100_001)
            with pytest.raises(Exception, match=refusal):
                cluster.shop.large(text)
            assert cluster.shop.large(1) == "x"
        with pytest.raises(Exception, match=refusal):
            event_dispatcher(config)("shop", "paid", text)
        with pytest.raises(Exception, match=refusal):
            Publisher(running.uri).publish(text, routing_key="queue")


def test_nothing_stays_of_a_closed_client():
    with broker() as running:
        config = {"AMQP_URI": running.uri}
        for _ in range(3):
            with (
                ClusterRpcProxy(config, timeout=DEADLINE) as cluster,
                pytest.raises(UnknownService),
            ):
                cluster.nobody.method()
        assert running.stats()["queues"] == {}
        # The broker may notice the end of a connection a moment later.
        deadline = time.monotonic() + DEADLINE
        while running.stats()["connections"] and time.monotonic() < deadline:
            time.sleep(0.01)
        assert running.stats()["connections"] == 0
