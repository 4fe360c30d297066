"""Waiting until something has been called."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch


class WaitResult:
    """What the call that was waited for returned or raised."""

    class NotReady(Exception):
        """There was no such call yet."""

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
        """The result, or raise the exception. NotReady where there is neither."""
        if not self.has_result:
            raise WaitResult.NotReady()
        if self.exc_info is not None:
            raise self.exc_info[1].with_traceback(self.exc_info[2])
        return self.res


@contextmanager
def wait_for_call(
    obj: Any, target: str, callback: Callable[..., Any] | None = None
) -> Iterator[WaitResult]:
    """The block ends once ``obj.target`` has been called.

    ``callback(args, kwargs, res, exc_info)`` is called for each call, and says with its truth
    whether this is the one.
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
    """Inside the block, put the outcome of the calls that ``callback`` approves into ``result`` and
    call ``release`` for each of them."""
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
