"""Logging helpers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any


def make_timing_logger(
    logger: logging.Logger, precision: int = 3, level: int = logging.DEBUG
) -> Callable[..., AbstractContextManager[None]]:
    """Returns a context manager factory that logs the duration of a block.

    ::

        log_time = make_timing_logger(logger, level=logging.INFO, precision=2)
        with log_time("hello %s", "world"):
            ...
        # INFO hello world in 1.00s
    """

    @contextmanager
    def log_time(msg: str, *args: Any) -> Iterator[None]:
        start_time = time.time()
        try:
            yield
        finally:
            message = "{} in %0.{}fs".format(msg, precision)
            duration = time.time() - start_time
            logger.log(level, message, *args, duration)

    return log_time
