"""The link of a process to its supervisor, under ``--workers`` and ``--reload``.

The link is a socket. The process writes its events as JSON, one object per line: its services are
loaded, its services can be called, a file has changed. The supervisor writes a byte to stop the
process, and closes the socket. End of file without that byte means that the supervisor died; the
process then stops by itself.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable
from logging import getLogger
from typing import Any

from nameko.exceptions import CommandError

_log = getLogger("nameko.run")


class Parent:
    """The process's end of the link."""

    def __init__(self, fd: int) -> None:
        try:
            self._socket = socket.socket(fileno=fd)
        except OSError as exc:
            raise CommandError("--link is internal to `nameko run`: {}".format(exc))
        # Not inherited by child processes, which would keep it open.
        self._socket.set_inheritable(False)
        self._lock = threading.Lock()
        # Called once when the process is to stop.
        self._callback: Callable[[], Any] = _exit
        self._stopped = False
        threading.Thread(target=self._listen, name="nameko-parent", daemon=True).start()

    def loaded(self, services: list[str]) -> None:
        """Reports that the services are loaded, with a description of each."""
        self._send({"loaded": services})

    def ready(self) -> None:
        """Reports that the services can be called."""
        self._send({"ready": True})

    def changed(self, file: str) -> None:
        """Reports that this process stops for a restart because a file has changed."""
        self._send({"changed": file})

    def on_stop(self, callback: Callable[[], Any]) -> None:
        """Sets the callback for a stop request or the end of the supervisor.

        It is called once, immediately if the request has been received already. Without a callback
        the process exits.
        """
        with self._lock:
            self._callback = callback
            stopped = self._stopped
        if stopped:
            callback()

    def _send(self, event: dict[str, Any]) -> None:
        try:
            self._socket.sendall(json.dumps(event).encode() + b"\n")
        except OSError:
            pass  # the supervisor died, which _listen() handles

    def _listen(self) -> None:
        try:
            received = self._socket.recv(1)
        except OSError:
            received = b""
        if not received:
            _log.warning("the supervisor process died: stopping")
        self.stop()

    def stop(self) -> None:
        """Stops this process, as a request of the supervisor does."""
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
            callback = self._callback
        callback()


def _exit() -> None:
    # The main thread is still importing the user's modules: there is nothing to stop.
    os._exit(0)
