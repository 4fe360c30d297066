"""WSGI applications and streams."""

import threading
from http.client import HTTPException

import pytest
from webclient import LOCAL, Client, endless, service_with

from nameko.web.handlers import HttpRequestHandler
from nameko.web.server import WebServer


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


def test_the_parts_before_an_error_in_a_stream_are_sent(serve):
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"first"
        raise RuntimeError("stream broke")

    class Server(WebServer):
        def get_wsgi_app(self):
            return app

    client = Client(serve(service_with(Server), **LOCAL))
    received = set()
    for _ in range(200):
        with client.connect() as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while part := connection.recv(1000):
                answer += part
        status, _, body = answer.partition(b"\r\n")
        received.add((status, body.rpartition(b"\r\n\r\n")[2]))
    # The last chunk, of length 0, is missing.
    assert received == {(b"HTTP/1.1 200 OK", b"5\r\nfirst\r\n")}


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
