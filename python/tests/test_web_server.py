"""The web server of a container: addresses, middleware, streams, bad clients, stopping."""

import errno
import socket
import socketserver
import threading
import time
import wsgiref.simple_server
from http.client import HTTPConnection, HTTPException

import pytest
from webclient import LOCAL, Client, address_of, read_all
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.wrappers import Response

from nameko.containers import ServiceContainer
from nameko.exceptions import ConfigurationError
from nameko.testing.utils import get_extension
from nameko.web.handlers import HttpRequestHandler, http
from nameko.web.server import WebServer, parse_address


class Hello:
    name = "hello"

    @http("GET", "/")
    def index(self, request):
        return "hello"

    @http("POST", "/length")
    def length(self, request):
        return str(len(request.get_data()))


@pytest.fixture
def client(serve):
    return Client(serve(Hello, **LOCAL))


def service_with(server_cls, index=None):
    """Returns a service with a single method, at /, served by ``server_cls``."""

    class Handler(HttpRequestHandler):
        server = server_cls()

    def default(self, request):
        return "index"

    index = index or default
    return type("Service", (), {"name": "custom", "index": Handler.decorator("GET", "/")(index)})


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("8000", ("", 8000)),
        (8000, ("", 8000)),
        ("foo:8000", ("foo", 8000)),
        ("[::1]:80", ("::1", 80)),
    ],
)
def test_parses_addresses(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["foo", "", ":80", "foo:", "1.2.3.4:65536", "::1:80", "http://x:1"]
)
def test_rejects_invalid_addresses(text):
    with pytest.raises(ConfigurationError) as raised:
        parse_address(text)
    assert str(raised.value) == (
        "Misconfigured bind address `{}`. Should be `[address:]port`".format(text)
    )


def test_reports_an_address_in_use(serve):
    first = serve(Hello, **LOCAL)
    host, port = address_of(first)
    second = ServiceContainer(Hello, {"WEB_SERVER_ADDRESS": "{}:{}".format(host, port)})
    with pytest.raises(
        OSError, match="WEB_SERVER_ADDRESS is {}:{}, which".format(host, port)
    ) as raised:
        second.start()
    assert raised.value.errno == errno.EADDRINUSE
    second.kill()
    assert Client(first).get("/").text == "hello"


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ({"WEB_SERVER_HEADER_TIMEOUT": 0}, "WEB_SERVER_HEADER_TIMEOUT must be"),
        ({"WEB_SERVER_MAX_BODY": "much"}, "WEB_SERVER_MAX_BODY must be"),
    ],
)
def test_reports_invalid_settings(setting, text):
    container = ServiceContainer(Hello, {**LOCAL, **setting})
    with pytest.raises(ConfigurationError, match=text):
        container.start()
    container.kill()


def test_services_of_a_process_can_have_different_addresses(serve):
    containers = [serve(Hello, **LOCAL), serve(Hello, **LOCAL)]
    assert len({address_of(container) for container in containers}) == 2
    assert [Client(container).get("/").text for container in containers] == ["hello"] * 2


def test_a_stop_frees_the_port(serve):
    container = serve(Hello, **LOCAL)
    client = Client(container)
    container.stop()
    with pytest.raises(ConnectionRefusedError):
        client.get("/")
    again = serve(Hello, WEB_SERVER_ADDRESS="{}:{}".format(*client.address))
    assert Client(again).get("/").text == "hello"


def test_supports_middleware(serve):
    class Server(WebServer):
        def get_wsgi_app(self):
            return ProxyFix(super().get_wsgi_app(), x_for=1, x_prefix=1)

    service = service_with(Server, lambda self, request: request.remote_addr + request.script_root)
    client = Client(serve(service, **LOCAL))
    answer = client.get("/", **{"X-Forwarded-For": "1.2.3.4", "X-Forwarded-Prefix": "/api"})
    assert answer.text == "1.2.3.4/api"


def test_the_application_can_be_replaced(serve):
    def app(environ, start_response):
        start_response("200 OK", [])
        return "Override"

    class Server(WebServer):
        def get_wsgi_server(self, sock, wsgi_app, **kwargs):
            server = super().get_wsgi_server(sock, wsgi_app, **kwargs)
            assert server.address == sock.getsockname()
            server.app = app
            return server

    assert Client(serve(service_with(Server), **LOCAL)).get("/").text == "Override"


