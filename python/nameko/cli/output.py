"""What is said on standard output, and logging to standard error with colours on a terminal."""

from __future__ import annotations

import logging
import os
import sys

_COLOURS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[31m"}
_PLAIN = "\x1b[0m"


class ColourFormatter(logging.Formatter):
    """Warnings in yellow, errors in red."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        text = super().formatMessage(record)
        colour = _COLOURS.get(record.levelno)
        return "{}{}{}".format(colour, text, _PLAIN) if colour else text


def log_to_stderr() -> None:
    """Have everything from INFO up logged to standard error."""
    handler = logging.StreamHandler()
    colours = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    handler.setFormatter((ColourFormatter if colours else logging.Formatter)("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # What the embedded broker does stands on standard output already.
    logging.getLogger("nameko_broker").setLevel(logging.WARNING)


def say(text: str) -> None:
    """Tell the user, at once. A reader who went away does not stop us."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        drop_output()


def drop_output() -> None:
    """Let go of standard output, whose reader went away: the interpreter must not complain about
    that at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
