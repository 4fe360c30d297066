"""WebSocket: RPC methods for browsers, and events sent to them."""

from __future__ import annotations

import json
import threading
import uuid
from collections import namedtuple
from collections.abc import Callable
from functools import partial
from logging import getLogger
from typing import Any

from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import NotImplemented as NotServed
from werkzeug.routing import Rule
from werkzeug.wrappers import Request, Response

from nameko._nameko import HttpRequest, WebSocket
from nameko.exceptions import (
    ConnectionNotFound,
    MalformedRequest,
    MethodNotFound,
    UnserializableValueError,
    serialize,
)
from nameko.extensions import DependencyProvider, Entrypoint, ProviderCollector, SharedExtension
from nameko.utils.threads import Event as Event
from nameko.utils.threads import ThreadKilled
from nameko.web.server import WebServer
from nameko.web.sync_entrypoint import SyncEntrypoint, error_response, run_worker
from nameko.workers import nonblocking

_log = getLogger(__name__)

# A connected socket, and the context data of the workers of its requests. `socket.send(text)` and
# `socket.close(code, reason)` are thread-safe.
SocketInfo = namedtuple("SocketInfo", ["socket", "data"])


class Connection:
    """A socket with subscriptions to channels."""

    def __init__(self, socket_id: str, context_data: dict[str, Any]) -> None:
        self.socket_id = socket_id
        self.context_data = context_data
        self.subscriptions: set[str] = set()


