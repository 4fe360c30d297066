"""The web server of a container: addresses, settings and customization."""

import errno
import socketserver
import wsgiref.simple_server

import pytest
from webclient import LOCAL, Client, Hello, address_of, service_with
from werkzeug.middleware.proxy_fix import ProxyFix

from nameko.containers import ServiceContainer
from nameko.exceptions import ConfigurationError
from nameko.web.handlers import HttpRequestHandler
from nameko.web.server import WebServer, parse_address


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
