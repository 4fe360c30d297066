"""Setup of the compiled half: its log records and its shutdown."""

from __future__ import annotations

import atexit
import functools
import logging

from nameko import _nameko

# Registered at import, so that it runs after the handlers of programs, which may use connections.
atexit.register(_nameko.finalize)


@functools.cache
def set_up() -> None:
    """Sets up the compiled half, once per process, before its first connection or listener."""
    forward_logs()


def forward_logs() -> None:
    """Forwards log records of the compiled half to ``logging``."""
    _nameko.on_log(_log_record, logging.INFO)


def _log_record(level: int, logger: str, text: str) -> None:
    logging.getLogger(logger).log(level, "%s", text)
