"""The access log: one line per request, by the logger ``nameko.web.server``."""

from __future__ import annotations

import logging
import time
from typing import Any

from nameko._nameko import HttpRequest, PatchGuard

_log = logging.getLogger("nameko.web.server")

_FORMAT = '%s - - [%s] "%s %s %s" %s %s %.6f'

# The time of the latest line, in seconds and as a text.
_latest: tuple[int, str] = (0, "")


def log_access(http: HttpRequest, environ: dict[str, Any] | None, status: str, sent: int) -> None:
    """Logs a complete response of ``sent`` bytes.

    ``environ`` is the one of a WSGI application, which may have changed it.
    """
    if not _is_observed():
        return
    client, method, target, protocol, seconds = http.access()
    if environ is not None:
        client = environ["REMOTE_ADDR"]
        forwarded = environ.get("HTTP_X_FORWARDED_FOR", "").replace(" ", "")
        if forwarded:
            client = "{},{}".format(forwarded, client)
        method, target = environ["REQUEST_METHOD"], environ["REQUEST_URI"]
        protocol = environ["SERVER_PROTOCOL"]
    _emit((client, _now(), method, target, protocol, status[:3], sent, seconds))


def _is_observed() -> bool:
    """Whether a handler or a filter would see a line."""
    if not _log.isEnabledFor(logging.INFO):
        return False
    if _log.filters:
        return True
    logger: logging.Logger | None = _log
    while logger is not None:
        for handler in logger.handlers:
            if handler.level <= logging.INFO:
                return True
        logger = logger.parent if logger.propagate else None
    return False


def _now() -> str:
    global _latest
    now = int(time.time())
    second, text = _latest
    if second != now:
        text = time.strftime("%d/%b/%Y %H:%M:%S", time.localtime(now))
        _latest = now, text
    return text


def _emit(args: tuple[Any, ...]) -> None:
    if not _logging_is_original.intact():
        _log.info(_FORMAT, *args)
        return
    # As Logger.info() does, without searching the stack for the caller.
    _log.handle(
        logging.getLogRecordFactory()(
            _log.name, logging.INFO, __file__, _LINE, _FORMAT, args, None, _emit.__name__
        )
    )


_LINE = _emit.__code__.co_firstlineno
_METHODS = ("info", "_log", "makeRecord", "findCaller")
# Intact while Logger.info() has its effect, and no other.
_logging_is_original = PatchGuard(
    [(logging.Logger, name, getattr(logging.Logger, name)) for name in _METHODS]
    + [(_log, "__class__", logging.Logger)]
    + [(_log.__dict__, name, None) for name in _METHODS]
)
