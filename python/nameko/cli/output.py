"""What a command says to its user, on standard output."""

from __future__ import annotations

import logging
import os
import sys

_log = logging.getLogger("nameko.run")

# Whether the log is JSON: what would be said goes there too then, so that nothing else is between
# its lines.
_json = False

# What each line begins with: the number of this process, where it is one of several.
_mark = ""


def speak_json() -> None:
    """From now on, say everything in the log."""
    global _json
    _json = True


def speak_as(process: int) -> None:
    """From now on, tell in each line that this process says it."""
    global _mark
    _mark = "[{}] ".format(process)


def say(text: str) -> None:
    """Tell the user, at once. Neither a reader who went away nor a full disk stops us."""
    if _json:
        _log.info("%s", text)
        return
    try:
        print(_mark + text, flush=True)
    except OSError:
        drop_output()


def complain(error: BaseException) -> None:
    """Say why the command cannot do what it was asked for."""
    if _json:
        _log.error("%s", error)
    else:
        say("Error: {}".format(error))


def show_traceback(text: str) -> None:
    """Show what the user's code raised, on standard error."""
    if _json:
        _log.error("%s", text.rstrip().rpartition("\n")[2], extra={"exception": text})
    else:
        print(_mark + text, file=sys.stderr, end="", flush=True)


def drop_output() -> None:
    """Let go of standard output, which takes nothing any more: the interpreter must not complain
    about that at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
