"""The web server of a container, and the WSGI application that routes its requests."""

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

from nameko import _process
from nameko._nameko import HttpRequest, HttpServer, PatchGuard
from nameko.constants import WEB_SERVER_CONFIG_KEY
from nameko.exceptions import ConfigurationError
from nameko.extensions import Entrypoint, ProviderCollector, SharedExtension
from nameko.utils.patch_guard import guarded_methods, methods_of
from nameko.utils.threads import KILL_GRACE
from nameko.web.fastpath import FastPath
from nameko.web.routes import RouteTable
from nameko.web.wsgi import Gateway

_log = getLogger(__name__)

BindAddress = namedtuple("BindAddress", ["address", "port"])

_ADDRESS = re.compile(r"^((?P<address>\[[^\]]+\]|[^:]+):)?(?P<port>\d+)$")


def parse_address(address_string: Any) -> BindAddress:
    """Parses ``[address:]port``, with an IPv6 address in brackets.

    Without an address, the server listens on all interfaces. Port 0 selects a free port.
    """
    match = _ADDRESS.match(str(address_string))
    port = int(match.group("port")) if match is not None else -1
    if match is None or port > 65535:
        raise ConfigurationError(
            "Misconfigured bind address `{}`. Should be `[address:]port`".format(address_string)
        )
    return BindAddress((match.group("address") or "").strip("[]"), port)


class HttpOnlyProtocol(BaseHTTPServer.BaseHTTPRequestHandler):
    """The ``protocol`` argument of ``get_wsgi_server``, for custom servers.

    The server of :class:`WebServer` implements HTTP itself and does not use it.
    """


