"""Tells which coroutine keeps an asyncio loop from running the others."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from itertools import dropwhile
from logging import getLogger
from types import FrameType

_log = getLogger(__name__)

# How long (s) a loop may be kept by one step of a coroutine, or by one callback. It is noticed
# within half as much again.
THRESHOLD = 1.0


class Watchdog:
    """Warns of what blocks ``loop``, which runs in the thread ``ident``.

    A thread of its own asks the loop for a sign of life, twice in :data:`THRESHOLD` seconds, and
    only while ``has_work()``: otherwise it sleeps until :meth:`wake`. What runs on the loop pays
    nothing for it.

    ``name_of(task)`` is what a warning calls a task; of None, what runs in no task.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ident: int,
        has_work: Callable[[], bool],
        name_of: Callable[[asyncio.Task[object] | None], str],
    ) -> None:
        self._loop = loop
        self._ident = ident
        self._has_work = has_work
        self._name_of = name_of
        # Set while there is something to watch.
        self._wanted = threading.Event()
        # As the loop, it lives as long as the process.
        self._thread = threading.Thread(
            target=self._watch, name="nameko-loop-watchdog", daemon=True
        )
        self._thread.start()

    def wake(self) -> None:
        """The loop has work. From any thread."""
        if not self._wanted.is_set():
            self._wanted.set()

    def _watch(self) -> None:
        while not self._loop.is_closed():
            self._wanted.clear()
            # The other order would miss work that comes in between.
            if not self._has_work():
                self._wanted.wait()
            time.sleep(THRESHOLD / 2)
            if self._has_work():
                try:
                    self._look()
                except RuntimeError:
                    pass  # it was closed meanwhile

    def _look(self) -> None:
        alive = threading.Event()
        began = time.monotonic()
        self._loop.call_soon_threadsafe(alive.set)
        if alive.wait(THRESHOLD / 2):
            return
        suspect = asyncio.current_task(self._loop)
        if alive.wait(THRESHOLD / 2):
            return
        # Another task now: there are many steps to do, but none of them takes long.
        if asyncio.current_task(self._loop) is not suspect:
            alive.wait()
            return
        name = self._name_of(suspect)
        frame = sys._current_frames().get(self._ident)
        _log.warning(
            "%s has blocked the asyncio loop of all `async def` methods for %g s, and no other "
            "goes on until it awaits something. What blocks belongs in a method without `async`, "
            "or in `await asyncio.to_thread(...)`. It is here:\n%s",
            name,
            THRESHOLD,
            "".join(_stack(frame)).rstrip(),
        )
        alive.wait()
        _log.info(
            "%s blocked the asyncio loop for more than %.1f s", name, time.monotonic() - began
        )


def _stack(frame: FrameType | None) -> list[str]:
    """The frames that run on the loop, without the loop's own."""
    frames = list(traceback.StackSummary.extract(traceback.walk_stack(frame)))
    frames.reverse()
    inner = dropwhile(lambda each: each.filename in _OWN, frames)
    return traceback.format_list(list(inner) or frames)


# The files of the frames that a loop's thread begins with.
_OWN = {
    os.path.join(os.path.dirname(__file__), "loop.py"),
    *(module.__file__ for module in (threading, asyncio.base_events, asyncio.events)),
}
