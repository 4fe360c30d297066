"""The web server of a container, and the WSGI application that finds the method for a request."""

from __future__ import annotations

import http.server as BaseHTTPServer
import os
import re
import socket
import threading
from collections import namedtuple
from collections.abc import Callable
from functools import partial
from logging import Logger, getLogger
from typing import Any

from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map
from werkzeug.wrappers import Request

from nameko._nameko import HttpServer
from nameko.constants import WEB_SERVER_CONFIG_KEY
from nameko.exceptions import ConfigurationError
from nameko.extensions import Entrypoint, ProviderCollector, SharedExtension
from nameko.utils.threads import KILL_GRACE
from nameko.web.wsgi import Gateway

_log = getLogger(__name__)

BindAddress = namedtuple("BindAddress", ["address", "port"])

_ADDRESS = re.compile(r"^((?P<address>\[[^\]]+\]|[^:]+):)?(?P<port>\d+)$")


def parse_address(address_string: Any) -> BindAddress:
    """Reads ``[address:]port``; an IPv6 address stands in brackets.

    No address is all addresses of the machine, port 0 a free port.
    """
    match = _ADDRESS.match(str(address_string))
    port = int(match.group("port")) if match is not None else -1
    if match is None or port > 65535:
        raise ConfigurationError(
            "Misconfigured bind address `{}`. Should be `[address:]port`".format(address_string)
        )
    return BindAddress((match.group("address") or "").strip("[]"), port)


class HttpOnlyProtocol(BaseHTTPServer.BaseHTTPRequestHandler):
    """What ``get_wsgi_server`` gets as its ``protocol``, for servers that want one.

    The server of :class:`WebServer` speaks HTTP itself and makes no instance of it.
    """


class WsgiServer:
    """What answers the requests that come to ``sock``: the application, and how to run it.

    ``debug``: a client sees the traceback when ``app`` itself fails. ``protocol``: see
    :class:`HttpOnlyProtocol`.
    """

    def __init__(
        self,
        sock: socket.socket,
        address: Any,
        app: Callable[..., Any],
        protocol: Any = HttpOnlyProtocol,
        debug: bool = False,
        log: Logger | None = None,
    ) -> None:
        self.socket = sock
        self.address = address
        self.app = app
        self.protocol = protocol
        self.debug = debug
        self.log = log


