"""Entrypoints of the web server that wait for their worker."""

from __future__ import annotations

from functools import partial
from typing import Any

from werkzeug.wrappers import Response

from nameko.exceptions import BadRequest, serialize
from nameko.extensions import Entrypoint
from nameko.utils.threads import Event
from nameko.workers import handle_result_is_nonblocking, nonblocking


class SyncEntrypoint(Entrypoint):
    """An entrypoint that waits for its workers, see :func:`run_worker`."""

    @nonblocking
    def handle_result(self, event: Event, worker_ctx: Any, result: Any, exc_info: Any) -> Any:
        """Passes the result to :func:`run_worker`, and returns it for the dependencies."""
        event.send(result, exc_info)
        return result, exc_info

    def handle_result_is_nonblocking(self) -> bool:
        """Whether an asyncio loop may call :meth:`handle_result`: it must not be overridden."""
        return handle_result_is_nonblocking(self)


def run_worker(entrypoint: Any, args: Any, kwargs: Any, context_data: dict[str, Any]) -> Any:
    """Runs a worker of ``entrypoint`` and returns its result or raises its exception.

    The worker runs on this thread if its handler is :func:`~nameko.workers.nonblocking`. It has
    ended on return, so that dependencies observe the result before the client does.
    """
    event = Event()
    worker_ctx = entrypoint.container.spawn_worker(
        entrypoint,
        args,
        kwargs,
        context_data=context_data,
        handle_result=partial(entrypoint.handle_result, event),
    )
    try:
        return event.wait()
    finally:
        # On another thread, the worker may still be running. One of a killed container may never
        # end.
        worker = entrypoint.container.worker_threads.get(worker_ctx)
        if worker is not None and not worker.killed:
            worker.wait()


def error_response(exc: Exception, expected_exceptions: Any) -> Response:
    """Returns the response to an exception of a method: status 400 if it is expected, else 500."""
    # As for isinstance(), expected_exceptions is a class or a nested tuple.
    expected = isinstance(exc, (expected_exceptions, BadRequest))
    payload = "Error: {exc_type}: {value}\n".format(**serialize(exc))
    return Response(payload, status=400 if expected else 500)
