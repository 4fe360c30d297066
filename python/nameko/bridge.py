"""Coroutines that the thread of a worker waits for."""

from __future__ import annotations

import asyncio
import contextvars
import queue
from collections.abc import Callable, Coroutine
from typing import Any

from nameko import loop
from nameko.utils.threads import ThreadKilled
from nameko.workers import WorkerThread


class Bridge:
    """Runs one coroutine on the process's loop while the calling thread waits for it.

    The coroutine may run functions on the waiting thread with :meth:`call`. A kill of ``handle``
    cancels the coroutine; without a handle it runs to its end.
    """

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], handle: WorkerThread | None = None
    ) -> None:
        self._handle = handle
        # The coroutine runs in a copy of the thread's context.
        self._context = contextvars.copy_context()
        self._coroutine = loop.CoroutineRun(coroutine, self._context, self._on_done)
        # Functions to run on the waiting thread, then None once the coroutine has ended.
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._ended = False
        self._result: Any = None
        self._exc: BaseException | None = None

    def run(self) -> Any:
        """Returns the result of the coroutine or raises its exception.

        Its changes to context variables apply to the thread, too. Raises ThreadKilled if the worker
        was killed.
        """
        self._suspend()
        self._coroutine.start()
        try:
            while (call := self._calls.get()) is not None:
                self._resume()
                call()
                self._suspend()
        except ThreadKilled:
            self.cancel()
            raise
        self._resume()
        for variable, value in self._context.items():
            if variable.get(_UNSET) is not value:
                variable.set(value)
        if self._exc is not None:
            raise self._exc
        return self._result

    def cancel(self) -> None:
        """Cancels the coroutine, from any thread."""
        self._coroutine.cancel()

    async def call(self, function: Callable[[], Any], cancel: Callable[[], None]) -> Any:
        """Runs ``function()`` on the waiting thread. Awaited by the coroutine, one at a time.

        A cancellation calls ``cancel()``, and the end of ``function`` is awaited nevertheless.
        """
        if self._ended:
            raise RuntimeError("the coroutine that this belongs to has ended")
        running = asyncio.get_running_loop()
        done: asyncio.Future[Any] = running.create_future()

        def run() -> None:
            result = error = None
            try:
                result = function()
            except ThreadKilled:
                running.call_soon_threadsafe(_finish, done, None, asyncio.CancelledError())
                raise
            except BaseException as exc:
                error = exc
            running.call_soon_threadsafe(_finish, done, result, error)

        self._calls.put(run)
        while not done.done():
            try:
                await asyncio.wait([done])
            except asyncio.CancelledError:
                cancel()
        result, error = done.result()
        if error is not None:
            raise error
        return result

    def _on_done(self, result: Any, exc: BaseException | None) -> None:
        self._result, self._exc, self._ended = result, exc, True
        self._calls.put(None)

    def _suspend(self) -> None:
        if self._handle is not None:
            self._handle.enter_coroutine(self._coroutine)

    def _resume(self) -> None:
        if self._handle is not None:
            self._handle.leave_coroutine()


def _finish(done: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    # As a value, because a future refuses some exceptions.
    done.set_result((result, error))


_UNSET: Any = object()
