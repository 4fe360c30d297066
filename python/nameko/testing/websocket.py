"""A WebSocket client for tests. Requires the package ``websocket-client``."""

from __future__ import annotations

import json
import uuid
from collections import defaultdict
from collections.abc import Callable
from queue import Queue
from typing import Any

from nameko.exceptions import deserialize
from nameko.utils.threads import Event


def make_virtual_socket(
    host: str, port: int, path: str = "/ws"
) -> tuple[Any, Callable[[], VirtualSocket]]:
    """Returns a ``websocket.WebSocketApp`` and a function that waits for its connection.

    ``run_forever`` of the app must be run in a thread. The function returns a
    :class:`VirtualSocket` or raises the error of the connection.
    """
    from websocket import WebSocketApp

    ready = Event()

    def on_message(ws: Any, message: str) -> None:
        message_type = (data := json.loads(message))["type"]
        if message_type == "event":
            socket.get_event_queue(data["event"]).put((data["event"], data["data"]))
        elif message_type == "result":
            waiting = socket._results.pop(data["correlation_id"], None)
            if waiting is not None:
                waiting.send(data)

    def on_open(ws: Any) -> None:
        ready.send(None)

    def on_error(ws: Any, error: Any) -> None:
        if not isinstance(error, Exception):
            error = ConnectionError(str(error))
        # No effect once connected.
        ready.send(error)
        socket._fail(error)

    def on_close(ws: Any, *reason: Any) -> None:
        text = " ".join(str(part) for part in reason if part is not None)
        on_error(ws, ConnectionError("the connection was closed {}".format(text).rstrip()))

    app = WebSocketApp(
        "ws://{}:{}{}".format(host, port, path),
        on_message=on_message,
        on_open=on_open,
        on_error=on_error,
        on_close=on_close,
    )
    socket = VirtualSocket(app)

    def connect_socket() -> VirtualSocket:
        error = ready.wait()
        if error is not None:
            raise error
        return socket

    return app, connect_socket


def close_gracefully(app: Any) -> None:
    """Sends a close frame. ``run_forever`` returns when the service has answered it.

    ``app.close()`` on another thread may consume that answer, which delays the return by ten
    seconds.
    """
    connection = app.sock
    try:
        if connection is not None:
            connection.send_close()
    except Exception:
        # Closed already, or closing.
        app.close()


class VirtualSocket:
    """Calls methods and receives events. Thread-safe."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self._event_queues: dict[str, Queue[tuple[str, Any]]] = defaultdict(Queue)
        # Correlation id -> event of the reply.
        self._results: dict[str, Event] = {}

    def get_event_queue(self, event_type: str) -> Queue[tuple[str, Any]]:
        """Returns the queue of received events of a type, as ``(type, data)``."""
        return self._event_queues[event_type]

    def wait_for_event(self, event_type: str) -> tuple[str, Any]:
        """Waits for the next event of a type, and returns ``(type, data)``."""
        return self.get_event_queue(event_type).get()

    def rpc(self, _method: str, **data: Any) -> Any:
        """Calls a method of the service and returns its result or raises its error.

        ConnectionError if the connection is lost.
        """
        correlation_id = str(uuid.uuid4())
        result = self._results[correlation_id] = Event()
        try:
            request = {"method": _method, "data": data, "correlation_id": correlation_id}
            self.app.send(json.dumps(request))
            reply = result.wait()
        finally:
            self._results.pop(correlation_id, None)
        if reply["success"]:
            return reply["data"]
        raise deserialize(reply["error"])

    def _fail(self, error: Exception) -> None:
        for waiting in list(self._results.values()):
            waiting.send(exc=error)
