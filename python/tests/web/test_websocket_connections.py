"""The lifecycle of WebSocket connections: handshake, limits, disconnects and stopping."""

import json
import os
import queue
import socket
import struct
import threading

import pytest
from socketclient import Chat, Refused, call, hub_of, sockets_of
from webclient import LOCAL, Client, address_of, read_all
from werkzeug.exceptions import Forbidden

import websocket
from nameko.contextdata import ContextDataProvider
from nameko.testing.websocket import make_virtual_socket
from nameko.web.websocket import WebSocketHubProvider, WebSocketServer, handshake, rpc
from nameko.web.websocket import connect as connect_hook
from nameko.web.websocket import disconnect as disconnect_hook


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"Sec-WebSocket-Key": None}, 400),
        ({"Sec-WebSocket-Version": "8"}, 426),
    ],
)
def test_rejects_an_invalid_handshake(chat, change, status):
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        **change,
    }
    headers = {name: value for name, value in headers.items() if value is not None}
    assert Client(chat).get("/ws", **headers).status == status
    assert sockets_of(chat) == {}


def test_removes_a_socket_before_it_answers_the_close_frame(chat, plain):
    connection = plain(chat)
    call(connection, "subscribe")
    assert hub_of(chat).subscriptions["lobby"]
    connection.send_close()
    assert connection.recv_frame().opcode == websocket.ABNF.OPCODE_CLOSE
    assert sockets_of(chat) == {}
    assert not hub_of(chat).subscriptions["lobby"]
    assert hub_of(chat).connections == {}


def test_removes_a_lost_socket_once(chat, plain, left):
    connection = plain(chat)
    call(connection, "subscribe")
    (socket_id,) = sockets_of(chat)
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.sock.close()
    assert left.get(timeout=10) == socket_id
    assert sockets_of(chat) == {}
    assert hub_of(chat).connections == {}
    chat.stop()
    assert left.empty()


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\xff" * 20, 1002),  # reserved bits and opcode
        (b"\x81\x05hello", 1002),  # not masked
        (b"\x81\x82\x00\x00\x00\x00\xff\x00", 1007),  # not UTF-8
        (b"\x81\xff" + struct.pack("!Q", 1 << 40) + b"mask", 1009),  # a terabyte
    ],
)
def test_closes_the_socket_on_invalid_frames(chat, plain, left, frame, code):
    connection = plain(chat)
    connection.sock.sendall(frame)
    closing = connection.recv_frame()
    assert closing.opcode == websocket.ABNF.OPCODE_CLOSE
    assert struct.unpack("!H", closing.data[:2])[0] == code
    assert left.get(timeout=10)
    assert call(plain(chat), "echo", value=1)["data"] == 1


def test_survives_random_bytes(chat, plain, left):
    for _ in range(20):
        connection = plain(chat)
        connection.sock.sendall(os.urandom(200))
        connection.sock.close()
    for _ in range(20):
        left.get(timeout=10)
    assert sockets_of(chat) == {}
    assert call(plain(chat), "echo", value=1)["data"] == 1


def test_limits_the_size_of_messages(serve, plain):
    container = serve(Chat, WEBSOCKET_MAX_MESSAGE=1000, **LOCAL)
    assert call(plain(container), "echo", value="x" * 900)["success"]
    connection = plain(container)
    connection.send(json.dumps({"method": "echo", "data": {"value": "x" * 1000}}))
    closing = connection.recv_frame()
    assert struct.unpack("!H", closing.data[:2])[0] == 1009


def test_drops_a_client_that_does_not_answer_pings(serve, plain, left):
    container = serve(Chat, WEBSOCKET_PING_INTERVAL=0.1, **LOCAL)
    plain(container)
    assert left.get(timeout=10)


def test_a_stop_finishes_messages_and_closes_sockets(serve, plain, left):
    begun, go = threading.Event(), threading.Event()

    class Service:
        name = "stopping"

        @rpc
        def wait(self, socket_id):
            begun.set()
            assert go.wait(30)
            return "finished"

    container = serve(Service, **LOCAL)
    idle, busy = plain(container), plain(container)
    busy.send(json.dumps({"method": "wait"}))
    assert begun.wait(10)
    stopping = threading.Thread(target=container.stop, daemon=True)
    stopping.start()
    closing = idle.recv_frame()
    assert struct.unpack("!H", closing.data[:2])[0] == 1001
    assert closing.data[2:] == b"the service is stopping"
    idle.send_close(1001)
    go.set()
    assert json.loads(busy.recv())["data"] == "finished"
    assert struct.unpack("!H", busy.recv_frame().data[:2])[0] == 1001
    busy.send_close(1001)
    stopping.join(10)
    assert not stopping.is_alive()
    assert left.qsize() == 2


def test_a_kill_aborts_sockets(chat, plain):
    connection = plain(chat)
    chat.kill()
    try:
        assert read_all(connection.sock) == b""
    except ConnectionError:
        pass


def test_rejects_a_socket_if_add_websocket_fails(chat, monkeypatch, expect_log):
    def refuse(self, ws, initial_context_data=None):
        raise RuntimeError("house full")

    monkeypatch.setattr(WebSocketServer, "add_websocket", refuse)
    with (
        expect_log("nameko.web.server", "error answering GET /ws"),
        pytest.raises(websocket.WebSocketBadStatusException),
    ):
        websocket.create_connection("ws://{}:{}/ws".format(*address_of(chat)), timeout=10)
    assert Client(chat).get("/").text == "http too"


