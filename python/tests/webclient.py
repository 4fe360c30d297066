"""A minimal HTTP client, and services, for the tests of nameko.web."""

import json
import socket
from http.client import HTTPConnection

from werkzeug.wrappers import Response

from nameko.testing.utils import get_extension
from nameko.web.handlers import HttpRequestHandler, http
from nameko.web.server import WebServer

LOCAL = {"WEB_SERVER_ADDRESS": "127.0.0.1:0"}


def address_of(container):
    return tuple(get_extension(container, WebServer).address)


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()
        self.text = self.body.decode()

    def json(self):
        return json.loads(self.body)


class Client:
    """Sends requests to the web server of a container, each on its own connection."""

    def __init__(self, container):
        self.address = address_of(container)

    def __call__(self, method, path, body=None, headers=(), **options):
        connection = HTTPConnection(*self.address, timeout=10)
        try:
            connection.request(method, path, body, dict(headers), **options)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path, **headers):
        return self("GET", path, headers=headers)

    def connect(self):
        """Opens a TCP connection."""
        return socket.create_connection(self.address, timeout=10)

    def raw(self, data):
        """Sends ``data`` and returns the response until the server closes the connection."""
        with self.connect() as connection:
            connection.sendall(data)
            return read_all(connection)


def read_all(connection):
    parts = []
    while True:
        part = connection.recv(65536)
        if not part:
            return b"".join(parts)
        parts.append(part)


class Hello:
    name = "hello"

    @http("GET", "/")
    def index(self, request):
        return "hello"

    @http("POST", "/length")
    def length(self, request):
        return str(len(request.get_data()))


def service_with(server_cls, index=None):
    """Returns a service with a single method, at /, served by ``server_cls``."""

    class Handler(HttpRequestHandler):
        server = server_cls()

    def default(self, request):
        return "index"

    index = index or default
    return type("Service", (), {"name": "custom", "index": Handler.decorator("GET", "/")(index)})


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
