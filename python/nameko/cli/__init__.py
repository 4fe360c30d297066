"""The command line: ``nameko run``, ``nameko shell`` and the others."""

from __future__ import annotations

from typing import Any


def cli() -> int:
    """The command line, by the name that it has in version 3."""
    from nameko.cli.main import main

    return main()


def setup_config(config_file: Any, define: Any = None, broker: str | None = None) -> Any:
    """:func:`nameko.cli.utils.config.setup_config`, by its other name in version 3."""
    from nameko.cli.utils import config

    return config.setup_config(config_file, define, broker)
