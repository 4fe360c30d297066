"""Runs a script from standard input line by line, like the interactive console."""

from __future__ import annotations

import codeop
import re
from code import InteractiveConsole
from collections.abc import Iterable
from typing import Any

# A line that continues the preceding compound statement.
_CONTINUATION = re.compile(r"[ \t)\]}#]|$|(else|elif|except|finally|case)\b")


class ScriptConsole(InteractiveConsole):
    """Runs lines like typed ones, without prompts, up to the first exception.

    Unlike typed blocks, blocks need no empty line at their end.
    """

    def __init__(self, local: dict[str, Any] | None) -> None:
        super().__init__(locals=local, filename="<stdin>")

    def run(self, lines: Iterable[str]) -> None:
        """Runs the lines. Exits with code 1 after an exception, which is printed."""
        block: list[str] = []
        for line in lines:
            line = line.rstrip("\n")
            if block and not _CONTINUATION.match(line) and self._is_complete(block):
                self._run_block(block)
                block = []
            block.append(line)
            if len(block) == 1 and self._is_statement(line):
                self._run_block(block)
                block = []
        if any(line.strip() for line in block):
            self._run_block(block)

    def _is_complete(self, block: list[str]) -> bool:
        try:
            return codeop.compile_command("\n".join(block) + "\n", self.filename) is not None
        except (SyntaxError, ValueError, OverflowError):
            return True  # reported when the block is run

    def _is_statement(self, line: str) -> bool:
        """Whether the line is a complete statement."""
        try:
            return codeop.compile_command(line, self.filename) is not None
        except (SyntaxError, ValueError, OverflowError):
            return True

    def _run_block(self, block: list[str]) -> None:
        source = "\n".join(block) + "\n"
        try:
            compiled = compile(source, self.filename, "single")
        except (SyntaxError, ValueError, OverflowError):
            self.showsyntaxerror(self.filename)
            raise SystemExit(1) from None
        try:
            exec(compiled, self.locals)
        except (SystemExit, BrokenPipeError):
            raise
        except BaseException:
            self.showtraceback()
            raise SystemExit(1) from None
