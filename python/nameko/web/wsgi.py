"""Between the compiled server and a WSGI application (PEP 3333)."""

from __future__ import annotations

import contextvars
import io
import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from werkzeug.exceptions import RequestEntityTooLarge, RequestTimeout

from nameko._nameko import HttpBody, HttpRequest
from nameko.utils.threads import ThreadKilled

# As upstream's server, which logs a line per request.
_log = logging.getLogger("nameko.web.server")

# How much of a large body is read from the compiled half at a time, in bytes.
BUFFER_SIZE = 64 << 10


class Gateway:
    """Has a WSGI application answer requests.

    ``spawn(fn)`` runs what may take long, and holds up no worker: a response that is streamed.
    """

    def __init__(
        self,
        app: Callable[..., Any],
        address: tuple[str, int],
        spawn: Callable[..., Any],
        debug: bool = False,
    ) -> None:
        self.app = app
        self.spawn = spawn
        self.debug = debug
        self.environ: dict[str, Any] = {
            "SCRIPT_NAME": "",
            "SERVER_NAME": address[0],
            "SERVER_PORT": str(address[1]),
            "GATEWAY_INTERFACE": "CGI/1.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            # A body ends where it ends, with or without a Content-Length.
            "wsgi.input_terminated": True,
        }

    def __call__(self, request: HttpRequest) -> None:
        """Answer one request. Returns when it is answered, or the rest is up to another thread."""
        environ = self.environ.copy()
        environ["wsgi.errors"] = sys.stderr
        request.fill_environ(environ)
        body = request.body()
        if isinstance(body, bytes):
            environ["wsgi.input"] = io.BytesIO(body)
        else:
            environ["wsgi.input"] = io.BufferedReader(_BodyReader(body), BUFFER_SIZE)
        environ["nameko.request"] = request
        exchange = Exchange(request, environ)
        try:
            self._run(exchange)
        except ThreadKilled:
            request.abort()
            raise
        except ConnectionError as exc:
            exchange.client_gone(exc)
        except BaseException:
            # Whatever the application raises, sys.exit() too, ends the request and no more.
            exchange.fail(self.debug)

    def _run(self, exchange: Exchange) -> None:
        result = self.app(exchange.environ, exchange.start_response)
        finish = getattr(result, "close", None)
        try:
            pieces = iter(result)
            first = next(pieces, None)
            if first is not None and exchange.environ["REQUEST_METHOD"] == "HEAD":
                # Nobody wants the rest, which may have no end.
                first, pieces = None, iter(())
            if first is not None and not exchange.whole(result, first):
                # From here on the client sets the pace.
                rest = partial(exchange.stream, first, pieces, finish, self.debug)
                finish = None
                self.spawn(partial(contextvars.copy_context().run, rest), identifier="response")
                return
            if exchange.is_taken():
                return
            # At once: adding piece to piece would copy the body as often as it has pieces.
            exchange.send(b"".join([_as_bytes(first or b""), *map(_as_bytes, pieces)]))
        finally:
            if finish is not None:
                finish()


