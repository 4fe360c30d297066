"""Stopping and killing a service with HTTP requests in flight."""

import threading
import time
from http.client import HTTPConnection

from webclient import LOCAL, Client, Hello, endless, read_all, service_with

from nameko.testing.utils import get_extension
from nameko.web.handlers import http
from nameko.web.server import WebServer


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
