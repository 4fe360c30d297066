"""WebSocket: RPC methods, events, and the lifecycle of connections."""

import json
import os
import queue
import socket
import struct
import threading

import pytest
from webclient import LOCAL, Client, address_of, read_all

import websocket
from nameko.exceptions import (
    ConnectionNotFound,
    IncorrectSignature,
    MalformedRequest,
    MethodNotFound,
    RemoteError,
    deserialize,
)
from nameko.extensions import DependencyProvider
from nameko.rpc import rpc as amqp_rpc
from nameko.standalone.rpc import ServiceRpcProxy
from nameko.testing.services import dummy, entrypoint_hook
from nameko.testing.utils import get_extension
from nameko.testing.websocket import close_gracefully, make_virtual_socket
from nameko.web.handlers import http
from nameko.web.server import WebServer
from nameko.web.websocket import (
    WebSocketHub,
    WebSocketHubProvider,
    WebSocketRpc,
    WebSocketServer,
    rpc,
)
from nameko.web.websocket import connect as connect_hook
from nameko.web.websocket import disconnect as disconnect_hook


class Refused(Exception):
    pass


class Chat:
    name = "chat"
    hub = WebSocketHubProvider()

    @rpc
    def subscribe(self, socket_id, channel="lobby"):
        self.hub.subscribe(socket_id, channel)
        return "subscribed"

    @rpc
    def unsubscribe(self, socket_id, channel="lobby"):
        self.hub.unsubscribe(socket_id, channel)

    @rpc
    def subscriptions(self, socket_id):
        return self.hub.get_subscriptions(socket_id)

    @rpc
    def echo(self, socket_id, value=None):
        return value

    @rpc
    def fail(self, socket_id):
        raise Refused("no")

    @rpc
    def exit(self, socket_id):
        raise SystemExit(1)

    @rpc
    def unserializable(self, socket_id):
        return object()

    @rpc
    async def later(self, socket_id):
        return "awaited"

    @dummy
    def broadcast(self, value, channel="lobby"):
        self.hub.broadcast(channel, "message", value)

    @dummy
    def unicast(self, socket_id, value):
        return self.hub.unicast(socket_id, "message", value)

    @http("GET", "/")
    def index(self, request):
        return "http too"


@pytest.fixture
def connect():
    """``connect(container)`` returns a connected virtual socket."""
    apps = []

    def connect(container):
        app, wait = make_virtual_socket(*address_of(container))
        thread = threading.Thread(target=app.run_forever, daemon=True)
        thread.start()
        apps.append((app, thread))
        return wait()

    yield connect
    for app, thread in apps:
        close_gracefully(app)
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def chat(serve):
    return serve(Chat, **LOCAL)


@pytest.fixture
def plain():
    """``plain(container)`` returns a connected ``websocket.WebSocket`` that has read the
    greeting."""
    sockets = []

    def connect(container, greeting=True):
        url = "ws://{}:{}/ws".format(*address_of(container))
        connection = websocket.create_connection(url, timeout=10)
        sockets.append(connection)
        if greeting:
            assert json.loads(connection.recv())["event"] == "connected"
        return connection

    yield connect
    for connection in sockets:
        connection.shutdown()


def call(connection, method, correlation_id="1", **data):
    """Sends a message and returns the reply."""
    request = {"method": method, "data": data, "correlation_id": correlation_id}
    connection.send(json.dumps(request))
    return json.loads(connection.recv())


def hub_of(container):
    return get_extension(container, WebSocketHubProvider).hub


def sockets_of(container):
    return get_extension(container, WebSocketServer).sockets


def broadcast(container, value, **kwargs):
    with entrypoint_hook(container, "broadcast") as hook:
        hook(value, **kwargs)


@pytest.fixture
def left(monkeypatch):
    """A queue of the sockets that the server has removed."""
    gone = queue.Queue()
    remove = WebSocketServer.remove_socket

    def remove_socket(self, socket_id):
        remove(self, socket_id)
        gone.put(socket_id)

    monkeypatch.setattr(WebSocketServer, "remove_socket", remove_socket)
    return gone


def test_the_first_message_has_the_socket_id(chat, plain):
    greeting = json.loads(plain(chat, greeting=False).recv())
    assert greeting == {
        "type": "event",
        "event": "connected",
        "data": {"socket_id": next(iter(sockets_of(chat)))},
    }


def test_wire_format_of_results_and_errors(chat, plain):
    connection = plain(chat)
    assert call(connection, "echo", 7, value=[1, "é"]) == {
        "type": "result",
        "success": True,
        "data": [1, "é"],
        "correlation_id": 7,
    }
    reply = call(connection, "fail")
    assert reply == {
        "type": "result",
        "success": False,
        "error": {
            "exc_type": "Refused",
            "exc_path": __name__ + ".Refused",
            "exc_args": ["no"],
            "value": "no",
        },
        "correlation_id": "1",
    }


