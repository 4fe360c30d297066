"""The entrypoint ``@http`` for HTTP requests."""

from __future__ import annotations

from functools import partial as partial
from logging import getLogger
from typing import Any

from werkzeug.routing import Rule
from werkzeug.wrappers import Request, Response

from nameko.exceptions import BadRequest as BadRequest
from nameko.exceptions import serialize as serialize
from nameko.extensions import Entrypoint as Entrypoint
from nameko.utils.threads import Event as Event
from nameko.web.server import WebServer
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

        status: Any = 200
        headers = None
        payload = result
        if isinstance(result, tuple):
            if len(result) == 3:
                status, headers, payload = result
            else:
                status, payload = result

        if not isinstance(payload, str):
            raise TypeError("Payload must be a string. Got `{!r}`".format(payload))

        return Response(payload, status=status, headers=headers)

    def response_from_exception(self, exc: Exception) -> Response:
        """Converts an exception of the method, or of the call to it, to a response."""
        return error_response(exc, self.expected_exceptions)


http = HttpRequestHandler.decorator
