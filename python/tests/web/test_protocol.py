"""HTTP on the wire: unusual requests of clients and proxies, and the responses."""

import json
import logging
import queue

import pytest
from webclient import LOCAL, Client
from werkzeug.wrappers import Response

from nameko.web.handlers import http


class Shop:
    name = "shop"

    @http("GET,POST", "/request")
    @http("GET,POST", "/request/<path:rest>")
    def request(self, request, rest=None):
        seen = {
            "rest": rest,
            "args": request.args,
            "host": request.host,
            "cookies": request.cookies,
            "forwarded": request.headers.getlist("X-Forwarded-For"),
            "body": request.get_data(as_text=True),
            "extra": request.headers.get("X-Extra"),
            "query": request.environ["QUERY_STRING"],
            "uri": request.environ["REQUEST_URI"],
        }
        return json.dumps(seen)

    @http("GET", "/status/<status>")
    def status(self, request, status):
        return Response("x", status=status)

    @http("POST", "/unread")
    def unread(self, request):
        return "unread"

    @http("GET", "/short")
    def short(self, request):
        return Response(iter([b"ab", b"c"]), headers={"Content-Length": "9"})


@pytest.fixture
def client(serve):
    return Client(serve(Shop, **LOCAL))


def ask(client, target, *headers, method=b"GET", body=b""):
    """Sends a raw request and returns it as seen by the service."""
    answer = client.raw(message(target, *headers, method=method, body=body))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def message(target, *headers, method=b"GET", body=b"", version=b"HTTP/1.1"):
    head = [b" ".join([method, target, version]), *headers, b"Connection: close", b"", body]
    return b"\r\n".join(head)


@pytest.mark.parametrize(
    ("status", "line"),
    [
        ("299 My Reason", b"HTTP/1.1 299 My Reason"),
        ("200 Fine", b"HTTP/1.1 200 Fine"),
        ("404", b"HTTP/1.1 404 NOT FOUND"),
        ("299", b"HTTP/1.1 299 UNKNOWN"),
    ],
)
def test_sends_the_reason_of_a_status(client, status, line):
    path = "/status/{}".format(status.replace(" ", "%20")).encode()
    assert client.raw(message(path, b"Host: x")).split(b"\r\n")[0] == line


@pytest.mark.parametrize("status", ["100 Continue", "Hello", "1000 x"])
def test_an_invalid_status_becomes_500(client, status):
    assert client.get("/status/{}".format(status.replace(" ", "%20"))).status == 500


def test_header_names_are_capitalised(client):
    head = client.raw(message(b"/request", b"Host: x")).partition(b"\r\n\r\n")[0]
    names = {line.partition(b":")[0] for line in head.split(b"\r\n")[1:]}
    assert names == {b"Content-Type", b"Content-Length", b"Connection", b"Date"}


@pytest.mark.parametrize(
    "hosts", [[], [b"Host: x", b"Host: y"], [b"Host: x", b"Host: x"], [b"Host: a b"]]
)
def test_rejects_requests_without_a_single_valid_host(client, hosts):
    answer = client.raw(message(b"/request", *hosts))
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"Host" in answer.partition(b"\r\n\r\n")[2]


def test_http_1_0_does_not_require_a_host(client):
    answer = client.raw(message(b"/request", version=b"HTTP/1.0"))
    assert answer.startswith(b"HTTP/1.0 200 OK\r\n")


def test_an_absolute_target_overrides_the_host(client):
    seen = ask(client, b"http://example.org:81/request/a?b=c", b"Host: x")
    assert (seen["host"], seen["rest"], seen["args"]) == ("example.org:81", "a", {"b": "c"})
    assert seen["uri"] == "/request/a?b=c"


def test_accepts_urls_without_percent_encoding(client):
    seen = ask(client, "/request/é?q=ü&r=%C3%BC".encode(), b"Host: x")
    assert (seen["rest"], seen["args"]) == ("é", {"q": "ü", "r": "ü"})
    # One character per byte, as specified by WSGI.
    assert seen["query"] == "q=ü&r=%C3%BC".encode().decode("latin-1")
    assert seen["uri"] == "/request/é?q=ü&r=%C3%BC".encode().decode("latin-1")


def test_accepts_urls_that_are_not_utf_8(client):
    seen = ask(client, b"/request/%ff%zz?q=%ff", b"Host: x")
    assert seen["rest"] == "\ufffd%zz"
    assert seen["args"] == {"q": "%FF"}


def test_joins_repeated_headers(client):
    headers = [b"Cookie: a=1", b"Cookie: b=2", b"X-Forwarded-For: 1.1.1.1"]
    seen = ask(client, b"/request", b"Host: x", *headers, b"X-Forwarded-For: 2.2.2.2")
    assert seen["cookies"] == {"a": "1", "b": "2"}
    assert seen["forwarded"] == ["1.1.1.1,2.2.2.2"]


def test_ignores_trailers(client):
    headers = [b"Host: x", b"Transfer-Encoding: chunked", b"Trailer: X-Extra"]
    body = b"3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nX-Extra: y\r\n\r\n"
    seen = ask(client, b"/request", *headers, method=b"POST", body=body)
    assert (seen["body"], seen["extra"]) == ("abcde", None)


def test_an_unread_body_is_not_taken_for_the_next_request(client):
    post = b"POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\nGET / HTTP/1.1"
    answers = client.raw(post + message(b"/request", b"Host: x"))
    assert answers.count(b"HTTP/1.1 200 OK") == 2


def test_logs_a_body_shorter_than_its_content_length(client, caplog):
    answer = client.raw(message(b"/short", b"Host: x"))
    assert not answer.endswith(b"abc" + bytes(6))
    assert "the body has 3 bytes, but Content-Length is 9" in caplog.text


def test_the_access_log_has_the_client_and_its_proxies(client):
    lines = queue.Queue()
    handler = logging.Handler()
    handler.emit = lambda record: lines.put(record.getMessage())
    logger = logging.getLogger("nameko.web.server")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        forwarded = b"X-Forwarded-For: 1.1.1.1, 2.2.2.2"
        client.raw(message(b"/status/299%20x?a=b", b"Host: x", forwarded))
        line = lines.get(timeout=10)
        assert line.startswith("1.1.1.1,2.2.2.2,127.0.0.1 - - [")
        assert '] "GET /status/299%20x?a=b HTTP/1.1" 299 1 0.' in line
        client.get("/unread")
        line = lines.get(timeout=10)
        assert line.startswith("127.0.0.1 - - [")
        assert '] "GET /unread HTTP/1.1" 405 ' in line
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
