"""RPC over WebSocket."""

import json
import threading

import pytest
from socketclient import broadcast, call, sockets_of
from webclient import LOCAL, Client

import websocket
from nameko.exceptions import (
    IncorrectSignature,
    MalformedRequest,
    MethodNotFound,
    RemoteError,
    deserialize,
)
from nameko.extensions import DependencyProvider
from nameko.rpc import rpc as amqp_rpc
from nameko.standalone.rpc import ServiceRpcProxy
from nameko.testing.utils import get_extension
from nameko.web.server import WebServer
from nameko.web.websocket import WebSocketRpc, WebSocketServer, rpc


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
            "exc_path": "socketclient.Refused",
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
