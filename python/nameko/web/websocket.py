"""WebSocket: methods that browsers call over one connection, and events that they are sent."""

from __future__ import annotations

import json
import threading
import uuid
from collections import namedtuple
from collections.abc import Callable
from functools import partial
from logging import getLogger
from typing import Any

from werkzeug.exceptions import NotImplemented as NotServed
from werkzeug.routing import Rule
from werkzeug.wrappers import Request

from nameko._nameko import HttpRequest, WebSocket
from nameko.exceptions import (
    ConnectionNotFound,
    MalformedRequest,
    MethodNotFound,
    UnserializableValueError,
    serialize,
)
from nameko.extensions import DependencyProvider, Entrypoint, ProviderCollector, SharedExtension
from nameko.utils.threads import ThreadKilled
from nameko.web.server import WebServer
from nameko.web.sync_entrypoint import SyncEntrypoint, run_worker
from nameko.workers import nonblocking

_log = getLogger(__name__)

# What is known of a connected socket: `socket`, with `send(text)` and `close(code, reason)`, which
# any thread may call, and the context data of the workers of its requests.
SocketInfo = namedtuple("SocketInfo", ["socket", "data"])


class Connection:
    """A socket that listens to channels."""

    def __init__(self, socket_id: str, context_data: dict[str, Any]) -> None:
        self.socket_id = socket_id
        self.context_data = context_data
        self.subscriptions: set[str] = set()


