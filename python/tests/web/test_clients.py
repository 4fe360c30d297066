"""HTTP clients: connections, limits, and bad requests."""

import socket
import threading
from http.client import HTTPConnection

import pytest
from webclient import LOCAL, Client, Hello, read_all

from nameko.web.handlers import http


@pytest.fixture
def client(serve):
    return Client(serve(Hello, **LOCAL))


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
