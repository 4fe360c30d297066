"""``nameko test``."""

from __future__ import annotations

from collections.abc import Sequence

from nameko.exceptions import CommandError


def main(args: Sequence[str]) -> int:
    """Run pytest in this process; its exit code."""
    try:
        import pytest
    except ImportError:
        raise CommandError("pytest is not installed: pip install pytest")

    # This package, and its pytest plugin, are imported by now.
    quiet = ["-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]
    return int(pytest.main([*args, *quiet]))
