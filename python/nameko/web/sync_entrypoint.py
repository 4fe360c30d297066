"""Entrypoints of the web server that wait for the worker of a request."""

from __future__ import annotations

from functools import partial
from typing import Any

from nameko.extensions import Entrypoint
from nameko.utils.threads import Event
from nameko.workers import handle_result_is_nonblocking, nonblocking


class SyncEntrypoint(Entrypoint):
    """An entrypoint whose workers are waited for, see :func:`run_worker`."""

    @nonblocking
    def handle_result(self, event: Event, worker_ctx: Any, result: Any, exc_info: Any) -> Any:
        """Hand the worker's result to who waits for it. Returns what dependencies see of it."""
        event.send(result, exc_info)
        return result, exc_info

    def handle_result_is_nonblocking(self) -> bool:
        """Whether :meth:`handle_result` returns at once, so that an asyncio loop may call it: it
        does where nobody has put another in its place."""
        return handle_result_is_nonblocking(self)


def run_worker(entrypoint: Any, args: Any, kwargs: Any, context_data: dict[str, Any]) -> Any:
    """Run a worker of ``entrypoint``, on this thread where it is a
    :func:`~nameko.workers.nonblocking` one; what it returned or raised.

    The worker is over by then: its dependencies have seen the result before the client does.
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
        # Where another thread has it, it may be still at it. One of a container that was killed may
        # never end.
        worker = entrypoint.container.worker_threads.get(worker_ctx)
        if worker is not None and not worker.killed:
            worker.wait()