class WebSocketServer(ProviderCollector, SharedExtension):
    """The sockets of a container. Clients connect to ``/ws`` at the address of its web server.

    No thread waits for a socket: a message becomes a job of the container's threads. Those of one
    socket are handled one after the other, those of different sockets side by side.
    """

    wsgi_server = WebServer()

    def __init__(self) -> None:
        super().__init__()
        # Socket id -> SocketInfo, from before the first message to after the last.
        self.sockets: dict[str, SocketInfo] = {}

    def deserialize_ws_frame(self, payload: str | bytes) -> tuple[Any, Any, Any]:
        """Method, arguments and correlation id of a message. Raises MalformedRequest."""
        try:
            data = json.loads(payload)
            return data["method"], data.get("data") or {}, data.get("correlation_id")
        except Exception:
            raise MalformedRequest("Invalid JSON data")

    def serialize_for_ws(self, payload: Any) -> str:
        return json.dumps(payload)

    def serialize_event(self, event: str, data: Any) -> str:
        """The text that tells a client of an event."""
        return self.serialize_for_ws({"type": "event", "event": event, "data": data})

    def get_url_rule(self) -> Rule:
        """Where clients connect."""
        return Rule("/ws", methods=["GET"], websocket=True)

    def handle_request(self, request: Request) -> Callable[..., Any]:
        """What answers a client that connects, a WSGI application."""
        context_data = self.wsgi_server.context_data_from_headers(request)
        return self.websocket_mainloop(context_data)

    def websocket_mainloop(self, initial_context_data: dict[str, Any]) -> Callable[..., Any]:
        """A WSGI application that accepts the connection of its request as a socket."""

        def accept(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
            request: HttpRequest | None = environ.get("nameko.request")
            if request is None:
                text = "WebSocket is served by nameko's own web server only"
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
                self._greet(socket, socket_id, request, context_data)
                handle = self.wsgi_server.container.worker_pool.handle
                socket.accept(
                    partial(handle, self._answer, socket, socket_id, context_data),
                    partial(handle, self._lose, socket_id, context_data),
                )
            except BaseException:
                self.remove_socket(socket_id)
                raise
        except BaseException:
            socket.reject()
            raise

    def _greet(
        self, socket: WebSocket, socket_id: str, request: Request, context_data: dict[str, Any]
    ) -> None:
        """Run the methods for sockets that come. One that raises has the socket closed."""
        for provider in list(self._providers):
            if isinstance(provider, WebSocketConnect):
                try:
                    run_worker(provider, (socket_id, request), {}, dict(context_data))
                except Exception as exc:
                    # As "policy violation", RFC 6455, section 7.4.1.
                    socket.close(1008, str(exc))

    def _lose(self, socket_id: str, context_data: dict[str, Any]) -> None:
        """The connection is over, and so is the last message's method: a job."""
        channels = set()
        for provider in list(self._providers):
            if isinstance(provider, WebSocketHubProvider):
                channels.update(provider.hub.get_subscriptions(socket_id))
        self.remove_socket(socket_id)
        for provider in list(self._providers):
            if isinstance(provider, WebSocketDisconnect):
                # They run on other threads: the client's goodbye is answered meanwhile.
                provider.container.spawn_worker(
                    provider, (socket_id, sorted(channels)), {}, context_data=dict(context_data)
                )

    def _answer(
        self, socket: WebSocket, socket_id: str, context_data: dict[str, Any], message: str | bytes
    ) -> None:
        """Handle a message: a job."""
        socket.send(self.handle_websocket_request(socket_id, context_data, message))

    def handle_websocket_request(
        self, socket_id: str, context_data: dict[str, Any], raw_req: str | bytes
    ) -> str:
        """The reply to a message."""
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
        # sys.exit() in a method, too, ends its request and no more.
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
        """The entrypoint of a method. Raises MethodNotFound."""
        for provider in list(self._providers):
            if isinstance(provider, WebSocketRpc) and provider.method_name == method:
                return provider
        raise MethodNotFound()

    def setup(self) -> None:
        self.wsgi_server.register_provider(self)

    def unregister_provider(self, provider: Any) -> None:
        """As :meth:`ProviderCollector.unregister_provider`. The first entrypoint that leaves closes
        the sockets, each when the message it has in work is handled."""
        if isinstance(provider, Entrypoint):
            # Before it leaves: what is still to be run finds it.
            self.wsgi_server.close_sockets()
        super().unregister_provider(provider)
        if not any(isinstance(left, Entrypoint) for left in list(self._providers)):
            self._leave()

    def stop(self) -> None:
        self._leave()
        super().stop()

    def _leave(self) -> None:
        self.wsgi_server.close_sockets()
        self.wsgi_server.unregister_provider(self)

    def add_websocket(
        self, ws: WebSocket, initial_context_data: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Called for each socket that connects. Its id, and the context data of its workers."""
        socket_id = str(uuid.uuid4())
        context_data = dict(initial_context_data or ())
        self.sockets[socket_id] = SocketInfo(ws, context_data)
        return socket_id, context_data

    def remove_socket(self, socket_id: str) -> None:
        """Called once for each socket that has left, or is lost."""
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

    def get_dependency(self, worker_ctx: Any) -> WebSocketHub:
        return self.hub

    def cleanup_websocket(self, socket_id: str) -> None:
        """Forget a socket."""
        self.hub.forget(socket_id)


class _Subscriptions(dict[str, "set[str]"]):
    """Channel -> the ids of the sockets that listen to it. A channel without any takes no room."""

    def __missing__(self, channel: str) -> set[str]:
        return set()


class WebSocketHub:
    """Who listens to what, and telling them. Any thread may call it.

    It knows the sockets of its own container only: to reach those of other instances, broadcast
    from the handler of a broadcast event.
    """

    def __init__(self, server: WebSocketServer) -> None:
        self._server = server
        # Guards both below.
        self._lock = threading.Lock()
        # Socket id -> Connection, of those that listened to anything.
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
        """Unsubscribes a socket, which is no longer there, from every channel."""
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

        It waits for none of them: one for which too much waits already is closed.
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
        # One that is closed takes nothing, and says so.
        return info is not None and info.socket.send(payload) is not False


class _SocketEntrypoint(Entrypoint):
    """Runs its method for the sockets of a container's :class:`WebSocketServer`."""

    server = WebSocketServer()

    def setup(self) -> None:
        self.server.register_provider(self)

    def stop(self) -> None:
        self.server.unregister_provider(self)
        super().stop()


class WebSocketRpc(_SocketEntrypoint, SyncEntrypoint):
    """Runs the method for messages that name it. It gets the id of the socket, and the message's
    ``data`` as keyword arguments."""

    @nonblocking
    def handle_message(self, socket_id: str, data: Any, context_data: dict[str, Any]) -> Any:
        """What the method returns for a message."""
        self.check_signature((socket_id,), data)
        return run_worker(self, (socket_id,), data, context_data)


class WebSocketConnect(_SocketEntrypoint, SyncEntrypoint):
    """Runs the method for each socket that connects, before its first message: ``method(socket_id,
    request)`` with the werkzeug request of the handshake. Where it raises, the socket is closed
    with code 1008 and the exception's text."""


class WebSocketDisconnect(_SocketEntrypoint):
    """Runs the method for each socket that has gone, however it went, after the methods that ran
    for it: ``method(socket_id, channels)`` with the channels that it listened to. The hub does not
    know it any more."""


rpc = WebSocketRpc.decorator
connect = WebSocketConnect.decorator
disconnect = WebSocketDisconnect.decorator
