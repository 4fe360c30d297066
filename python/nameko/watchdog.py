"""Detection of coroutines that block an asyncio loop."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import traceback
from collections.abc import Callable
from itertools import dropwhile
from logging import getLogger
from types import FrameType

from nameko._nameko import current_frame

_log = getLogger(__name__)

# Seconds that one step of a coroutine, or one callback, may block a loop. Detected within 1.5 times
# as long.
THRESHOLD = 1.0


class Watchdog:
    """Logs warnings about tasks that block ``loop``, which runs in the thread ``ident``.

    A background thread probes the loop twice in :data:`THRESHOLD` seconds while ``has_work()``, and
    sleeps until :meth:`wake` otherwise. Coroutines on the loop have no overhead.

    ``describe_task(task)`` returns the name of a task for a warning, of a callback for None.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ident: int,
        has_work: Callable[[], bool],
        describe_task: Callable[[asyncio.Task[object] | None], str],
    ) -> None:
        self._loop = loop
        self._ident = ident
        self._has_work = has_work
        self._describe_task = describe_task
        # Set while the loop may have work.
        self._awake = threading.Event()
        # Lives as long as the process, like the loop.
        self._thread = threading.Thread(
            target=self._watch, name="nameko-loop-watchdog", daemon=True
        )
        self._thread.start()

    def wake(self) -> None:
        """Reports that the loop has work, from any thread."""
        if not self._awake.is_set():
            self._awake.set()

    def _watch(self) -> None:
        while not self._loop.is_closed():
            self._awake.clear()
            # In the other order, work that arrives in between would be missed.
            if not self._has_work():
                self._awake.wait()
            time.sleep(THRESHOLD / 2)
            if self._has_work():
                try:
                    self._probe()
                except RuntimeError:
                    pass  # the loop was closed

    def _probe(self) -> None:
        alive = threading.Event()
        start = time.monotonic()
        self._loop.call_soon_threadsafe(alive.set)
        if alive.wait(THRESHOLD / 2):
            return
        suspect = asyncio.current_task(self._loop)
        if alive.wait(THRESHOLD / 2):
            return
        # Another task: the loop has many steps to run, but none of them blocks.
        if asyncio.current_task(self._loop) is not suspect:
            alive.wait()
            return
        name = self._describe_task(suspect)
        frame = current_frame(self._ident)
        _log.warning(
            "%s has blocked the asyncio loop of all `async def` methods for %g s; no other "
            "coroutine runs until it awaits something. Move blocking code into a method without "
            "`async` or into `await asyncio.to_thread(...)`. Current stack:\n%s",
            name,
            THRESHOLD,
            "".join(_stack(frame)).rstrip(),
        )
        alive.wait()
        _log.info(
            "%s blocked the asyncio loop for more than %.1f s", name, time.monotonic() - start
        )


def _stack(frame: FrameType | None) -> list[str]:
    """Returns the formatted frames of a loop's thread, without the frames of the loop."""
    frames = list(traceback.StackSummary.extract(traceback.walk_stack(frame)))
    frames.reverse()
    inner = dropwhile(lambda frame: frame.filename in _LOOP_FILES, frames)
    return traceback.format_list(list(inner) or frames)


# The files of the outermost frames of a loop's thread.
_LOOP_FILES = {
    os.path.join(os.path.dirname(__file__), "loop.py"),
    *(module.__file__ for module in (threading, asyncio.base_events, asyncio.events)),
}