class WebServer(ProviderCollector, SharedExtension):
    """Serves HTTP at the address that ``WEB_SERVER_ADDRESS`` configures.

    Extensions that are registered have two methods: ``get_url_rule()``, a werkzeug ``Rule``, and
    ``handle_request(request)``, which returns a WSGI application: a werkzeug response, for one.

    Sockets, HTTP and limits are compiled code; at most ``max_workers`` requests are in work at a
    time, others wait their turn. See ``WEB_SERVER_*`` in the documentation of the configuration.
    """

    def __init__(self) -> None:
        super().__init__()
        self._starting = False
        # The compiled server; None before the start, and when another one serves.
        self._http: HttpServer | None = None
        # The port as get_wsgi_server() gets it; another handle of what the compiled server has.
        self._sock: socket.socket | None = None
        self._address: BindAddress | None = None
        # What get_wsgi_server() returned.
        self._serv: Any = None
        # Held by who closes the port, and whether that is done.
        self._withdrawing = threading.Lock()
        self._withdrawn = False

    @property
    def bind_addr(self) -> BindAddress:
        """Where to listen: address and port."""
        return parse_address(self.container.config.get(WEB_SERVER_CONFIG_KEY, "0.0.0.0:8000"))

    @property
    def address(self) -> BindAddress | None:
        """Where it listens: with the port that was taken where port 0 is configured. None unless
        it is started."""
        return self._address

    def start(self) -> None:
        if self._starting:
            return
        self._starting = True
        address, port = self.bind_addr
        try:
            server = HttpServer(address or "0.0.0.0", port, self._settings())
        except ValueError as exc:
            raise ConfigurationError(str(exc))
        self._address = BindAddress(*server.address)
        try:
            self._sock = socket.socket(fileno=os.dup(server.fileno()))
            self._serv = self.get_wsgi_server(self._sock, self.get_wsgi_app())
            if not isinstance(self._serv, WsgiServer) and hasattr(self._serv, "serve_forever"):
                self._serve_elsewhere()
                return
            gateway = Gateway(
                self._serv.app,
                server.address,
                self.container.spawn_managed_thread,
                debug=bool(getattr(self._serv, "debug", False)),
            )
            pool = self.container.worker_pool
            server.serve(partial(pool.handle, gateway), pool.jobs, pool.size)
            self._http = server
        finally:
            if self._http is None:
                server.kill()

    def _settings(self) -> dict[str, Any]:
        return {
            key: value
            for key, value in self.container.config.items()
            if key == "stop_timeout"
            or (str(key).startswith(("WEB_SERVER_", "WEBSOCKET_")) and key != WEB_SERVER_CONFIG_KEY)
        }

    def _serve_elsewhere(self) -> None:
        """Let the server run that a subclass has put in the place of ours."""
        assert self._sock is not None
        # The port was made for a server that never blocks.
        self._sock.setblocking(True)
        self.container.spawn_managed_thread(self._serv.serve_forever, identifier="web-server")

    def get_wsgi_app(self) -> Callable[..., Any]:
        """The WSGI application that answers requests.

        Override it to put middleware around it, or to answer with another application.
        """
        return WsgiApp(self)

    def get_wsgi_server(
        self,
        sock: socket.socket,
        wsgi_app: Callable[..., Any],
        protocol: Any = HttpOnlyProtocol,
        debug: bool = False,
    ) -> Any:
        """The server for ``sock``, which is listening. Override it to change ``wsgi_app`` or
        ``debug``; whatever has ``app`` and ``debug`` says as much as :class:`WsgiServer`.

        A server of another kind, with ``serve_forever()`` and ``shutdown()`` as Python's
        ``socketserver`` has them, runs in the place of ours, in a thread: for TLS, for example.
        """
        return WsgiServer(sock, sock.getsockname(), wsgi_app, protocol, debug, _log)

    def unregister_provider(self, provider: Any) -> None:
        """As :meth:`ProviderCollector.unregister_provider`. When no entrypoint is left, no more
        requests are taken; returns when those in work are answered."""
        super().unregister_provider(provider)
        if not any(isinstance(left, Entrypoint) for left in list(self._providers)):
            self._withdraw()

    def _withdraw(self) -> None:
        with self._withdrawing:
            if self._http is None or self._withdrawn:
                return
            self._withdrawn = True
            # The port is closed when nobody has it any more.
            self._close_socket()
            self._http.stop_listening()
            if not self._http.drain(self._http.stop_timeout):
                _log.warning(
                    "requests are still in work %s seconds after the service was stopped; their "
                    "connections are cut",
                    self._http.stop_timeout,
                )
                self._http.kill()
                # Streams meet it, and clean up.
                self._http.drain(KILL_GRACE)

    def close_sockets(self) -> None:
        """Tell clients with a WebSocket that the service stops. Returns when they have left, those
        that have a message in work when it is handled; they are cut at the end."""
        if self._http is not None:
            self._http.close_sockets(self._http.stop_timeout)

    def stop(self) -> None:
        self._withdraw()
        self._close(HttpServer.stop)
        super().stop()

    def kill(self) -> None:
        self._close(HttpServer.kill)

    def _close(self, end: Callable[[HttpServer], None]) -> None:
        if self._http is not None:
            end(self._http)
        elif self._serv is not None:
            self._serv.shutdown()
        self._close_socket()

    def _close_socket(self) -> None:
        self._address = None
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def make_url_map(self) -> Map:
        """The rules of all registered extensions."""
        url_map = Map()
        for provider in self._providers:
            rule = provider.get_url_rule()
            rule.endpoint = provider
            url_map.add(rule)
        return url_map

    def context_data_from_headers(self, request: Request) -> dict[str, Any]:
        """The context data of workers that ``request`` leads to. Headers come from outside: none
        of them becomes context data, unless a subclass says so."""
        return {}


class WsgiApp:
    """Gives each request to the registered extension whose rule it matches."""

    def __init__(self, server: WebServer) -> None:
        self.server = server
        self.url_map = server.make_url_map()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        # Shallow: nobody reads the body of what may become a WebSocket connection.
        request = Request(environ, shallow=True)
        answer: Any
        try:
            provider, values = self.url_map.bind_to_environ(environ).match()
            request.path_values = values  # type: ignore[attr-defined]
            answer = provider.handle_request(request)
        except HTTPException as exc:
            answer = exc
        return answer(environ, start_response)
