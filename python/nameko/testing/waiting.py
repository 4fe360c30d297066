"""Waiting for the call of a method."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Semaphore as Semaphore
from typing import Any
from unittest.mock import patch


class WaitResult:
    """The result or exception of the awaited call."""

    class NotReady(Exception):
        """The call has not happened yet."""

    sentinel = object()

    res: Any = sentinel
    exc_info: Any = None

    @property
    def has_result(self) -> bool:
        return self.res is not self.sentinel or self.exc_info is not None

    def send(self, res: Any, exc_info: Any) -> None:
        if not self.has_result:
            self.res = res
            self.exc_info = exc_info

    def get(self) -> Any:
        """Returns the result or raises the exception. NotReady before the call."""
        if not self.has_result:
            raise WaitResult.NotReady()
        if self.exc_info is not None:
            raise self.exc_info[1].with_traceback(self.exc_info[2])
        return self.res


@contextmanager
def wait_for_call(
    obj: Any, target: str, callback: Callable[..., Any] | None = None
) -> Iterator[WaitResult]:
    """Waits at the end of a block until ``obj.target`` has been called.

    ``callback(args, kwargs, res, exc_info)`` is called for each call; the wait ends when it returns
    a true value.
    """
    released = threading.Event()
    result = WaitResult()
    with watch_calls(obj, target, callback, result, released.set):
        yield result
        released.wait()


@contextmanager
def watch_calls(
    obj: Any,
    target: str,
    callback: Callable[..., Any] | None,
    result: WaitResult,
    release: Callable[[], Any],
) -> Iterator[None]:
    """Observes calls of ``obj.target`` during a block.

    For each call that ``callback`` accepts, stores the outcome in ``result`` and calls ``release``.
    """
    unpatched = getattr(obj, target)

    def wraps(*args: Any, **kwargs: Any) -> Any:
        res = exc_info = None
        try:
            res = unpatched(*args, **kwargs)
        except Exception:
            exc_info = sys.exc_info()
        if not callable(callback) or callback(args, kwargs, res, exc_info):
            result.send(res, exc_info)
            release()
        if exc_info is not None:
            raise exc_info[1].with_traceback(exc_info[2])  # type: ignore[union-attr]
        return res

    with patch.object(obj, target, new=wraps):
        yield
