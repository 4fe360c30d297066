"""Messages of the commands, on standard output."""

from __future__ import annotations

import logging
import os
import sys

_log = logging.getLogger("nameko.run")

# Whether the log is JSON. Messages are then written to the log, which keeps its lines parseable.
_json = False

# Prepended to each line. Identifies the process when there are several.
_prefix = ""


def use_json() -> None:
    """Writes all further messages to the log."""
    global _json
    _json = True


def set_prefix(prefix: str) -> None:
    """Sets the prefix of all further lines."""
    global _prefix
    _prefix = prefix


def echo(text: str) -> None:
    """Prints a line, unbuffered. A closed pipe or a full disk is not an error."""
    if _json:
        _log.info("%s", text)
        return
    try:
        print(_prefix + text, flush=True)
    except OSError:
        drop_output()


def error(exc: BaseException) -> None:
    """Prints the reason why a command failed."""
    if _json:
        _log.error("%s", exc)
    else:
        echo("Error: {}".format(exc))


def show_traceback(text: str) -> None:
    """Prints a traceback of the user's code on standard error."""
    if _json:
        _log.error("%s", text.rstrip().rpartition("\n")[2], extra={"exception": text})
    else:
        print(_prefix + text, file=sys.stderr, end="", flush=True)


def drop_output() -> None:
    """Redirects standard output to /dev/null, so that the flush at exit does not fail."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