class Exchange:
    """One request and its response, as the application sees them."""

    # What the application said, `200 OK` say. None before.
    status: str | None = None
    # Whether the client has the status and the headers.
    begun = False
    over = False
    # How many bytes of the body were handed over.
    sent = 0

    def __init__(self, request: HttpRequest, environ: dict[str, Any]) -> None:
        self.request = request
        self.environ = environ
        self.since = time.monotonic()
        self.headers: list[tuple[str, str]] = []

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        if exc_info is not None:
            try:
                if self.begun:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self.status is not None:
            raise AssertionError("start_response() was called before, without exc_info")
        self.status = status
        self.headers = list(headers)
        return self.write

    @property
    def length(self) -> int | None:
        """What Content-Length says."""
        for name, value in self.headers:
            if name.lower() == "content-length":
                return int(value)
        return None

    def write(self, data: bytes | str) -> None:
        """Send a part of the body, and before the first one the status and the headers."""
        data = _as_bytes(data)
        if not self.begun:
            self._begin()
        self.sent += len(data)
        self.request.write(data)

    def whole(self, result: Any, first: bytes | str) -> bool:
        """Whether ``first`` is all that is worth waiting for."""
        if self.begun:
            return False
        if isinstance(result, (list, tuple, str, bytes)):
            return True
        length = self.length
        return length is not None and len(first) >= length

    def is_taken(self) -> bool:
        """Whether the request was answered behind WSGI's back: it has become a WebSocket."""
        return self.status is None and self.request.answered

    def send(self, body: bytes) -> None:
        """Send all of the response, or of what is missing of it."""
        if self.begun:
            self.write(body)
            self._end()
            return
        self._check_started()
        self.sent = len(body)
        self.request.respond(self.status, self.headers, body)  # type: ignore[arg-type]
        self.begun = self.over = True
        self._log()

    def stream(
        self,
        first: bytes | str,
        pieces: Iterator[bytes],
        finish: Callable[[], Any] | None,
        debug: bool,
    ) -> None:
        """Send the body piece by piece, as fast as the client takes it."""
        try:
            try:
                self.write(first)
                for piece in pieces:
                    self.write(piece)
                self._end()
            finally:
                if finish is not None:
                    finish()
        except ThreadKilled:
            self.request.abort()
            raise
        except ConnectionError as exc:
            self.client_gone(exc)
        except BaseException:
            self.fail(debug)

    def fail(self, debug: bool) -> None:
        """Tell of the exception being handled: in the log, and where it is not too late the
        client, that there was one."""
        _log.exception(
            "error answering %s %s",
            self.environ.get("REQUEST_METHOD"),
            self.environ.get("RAW_PATH_INFO"),
        )
        if self.over or self.is_taken():
            return
        if self.begun:
            self.request.abort()
            return
        self.status = "500 Internal Server Error"
        self.headers = [("Content-Type", "text/plain; charset=utf-8")]
        self.send((traceback.format_exc() if debug else "Internal Server Error\n").encode())

    def client_gone(self, exc: BaseException) -> None:
        """The connection is lost: nobody to tell."""
        _log.debug("client of %s has gone: %s", self.environ.get("RAW_PATH_INFO"), exc)
        self.request.abort()

    def _check_started(self) -> None:
        if self.status is None:
            raise AssertionError("the application has not called start_response()")

    def _begin(self) -> None:
        self._check_started()
        self.request.start_response(self.status, self.headers)  # type: ignore[arg-type]
        self.begun = True

    def _end(self) -> None:
        length = self.length
        if length is not None and self.sent < length and self.environ["REQUEST_METHOD"] != "HEAD":
            raise ValueError(
                "the body has {} bytes, Content-Length says {}".format(self.sent, length)
            )
        self.over = True
        self.request.end()
        self._log()

    def _log(self) -> None:
        if not _log.isEnabledFor(logging.INFO):
            return
        environ = self.environ
        client = environ["REMOTE_ADDR"]
        forwarded = environ.get("HTTP_X_FORWARDED_FOR", "").replace(" ", "")
        _log.info(
            '%s - - [%s] "%s %s %s" %s %s %.6f',
            "{},{}".format(forwarded, client) if forwarded else client,
            time.strftime("%d/%b/%Y %H:%M:%S"),
            environ["REQUEST_METHOD"],
            environ["REQUEST_URI"],
            environ["SERVER_PROTOCOL"],
            (self.status or "")[:3],
            self.sent,
            time.monotonic() - self.since,
        )


class _BodyReader(io.RawIOBase):
    """A request's body that is larger than what is held of it."""

    def __init__(self, body: HttpBody) -> None:
        self._body = body
        # What came and was not asked for yet.
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            try:
                self._rest = memoryview(self._body.next())
            except TimeoutError as exc:
                raise RequestTimeout(str(exc))
            except OverflowError as exc:
                raise RequestEntityTooLarge(str(exc))
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _as_bytes(data: bytes | str) -> bytes:
    # WSGI wants bytes; eventlet's server took text too.
    return data.encode("latin-1") if isinstance(data, str) else data
