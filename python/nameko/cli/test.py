"""``nameko test``."""

from __future__ import annotations

from collections.abc import Sequence

from nameko.cli.command_module import make_callable
from nameko.exceptions import CommandError


def main(args: Sequence[str]) -> int:
    """Runs pytest in this process and returns its exit code."""
    try:
        import pytest
    except ImportError:
        raise CommandError("pytest is not installed: pip install pytest")

    # This package and its pytest plugin have been imported already.
    quiet = ["-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]
    return int(pytest.main([*args, *quiet]))


make_callable(__name__)
