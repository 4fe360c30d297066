"""WebSocketHub: subscriptions, broadcasts and unicasts."""

import json
import threading

import pytest
from socketclient import Chat, broadcast, call, hub_of, sockets_of
from webclient import LOCAL

from nameko.exceptions import ConnectionNotFound, MethodNotFound, deserialize
from nameko.testing.services import dummy, entrypoint_hook
from nameko.web.websocket import WebSocketHub, WebSocketHubProvider


def test_events_reach_subscribers_only(chat, connect):
    one, two, other = connect(chat), connect(chat), connect(chat)
    assert one.rpc("subscribe") == two.rpc("subscribe") == "subscribed"
    one.rpc("subscribe")
    other.rpc("subscribe", channel="elsewhere")
    for value in (1, 2):
        broadcast(chat, value)
    for client in (one, two):
        assert [client.wait_for_event("message") for _ in range(2)] == [
            ("message", 1),
            ("message", 2),
        ]
    one.rpc("unsubscribe")
    broadcast(chat, 3)
    assert two.wait_for_event("message") == ("message", 3)
    # Events are delivered before the replies.
    assert one.rpc("subscriptions") == []
    assert other.rpc("subscriptions") == ["elsewhere"]
    assert one.get_event_queue("message").empty()
    assert other.get_event_queue("message").empty()


def test_sends_an_event_to_a_single_socket(chat, connect):
    client = connect(chat)
    _, data = client.wait_for_event("connected")
    with entrypoint_hook(chat, "unicast") as unicast:
        assert unicast(data["socket_id"], "psst") is True
        assert unicast("nobody", "psst") is False
    assert client.wait_for_event("message") == ("message", "psst")


def test_unknown_sockets_cannot_subscribe(chat):
    hub = hub_of(chat)
    with pytest.raises(ConnectionNotFound):
        hub.subscribe("nobody", "lobby")
    hub.unsubscribe("nobody", "lobby")
    assert hub.get_subscriptions("nobody") == []
    hub.broadcast("lobby", "event", {})


def test_broadcasts_while_sockets_connect_and_disconnect(chat, plain, left):
    stay = plain(chat)
    call(stay, "subscribe")
    over = threading.Event()
    failures = []

    def talk():
        try:
            while not over.is_set():
                hub_of(chat).broadcast("lobby", "tick", 1)
        except Exception as exc:
            failures.append(exc)

    talker = threading.Thread(target=talk)

    def listen():
        while not over.is_set():
            stay.recv()

    reader = threading.Thread(target=listen)
    talker.start()
    reader.start()
    for _ in range(20):
        guest = plain(chat)
        guest.send(json.dumps({"method": "subscribe"}))
        guest.recv()
        guest.sock.close()
        left.get(timeout=10)
    over.set()
    hub_of(chat).broadcast("lobby", "tick", 1)
    talker.join(10)
    reader.join(10)
    assert failures == []
    assert len(hub_of(chat).connections) == 1


def test_closes_a_socket_with_a_full_send_buffer(serve, plain, left, expect_log):
    container = serve(Chat, WEBSOCKET_MAX_QUEUE=100_000, **LOCAL)
    connection = plain(container)
    call(connection, "subscribe")
    with expect_log("nameko.web.websocket.outbox", "too slow"):
        while left.empty():
            hub_of(container).broadcast("lobby", "flood", "x" * 50_000)
    assert sockets_of(container) == {}


def test_a_service_can_have_a_hub_without_methods(serve, plain):
    class Ticker:
        name = "ticker"
        hub = WebSocketHubProvider()

        @dummy
        def tick(self):
            for socket_id in list(sockets_of(container)):
                self.hub.unicast(socket_id, "tick", 1)

    container = serve(Ticker, **LOCAL)
    connection = plain(container)
    with entrypoint_hook(container, "tick") as tick:
        tick()
    assert json.loads(connection.recv())["event"] == "tick"
    reply = call(connection, "any")
    assert isinstance(deserialize(reply["error"]), MethodNotFound)


def test_a_hub_can_be_created_without_a_server():
    class Server:
        sockets = {}

    assert WebSocketHub(Server()).subscriptions["any"] == set()
