"""Retries of failing functions."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from time import sleep
from typing import Any


class RetryDelay:
    """The delays between attempts, in seconds."""

    def __init__(self, delay: float, backoff: float, max_delay: float | None) -> None:
        self.delay = delay
        self.backoff = backoff
        self.max_delay = max_delay

    def next(self) -> float:
        if self.backoff:
            self.delay *= self.backoff
        if self.max_delay:
            return min(self.delay, self.max_delay)
        return self.delay


def retry(
    wrapped: Callable[..., Any] | None = None,
    for_exceptions: type[BaseException] | tuple[type[BaseException], ...] = Exception,
    max_attempts: float | None = 3,
    delay: float = 1,
    backoff: float = 1,
    max_delay: float | None = None,
) -> Any:
    """Decorator that calls a function again if it raises one of the exceptions.

    Retries at most ``max_attempts`` times, None for no limit. The delay starts at ``delay`` seconds
    and grows by the factor ``backoff`` up to ``max_delay``.
    """
    if wrapped is None:
        return functools.partial(
            retry,
            for_exceptions=for_exceptions,
            max_attempts=max_attempts,
            delay=delay,
            backoff=backoff,
            max_delay=max_delay,
        )
    fn = wrapped
    limit = float("inf") if max_attempts is None else max_attempts
    retry_delay = RetryDelay(delay, backoff, max_delay)

    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        counter = itertools.count()
        while True:
            try:
                return fn(*args, **kwargs)
            except for_exceptions:
                if next(counter) == limit:
                    raise
                sleep(retry_delay.next())

    return wrapper