def test_authenticates_clients_in_the_handshake(serve):
    class Member(ContextDataProvider):
        context_key = "member"

    class Service:
        name = "club"
        member = Member()

        @handshake(expected_exceptions=LookupError)
        def admit(self, request):
            token = request.args.get("token")
            if token is None:
                raise LookupError("no token")
            if token == "wrong":
                raise Forbidden("not a member")
            if token == "broken":
                raise Refused("no database")
            return {"member": "ada"} if token == "right" else token if token == "odd" else None

        @rpc
        def who_am_i(self, socket_id):
            return self.member

    container = serve(Service, **LOCAL)
    url = "ws://{}:{}/ws".format(*address_of(container))
    for query, status, text in [
        ("", 400, "Error: LookupError: no token"),
        ("?token=wrong", 403, "not a member"),
        ("?token=broken", 500, "Error: Refused: no database"),
        ("?token=odd", 500, "admit must return None or a dict of context data, not 'odd'"),
    ]:
        with pytest.raises(websocket.WebSocketBadStatusException) as refused:
            websocket.create_connection(url + query, timeout=10)
        assert refused.value.status_code == status
        assert text in refused.value.resp_body.decode()
    for query, member in [("?token=right", "ada"), ("?token=none", None)]:
        connection = websocket.create_connection(url + query, timeout=10)
        assert json.loads(connection.recv())["event"] == "connected"
        connection.send(json.dumps({"method": "who_am_i"}))
        assert json.loads(connection.recv())["data"] == member
        connection.shutdown()


def test_runs_connect_and_disconnect_entrypoints(serve, plain):
    gone = queue.Queue()

    class Service:
        name = "hooks"
        hub = WebSocketHubProvider()

        @connect_hook
        def enter(self, socket_id, request):
            room = request.args.get("room")
            if room is None:
                raise Refused("which room?")
            self.hub.subscribe(socket_id, room)

        @disconnect_hook
        def leave(self, socket_id, channels):
            gone.put((socket_id, channels, self.hub.get_subscriptions(socket_id)))

        @rpc
        def rooms(self, socket_id):
            return self.hub.get_subscriptions(socket_id)

    container = serve(Service, **LOCAL)
    url = "ws://{}:{}/ws".format(*address_of(container))
    guest = websocket.create_connection(url + "?room=hall", timeout=10)
    socket_id = json.loads(guest.recv())["data"]["socket_id"]
    assert call(guest, "rooms")["data"] == ["hall"]
    guest.close()
    assert gone.get(timeout=10) == (socket_id, ["hall"], [])

    stranger = plain(container)
    stranger.send(json.dumps({"method": "rooms"}))
    closing = stranger.recv_frame()
    assert struct.unpack("!H", closing.data[:2])[0] == 1008
    assert closing.data[2:] == b"which room?"
    assert gone.get(timeout=10)[1] == []

    last = websocket.create_connection(url + "?room=hall", timeout=10)
    last.recv()
    reader = threading.Thread(target=last.recv)
    reader.start()
    container.stop()
    reader.join(10)
    assert gone.get_nowait()[1] == ["hall"]


@pytest.mark.parametrize("close_frame", [True, False])
def test_handles_pending_messages_before_the_disconnect(serve, plain, close_frame):
    done = queue.Queue()
    resume = threading.Event()

    class Service:
        name = "notes"

        hub = WebSocketHubProvider()

        @rpc
        def wait(self, socket_id):
            self.hub.subscribe(socket_id, "notes")
            done.put("waits")
            resume.wait(10)
            done.put("waited")

        @rpc
        def note(self, socket_id, text):
            done.put((text, self.hub.get_subscriptions(socket_id)))

        @disconnect_hook
        def gone(self, socket_id, channels):
            done.put(("gone", channels))

    connection = plain(serve(Service, **LOCAL))
    connection.send(json.dumps({"method": "wait"}))
    assert done.get(timeout=10) == "waits"
    for text in ("one", "two"):
        connection.send(json.dumps({"method": "note", "data": {"text": text}}))
    if close_frame:
        connection.send_close()
    else:
        connection.shutdown()
    resume.set()
    order = [done.get(timeout=10) for _ in range(4)]
    assert order == ["waited", ("one", ["notes"]), ("two", ["notes"]), ("gone", ["notes"])]


def test_the_virtual_socket_reports_a_refused_connection():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    app, wait = make_virtual_socket("127.0.0.1", port)
    thread = threading.Thread(target=app.run_forever, daemon=True)
    thread.start()
    with pytest.raises(ConnectionRefusedError):
        wait()
    thread.join(10)


def test_the_virtual_socket_reports_a_lost_connection(serve, connect):
    begun = threading.Event()

    class Service:
        name = "dying"

        @rpc
        def wait(self, socket_id):
            begun.set()
            threading.Event().wait(30)

    container = serve(Service, **LOCAL)
    client = connect(container)

    def kill():
        begun.wait(10)
        container.kill()

    threading.Thread(target=kill).start()
    with pytest.raises((ConnectionError, websocket.WebSocketException)):
        client.rpc("wait")
