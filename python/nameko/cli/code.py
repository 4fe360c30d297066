"""The plain shell: an interactive console on a terminal, a script from standard input otherwise."""

from __future__ import annotations

import sys
from code import InteractiveConsole
from typing import Any

from nameko.cli.script_console import ScriptConsole


def interact(
    banner: str | None = None,
    local: dict[str, Any] | None = None,
    raise_expections: bool = False,
) -> None:
    """Opens a console on the terminal; with ``raise_expections``, runs standard input as a
    script."""
    if raise_expections:
        ScriptConsole(local).run(sys.stdin or ())
        return
    try:
        import readline
        import rlcompleter
    except ImportError:
        pass
    else:
        readline.set_completer(rlcompleter.Completer(local).complete)
        readline.parse_and_bind("tab: complete")
    InteractiveConsole(locals=local).interact(banner=banner, exitmsg="")
