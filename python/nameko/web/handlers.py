"""The entrypoint ``@http``: a request in, a worker, a response out."""

from __future__ import annotations

from logging import getLogger
from typing import Any

from werkzeug.routing import Rule
from werkzeug.wrappers import Request, Response

from nameko.exceptions import BadRequest, serialize
from nameko.web.server import WebServer
from nameko.web.sync_entrypoint import SyncEntrypoint, run_worker
from nameko.workers import nonblocking

_log = getLogger(__name__)


class HttpRequestHandler(SyncEntrypoint):
    """Runs the method for requests to a URL: ``@http("GET", "/orders/<int:order_id>")``.

    ``method``: one HTTP method, or several with commas between them. ``url``: a rule of werkzeug.
    The method gets the werkzeug request and the rule's values. It returns a body, ``(status,
    body)``, ``(status, headers, body)`` or a werkzeug response.
    """

    server = WebServer()

    def __init__(self, method: str, url: str, **kwargs: Any) -> None:
        self.method = method
        self.url = url
        super().__init__(**kwargs)

    def get_url_rule(self) -> Rule:
        """The rule that says which requests are for this method."""
        return Rule(self.url, methods=self.method.split(","))

    def setup(self) -> None:
        self.server.register_provider(self)

    def stop(self) -> None:
        self.server.unregister_provider(self)
        super().stop()

    def get_entrypoint_parameters(self, request: Request) -> tuple[Any, Any]:
        """The positional and the keyword arguments of the method."""
        return (request,), request.path_values  # type: ignore[attr-defined]

    @nonblocking
    def handle_request(self, request: Request) -> Any:
        """Run a worker for the request. Returns the response, a WSGI application.

        The worker is over by then, so that dependencies have seen its result before the client.
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
        """The response for what the method returned."""
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
        """The response for what the method raised, or what made it impossible to call it."""
        # A class, or a tuple of any depth, as isinstance() takes it.
        expected = isinstance(exc, (self.expected_exceptions, BadRequest))
        payload = "Error: {exc_type}: {value}\n".format(**serialize(exc))
        return Response(payload, status=400 if expected else 500)


http = HttpRequestHandler.decorator
