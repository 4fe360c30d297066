"""Checks configuration files for misspelled and obsolete keys."""

from __future__ import annotations

from collections.abc import Iterator

from nameko import _nameko
from nameko.cli.config import read_config_file
from nameko.cli.doctor.findings import Finding, Severity


def check(path: str, read: set[str]) -> Iterator[Finding]:
    """Yields the findings in a configuration file. CommandError if it cannot be read.

    ``read`` holds the string literals of the project. A key among them belongs to the project.
    """
    config = read_config_file(path)
    for key in config:
        if key == "TRANSPORT_OPTIONS":
            yield Finding(
                Severity.DIFFERS,
                path,
                _line_of(path, key),
                "TRANSPORT_OPTIONS",
                "it configured kombu's connections, which are no longer used; lost connections are "
                "always retried",
                "remove it",
            )
            continue
        if not isinstance(key, str) or key in read:
            continue
        meant = _nameko.misspelled_key(key)
        if meant is not None:
            yield Finding(
                Severity.DIFFERS,
                path,
                _line_of(path, key),
                "unknown key {}".format(key),
                "it is not read; it looks like {}".format(meant),
                "rename it to {}".format(meant),
            )


def _line_of(path: str, key: str) -> int:
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip().strip("\"'").startswith(key):
                return number
    return 0
