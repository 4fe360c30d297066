"""The asyncio loop of the process, which runs ``async def`` methods, and wakeups of any loop."""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from logging import getLogger
from typing import Any

from nameko._nameko import Completions, Pending, flush_replies, hold_replies
from nameko.utils.threads import Event
from nameko.watchdog import Watchdog

_log = getLogger(__name__)

_lock = threading.Lock()
# Created for the first coroutine. Lives as long as the process.
_loop: asyncio.AbstractEventLoop | None = None
_watchdog: Watchdog | None = None

# The WorkerContext, in the context of a worker's coroutine and of the tasks that it starts.
worker: contextvars.ContextVar[Any] = contextvars.ContextVar("nameko_worker", default=None)

# The wakeups of each loop that awaits a reply. An entry is removed with its loop.
_completions: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Completions] = (
    weakref.WeakKeyDictionary()
)


def process_loop() -> asyncio.AbstractEventLoop:
    """Returns the loop, which runs in a daemon thread."""
    global _loop, _watchdog
    if _loop is None:
        with _lock:
            if _loop is None:
                loop = _new_loop()
                serve = partial(_serve, loop)
                thread = threading.Thread(target=serve, name="nameko-loop", daemon=True)
                thread.start()
                _watchdog = Watchdog(loop, thread.ident or 0, _has_work, _describe_task)
                _loop = loop
    return _loop


def _new_loop() -> asyncio.AbstractEventLoop:
    """Returns a loop of uvloop, if that is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def _reset_after_fork() -> None:
    """Resets the state in a forked child, which has neither the loop's thread nor its tasks."""
    global _loop, _lock, _watchdog, _start_scheduled, _running_count, _replies_held
    _loop, _lock, _watchdog = None, threading.Lock(), None
    _start_scheduled, _running_count, _replies_held = False, 0, False
    _pending_runs.clear()
    _completions.clear()


os.register_at_fork(after_in_child=_reset_after_fork)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    """Runs the loop and restarts it if it is stopped: it runs all coroutines of the process."""
    while not loop.is_closed():
        try:
            loop.run_forever()
        # The loop raises sys.exit() of a callback or of a user's task.
        except BaseException:
            _log.error(
                "the asyncio loop of all `async def` methods was stopped by an exception in a task "
                "or a callback and is restarted",
                exc_info=True,
            )
        else:
            if not loop.is_closed():
                _log.error(
                    "the asyncio loop of all `async def` methods was stopped and is restarted: a "
                    "method must not stop the loop that it runs on"
                )


