"""Logging on standard error, as text (in colours on a terminal) or as JSON."""

from __future__ import annotations

import json
import logging
import logging.config
import os
import sys
import threading
import time
from copy import copy
from typing import Any

from nameko import loop
from nameko.cli import output
from nameko.cli.services import spelling
from nameko.containers import WorkerContext
from nameko.exceptions import CommandError
from nameko.runners import ServiceRunner

_COLOURS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[31m"}
_PLAIN = "\x1b[0m"

# The runner of ``nameko run``: JSON lines of its workers have a span.
_runner: ServiceRunner | None = None

# Names in a filter, compared without case.
_LEVELS = {
    "off": logging.CRITICAL + 10,
    "critical": logging.CRITICAL,
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": logging.DEBUG,
}

# Attributes of every record. Any others were passed as ``extra``.
_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def setup_logging(args: Any, config: dict[str, Any], process: int | None = None) -> None:
    """Configures logging by LOGGING of the configuration, or else by the arguments.

    ``process`` is the number of this process under a supervisor, added to each line. CommandError
    if a setting is invalid.
    """
    log_format = args.log_format or os.environ.get("NAMEKO_LOG_FORMAT") or config.get("LOG_FORMAT")
    if log_format not in (None, "", "text", "json"):
        raise CommandError("LOG_FORMAT must be text or json, not {!r}".format(log_format))
    levels = _parse_filter(args.log or config.get("LOG") or "info")
    if "LOGGING" in config:
        try:
            logging.config.dictConfig(config["LOGGING"])
        except (ValueError, TypeError, AttributeError, ImportError) as exc:
            reason = "{}: {}".format(exc, exc.__cause__) if exc.__cause__ else exc
            raise CommandError(
                "LOGGING of the configuration is invalid for logging.config.dictConfig: {}".format(
                    reason
                )
            )
        return

    handler = logging.StreamHandler()
    if log_format == "json":
        handler.setFormatter(JsonFormatter(process))
        output.use_json()
    else:
        colours = sys.stderr is not None and sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        handler.setFormatter(TextFormatter(process, colours))
    logging.basicConfig(level=levels.pop("", logging.INFO), handlers=[handler])
    # The start of the embedded broker is reported on standard output already.
    logging.getLogger("nameko_broker").setLevel(logging.WARNING)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def set_runner(runner: ServiceRunner | None) -> None:
    """Sets the runner whose workers' JSON lines get a span."""
    global _runner
    _runner = runner


def _parse_filter(text: Any) -> dict[str, int]:
    """Parses a filter like ``nameko=debug,info``: logger name to level, "" for all loggers."""
    levels = {}
    for part in str(text).split(","):
        name, _, level = part.strip().rpartition("=")
        if level.lower() not in _LEVELS:
            raise CommandError(
                "invalid log filter {!r}: expected error, warn, info or debug, or a filter like "
                "'nameko=debug,info'".format(text)
            )
        levels[name.strip().replace("::", ".")] = _LEVELS[level.lower()]
    return levels


class TextFormatter(logging.Formatter):
    """Formats the plain message; on a terminal, warnings in yellow and errors in red.

    Expected exceptions have a traceback at the level ``debug`` only.
    """

    def __init__(self, process: int | None = None, colours: bool = False) -> None:
        super().__init__("%(message)s" if process is None else "[{}] %(message)s".format(process))
        self.colours = colours

    def format(self, record: logging.LogRecord) -> str:
        if _is_expected(record) and not logging.getLogger(record.name).isEnabledFor(logging.DEBUG):
            # A part of the service's interface, and no place to look for a mistake.
            record = copy(record)
            record.exc_info = record.exc_text = None
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:
        text = super().formatMessage(record)
        colour = _COLOURS.get(record.levelno) if self.colours else None
        return "{}{}{}".format(colour, text, _PLAIN) if colour else text


def _is_expected(record: logging.LogRecord) -> bool:
    """Whether a record reports one of the ``expected_exceptions`` of an entrypoint."""
    return (
        record.name == "nameko.containers"
        and record.levelno == logging.WARNING
        and bool(record.exc_info)
    )


class JsonFormatter(logging.Formatter):
    """Formats one JSON object per line, with the keys of a Rust service's log.

    ``span`` describes the call of the worker that logged, ``exception`` holds a traceback; keys of
    the record's ``extra`` are added.
    """

    def __init__(self, process: int | None = None) -> None:
        super().__init__()
        self.process = process

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, Any] = {} if self.process is None else {"process": self.process}
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        event["timestamp"] = "{}.{:06.0f}Z".format(seconds, record.created % 1 * 1e6 // 1)
        event["level"] = _level_name(record.levelno)
        event["message"] = record.getMessage()
        event["target"] = record.name
        worker_ctx = _worker_of(record)
        if worker_ctx is not None:
            event["span"] = {
                "call_id": worker_ctx.call_id,
                "entrypoint": spelling(worker_ctx.entrypoint),
                "method": worker_ctx.entrypoint.method_name,
                "parent": worker_ctx.immediate_parent_call_id,
                "service": worker_ctx.service_name,
                "name": "worker",
            }
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            event["stack"] = self.formatStack(record.stack_info)
        for key, value in vars(record).items():
            if key not in _RECORD:
                event.setdefault(key, value)
        return json.dumps(event, default=repr)


def _worker_of(record: logging.LogRecord) -> Any:
    """Returns the context of the worker that logged a record, on its thread or in its coroutine."""
    if isinstance(record.args, tuple):
        for argument in record.args:
            if isinstance(argument, WorkerContext):
                return argument
    # Handlers format on the logging thread, unless they pass records through a queue.
    worker_ctx = loop.worker.get()
    if worker_ctx is not None and record.thread == threading.get_ident():
        # A task that outlives its worker no longer belongs to it.
        return worker_ctx if worker_ctx in worker_ctx.container.worker_threads else None
    for container in list(_runner.containers) if _runner is not None else ():
        # Custom container classes may lack the attribute.
        for worker_ctx, thread in list(getattr(container, "worker_threads", {}).items()):
            if thread.ident == record.thread:
                return worker_ctx
    return None


def _level_name(level: int) -> str:
    if level >= logging.ERROR:
        return "ERROR"
    if level >= logging.WARNING:
        return "WARN"
    return "INFO" if level >= logging.INFO else "DEBUG"