def test_the_server_can_be_replaced(serve):
    class Threading(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
        daemon_threads = True

    class Quiet(wsgiref.simple_server.WSGIRequestHandler):
        def log_message(self, *args):
            pass

    class Server(WebServer):
        def get_wsgi_server(self, sock, wsgi_app, **kwargs):
            server = Threading(sock.getsockname(), Quiet, bind_and_activate=False)
            server.socket.close()
            server.socket = sock
            server.server_name, server.server_port = sock.getsockname()
            server.setup_environ()
            server.set_app(wsgi_app)
            return server

    container = serve(service_with(Server), **LOCAL)
    answer = Client(container).get("/")
    assert answer.text == "index"
    assert answer.headers["Server"].startswith("WSGIServer")
    container.stop()


def test_a_subclass_can_set_context_data_from_headers(serve):
    class Server(WebServer):
        def context_data_from_headers(self, request):
            return {"language": request.headers["Accept-Language"]}

    seen = []

    class Handler(HttpRequestHandler):
        server = Server()

        def handle_result(self, event, worker_ctx, result, exc_info):
            seen.append(worker_ctx.data)
            return super().handle_result(event, worker_ctx, result, exc_info)

    class Service:
        name = "languages"

        @Handler.decorator("GET", "/")
        def index(self, request):
            return ""

    Client(serve(Service, **LOCAL)).get("/", **{"Accept-Language": "fr"})
    assert seen == [{"language": "fr"}]


# Applications


def answer_of(serve, app, method="GET", **headers):
    """Serves a WSGI application and returns its response to a request."""

    class Server(WebServer):
        def get_wsgi_app(self):
            return app

    return Client(serve(service_with(Server), **LOCAL))(method, "/p%20q?a=b", headers=headers)


def test_sets_the_wsgi_environ(serve):
    seen = {}

    def app(environ, start_response):
        seen.update(environ)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b""]

    answer_of(serve, app, X_Forwarded_For="spoofed", Cookie="a=b", **{"X-A": "1"})
    host, port = seen["SERVER_NAME"], seen["SERVER_PORT"]
    assert host == "127.0.0.1"
    assert {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/p q",
        "QUERY_STRING": "a=b",
        "REQUEST_URI": "/p%20q?a=b",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "{}:{}".format(host, port),
        "HTTP_COOKIE": "a=b",
        "HTTP_X_A": "1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }.items() <= seen.items()
    # It could be mistaken for the header with dashes.
    assert "HTTP_X_FORWARDED_FOR" not in seen
    assert "CONTENT_LENGTH" not in seen


def test_conforms_to_wsgiref_validate(serve):
    from wsgiref.validate import validator

    def app(environ, start_response):
        environ["wsgi.input"].read(10)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"valid"]

    assert answer_of(serve, validator(app)).text == "valid"


def test_supports_write_and_generators(serve):
    closed = threading.Event()

    class Body:
        def __iter__(self):
            yield b"two "
            yield b"three"

        def close(self):
            closed.set()

    def app(environ, start_response):
        start_response("200 OK", [])(b"one ")
        return Body()

    assert answer_of(serve, app).text == "one two three"
    assert closed.wait(10)


def test_sends_a_list_of_many_chunks(serve):
    def app(environ, start_response):
        start_response("200 OK", [])
        return [b"x" * 1000] * 20_000

    assert len(answer_of(serve, app).body) == 20_000_000


def test_keeps_a_declared_content_length(serve):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "6")])
        yield b"abc"
        yield b"def"

    answer = answer_of(serve, app)
    assert answer.text == "abcdef"
    assert answer.headers["Content-Length"] == "6"


def test_a_204_has_no_body_and_no_length(serve):
    def app(environ, start_response):
        start_response("204 No Content", [("Content-Length", "3")])
        yield b"abc"

    answer = answer_of(serve, app)
    assert (answer.status, answer.body, answer.headers["Content-Length"]) == (204, b"", None)


def test_head_ends_an_endless_body(serve):
    closed = threading.Event()

    def app(environ, start_response):
        start_response("200 OK", [("X", "y")])
        try:
            while True:
                yield b"x"
        finally:
            closed.set()

    answer = answer_of(serve, app, "HEAD")
    assert (answer.status, answer.headers["X"], answer.body) == (200, "y", b"")
    assert closed.wait(10)


def test_an_error_before_the_headers_becomes_500_and_is_logged(serve, caplog):
    def app(environ, start_response):
        start_response("200 OK", [])
        raise RuntimeError("app broke")

    answer = answer_of(serve, app)
    assert (answer.status, answer.text) == (500, "Internal Server Error\n")
    assert "app broke" in caplog.text


