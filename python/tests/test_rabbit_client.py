"""The management API client, on the embedded broker and on RabbitMQ."""

from urllib.parse import urlsplit

import amqp
import pytest

from nameko.testing.rabbit import Client, HTTPError
from nameko.testing.utils import (
    assert_stops_raising,
    find_free_port,
    get_rabbit_connections,
    reset_rabbit_connections,
)


@pytest.fixture
def vhost(rabbit_config):
    return rabbit_config["vhost"]


@pytest.fixture
def connect(rabbit_config):
    connections = []

    def connect():
        uri = urlsplit(rabbit_config["AMQP_URI"])
        address = "{}:{}".format(uri.hostname, uri.port or 5672)
        connection = amqp.Connection(address, virtual_host=rabbit_config["vhost"])
        connection.connect()
        connections.append(connection)
        return connection

    yield connect
    for connection in connections:
        connection.collect()


def test_creates_and_deletes_virtual_hosts(rabbit_manager, vhost):
    name = vhost + "/its twin"
    rabbit_manager.create_vhost(name)
    rabbit_manager.set_vhost_permissions(name, "guest", ".*", ".*", ".*")
    names = [found["name"] for found in rabbit_manager.get_all_vhosts()]
    assert {"/", vhost, name} <= set(names)
    rabbit_manager.delete_vhost(name)
    with pytest.raises(HTTPError, match=r"404 .* for DELETE .*Not Found") as raised:
        rabbit_manager.delete_vhost(name)
    assert raised.value.response.status_code == 404
    assert raised.value.response.json() == {"error": "Object Not Found", "reason": "Not Found"}


def test_any_path_of_the_api_can_be_requested(rabbit_manager, vhost):
    rabbit_manager._put("queues", vhost, "a/b", json={"durable": True})
    assert rabbit_manager._get("queues", vhost, "a/b")["durable"] is True
    messages = rabbit_manager._post(
        "queues",
        vhost,
        "a/b",
        "get",
        json={"count": 1, "encoding": "auto", "ackmode": "ack_requeue_false", "requeue": False},
    )
    assert messages == []
    rabbit_manager._delete("queues", vhost, "a/b")
    assert rabbit_manager.get_queues(vhost) == []


def test_manages_queues_bindings_and_messages(rabbit_manager, vhost):
    rabbit_manager.create_queue(vhost, "orders", durable=True, arguments={"x-max-length": 10})
    rabbit_manager.create_queue_binding(vhost, "amq.topic", "orders", "order.*")
    queue = rabbit_manager.get_queue(vhost, "orders")
    assert (queue["name"], queue["durable"]) == ("orders", True)
    # RabbitMQ 4 and the embedded broker add the type of the queue.
    assert {**queue["arguments"], "x-queue-type": "classic"} == {
        "x-max-length": 10,
        "x-queue-type": "classic",
    }
    assert [queue["name"] for queue in rabbit_manager.get_queues(vhost)] == ["orders"]
    bindings = rabbit_manager.get_queue_bindings(vhost, "orders")
    assert [(found["source"], found["routing_key"]) for found in bindings] == [
        ("", "orders"),
        ("amq.topic", "order.*"),
    ]
    exchanges = [found["name"] for found in rabbit_manager.get_exchanges(vhost)]
    assert {"", "amq.topic"} <= set(exchanges)

    properties = {"content_type": "text/plain", "headers": {"who": "me"}}
    published = rabbit_manager.publish(vhost, "amq.topic", "order.new", "tea", properties)
    assert published == {"routed": True}
    assert rabbit_manager.publish(vhost, "amq.default", "nowhere", "tea") == {"routed": False}
    assert rabbit_manager.publish(vhost, "amq.default", "orders", "cake") == {"routed": True}
    first, second = rabbit_manager.get_messages(vhost, "orders", count=3, requeue=True)
    assert (first["payload"], first["properties"]) == ("tea", properties)
    assert (second["payload"], second["message_count"]) == ("cake", 0)
    assert [found["payload"] for found in rabbit_manager.get_messages(vhost, "orders")] == ["tea"]
    assert [found["payload"] for found in rabbit_manager.get_messages(vhost, "orders")] == ["cake"]
    assert rabbit_manager.get_messages(vhost, "orders") == []


def test_lists_and_closes_connections(rabbit_manager, vhost, connect):
    connection = connect()

    def listed():
        (found,) = get_rabbit_connections(vhost, rabbit_manager)
        assert found["user"] == "guest"

    # RabbitMQ updates the list with a delay.
    assert_stops_raising(listed)
    reset_rabbit_connections(vhost, rabbit_manager)
    with pytest.raises(amqp.ConnectionForced, match="CONNECTION_FORCED - Closed via management"):
        connection.drain_events(timeout=10)
    assert_stops_raising(lambda: _assert_empty(get_rabbit_connections(vhost, rabbit_manager)))
    reset_rabbit_connections(vhost, rabbit_manager)


def _assert_empty(found):
    assert found == []


def test_fails_fast_without_an_api_or_with_wrong_credentials(rabbit_manager):
    with pytest.raises(Exception, match=r"Connection error for the RabbitMQ .* is it enabled\?"):
        Client("http://guest:guest@127.0.0.1:{}".format(find_free_port()))
    address = urlsplit(rabbit_manager._base_url).netloc
    for login in ("guest:wrong@", ""):
        with pytest.raises(HTTPError, match="401") as raised:
            Client("http://{}{}".format(login, address))
        assert raised.value.response.status_code == 401