class WebSocketServer(ProviderCollector, SharedExtension):
    """The WebSocket server of a container. Clients connect to ``/ws`` of its web server.

    Sockets do not occupy threads: each message becomes a job of the worker threads. Messages of a
    socket are handled in order, those of different sockets concurrently.
    """

    wsgi_server = WebServer()

    def __init__(self) -> None:
        super().__init__()
        # Socket id -> SocketInfo of each connected socket.
        self.sockets: dict[str, SocketInfo] = {}

    def deserialize_ws_frame(self, payload: str | bytes) -> tuple[Any, Any, Any]:
        """Returns method, arguments and correlation id of a message. Raises MalformedRequest."""
        try:
            data = json.loads(payload)
            return data["method"], data.get("data") or {}, data.get("correlation_id")
        except Exception:
            raise MalformedRequest("Invalid JSON data")

    def serialize_for_ws(self, payload: Any) -> str:
        return json.dumps(payload)

    def serialize_event(self, event: str, data: Any) -> str:
        """Serializes an event for a client."""
        return self.serialize_for_ws({"type": "event", "event": event, "data": data})

    def get_url_rule(self) -> Rule:
        """Returns the rule of the URL to connect to."""
        return Rule("/ws", methods=["GET"], websocket=True)

    def handle_request(self, request: Request) -> Callable[..., Any]:
        """Returns the WSGI application for a client that connects."""
        context_data = self.wsgi_server.context_data_from_headers(request)
        for provider in list(self._providers):
            if isinstance(provider, WebSocketHandshake):
                try:
                    context_data = provider.admit(request, context_data)
                except HTTPException:
                    raise
                except Exception as exc:
                    return provider.response_from_exception(exc)
        return self.websocket_mainloop(context_data)

    def websocket_mainloop(self, initial_context_data: dict[str, Any]) -> Callable[..., Any]:
        """Returns a WSGI application that upgrades its request to a WebSocket."""

        def accept(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
            request: HttpRequest | None = environ.get("nameko.request")
            if request is None:
                text = "WebSocket requires nameko's own web server"
                return NotServed(text)(environ, start_response)
            socket = request.websocket()
            if socket is not None:
                self._accept(socket, initial_context_data, Request(environ, shallow=True))
            return []

        return accept

    def _accept(
        self, socket: WebSocket, initial_context_data: dict[str, Any], request: Request
    ) -> None:
        try:
            socket_id, context_data = self.add_websocket(socket, initial_context_data)
            try:
                socket.send(self.serialize_event("connected", {"socket_id": socket_id}))
                self._run_connect_handlers(socket, socket_id, request, context_data)
                handle = self.wsgi_server.container.worker_pool.handle
                socket.accept(
                    partial(handle, self._handle_message, socket, socket_id, context_data),
                    partial(handle, self._handle_disconnect, socket_id, context_data),
                )
            except BaseException:
                self.remove_socket(socket_id)
                raise
        except BaseException:
            socket.reject()
            raise

    def _run_connect_handlers(
        self, socket: WebSocket, socket_id: str, request: Request, context_data: dict[str, Any]
    ) -> None:
        """Runs the ``connect`` entrypoints. Closes the socket if one raises."""
        for provider in list(self._providers):
            if isinstance(provider, WebSocketConnect):
                try:
                    run_worker(provider, (socket_id, request), {}, dict(context_data))
                except Exception as exc:
                    # Code 1008, policy violation (RFC 6455, section 7.4.1).
                    socket.close(1008, str(exc))

    def _handle_disconnect(self, socket_id: str, context_data: dict[str, Any]) -> None:
        """Runs the ``disconnect`` entrypoints after the last message has been handled."""
        channels = set()
        for provider in list(self._providers):
            if isinstance(provider, WebSocketHubProvider):
                channels.update(provider.hub.get_subscriptions(socket_id))
        self.remove_socket(socket_id)
        for provider in list(self._providers):
            if isinstance(provider, WebSocketDisconnect):
                # On other threads, to answer the client's close frame without delay.
                provider.container.spawn_worker(
                    provider, (socket_id, sorted(channels)), {}, context_data=dict(context_data)
                )

    def _handle_message(
        self, socket: WebSocket, socket_id: str, context_data: dict[str, Any], message: str | bytes
    ) -> None:
        """Handles a message and sends the reply."""
        socket.send(self.handle_websocket_request(socket_id, context_data, message))

    def handle_websocket_request(
        self, socket_id: str, context_data: dict[str, Any], raw_req: str | bytes
    ) -> str:
        """Returns the reply to a message."""
        correlation_id = None
        try:
            method, data, correlation_id = self.deserialize_ws_frame(raw_req)
            provider = self.get_provider_for_method(method)
            result = provider.handle_message(socket_id, data, context_data)
            try:
                return self.serialize_for_ws(
                    {
                        "type": "result",
                        "success": True,
                        "data": result,
                        "correlation_id": correlation_id,
                    }
                )
            except Exception:
                raise UnserializableValueError(result)
        except ThreadKilled:
            raise
        # Any exception of the method, even SystemExit, ends only the request.
        except BaseException as exc:
            return self.serialize_for_ws(
                {
                    "type": "result",
                    "success": False,
                    "error": serialize(exc),
                    "correlation_id": correlation_id,
                }
            )

    def get_provider_for_method(self, method: Any) -> WebSocketRpc:
        """Returns the entrypoint of a method. Raises MethodNotFound."""
        for provider in list(self._providers):
            if isinstance(provider, WebSocketRpc) and provider.method_name == method:
                return provider
        raise MethodNotFound()

    def setup(self) -> None:
        self.wsgi_server.register_provider(self)

    def unregister_provider(self, provider: Any) -> None:
        """Unregisters an extension, see :meth:`ProviderCollector.unregister_provider`.

        The first entrypoint closes all sockets, after their messages in flight.
        """
        if isinstance(provider, Entrypoint):
            # While the entrypoint is still registered, as it may have to run.
            self.wsgi_server.close_sockets()
        super().unregister_provider(provider)
        if not any(isinstance(left, Entrypoint) for left in list(self._providers)):
            self._unregister()

    def stop(self) -> None:
        self._unregister()
        super().stop()

    def _unregister(self) -> None:
        self.wsgi_server.close_sockets()
        self.wsgi_server.unregister_provider(self)

    def add_websocket(
        self, ws: WebSocket, initial_context_data: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Adds a socket on connect, and returns its id and the context data of its workers."""
        socket_id = str(uuid.uuid4())
        context_data = dict(initial_context_data or ())
        self.sockets[socket_id] = SocketInfo(ws, context_data)
        return socket_id, context_data

    def remove_socket(self, socket_id: str) -> None:
        """Removes a socket after it has been closed or lost."""
        self.sockets.pop(socket_id, None)
        for provider in list(self._providers):
            if isinstance(provider, WebSocketHubProvider):
                provider.cleanup_websocket(socket_id)


class WebSocketHubProvider(DependencyProvider):
    """Injects the :class:`WebSocketHub` of the container."""

    hub: Any = None
    server = WebSocketServer()

    def setup(self) -> None:
        self.hub = WebSocketHub(self.server)
        self.server.register_provider(self)

    def stop(self) -> None:
        self.server.unregister_provider(self)
        super().stop()

    @nonblocking
    def get_dependency(self, worker_ctx: Any) -> WebSocketHub:
        return self.hub

    def cleanup_websocket(self, socket_id: str) -> None:
        """Removes all subscriptions of a socket."""
        self.hub.forget(socket_id)


class _Subscriptions(dict[str, "set[str]"]):
    """Channel -> ids of the subscribed sockets. Channels without sockets are not stored."""

    def __missing__(self, channel: str) -> set[str]:
        return set()


class WebSocketHub:
    """Subscriptions of sockets to channels, and the sending of events. Thread-safe.

    A hub knows only the sockets of its own container. To reach those of other instances, broadcast
    from the handler of a broadcast event.
    """

    def __init__(self, server: WebSocketServer) -> None:
        self._server = server
        # Guards the two attributes below.
        self._lock = threading.Lock()
        # Socket id -> Connection, of sockets with subscriptions.
        self.connections: dict[str, Connection] = {}
        self.subscriptions = _Subscriptions()

    def _get_connection(self, socket_id: str, create: bool = True) -> Connection | None:
        connection = self.connections.get(socket_id)
        if connection is not None or not create:
            return connection
        info = self._server.sockets.get(socket_id)
        if info is None:
            raise ConnectionNotFound(socket_id)
        connection = self.connections[socket_id] = Connection(socket_id, info.data)
        return connection

    def get_subscriptions(self, socket_id: str) -> list[str]:
        """Returns a list of all the subscriptions of a socket."""
        with self._lock:
            connection = self._get_connection(socket_id, create=False)
            return sorted(connection.subscriptions) if connection is not None else []

    def subscribe(self, socket_id: str, channel: str) -> None:
        """Subscribes a socket to a channel."""
        with self._lock:
            connection = self._get_connection(socket_id)
            assert connection is not None
            self.subscriptions.setdefault(channel, set()).add(socket_id)
            connection.subscriptions.add(channel)

    def unsubscribe(self, socket_id: str, channel: str) -> None:
        """Unsubscribes a socket from a channel."""
        with self._lock:
            connection = self._get_connection(socket_id, create=False)
            if connection is not None:
                connection.subscriptions.discard(channel)
            self._discard(socket_id, channel)

    def forget(self, socket_id: str) -> None:
        """Unsubscribes a closed socket from all channels."""
        with self._lock:
            connection = self.connections.pop(socket_id, None)
            if connection is not None:
                for channel in connection.subscriptions:
                    self._discard(socket_id, channel)

    def _discard(self, socket_id: str, channel: str) -> None:
        sockets = self.subscriptions.get(channel)
        if sockets is not None:
            sockets.discard(socket_id)
            if not sockets:
                del self.subscriptions[channel]

    def broadcast(self, channel: str, event: str, data: Any) -> None:
        """Broadcasts an event to all sockets listening on a channel.

        Does not block: a socket with a full send buffer is closed.
        """
        payload = self._server.serialize_event(event, data)
        with self._lock:
            socket_ids = list(self.subscriptions.get(channel, ()))
        for socket_id in socket_ids:
            info = self._server.sockets.get(socket_id)
            if info is not None:
                info.socket.send(payload)

    def unicast(self, socket_id: str, event: str, data: Any) -> bool:
        """Sends an event to a single socket. Returns `True` if that worked or `False` if not."""
        payload = self._server.serialize_event(event, data)
        info = self._server.sockets.get(socket_id)
        # send() returns False if the socket is closed.
        return info is not None and info.socket.send(payload) is not False


class _SocketEntrypoint(Entrypoint):
    """An entrypoint of the container's :class:`WebSocketServer`."""

    server = WebSocketServer()

    def setup(self) -> None:
        self.server.register_provider(self)

    def stop(self) -> None:
        self.server.unregister_provider(self)
        super().stop()


class WebSocketRpc(_SocketEntrypoint, SyncEntrypoint):
    """Runs the method for messages with its name.

    The method takes the id of the socket, and the message's ``data`` as keyword arguments.
    """

    @nonblocking
    def handle_message(self, socket_id: str, data: Any, context_data: dict[str, Any]) -> Any:
        """Runs a worker for a message and returns its result."""
        self.check_signature((socket_id,), data)
        return run_worker(self, (socket_id,), data, context_data)


class WebSocketHandshake(_SocketEntrypoint, SyncEntrypoint):
    """Runs the method for each handshake, before the connection becomes a WebSocket.

    The method takes the werkzeug request. It returns None, or a dict of context data for the
    workers of the socket, such as the name of the user. It refuses the handshake by raising: the
    client receives the response of one of werkzeug's ``HTTPException``, such as ``Unauthorized``,
    and status 500, or 400 for ``expected_exceptions``, for other exceptions.
    """

    def admit(self, request: Request, context_data: dict[str, Any]) -> dict[str, Any]:
        """Runs a worker for a handshake, and returns the context data of the socket."""
        result = run_worker(self, (request,), {}, dict(context_data))
        if result is None:
            return context_data
        if not isinstance(result, dict):
            raise TypeError(
                "{} must return None or a dict of context data, not {!r}".format(
                    self.method_name, result
                )
            )
        return {**context_data, **result}

    def response_from_exception(self, exc: Exception) -> Response:
        """Converts an exception of the method to the response that refuses the handshake."""
        return error_response(exc, self.expected_exceptions)


class WebSocketConnect(_SocketEntrypoint, SyncEntrypoint):
    """Runs the method for each new socket, before its first message.

    The method takes the id of the socket and the werkzeug request of the handshake. If it raises,
    the socket is closed with code 1008 and the text of the exception. To refuse a client in the
    handshake, use :class:`WebSocketHandshake`.
    """


class WebSocketDisconnect(_SocketEntrypoint):
    """Runs the method for each closed or lost socket, after its last message has been handled.

    The method takes the id of the socket and its channels. The hub has no subscriptions of the
    socket any more.
    """


rpc = WebSocketRpc.decorator
handshake = WebSocketHandshake.decorator
connect = WebSocketConnect.decorator
disconnect = WebSocketDisconnect.decorator
