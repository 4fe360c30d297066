"""The entrypoint ``@http`` for HTTP requests."""

from __future__ import annotations

from functools import partial as partial
from logging import getLogger
from typing import Any

from werkzeug.routing import Rule
from werkzeug.wrappers import Request, Response

from nameko._nameko import PatchGuard
from nameko.containers import ServiceContainer
from nameko.exceptions import BadRequest as BadRequest
from nameko.exceptions import serialize as serialize
from nameko.extensions import Entrypoint as Entrypoint
from nameko.utils.patch_guard import guarded_methods, methods_of
from nameko.utils.threads import Event as Event
from nameko.web.server import WebServer
from nameko.web.stages import response_parts
from nameko.web.sync_entrypoint import SyncEntrypoint, error_response, run_worker
from nameko.workers import nonblocking

_log = getLogger(__name__)


class HttpRequestHandler(SyncEntrypoint):
    """Runs the method for requests to a URL: ``@http("GET", "/orders/<int:order_id>")``.

    ``method`` is an HTTP method or a comma-separated list, ``url`` a werkzeug rule. The method
    takes the werkzeug request and the values of the rule. It returns a body, ``(status, body)``,
    ``(status, headers, body)`` or a werkzeug response.
    """

    server = WebServer()

    def __init__(self, method: str, url: str, **kwargs: Any) -> None:
        self.method = method
        self.url = url
        super().__init__(**kwargs)

    def get_url_rule(self) -> Rule:
        """Returns the rule of the requests for this method."""
        return Rule(self.url, methods=self.method.split(","))

    def setup(self) -> None:
        self.server.register_provider(self)

    def stop(self) -> None:
        self.server.unregister_provider(self)
        super().stop()

    def get_entrypoint_parameters(self, request: Request) -> tuple[Any, Any]:
        """Returns the positional and keyword arguments of the method."""
        return (request,), request.path_values  # type: ignore[attr-defined]

    @nonblocking
    def handle_request(self, request: Request) -> Any:
        """Runs a worker for the request and returns the response, a WSGI application.

        The worker has ended on return, so that dependencies observe its result before the client.
        """
        request.shallow = False
        try:
            context_data = self.server.context_data_from_headers(request)
            args, kwargs = self.get_entrypoint_parameters(request)

            self.check_signature(args, kwargs)
            result = run_worker(self, args, kwargs, context_data)
            return self.response_from_result(result)
        except Exception as exc:
            return self.response_from_exception(exc)

    def response_from_result(self, result: Any) -> Response:
        """Converts the result of the method to a response."""
        if isinstance(result, Response):
            return result

        status, headers, payload = response_parts(result)
        return Response(payload, status=status, headers=headers)

    def response_from_exception(self, exc: Exception) -> Response:
        """Converts an exception of the method, or of the call to it, to a response."""
        return error_response(exc, self.expected_exceptions)

    def patch_guard(self) -> PatchGuard:
        """Returns the guard of the hooks that the fast path skips."""
        service_cls, method_name = self.container.service_cls, str(self.method_name)
        return PatchGuard(
            [
                (globals(), "run_worker", run_worker),
                *guarded_methods(self.container.interface, _CONTAINER_HOOKS),
                *guarded_methods(self.server, _SERVER_HOOKS),
                *guarded_methods(self, _HANDLER_HOOKS),
                (service_cls, method_name, getattr(service_cls, method_name)),
            ]
        )

    def response_guards(self, others: list[tuple[Any, str, Any]]) -> tuple[PatchGuard, PatchGuard]:
        """Returns the guards of the hooks that convert results and exceptions to responses, and of
        ``others``."""
        response = (globals(), "Response", Response)
        return (
            PatchGuard([response, *guarded_methods(self, _RESULT_HOOKS), *others]),
            PatchGuard([response, _ERROR_FUNCTION, *guarded_methods(self, _ERROR_HOOKS), *others]),
        )


http = HttpRequestHandler.decorator

# The hooks of the slow path as defined here, recorded before anything can patch them.
_CONTAINER_HOOKS = methods_of(ServiceContainer, "spawn_worker")
_SERVER_HOOKS = methods_of(WebServer, "context_data_from_headers")
_HANDLER_HOOKS = methods_of(
    HttpRequestHandler,
    "handle_request",
    "get_entrypoint_parameters",
    "check_signature",
    "handle_result",
    "handle_result_is_nonblocking",
)
_RESULT_HOOKS = methods_of(HttpRequestHandler, "response_from_result")
_ERROR_HOOKS = methods_of(HttpRequestHandler, "response_from_exception")
_ERROR_FUNCTION = (globals(), "error_response", error_response)
