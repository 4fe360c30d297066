"""The command line: ``nameko run``, ``nameko shell`` and further commands."""

from __future__ import annotations

from typing import Any


def cli() -> int:
    """Runs the command line; its entry point in version 3."""
    from nameko.cli.main import main

    return main()


def setup_config(config_file: Any, define: Any = None, broker: str | None = None) -> Any:
    """Alias of :func:`nameko.cli.utils.config.setup_config`, for version 3."""
    from nameko.cli.utils import config

    return config.setup_config(config_file, define, broker)
