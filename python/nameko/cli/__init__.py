"""The command line: ``nameko run``, ``nameko shell`` and further commands.

In version 3 the commands are functions of this package: ``nameko.cli.run(["shop"])``.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

# The commands of version 3, whose modules can be called.
_COMMANDS = frozenset({"run", "shell", "show_config", "test"})


def cli(args: Sequence[str] | None = None, standalone_mode: bool = True) -> int:
    """Runs a command line, ``sys.argv[1:]`` by default; the entry point of version 3.

    Exits with its code, or returns it if not ``standalone_mode``.
    """
    from nameko.cli.main import main

    code = main(args)
    if standalone_mode:
        sys.exit(code)
    return code


def setup_config(config_file: Any, define: Any = None, broker: str | None = None) -> Any:
    """Alias of :func:`nameko.cli.utils.config.setup_config`, for version 3."""
    from nameko.cli.utils import config

    return config.setup_config(config_file, define, broker)


def __getattr__(name: str) -> Any:
    # Imported on use: the modules of commands import the whole package.
    if name in _COMMANDS:
        return importlib.import_module("nameko.cli." + name)
    raise AttributeError("module {!r} has no attribute {!r}".format(__name__, name))
