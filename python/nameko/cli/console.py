"""The backdoor of running services: a Python shell on a port, for any number of visitors."""

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

# No visitor types a longer line (bytes).
LONGEST_LINE = 1_000_000

# A web page that sends its visitor's browser to a port of localhost would have its text run.
_HTTP_REQUEST = re.compile(rb"[A-Z]+ \S+ HTTP/\d")


class BackdoorServer(ManagedThread):
    """Listens, and serves each visitor in a thread of its own, with ``names`` in reach.

    ``kill`` ends it, and hangs up on all visitors.
    """

    def __init__(self, host: str, port: int, names: dict[str, Any]) -> None:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        self._listener = socket.create_server((host, port), family=family)
        super().__init__(self._accept, name="nameko-backdoor")
        self._names = names
        # Written to when the server shall end.
        self._wake, self._woken = socket.socketpair()
        self._visitors: set[socket.socket] = set()
        self._visitors_lock = threading.Lock()
        if not self._listener.getsockname()[0].startswith(("127.", "::1")):
            _log.warning("whoever reaches the backdoor at %s can run any code here", self.target)

    @property
    def fd(self) -> socket.socket:
        """The socket that listens."""
        return self._listener

    @property
    def target(self) -> str:
        """What to give to ``nameko backdoor``."""
        host, port = self._listener.getsockname()[:2]
        if host in ("127.0.0.1", "::1"):
            return str(port)
        return "{}:{}".format("[{}]".format(host) if ":" in host else host, port)

    def interrupt(self, exc: BaseException | None = None) -> None:
        try:
            self._wake.send(b".")
        except OSError:
            pass  # it has ended

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
                    visitor, _ = self._listener.accept()
                except OSError:
                    continue  # they left already
                with self._visitors_lock:
                    self._visitors.add(visitor)
                threading.Thread(
                    target=self._serve, args=(visitor,), name="nameko-backdoor-visitor", daemon=True
                ).start()
        self._listener.close()
        self._wake.close()
        self._woken.close()
        with self._visitors_lock:
            for visitor in self._visitors:
                try:
                    visitor.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # they are just leaving

    def _serve(self, visitor: socket.socket) -> None:
        _log.info("somebody came through the backdoor")
        try:
            with visitor, visitor.makefile("rb") as lines, _printing_to(visitor):
                _Console(visitor, lines, self._names).interact()
        except OSError:
            pass  # they hung up
        finally:
            with self._visitors_lock:
                self._visitors.discard(visitor)
            _log.info("they left")


class _Console(InteractiveConsole):
    """A console whose terminal is a socket."""

    def __init__(self, visitor: socket.socket, lines: Any, names: dict[str, Any]) -> None:
        super().__init__(locals=dict(names))
        self._visitor = visitor
        self._lines = lines

    def interact(self, banner: str | None = None, exitmsg: str | None = None) -> None:
        banner = "Python {} inside the services: {}. Ctrl-D leaves.".format(
            sys.version.split()[0], ", ".join(sorted(self.locals))
        )
        try:
            super().interact(banner, exitmsg="")
        except SystemExit:
            pass  # meant for this console alone

    def runsource(self, source: str, filename: str = "<input>", symbol: str = "single") -> bool:
        try:
            return super().runsource(source, filename, symbol)
        except (MemoryError, RecursionError):  # too many brackets or signs for the compiler
            self.showsyntaxerror()
            return False

    # The two below show it to the visitor also where the process has an excepthook of its own, as
    # those have that report errors to somebody: a visitor's mistakes are the visitor's.

    def showtraceback(self) -> None:
        kind, exc, frames = sys.exc_info()
        # The first frame is the console's.
        self.write("".join(traceback.format_exception(kind, exc, frames and frames.tb_next)))

    def showsyntaxerror(self, filename: str | None = None, **options: Any) -> None:
        kind, exc, _ = sys.exc_info()
        self.write("".join(traceback.format_exception_only(kind, exc)))

    def raw_input(self, prompt: str = "") -> str:
        self.write(prompt)
        line = self._lines.readline(LONGEST_LINE)
        if len(line) == LONGEST_LINE:
            _log.warning("hanging up: a line of the visitor's has no end")
            raise EOFError
        if _HTTP_REQUEST.match(line):
            _log.warning("hanging up on a visitor who speaks HTTP: %r", line[:80])
            raise EOFError
        if not line or line.startswith(b"\x04"):
            raise EOFError
        if b"\xff\xf4" in line:  # telnet's Ctrl-C
            raise KeyboardInterrupt
        text: str = line.decode(errors="replace").rstrip("\r\n")
        return text

    def write(self, data: str) -> None:
        self._visitor.sendall(data.encode(errors="backslashreplace"))


class _Output:
    """Standard output while there are visitors: what a visitor's thread prints goes to the visitor,
    everything else where it went before."""

    # The visitor of the calling thread, as ``visitor``.
    local = threading.local()
    # How many visitors there are.
    count = 0
    lock = threading.Lock()

    def __init__(self, before: Any) -> None:
        self.before = before

    def write(self, data: str) -> int:
        visitor = getattr(self.local, "visitor", None)
        if visitor is None:
            written: int = self.before.write(data)
            return written
        visitor.sendall(data.encode(errors="backslashreplace"))
        return len(data)

    def flush(self) -> None:
        if getattr(self.local, "visitor", None) is None:
            self.before.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.before, name)


@contextmanager
def _printing_to(visitor: socket.socket) -> Iterator[None]:
    """Have what this thread prints go to the visitor."""
    with _Output.lock:
        _Output.count += 1
        if not isinstance(sys.stdout, _Output):
            sys.stdout = _Output(sys.stdout)
    _Output.local.visitor = visitor
    try:
        yield
    finally:
        del _Output.local.visitor
        with _Output.lock:
            _Output.count -= 1
            # Where somebody has replaced it meanwhile, it stays below theirs.
            if not _Output.count and isinstance(sys.stdout, _Output):
                sys.stdout = sys.stdout.before