class WsgiServer:
    """The application that serves ``sock``, with its settings.

    With ``debug``, responses contain the traceback when ``app`` itself fails. For ``protocol`` see
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
    """Serves HTTP at the address in ``WEB_SERVER_ADDRESS``.

    Registered extensions have two methods: ``get_url_rule()`` returns a werkzeug ``Rule``, and
    ``handle_request(request)`` a WSGI application, such as a werkzeug response.

    Sockets, HTTP and limits are handled by compiled code. At most ``max_workers`` requests are
    processed at a time, others are queued. See ``WEB_SERVER_*`` in the documentation of the
    configuration.
    """

    def __init__(self) -> None:
        super().__init__()
        self._starting = False
        # The compiled server; None before the start, or if a custom server is used.
        self._http: HttpServer | None = None
        # The socket for get_wsgi_server(), a duplicate of that of the compiled server.
        self._sock: socket.socket | None = None
        self._address: BindAddress | None = None
        # None if the application has middleware.
        self._fast_path: FastPath | None = None
        # The result of get_wsgi_server().
        self._serv: Any = None
        # Guards the closing of the port, which happens once.
        self._closing = threading.Lock()
        self._closed = False

    @property
    def bind_addr(self) -> BindAddress:
        """The configured address and port."""
        return parse_address(self.container.config.get(WEB_SERVER_CONFIG_KEY, "0.0.0.0:8000"))

    @property
    def address(self) -> BindAddress | None:
        """The actual address and port while the server listens, else None."""
        return self._address

    def start(self) -> None:
        if self._starting:
            return
        self._starting = True
        _process.set_up()
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
                self._run_custom_server()
                return
            gateway = Gateway(
                self._serv.app,
                server.address,
                self.container.spawn_managed_thread,
                debug=bool(getattr(self._serv, "debug", False)),
            )
            pool = self.container.worker_pool
            app = self._serv.app
            if type(app) is WsgiApp:
                guard = PatchGuard(guarded_methods(app, _APP_HOOKS) + _MODULE_HOOKS)
                fast_path = self._fast_path = FastPath(app, guard, gateway)
                requests = fast_path.loop_requests()
                server.serve(fast_path.handle, pool.jobs, pool.size, requests)
            else:
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

    def _run_custom_server(self) -> None:
        """Runs the server returned by an overridden get_wsgi_server()."""
        assert self._sock is not None
        # The compiled server has made the socket non-blocking.
        self._sock.setblocking(True)
        self.container.spawn_managed_thread(self._serv.serve_forever, identifier="web-server")

    def get_wsgi_app(self) -> Callable[..., Any]:
        """Returns the WSGI application. Override it to add middleware or to replace it."""
        return WsgiApp(self)

    def get_wsgi_server(
        self,
        sock: socket.socket,
        wsgi_app: Callable[..., Any],
        protocol: Any = HttpOnlyProtocol,
        debug: bool = False,
    ) -> Any:
        """Returns the server for the listening socket ``sock``.

        Override it to change ``wsgi_app`` or ``debug``: any object with the attributes ``app`` and
        ``debug`` can replace :class:`WsgiServer`. An object with ``serve_forever()`` and
        ``shutdown()``, like those of Python's ``socketserver``, is run on a thread instead of the
        compiled server, for example to serve TLS.
        """
        return WsgiServer(sock, sock.getsockname(), wsgi_app, protocol, debug, _log)

    def unregister_provider(self, provider: Any) -> None:
        """Unregisters an extension, see :meth:`ProviderCollector.unregister_provider`.

        After the last entrypoint, stops listening and waits until the requests in flight are
        answered.
        """
        super().unregister_provider(provider)
        if not any(isinstance(left, Entrypoint) for left in list(self._providers)):
            self._stop_listening()

    def _stop_listening(self) -> None:
        with self._closing:
            if self._http is None or self._closed:
                return
            self._closed = True
            # The port is closed with the last duplicate of its socket.
            self._close_socket()
            self._http.stop_listening()
            if not self._http.drain(self._http.stop_timeout):
                _log.warning(
                    "requests are still in flight %s seconds after the stop, aborting "
                    "their connections",
                    self._http.stop_timeout,
                )
                self._http.kill()
                # Streams are notified by an exception, and clean up.
                self._http.drain(KILL_GRACE)

    def close_sockets(self) -> None:
        """Closes WebSockets with a close handshake, after their messages in flight.

        Returns when all are closed. They are aborted after ``stop_timeout``.
        """
        if self._http is not None:
            self._http.close_sockets(self._http.stop_timeout)

    def stop(self) -> None:
        self._stop_listening()
        self._close(HttpServer.stop)
        super().stop()

    def kill(self) -> None:
        self._close(HttpServer.kill)

    def _close(self, end: Callable[[HttpServer], None]) -> None:
        if self._fast_path is not None:
            self._fast_path.close()
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
        """Returns the rules of all registered extensions."""
        url_map = Map()
        for provider in self._providers:
            rule = provider.get_url_rule()
            rule.endpoint = provider
            url_map.add(rule)
        return url_map

    def context_data_from_headers(self, request: Request) -> dict[str, Any]:
        """Returns the context data of the workers of a request.

        Empty by default, since headers are untrusted. Override it to accept some.
        """
        return {}


class WsgiApp:
    """Routes each request to the registered extension with the matching rule."""

    def __init__(self, server: WebServer) -> None:
        self.server = server
        self.url_map = server.make_url_map()
        # The rules of the map, for find().
        self.table = RouteTable(self.url_map)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        # Shallow, so that the body is not read: the request may become a WebSocket.
        return self.response(Request(environ, shallow=True))(environ, start_response)

    def response(self, request: Request, http: HttpRequest | None = None) -> Any:
        """Returns the response of the extension with the matching rule, a WSGI application.

        ``http`` is the request of the compiled server, if ``request`` is the same.
        """
        try:
            found: Any = None if http is None else self.find(http)
            if found is None:
                found = self.url_map.bind_to_environ(request.environ).match()
            provider, request.path_values = found  # type: ignore[attr-defined]
            return provider.handle_request(request)
        except HTTPException as exc:
            return exc

    def find(self, http: HttpRequest) -> tuple[Any, dict[str, Any]] | None:
        """Returns the extension with the matching rule, and the values of the variables.

        None if only :attr:`url_map` can match the request.
        """
        if not self.table.is_current(self.url_map):
            self.table = RouteTable(self.url_map)
        return self.table.find(http)


# The application and the types of requests as defined here, recorded before anything can patch
# them.
_APP_HOOKS = methods_of(WsgiApp, "__call__", "response", "find")
_MODULE_HOOKS = [(globals(), name, globals()[name]) for name in ("Request", "WsgiApp")]
