"""Adapter from the compiled server to a WSGI application (PEP 3333)."""

from __future__ import annotations

import contextvars
import io
import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from werkzeug.exceptions import RequestEntityTooLarge, RequestTimeout

from nameko._nameko import HttpBody, HttpRequest
from nameko.utils.threads import ThreadKilled
from nameko.web.access_log import log_access

# The logger of upstream's access log.
_log = logging.getLogger("nameko.web.server")

# Size of the chunks in which a large body is read from the compiled half, in bytes.
BUFFER_SIZE = 64 << 10

INTERNAL_ERROR = "500 Internal Server Error"


class Gateway:
    """Answers requests with a WSGI application.

    ``spawn(fn)`` runs a function on a thread outside of the worker pool, to stream a response.
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
            # The body has an end of file, with or without a Content-Length.
            "wsgi.input_terminated": True,
        }

    def __call__(self, request: HttpRequest) -> None:
        """Answers a request. Returns after the response, or once another thread streams it."""
        exchange = Exchange(request, self.make_environ(request))
        self.attempt(exchange, self.call, self.app, exchange, exchange.environ)

    def make_environ(self, request: HttpRequest) -> dict[str, Any]:
        """Returns the WSGI environ of a request, whose body it takes."""
        environ = self.environ.copy()
        environ["wsgi.errors"] = sys.stderr
        request.fill_environ(environ)
        body = request.body()
        if isinstance(body, bytes):
            environ["wsgi.input"] = io.BytesIO(body)
        else:
            environ["wsgi.input"] = io.BufferedReader(_BodyReader(body), BUFFER_SIZE)
        environ["nameko.request"] = request
        return environ

    def attempt(self, exchange: Exchange, step: Callable[..., None], *args: Any) -> None:
        """Runs a step of an exchange, which ends with it if the step fails."""
        try:
            step(*args)
        except ThreadKilled:
            exchange.request.abort()
            raise
        except ConnectionError as exc:
            exchange.on_disconnect(exc)
        except BaseException:
            # Any exception of the application, even SystemExit, ends only the request.
            exchange.fail(self.debug)

    def call(self, app: Callable[..., Any], exchange: Exchange, environ: Any) -> None:
        """Answers with a WSGI application, which may be a response."""
        result = app(environ, exchange.start_response)
        finish = getattr(result, "close", None)
        try:
            chunks = iter(result)
            first = next(chunks, None)
            if first is not None and environ["REQUEST_METHOD"] == "HEAD":
                # The body is discarded, and may be endless.
                first, chunks = None, iter(())
            if first is not None and not exchange.is_complete(result, first):
                # A slow client must not occupy a worker.
                rest = partial(exchange.stream, first, chunks, finish, self.debug)
                finish = None
                exchange.request.leave_workers()
                self.spawn(partial(contextvars.copy_context().run, rest), identifier="response")
                return
            if exchange.is_upgraded():
                return
            exchange.send(b"".join([_as_bytes(first or b""), *map(_as_bytes, chunks)]))
        finally:
            if finish is not None:
                finish()


class Exchange:
    """A request and its response.

    ``environ`` is the one of the WSGI application, if there is one.
    """

    # The status line, such as `200 OK`. None before start_response().
    status: str | None = None
    # Whether the status and the headers have been sent.
    started = False
    finished = False
    # Bytes of the body that have been sent.
    sent = 0

    def __init__(self, request: HttpRequest, environ: dict[str, Any] | None = None) -> None:
        self.request = request
        self.environ = environ
        self.headers: list[tuple[str, str]] = []

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        if exc_info is not None:
            try:
                if self.started:
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
        """The value of Content-Length."""
        for name, value in self.headers:
            if name.lower() == "content-length":
                return int(value)
        return None

    def write(self, data: bytes | str) -> None:
        """Sends a chunk of the body, preceded by the status and the headers if needed."""
        data = _as_bytes(data)
        if not self.started:
            self._start()
        self.sent += len(data)
        self.request.write(data)

    def is_complete(self, result: Any, first: bytes | str) -> bool:
        """Whether the body is available without waiting for further chunks."""
        if self.started:
            return False
        if isinstance(result, (list, tuple, str, bytes)):
            return True
        length = self.length
        return length is not None and len(first) >= length

    def is_upgraded(self) -> bool:
        """Whether the request has become a WebSocket, outside of WSGI."""
        return self.status is None and self.request.answered

    def send(self, body: bytes) -> None:
        """Sends the whole response, or the rest of it."""
        if self.started:
            self.write(body)
            self._finish()
            return
        self._check_started()
        self.sent = len(body)
        self.request.respond(self.status, self.headers, body)  # type: ignore[arg-type]
        self.started = self.finished = True
        self._log()

    def send_text(self, status: str, headers: Any, text: str, content_type: str) -> bool:
        """Sends a response with the headers of a dict or a list, if werkzeug would not change them.

        Adds ``content_type``, unless it is one of the headers. Returns whether it was sent.
        """
        sent = self.request.respond_text(status, headers, text, content_type)
        if sent is None:
            return False
        self.status, self.sent = status, sent
        self.started = self.finished = True
        self._log()
        return True

    def stream(
        self,
        first: bytes | str,
        chunks: Iterator[bytes],
        finish: Callable[[], Any] | None,
        debug: bool,
    ) -> None:
        """Streams the body with backpressure from the client."""
        try:
            try:
                self.write(first)
                for chunk in chunks:
                    self.write(chunk)
                self._finish()
            finally:
                if finish is not None:
                    finish()
        except ThreadKilled:
            self.request.abort()
            raise
        except ConnectionError as exc:
            self.on_disconnect(exc)
        except BaseException:
            self.fail(debug)

    def fail(self, debug: bool) -> None:
        """Logs the current exception, and answers with status 500 if possible."""
        _log.exception("error answering %s %s", self.request.method, path_of(self.request))
        if self.finished or self.is_upgraded():
            return
        if self.started:
            self.request.abort()
            return
        self.status = INTERNAL_ERROR
        self.headers = [("Content-Type", "text/plain; charset=utf-8")]
        self.send(failure_text(debug))

    def on_disconnect(self, exc: BaseException) -> None:
        """Aborts the response after the loss of the connection."""
        _log.debug("client of %s disconnected: %s", path_of(self.request), exc)
        self.request.abort()

    def _check_started(self) -> None:
        if self.status is None:
            raise AssertionError("the application has not called start_response()")

    def _start(self) -> None:
        self._check_started()
        self.request.start_response(self.status, self.headers)  # type: ignore[arg-type]
        self.started = True

    def _finish(self) -> None:
        length = self.length
        if length is not None and self.sent < length and self.request.method != "HEAD":
            raise ValueError(
                "the body has {} bytes, but Content-Length is {}".format(self.sent, length)
            )
        self.finished = True
        self.request.end()
        self._log()

    def _log(self) -> None:
        log_access(self.request, self.environ, self.status or "", self.sent)


class _BodyReader(io.RawIOBase):
    """A request body that is read in chunks from the compiled half."""

    def __init__(self, body: HttpBody) -> None:
        self._body = body
        # Received and not yet read.
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


def path_of(request: HttpRequest) -> str:
    """Returns the path of a request, as it was sent."""
    _, _, target, _, _ = request.access()
    return target.partition("?")[0]


def failure_text(debug: bool) -> bytes:
    """Returns the body of the response to the current exception."""
    return (traceback.format_exc() if debug else "Internal Server Error\n").encode()


def _as_bytes(data: bytes | str) -> bytes:
    # WSGI requires bytes; eventlet's server accepted text as well.
    return data.encode("latin-1") if isinstance(data, str) else data