def test_debug_shows_the_traceback(serve):
    def app(environ, start_response):
        raise RuntimeError("app broke")

    class Server(WebServer):
        def get_wsgi_app(self):
            return app

        def get_wsgi_server(self, sock, wsgi_app, **kwargs):
            return super().get_wsgi_server(sock, wsgi_app, debug=True)

    answer = Client(serve(service_with(Server), **LOCAL)).get("/")
    assert answer.status == 500
    assert "RuntimeError: app broke" in answer.text


def test_start_response_can_be_repeated_with_exc_info(serve):
    import sys

    def app(environ, start_response):
        start_response("200 OK", [("X", "first")])
        try:
            raise ValueError
        except ValueError:
            start_response("503 Busy", [("X", "second")], sys.exc_info())
        return [b"sorry"]

    answer = answer_of(serve, app)
    assert (answer.status, answer.headers["X"], answer.text) == (503, "second", "sorry")


@pytest.mark.parametrize(
    "headers", [[("Bad name", "x")], [("X", "a\r\nInjected: b")], [("X", "\u20ac")]]
)
def test_invalid_headers_become_500(serve, headers):
    def app(environ, start_response):
        start_response("200 OK", headers)
        return [b"x"]

    answer = answer_of(serve, app)
    assert answer.status == 500
    assert "Injected" not in answer.headers


def test_an_error_in_a_stream_aborts_it(serve, caplog):
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"some"
        yield b"more"
        raise RuntimeError("stream broke")

    with pytest.raises(HTTPException):
        answer_of(serve, app)
    assert "stream broke" in caplog.text


def endless(closed):
    def index(self, request):
        def body():
            try:
                while True:
                    yield b"x" * 10_000
            finally:
                closed.set()

        return Response(body())

    return index


def test_a_stream_ends_when_its_client_disconnects(serve):
    closed = threading.Event()
    client = Client(serve(service_with(WebServer, endless(closed)), **LOCAL))
    with client.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.recv(10)
    assert closed.wait(10)


def test_slow_clients_of_streams_do_not_occupy_workers(serve):
    closed = threading.Event()
    service = service_with(WebServer, endless(closed))
    service.quick = HttpRequestHandler.decorator("GET", "/quick")(lambda self, request: "quick")
    client = Client(serve(service, max_workers=1, **LOCAL))
    slow = [client.connect() for _ in range(3)]
    for connection in slow:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.recv(10)
    assert client.get("/quick").text == "quick"
    for connection in slow:
        connection.close()


# Clients


def test_keeps_connections_alive(client):
    connection = HTTPConnection(*client.address, timeout=10)
    for _ in range(3):
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"hello"
    connection.close()


def test_answers_pipelined_requests_in_order(client):
    one = b"POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
    two = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answers = client.raw(one + two)
    assert answers.count(b"HTTP/1.1 200") == 2
    assert answers.index(b"\r\n\r\n3") < answers.index(b"hello")


def test_answers_http_1_0(client):
    answer = client.raw(b"GET / HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 200")
    assert answer.endswith(b"hello")


def test_answers_expect_100_continue(client):
    with client.connect() as connection:
        connection.sendall(
            b"POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
            b"Expect: 100-continue\r\nConnection: close\r\n\r\n"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(b"abc")
        assert read_all(connection).endswith(b"\r\n\r\n3")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff\x00\xff\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / \r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
    ],
)
def test_survives_malformed_requests(client, garbage):
    with client.connect() as connection:
        connection.sendall(garbage)
        connection.shutdown(socket.SHUT_WR)
        assert b" 200 " not in read_all(connection)
    assert client.get("/").text == "hello"


def test_an_invalid_host_is_a_bad_request(client):
    assert client.get("/", Host="a..b").status == 400


def test_times_out_slow_request_heads(serve):
    client = Client(serve(Hello, max_workers=1, WEB_SERVER_HEADER_TIMEOUT=0.2, **LOCAL))
    slow = [client.connect() for _ in range(5)]
    for connection in slow:
        connection.sendall(b"GET / HTTP/1.1\r\nHo")
    assert client.get("/").text == "hello"
    for connection in slow:
        assert b" 408 " in read_all(connection)
        connection.close()


