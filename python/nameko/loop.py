"""The process's asyncio loop, on which ``async def`` methods run, and RPC replies awaited on any
loop."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

from nameko._nameko import Completions, Pending

_lock = threading.Lock()
# Made when the first coroutine is run; it lives as long as the process.
_loop: asyncio.AbstractEventLoop | None = None

# What wakes each loop on which a reply is awaited. An entry goes with its loop.
_completions: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Completions] = (
    weakref.WeakKeyDictionary()
)


def process_loop() -> asyncio.AbstractEventLoop:
    """The loop, running in a daemon thread of its own."""
    global _loop
    if _loop is None:
        with _lock:
            if _loop is None:
                loop = asyncio.new_event_loop()
                threading.Thread(target=loop.run_forever, name="nameko-loop", daemon=True).start()
                _loop = loop
    return _loop


def submit(coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
    """Start a coroutine on the process's loop, in a copy of the caller's context."""
    return asyncio.run_coroutine_threadsafe(coroutine, process_loop())


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop that runs in this thread, if one does."""
    return asyncio._get_running_loop()


def when_done(
    pending: Pending, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]
) -> None:
    """Call ``callback()`` on ``loop``, in its thread, once ``pending`` is done."""
    completions = _completions.get(loop)
    if completions is None:
        completions = _completions[loop] = Completions()
        loop.add_reader(completions.fileno(), completions.run)
    pending.add_done_callback(completions, callback)


async def wait_done(pending: Pending, timeout: float | None = None) -> None:
    """Wait on the running loop until ``pending`` is done; ``TimeoutError`` after ``timeout`` s."""
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