@pytest.mark.parametrize("garbage", ["no json", "[]", "{}", '"text"', "", "null", '{"method": 1}'])
def test_answers_malformed_messages_with_an_error(chat, plain, garbage):
    connection = plain(chat)
    connection.send(garbage)
    reply = json.loads(connection.recv())
    assert not reply["success"]
    assert reply["correlation_id"] is None
    expected = MethodNotFound if "method" in garbage else MalformedRequest
    assert isinstance(deserialize(reply["error"]), expected)
    assert call(connection, "echo", value=1)["data"] == 1


def test_the_virtual_socket_raises_errors(chat, connect):
    client = connect(chat)
    with pytest.raises(MethodNotFound):
        client.rpc("unknown")
    with pytest.raises(IncorrectSignature):
        client.rpc("echo", unknown=1)
    with pytest.raises(RemoteError, match="SystemExit"):
        client.rpc("exit")
    with pytest.raises(RemoteError, match="UnserializableValueError"):
        client.rpc("unserializable")
    assert client.rpc("echo", value="still there") == "still there"


def test_runs_coroutines(chat, connect):
    assert connect(chat).rpc("later") == "awaited"


def test_serves_http_on_the_same_port(chat):
    client = Client(chat)
    assert client.get("/").text == "http too"
    assert client.get("/ws").status == 400


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


def test_sockets_do_not_occupy_threads(chat, plain):
    connections = [plain(chat) for _ in range(3)]
    call(connections[0], "echo")
    before = threading.active_count()
    connections += [plain(chat) for _ in range(60)]
    for connection in connections:
        call(connection, "subscribe")
    assert threading.active_count() <= before + 5
    broadcast(chat, "all")
    assert {json.loads(connection.recv())["data"] for connection in connections} == {"all"}


def test_handles_messages_of_a_socket_in_order_and_sockets_concurrently(serve, plain):
    order, first_runs, go = [], threading.Event(), threading.Event()

    class Service:
        name = "ordered"

        @rpc
        def note(self, socket_id, number):
            if number == 0:
                first_runs.set()
                assert go.wait(30)
            order.append(number)
            return number

    container = serve(Service, **LOCAL)
    slow, quick = plain(container), plain(container)
    for number in range(5):
        slow.send(json.dumps({"method": "note", "data": {"number": number}}))
    assert first_runs.wait(10)
    assert call(quick, "note", number=100)["data"] == 100
    go.set()
    assert [json.loads(slow.recv())["data"] for _ in range(5)] == list(range(5))
    assert order == [100, 0, 1, 2, 3, 4]


def test_dependencies_observe_the_result_before_the_client(serve, plain):
    seen = []

    class Observer(DependencyProvider):
        def worker_result(self, worker_ctx, result=None, exc_info=None):
            seen.append(result)

    class Service:
        name = "observed"
        observer = Observer()

        @rpc
        def get(self, socket_id):
            return len(seen)

    connection = plain(serve(Service, **LOCAL))
    for number in range(20):
        assert call(connection, "get")["data"] == number
        assert len(seen) == number + 1


def test_busy_sockets_do_not_delay_rpc(serve, plain, config):
    begun, go = threading.Semaphore(0), threading.Event()

    class Service:
        name = "busy"

        @rpc
        def wait(self, socket_id):
            begun.release()
            go.wait(30)

        @amqp_rpc
        def ping(self):
            return "pong"

    container = serve(Service, max_workers=2, **LOCAL)
    connections = [plain(container) for _ in range(20)]
    for connection in connections:
        connection.send(json.dumps({"method": "wait"}))
    for _ in range(2):
        assert begun.acquire(timeout=10)
    with ServiceRpcProxy("busy", config, timeout=10) as busy:
        pong = busy.ping.call_async()
        go.set()
        assert pong.result() == "pong"
    assert all(json.loads(connection.recv())["success"] for connection in connections)


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


def test_sockets_have_context_data(serve, plain):
    class Server(WebServer):
        def context_data_from_headers(self, request):
            return {"user_id": request.headers["X-User"]}

    class SocketServer(WebSocketServer):
        wsgi_server = Server()

    class Rpc(WebSocketRpc):
        server = SocketServer()

        def handle_result(self, event, worker_ctx, result, exc_info):
            seen.append(worker_ctx.data)
            return super().handle_result(event, worker_ctx, result, exc_info)

    seen = []

    class Service:
        name = "contextual"

        @Rpc.decorator
        def get(self, socket_id):
            return 1

    container = serve(Service, **LOCAL)
    url = "ws://{}:{}/ws".format(*get_extension(container, Server).address)
    connection = websocket.create_connection(url, timeout=10, header={"X-User": "ann"})
    connection.recv()
    assert call(connection, "get")["data"] == 1
    assert seen == [{"user_id": "ann"}]
    connection.shutdown()


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


def test_a_hub_can_be_created_without_a_server():
    class Server:
        sockets = {}

    assert WebSocketHub(Server()).subscriptions["any"] == set()
