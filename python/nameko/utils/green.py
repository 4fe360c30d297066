"""Waits in a process whose threads gevent or eventlet has replaced by greenlets.

A wait of the compiled half blocks its thread, and all greenlets with it. The waits of standalone
clients go through this module, where a patched function waits or another thread does. Services run
on real threads, so they are refused in such a process.
"""

from __future__ import annotations

import _thread
import select
from collections.abc import Callable
from typing import Any, TypeVar

from nameko._nameko import Completions, Pending

T = TypeVar("T")


def library() -> str | None:
    """Returns the library that has replaced threads, ``gevent`` or ``eventlet``; else None."""
    module = getattr(_thread.start_new_thread, "__module__", None) or ""
    name = module.partition(".")[0]
    return name if name in ("gevent", "eventlet") else None


def wait(pending: Pending, timeout: float | None) -> float | None:
    """Waits for a result while other greenlets run, at most ``timeout`` seconds.

    Returns the rest of the timeout. With real threads it returns at once.
    """
    if library() is None:
        return timeout
    completions = Completions()
    pending.add_done_callback(completions, bool)
    # Patched, like threads. `completions` is readable once there is a result.
    select.select([completions], [], [], timeout)
    return 0.0


def run(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Calls a compiled function that blocks its thread, while other greenlets run."""
    name = library()
    if name == "gevent":
        import gevent

        return gevent.get_hub().threadpool.apply(function, args, kwargs)
    if name == "eventlet":
        from eventlet import tpool

        return tpool.execute(function, *args, **kwargs)
    return function(*args, **kwargs)
