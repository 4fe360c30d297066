"""The process that started this one, as one of several or to be able to start it again.

The link between the two is a socket. This process writes a JSON object per line: what it has
loaded, that its services can be called, that a file has changed. The parent writes a byte when this
one shall stop, and closes it. Where it is closed without that byte, the parent is gone, and nobody
else would stop this process.
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
    """This process's end of the link."""

    def __init__(self, fd: int) -> None:
        try:
            self._socket = socket.socket(fileno=fd)
        except OSError as exc:
            raise CommandError("--link is for `nameko run` itself: {}".format(exc))
        # Processes that this one starts must not hold it.
        self._socket.set_inheritable(False)
        self._lock = threading.Lock()
        # What to do when this process is let go of, and whether it was.
        self._callback: Callable[[], Any] = _leave
        self._gone = False
        threading.Thread(target=self._listen, name="nameko-parent", daemon=True).start()

    def loaded(self, services: list[str]) -> None:
        """The services are found; each line says what one of them serves."""
        self._tell({"loaded": services})

    def ready(self) -> None:
        """The services can be called."""
        self._tell({"ready": True})

    def changed(self, file: str) -> None:
        """This process stops, and another one shall be started, because a file has changed."""
        self._tell({"changed": file})

    def when_it_lets_go(self, callback: Callable[[], Any]) -> None:
        """Call this, once, when the parent wants this process to stop, or is gone; at once where it
        has said so already. Where nothing was given here, the process ends."""
        with self._lock:
            self._callback = callback
            gone = self._gone
        if gone:
            callback()

    def _tell(self, news: dict[str, Any]) -> None:
        try:
            self._socket.sendall(json.dumps(news).encode() + b"\n")
        except OSError:
            pass  # the parent is gone, which is noticed elsewhere

    def _listen(self) -> None:
        try:
            said = self._socket.recv(1)
        except OSError:
            said = b""
        if not said:
            _log.warning("the process that started this one is gone: stopping")
        self.let_go()

    def let_go(self) -> None:
        """Do what is to be done when this process shall stop."""
        with self._lock:
            if self._gone:
                return
            self._gone = True
            callback = self._callback
        callback()


def _leave() -> None:
    # The main thread is importing the user's modules. There is nothing to stop yet.
    os._exit(0)