class CoroutineRun:
    """A run of a coroutine on the process's loop.

    ``done(result, exception)`` is called on the loop at its end.
    """

    __slots__ = ("_cancelled", "_context", "_coroutine", "_done", "_started", "_task")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, Any],
        context: contextvars.Context,
        done: Callable[[Any, BaseException | None], None],
    ) -> None:
        self._coroutine = coroutine
        self._context = context
        self._done = done
        self._started = False
        self._cancelled = False
        # Set on the loop.
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts the coroutine. Called once, from any thread."""
        global _start_scheduled
        if _loop is not None and asyncio._get_running_loop() is _loop:
            self._start_task(_loop)
            if _watchdog is not None:
                _watchdog.wake()
            return
        _pending_runs.append(self)
        if not _start_scheduled:
            _start_scheduled = True
            process_loop().call_soon_threadsafe(_start_pending)
            if _watchdog is not None:
                _watchdog.wake()

    def cancel(self) -> None:
        """Cancels the coroutine, from any thread."""
        self._cancelled = True
        process_loop().call_soon_threadsafe(self._cancel)

    def _start_task(self, loop: asyncio.AbstractEventLoop) -> None:
        global _running_count
        _running_count += 1
        if sys.version_info >= (3, 11):
            self._task = loop.create_task(self._run(), context=self._context)
        else:
            self._task = self._context.run(loop.create_task, self._run())

    def _cancel(self) -> None:
        # Before the start, _run() checks the flag.
        if self._started and self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        global _running_count
        self._started = True
        try:
            if self._cancelled:
                self._coroutine.close()
                raise asyncio.CancelledError()
            result = await self._coroutine
        # Every exception is passed to the waiter and never stops the loop.
        except BaseException as exc:
            self._done(None, exc)
        else:
            self._done(result, None)
        finally:
            _running_count -= 1


# Coroutines on the loop.
_running_count = 0

# Coroutines to start, and whether the loop is scheduled to start them.
_pending_runs: deque[CoroutineRun] = deque()
_start_scheduled = False


def _start_pending() -> None:
    global _start_scheduled
    # First, so that a coroutine added from now on schedules the next start.
    _start_scheduled = False
    loop = process_loop()
    while _pending_runs:
        _pending_runs.popleft()._start_task(loop)


def _has_work() -> bool:
    return bool(_running_count or _pending_runs)


def _describe_task(task: asyncio.Task[Any] | None) -> str:
    """Returns the name of a task in logs; None is a callback."""
    if task is None:
        return "A callback"
    coroutine = task.get_coro()
    name = getattr(coroutine, "__qualname__", repr(coroutine))
    # Available since Python 3.12.
    context = task.get_context() if hasattr(task, "get_context") else None
    if getattr(coroutine, "cr_code", None) is CoroutineRun._run.__code__:
        running = coroutine.cr_frame.f_locals["self"]  # type: ignore[union-attr]
        context, name = running._context, ""
    worker_ctx = None if context is None else context.get(worker)
    if worker_ctx is None:
        return "The task `{}`".format(name)
    method = "`{}.{}`".format(worker_ctx.service_name, worker_ctx.entrypoint.method_name)
    return "The task `{}` of {}".format(name, method) if name else method


def awaiting_loop(asynchronous: bool = False) -> asyncio.AbstractEventLoop | None:
    """Returns the loop of this thread if calls on it are awaited, or None.

    That is the loop of ``async def`` methods and, for an ``asynchronous`` client, any loop. Code on
    another loop may be written for Nameko 2, whose calls block.
    """
    running = asyncio._get_running_loop()
    return running if running is not None and (asynchronous or running is _loop) else None


def when_done(
    pending: Pending, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]
) -> None:
    """Calls ``callback()`` on ``loop``, in its thread, once ``pending`` is done."""
    completions = _completions.get(loop)
    if completions is None:
        completions = _completions[loop] = Completions()
        loop.add_reader(completions.fileno(), _run_callbacks, completions)
    pending.add_done_callback(completions, callback)


def _run_callbacks(completions: Completions) -> None:
    for callback in completions.take():
        callback()


class LoopReader:
    """Calls ``handle(item)`` on the process's loop for each item of a compiled queue, which has
    ``fileno()`` and ``take()``. Reads from its creation until :meth:`drain` or :meth:`close`."""

    def __init__(self, items: Any, handle: Callable[[Any], None]) -> None:
        self._items = items
        self._handle = handle
        self._closed = False
        loop = process_loop()
        loop.call_soon_threadsafe(loop.add_reader, items.fileno(), self._read)

    def drain(self) -> None:
        """Closes, and returns when the items that have arrived are handled."""
        drained = Event()
        process_loop().call_soon_threadsafe(self._drain, drained)
        drained.wait()

    def close(self) -> None:
        """Handles no further items."""
        self._closed = True
        # Holds the file descriptor until it is no longer watched.
        process_loop().call_soon_threadsafe(self._remove)

    def _read(self) -> None:
        for item in () if self._closed else self._items.take():
            try:
                self._handle(item)
            except BaseException:
                _log.exception("error starting the worker of a request")

    def _drain(self, drained: Event) -> None:
        self._read()
        self._remove()
        drained.send()

    def _remove(self) -> None:
        process_loop().remove_reader(self._items.fileno())


# Whether the loop holds replies.
_replies_held = False


def send_replies_together() -> None:
    """Sends the replies and responses of the loop from now on together, after the callbacks that
    are ready. Called on the loop."""
    global _replies_held
    if not _replies_held and _loop is not None:
        _replies_held = True
        hold_replies()
        _loop.call_soon(_flush_replies)


def _flush_replies() -> None:
    global _replies_held
    _replies_held = False
    flush_replies()


async def wait_done(pending: Pending, timeout: float | None = None) -> None:
    """Waits on the running loop until ``pending`` is done. TimeoutError after ``timeout`` s."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def callback() -> None:
        if not done.done():
            done.set_result(None)

    when_done(pending, loop, callback)
    try:
        await asyncio.wait_for(done, timeout) if timeout is not None else await done
    except asyncio.TimeoutError:
        raise TimeoutError("not done within {} seconds".format(timeout))
