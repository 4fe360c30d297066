"""A proxy of RabbitMQ's management API that returns fresh statistics.

RabbitMQ updates its statistics (connections, consumers, messages of a queue) periodically, every 5
seconds by default, but upstream's tests query them immediately. The proxy delays such requests by
one interval.
"""

from __future__ import annotations

import contextlib
import http.server
import itertools
import statistics
import threading
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import kombu
import requests

# Timeout for the statistics of a new queue, in seconds.
_TIMEOUT = 15
# Number of measured intervals.
_SAMPLES = 3


class StatsProxy:
    """Serves the management API of a RabbitMQ at :attr:`uri` until the process exits."""

    def __init__(self, api_uri: str, amqp_uri: str) -> None:
        self._api_uri = api_uri
        self._amqp_uri = amqp_uri
        parts = urlsplit(api_uri)
        login, _, self._address = parts.netloc.rpartition("@")
        # Seconds between two updates, valid once the event is set.
        self._interval = 0.0
        self._known = threading.Event()
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self) -> None:
                proxy.forward(self)

            do_GET = do_PUT = do_POST = do_DELETE = forward

            def log_message(self, *args) -> None:
                """No access log."""

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = "http://{}@127.0.0.1:{}".format(login, server.server_address[1])
        threading.Thread(target=server.serve_forever, name="stats-proxy", daemon=True).start()
        threading.Thread(target=self._measure, name="interval", daemon=True).start()

    def forward(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        if handler.command == "GET" and _is_stat(handler.path):
            self._known.wait()
            time.sleep(self._interval)
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        request = urllib.request.Request(
            "http://{}{}".format(self._address, handler.path),
            data=body or None,
            method=handler.command,
            headers={
                name: value
                for name, value in handler.headers.items()
                if name.lower() in ("authorization", "content-type")
            },
        )
        status, kind, text = _ask(request)
        deadline = time.monotonic() + _TIMEOUT
        # A new queue is listed before it has statistics.
        while status == 200 and _is_queue(request) and b'"messages"' not in text:
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
            status, kind, text = _ask(request)
        try:
            handler.send_response(status)
            handler.send_header("Content-Type", kind)
            handler.send_header("Content-Length", str(len(text)))
            handler.end_headers()
            handler.wfile.write(text)
        except ConnectionError:
            # The client has ended, or does not wait for the response.
            handler.close_connection = True

    def _measure(self) -> None:
        """Measures the update interval: the median time between the listing of two connections."""
        with contextlib.ExitStack() as connections:
            seen = []
            for _ in range(_SAMPLES + 1):
                connection = kombu.Connection(self._amqp_uri)
                self._wait_until_seen(connections.enter_context(connection))
                seen.append(time.monotonic())
        intervals = [later - earlier for earlier, later in itertools.pairwise(seen)]
        # With a margin for the duration of an update.
        self._interval = statistics.median(intervals) + 0.3
        self._known.set()

    def _wait_until_seen(self, connection: kombu.Connection) -> None:
        connection.connect()
        port = connection.connection.sock.getsockname()[1]
        while not any(
            seen.get("peer_port") == port
            for seen in requests.get(self._api_uri + "/api/connections").json()
        ):
            time.sleep(0.05)


def _ask(request: urllib.request.Request) -> tuple[int, str, bytes]:
    """Returns status, content type and body of the response."""
    try:
        answer = urllib.request.urlopen(request)
    except urllib.error.HTTPError as exc:
        answer = exc
    with answer:
        return answer.status, answer.headers.get("Content-Type", "text/plain"), answer.read()


def _is_stat(path: str) -> bool:
    """Whether a path is that of the connections or of a queue."""
    return path.strip("/") == "api/connections" or _is_of_queue(path)


def _is_queue(request: urllib.request.Request) -> bool:
    return request.get_method() == "GET" and _is_of_queue(request.selector)


def _is_of_queue(path: str) -> bool:
    parts = path.strip("/").split("/")
    return parts[:2] == ["api", "queues"] and len(parts) == 4