def test_times_out_slow_request_bodies(serve):
    client = Client(serve(Hello, max_workers=1, WEB_SERVER_BODY_TIMEOUT=0.2, **LOCAL))
    with client.connect() as slow:
        slow.sendall(b"POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
        assert client.get("/").text == "hello"
        assert b" 408 " in read_all(slow)


def test_an_incomplete_body_does_not_start_a_worker(client):
    with client.connect() as connection:
        connection.sendall(b"POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
        connection.shutdown(socket.SHUT_WR)
        assert b" 200 " not in read_all(connection)
    assert client.get("/").text == "hello"


def test_an_incomplete_large_body_fails_the_request(client):
    with client.connect() as connection:
        head = b"POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n"
        connection.sendall(head + b"x" * 3_000_000)
        connection.shutdown(socket.SHUT_WR)
        assert b" 200 " not in read_all(connection)
    assert client.get("/").text == "hello"


def test_answers_a_half_closed_connection(client):
    with client.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection).endswith(b"hello")


def test_limits_the_size_of_bodies(serve):
    client = Client(serve(Hello, WEB_SERVER_MAX_BODY=1000, **LOCAL))
    assert client("POST", "/length", b"x" * 1000).text == "1000"
    assert client("POST", "/length", b"x" * 1001).status == 413


def test_survives_clients_that_disconnect_while_waiting(serve):
    begun, go = threading.Event(), threading.Event()

    class Slow:
        name = "slow"

        @http("GET", "/")
        def index(self, request):
            begun.set()
            go.wait(30)
            return "done"

    client = Client(serve(Slow, max_workers=1, **LOCAL))
    connections = [client.connect() for _ in range(3)]
    for connection in connections:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert begun.wait(10)
    for connection in connections:
        connection.close()
    go.set()
    assert client.get("/").text == "done"


# Stopping


class Gate:
    """A blocking method: `begun` is released when it runs, and `go` lets it return."""

    def __init__(self):
        self.begun, self.go = threading.Semaphore(0), threading.Event()

    def service(self):
        gate = self

        class Gated:
            name = "gated"

            @http("GET", "/")
            def index(self, request):
                gate.begun.release()
                assert gate.go.wait(30)
                return "finished"

        return Gated


def is_closed(connection):
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:  # the server had not accepted it yet
        return True


def in_thread(fn):
    results = []
    thread = threading.Thread(target=lambda: results.append(fn()), daemon=True)
    thread.start()
    return thread, results


def test_a_stop_finishes_running_and_queued_requests(serve):
    gate = Gate()
    container = serve(gate.service(), max_workers=2, **LOCAL)
    client = Client(container)
    connections = [client.connect() for _ in range(5)]
    for connection in connections:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    for _ in range(2):
        assert gate.begun.acquire(timeout=10)
    server = get_extension(container, WebServer)._http
    # All requests have been received.
    assert not server.drain(0)
    stopping, _ = in_thread(container.stop)
    refused = False
    deadline = time.monotonic() + 10
    while not refused and time.monotonic() < deadline:
        try:
            client.connect().close()
        except (ConnectionRefusedError, ConnectionResetError):
            refused = True
    assert refused
    gate.go.set()
    answers = [read_all(connection) for connection in connections]
    assert sum(answer.endswith(b"finished") for answer in answers) >= 2
    assert all(answer.endswith(b"finished") or not answer for answer in answers)
    stopping.join(10)
    assert not stopping.is_alive()


def test_a_stop_does_not_wait_for_idle_connections(serve):
    container = serve(Hello, **LOCAL)
    client = Client(container)
    connection = HTTPConnection(*client.address, timeout=10)
    connection.request("GET", "/")
    connection.getresponse().read()
    with client.connect() as half_open:
        begun = time.monotonic()
        container.stop()
        assert time.monotonic() - begun < 5
        assert is_closed(half_open)
    connection.close()


def test_a_stop_waits_for_streams_no_longer_than_its_timeout(serve):
    closed = threading.Event()
    service = service_with(WebServer, endless(closed))
    container = serve(service, stop_timeout=0.2, **LOCAL)
    with Client(container).connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.recv(10)
        container.stop()
    assert closed.wait(10)


def test_a_kill_aborts_connections(serve):
    gate = Gate()
    container = serve(gate.service(), **LOCAL)
    with Client(container).connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert gate.begun.acquire(timeout=10)
        container.kill()
        try:
            assert b" 200 " not in read_all(connection)
        except ConnectionError:
            pass
    gate.go.set()
