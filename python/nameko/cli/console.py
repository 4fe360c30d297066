"""The backdoor of running services: a Python shell on a TCP port, for any number of clients."""

from __future__ import annotations

import re
import selectors
import socket
import sys
import threading
import traceback
from code import InteractiveConsole
from collections.abc import Iterator
from contextlib import contextmanager
from logging import getLogger
from typing import Any

from nameko.utils.threads import ManagedThread

_log = getLogger("nameko.backdoor")

# Limit of an input line, in bytes.
MAX_LINE_BYTES = 1_000_000

# HTTP is rejected: a web page could otherwise have a browser on this machine run code here.
_HTTP_REQUEST = re.compile(rb"[A-Z]+ \S+ HTTP/\d")


class BackdoorServer(ManagedThread):
    """Serves each client on a thread of its own, with ``names`` as the globals of its shell.

    ``kill`` stops the server and closes all connections.
    """

    def __init__(self, host: str, port: int, names: dict[str, Any]) -> None:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        self._listener = socket.create_server((host, port), family=family)
        super().__init__(self._accept, name="nameko-backdoor")
        self._names = names
        # Written to by interrupt().
        self._wake, self._woken = socket.socketpair()
        self._clients: set[socket.socket] = set()
        self._clients_lock = threading.Lock()
        if not self._listener.getsockname()[0].startswith(("127.", "::1")):
            _log.warning(
                "the backdoor at %s is open to other machines, which can run any code here",
                self.target,
            )

    @property
    def fd(self) -> socket.socket:
        """The listening socket."""
        return self._listener

    @property
    def target(self) -> str:
        """The argument for ``nameko backdoor``."""
        host, port = self._listener.getsockname()[:2]
        if host in ("127.0.0.1", "::1"):
            return str(port)
        return "{}:{}".format("[{}]".format(host) if ":" in host else host, port)

    def interrupt(self, exc: BaseException | None = None) -> None:
        try:
            self._wake.send(b".")
        except OSError:
            pass  # the server has ended

    def kill(self, exc: BaseException | None = None, grace: float = 1.0) -> None:
        self.interrupt(exc)
        try:
            self.wait(grace)
        except TimeoutError:
            pass

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while all(key.fileobj is self._listener for key, _ in selector.select()):
                try:
                    client, _ = self._listener.accept()
                except OSError:
                    continue  # the client has disconnected already
                with self._clients_lock:
                    self._clients.add(client)
                threading.Thread(
                    target=self._serve, args=(client,), name="nameko-backdoor-client", daemon=True
                ).start()
        self._listener.close()
        self._wake.close()
        self._woken.close()
        with self._clients_lock:
            for client in self._clients:
                try:
                    client.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # the client is disconnecting

    def _serve(self, client: socket.socket) -> None:
        _log.info("backdoor client connected")
        try:
            with client, client.makefile("rb") as lines, _printing_to(client):
                _Console(client, lines, self._names).interact()
        except OSError:
            pass  # closed by the client
        finally:
            with self._clients_lock:
                self._clients.discard(client)
            _log.info("backdoor client disconnected")


class _Console(InteractiveConsole):
    """An interactive console on a socket."""

    def __init__(self, client: socket.socket, lines: Any, names: dict[str, Any]) -> None:
        super().__init__(locals=dict(names))
        self._client = client
        self._lines = lines

    def interact(self, banner: str | None = None, exitmsg: str | None = None) -> None:
        banner = "Python {} inside the services: {}. Ctrl-D leaves.".format(
            sys.version.split()[0], ", ".join(sorted(self.locals))
        )
        try:
            super().interact(banner, exitmsg="")
        except SystemExit:
            pass  # ends this console only

    def runsource(self, source: str, filename: str = "<input>", symbol: str = "single") -> bool:
        try:
            return super().runsource(source, filename, symbol)
        except (MemoryError, RecursionError):  # nested too deeply for the compiler
            self.showsyntaxerror()
            return False

    # Both write to the client even if the process has an excepthook, such as that of an error
    # tracker: errors made in the shell are not errors of the service.

    def showtraceback(self) -> None:
        kind, exc, frames = sys.exc_info()
        # The first frame is the console's.
        self.write("".join(traceback.format_exception(kind, exc, frames and frames.tb_next)))

    def showsyntaxerror(self, filename: str | None = None, **options: Any) -> None:
        kind, exc, _ = sys.exc_info()
        self.write("".join(traceback.format_exception_only(kind, exc)))

    def raw_input(self, prompt: str = "") -> str:
        self.write(prompt)
        line = self._lines.readline(MAX_LINE_BYTES)
        if len(line) == MAX_LINE_BYTES:
            _log.warning("closing a backdoor connection: input line too long")
            raise EOFError
        if _HTTP_REQUEST.match(line):
            _log.warning("closing a backdoor connection: HTTP request %r", line[:80])
            raise EOFError
        if not line or line.startswith(b"\x04"):
            raise EOFError
        if b"\xff\xf4" in line:  # telnet's Ctrl-C
            raise KeyboardInterrupt
        text: str = line.decode(errors="replace").rstrip("\r\n")
        return text

    def write(self, data: str) -> None:
        self._client.sendall(data.encode(errors="backslashreplace"))


class _Output:
    """Standard output while clients are connected. Output of a client's thread goes to the client,
    all other output to the original stream."""

    # The client of the calling thread, as ``client``.
    local = threading.local()
    # Number of connected clients.
    count = 0
    lock = threading.Lock()

    def __init__(self, before: Any) -> None:
        self.before = before

    def write(self, data: str) -> int:
        client = getattr(self.local, "client", None)
        if client is None:
            written: int = self.before.write(data)
            return written
        client.sendall(data.encode(errors="backslashreplace"))
        return len(data)

    def flush(self) -> None:
        if getattr(self.local, "client", None) is None:
            self.before.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.before, name)


@contextmanager
def _printing_to(client: socket.socket) -> Iterator[None]:
    """Redirects the output of this thread to the client."""
    with _Output.lock:
        _Output.count += 1
        if not isinstance(sys.stdout, _Output):
            sys.stdout = _Output(sys.stdout)
    _Output.local.client = client
    try:
        yield
    finally:
        del _Output.local.client
        with _Output.lock:
            _Output.count -= 1
            # If it has been replaced meanwhile, it stays in place as the target of the replacement.
            if not _Output.count and isinstance(sys.stdout, _Output):
                sys.stdout = sys.stdout.before
