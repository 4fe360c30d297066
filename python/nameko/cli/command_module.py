"""Modules of commands that can be called, like the click commands of version 3."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType


class _CommandModule(ModuleType):
    """A module of a command. Calling it runs the command."""

    def __call__(self, args: Sequence[str] | None = None, standalone_mode: bool = True) -> int:
        """Runs the command with ``args``, ``sys.argv[1:]`` by default.

        Exits with its code, or returns it if not ``standalone_mode``.
        """
        from nameko.cli import cli

        name = self.__name__.rpartition(".")[2].replace("_", "-")
        return cli([name, *(sys.argv[1:] if args is None else args)], standalone_mode)


def make_callable(module_name: str) -> None:
    """Makes the module of a command callable."""
    sys.modules[module_name].__class__ = _CommandModule
