"""A substitute for eventlet on real threads, for upstream's tests only.

Tests yield to other green threads with ``sleep()``, which lets other threads run for a moment here.
"""

import os
import signal
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

# Seconds for other threads to make progress during a sleep().
_YIELD_TIME = 0.03


_sleep = time.sleep


def sleep(seconds: float = 0) -> None:
    _sleep(max(seconds, _YIELD_TIME))


# Upstream's `nameko test` patches it as well: tests call time.sleep() without an argument.
time.sleep = lambda seconds=_YIELD_TIME: _sleep(seconds)


# Green threads run on the main thread, which can set signal handlers. Real threads cannot, so their
# handlers of SIGTERM are stored here, and called by the handler of the main thread.
_signal = signal.signal
_handlers = {signal.SIGTERM: signal.SIG_DFL}


def _signal_of_any_thread(signum, handler):
    if threading.current_thread() is threading.main_thread():
        return _signal(signum, handler)
    before = _handlers.get(signum, signal.SIG_DFL)
    _handlers[signum] = handler
    return before


def _handle(signum, frame):
    handler = _handlers[signum]
    if callable(handler):
        handler(signum, frame)
    else:
        _signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)


_signal(signal.SIGTERM, _handle)
signal.signal = _signal_of_any_thread


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
    """A no-op."""
