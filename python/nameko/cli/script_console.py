"""Runs a script from standard input as Python does, and prints the values of its expressions."""

from __future__ import annotations
import __future__

import ast
import linecache
from code import InteractiveConsole
from collections.abc import Iterable
from typing import Any

# The flags of all `from __future__ import`.
_FUTURE_FLAGS = sum(
    getattr(__future__, name).compiler_flag for name in __future__.all_feature_names
)


class ScriptConsole(InteractiveConsole):
    """Runs a script up to the first exception. Prints values of expressions, like the interactive
    console."""

    def __init__(self, local: dict[str, Any] | None) -> None:
        super().__init__(locals=local, filename="<stdin>")

    def run(self, lines: Iterable[str]) -> None:
        """Runs the lines. Exits with code 1 after an exception, which is printed."""
        source = "".join(lines).removeprefix("\ufeff")
        try:
            script = ast.parse(source, self.filename)
            # Errors are found before anything runs, as in a file.
            flags = compile(script, self.filename, "exec", dont_inherit=True).co_flags
        # ValueError: a null character. The others: nested too deeply for the compiler.
        except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError):
            self.showsyntaxerror(self.filename)
            raise SystemExit(1) from None
        # Tracebacks show the lines.
        source_lines = source.splitlines(keepends=True)
        linecache.cache[self.filename] = (len(source), None, source_lines, self.filename)
        for statement in script.body:
            self._run_statement(ast.Interactive([statement]), flags & _FUTURE_FLAGS)

    def _run_statement(self, statement: ast.Interactive, flags: int) -> None:
        try:
            exec(compile(statement, self.filename, "single", flags, True), self.locals)
        except (SystemExit, BrokenPipeError):
            raise
        except BaseException:
            self.showtraceback()
            raise SystemExit(1) from None
