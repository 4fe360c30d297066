"""Fast path for HTTP requests, taken when no hook is overridden or patched.

On the slow path a request passes every hook that an extension may override or a test may patch, and
a thread waits for its worker. The fast path calls the stages behind these hooks back to back, and
the response is sent by the thread that ends the worker, which is the loop's for an ``async def``
method. Where nothing before its coroutine may block, the worker starts on the loop, too.

Patch guards are checked for each request. Requests that do not fit (another rule than a plain one,
wrong arguments) take the slow path, which reports the error.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from werkzeug.http import HTTP_STATUS_CODES
from werkzeug.wrappers import Response

from nameko._nameko import HttpRequest, LoopRequests, PatchGuard
from nameko.exceptions import ContainerBeingKilled
from nameko.loop import LoopReader
from nameko.utils.threads import ThreadKilled
from nameko.web.request import Request
from nameko.web.stages import response_parts
from nameko.web.wsgi import Exchange, Gateway
from nameko.workers import nonblocking

# The status lines of responses with a body, as werkzeug writes them.
_STATUS_LINES = {
    code: "{} {}".format(code, name.upper())
    for code, name in HTTP_STATUS_CODES.items()
    if code >= 200 and code not in (204, 304)
}
_TEXT_TYPE = Response("").headers["Content-Type"]

# The parts of werkzeug that plain responses do without.
_RESPONSE_HOOKS = [
    (Response, name, getattr(Response, name))
    for name in (
        "__call__",
        "__init__",
        "automatically_set_content_length",
        "default_mimetype",
        "get_wsgi_headers",
        "get_wsgi_response",
    )
]


class FastPath:
    """Answers the requests to ``app``, a :class:`~nameko.web.server.WsgiApp` without middleware.

    ``guard`` is intact while ``app`` is not patched; then ``gateway`` handles the requests.
    """

    def __init__(self, app: Any, guard: PatchGuard, gateway: Gateway) -> None:
        self._app = app
        self._guard = guard
        self._gateway = gateway
        # The container itself, not an extension's weak proxy: worker contexts refer to it.
        self._container = app.server.container.interface
        self._pool = self._container.worker_pool
        # The methods called so far, by entrypoint; None for other extensions.
        self._methods: dict[Any, _Method | None] = {}
        # None if workers cannot start on the loop.
        self._start_guard: PatchGuard | None = self._container.inline_start_guard()
        self._reader: LoopReader | None = None

    def handle(self, http: HttpRequest) -> None:
        """Handles a request on a worker thread. Returns when the worker has ended, or is a
        coroutine, or waits for a free slot."""
        found = self._find(http)
        if found is None or not self._run(*found, http, on_loop=False):
            self._pool.handle(self._handle_message, http)

    def loop_requests(self) -> LoopRequests | None:
        """Returns the requests that start on the loop: those for ``async def`` methods, if nothing
        before their coroutines may block. Reads them until :meth:`close`."""
        table = self._app.table
        rules = {
            position
            for position, provider in enumerate(table.endpoints)
            if (method := self._method(provider)) is not None and method.is_coroutine
        }
        if not rules or table.routes is None or self._start_guard is None:
            return None
        requests = LoopRequests(table.routes, rules)
        self._reader = LoopReader(requests, self._handle_on_loop)
        return requests

    def close(self) -> None:
        """Handles no further requests on the loop."""
        if self._reader is not None:
            self._reader.close()

    def _handle_on_loop(self, http: HttpRequest) -> None:
        # Anything that was patched may block.
        guard = self._start_guard
        found = self._find(http) if guard is not None and guard.intact() else None
        if found is None or not self._run(*found, http, on_loop=True):
            try:
                self._pool.jobs.put(self.handle, http)
            except RuntimeError:
                pass  # the pool was stopped; a request that is dropped is answered with 503

    def _find(self, http: HttpRequest) -> tuple[_Method, dict[str, Any]] | None:
        """Returns the method for a request and its keyword arguments. None for the slow path."""
        found = self._app.find(http) if self._guard.intact() else None
        method = None if found is None else self._method(found[0])
        if found is None or method is None or not method.guard.intact():
            return None
        return method, found[1]

    def _run(
        self, method: _Method, kwargs: dict[str, Any], http: HttpRequest, on_loop: bool
    ) -> bool:
        """Runs a worker for a request. Returns False if the slow path has to report an error."""
        request = Request(http, self._gateway.make_environ, shallow=False)
        request.path_values = kwargs
        args = (request,)
        if not method.accepts(args, kwargs):
            return False
        try:
            worker_ctx = self._container.new_worker_context(method.provider, args, kwargs, {})
        except ContainerBeingKilled:
            return False
        except Exception as exc:
            self._answer(method, request, http, None, exc)
            return True
        handle_result = partial(self._handle_result, method, request, http)
        self._pool.run((worker_ctx, handle_result), on_loop)
        return True

    def _method(self, provider: Any) -> _Method | None:
        try:
            return self._methods[provider]
        except KeyError:
            has_guard = hasattr(type(provider), "patch_guard")
            method = self._methods[provider] = _Method(provider) if has_guard else None
            return method

    @nonblocking
    def _handle_result(
        self,
        method: _Method,
        request: Request,
        http: HttpRequest,
        worker_ctx: Any,
        result: Any,
        exc_info: Any,
    ) -> tuple[Any, Any]:
        """The ``handle_result`` of a worker."""
        exc = None if exc_info is None else exc_info[1]
        thread = None
        if worker_ctx._has_hooks and self._container.has_result_hooks():
            # They observe the result before the client.
            thread = self._container.worker_threads.get(worker_ctx)
        if thread is None:
            self._answer(method, request, http, result, exc)
        else:
            thread.link(self._answer_at_end, method, request, http, result, exc)
        return result, exc_info

    def _answer_at_end(
        self,
        thread: Any,
        method: _Method,
        request: Request,
        http: HttpRequest,
        result: Any,
        exc: BaseException | None,
    ) -> None:
        """Answers a request whose worker has ended."""
        if isinstance(thread.exc, ThreadKilled):
            http.abort()
        else:
            self._answer(method, request, http, result, thread.exc or exc)

    def _answer(
        self,
        method: _Method,
        request: Request,
        http: HttpRequest,
        result: Any,
        exc: BaseException | None,
    ) -> None:
        exchange = Exchange(http)
        respond: Callable[..., None]
        if (method.result_guard if exc is None else method.error_guard).intact():
            respond = self._respond
        else:
            respond = self._respond_by_job
        self._gateway.attempt(exchange, respond, exchange, method, request, result, exc)

    def _respond(
        self,
        exchange: Exchange,
        method: _Method,
        request: Request,
        result: Any,
        exc: BaseException | None,
    ) -> None:
        """Responds to a request in the worker, or on the loop."""
        response: Any = None
        if exc is None:
            try:
                if isinstance(result, (str, tuple)) and self._send_text(exchange, result):
                    return
                response = method.provider.response_from_result(result)
            except Exception as error:
                return self._respond_by_job(exchange, method, request, result, error)
        else:
            response = method.response_from_exception(exc)
        if _is_buffered(response):
            self._send(exchange, request, response)
        else:
            self._run_by_job(exchange, self._send, exchange, request, response)

    def _send_text(self, exchange: Exchange, result: Any) -> bool:
        """Sends the result of a method, if werkzeug would not change its status and headers."""
        status, headers, text = response_parts(result)
        line = _STATUS_LINES.get(status) if isinstance(status, int) else None
        if line is None:
            return False
        return exchange.send_text(line, headers, text, _TEXT_TYPE)

    def _respond_by_job(self, exchange: Exchange, *args: Any) -> None:
        self._run_by_job(exchange, self._call_hooks, exchange, *args)

    def _call_hooks(
        self,
        exchange: Exchange,
        method: _Method,
        request: Request,
        result: Any,
        exc: BaseException | None,
    ) -> None:
        """Responds to a request after the worker, with hooks that may block."""
        response: Any = None
        if exc is None:
            try:
                response = method.provider.response_from_result(result)
            except Exception as error:
                exc = error
        if exc is not None:
            response = method.response_from_exception(exc)
        self._send(exchange, request, response)

    def _run_by_job(self, exchange: Exchange, step: Callable[..., None], *args: Any) -> None:
        """Runs a step that may block, after the worker and outside of the loop."""
        job = partial(self._gateway.attempt, exchange, step)
        try:
            self._pool.jobs.put(partial(self._pool.handle, job, *args[:-1]), args[-1])
        except RuntimeError:
            # The pool was stopped.
            step(*args)

    def _handle_message(self, http: HttpRequest) -> None:
        """The slow path: calls the hook ``handle_request``."""
        if not self._guard.intact():
            return self._gateway(http)
        exchange = Exchange(http)
        return self._gateway.attempt(exchange, self._handle_request, exchange)

    def _handle_request(self, exchange: Exchange) -> None:
        request = Request(exchange.request, self._gateway.make_environ, shallow=True)
        response = self._app.response(request, exchange.request)
        self._send(exchange, request, response)

    def _send(self, exchange: Exchange, request: Request, response: Any) -> None:
        """Sends a response, a WSGI application."""
        if _is_buffered(response):
            # This is all that it looks at.
            environ = {"REQUEST_METHOD": exchange.request.method}
        else:
            environ = exchange.environ = request.environ
        self._gateway.call(response, exchange, environ)


class _Method:
    """A method that the fast path can call while ``guard`` is intact."""

    __slots__ = ("accepts", "error_guard", "guard", "is_coroutine", "provider", "result_guard")

    def __init__(self, provider: Any) -> None:
        self.provider = provider
        signature = provider.signature()
        self.accepts = signature.accepts
        self.is_coroutine = inspect.iscoroutinefunction(signature.fn)
        self.guard: PatchGuard = provider.patch_guard()
        # Intact while results, or exceptions, are converted to responses without user code.
        self.result_guard: PatchGuard
        self.error_guard: PatchGuard
        self.result_guard, self.error_guard = provider.response_guards(_RESPONSE_HOOKS)

    def response_from_exception(self, exc: BaseException) -> Any:
        """Returns the response to an exception. Raises those that end a process or a thread."""
        if not isinstance(exc, Exception):
            raise exc
        return self.provider.response_from_exception(exc)


def _is_buffered(response: Any) -> bool:
    """Whether a response has its whole body and can be sent without blocking."""
    return (
        type(response) is Response
        and response.is_sequence
        and not response._on_close
        # These may be made absolute, by the host of the request.
        and "Location" not in response.headers
        and "Content-Location" not in response.headers
    )
