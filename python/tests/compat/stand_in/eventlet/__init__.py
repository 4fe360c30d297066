"""What upstream's tests import from eventlet, over real threads. Nothing in the package needs it.

Where green threads take turns, threads do not: a ``sleep()`` here lets the others run for a moment.
"""

import threading
import time

from nameko.utils.threads import ManagedThread
from nameko.utils.threads import spawn as _spawn

from . import event, greenpool, greenthread, patcher, queue, semaphore, timeout, wsgi
from .event import Event
from .greenpool import GreenPool
from .queue import Queue
from .timeout import Timeout

__all__ = [
    "Event",
    "GreenPool",
    "Queue",
    "Timeout",
    "event",
    "getcurrent",
    "greenpool",
    "greenthread",
    "monkey_patch",
    "patcher",
    "queue",
    "semaphore",
    "sleep",
    "spawn",
    "spawn_after",
    "spawn_n",
    "timeout",
    "wsgi",
]

# Long enough for other threads to get through what they are at (s).
_TURN = 0.01


_sleep = time.sleep


def sleep(seconds: float = 0) -> None:
    _sleep(max(seconds, _TURN))


# Upstream's `nameko test` does that too: tests call time.sleep() with nothing.
time.sleep = lambda seconds=_TURN: _sleep(seconds)


def spawn(fn, *args, **kwargs) -> ManagedThread:
    return _spawn(fn, *args, **kwargs)


def spawn_n(fn, *args, **kwargs) -> None:
    _spawn(fn, *args, **kwargs)


def spawn_after(seconds: float, fn, *args, **kwargs) -> threading.Timer:
    timer = threading.Timer(seconds, fn, args, kwargs)
    timer.daemon = True
    timer.start()
    return timer


def getcurrent() -> threading.Thread:
    return threading.current_thread()


def monkey_patch(*args, **kwargs) -> None:
    """Threads are threads already."""
