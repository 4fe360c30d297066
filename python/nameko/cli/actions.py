"""Argparse actions and types of options."""

from __future__ import annotations

import argparse
from typing import Any


class FlagAction(argparse.Action):
    """A flag: ``--name`` sets True, ``--no-name`` False, otherwise the default applies."""

    def __init__(
        self, option_strings: Any, dest: str, default: Any = None, help: str | None = None
    ) -> None:
        self.negative = ["--no-" + option[2:] for option in option_strings]
        super().__init__([*option_strings, *self.negative], dest, 0, default=default, help=help)

    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        setattr(namespace, self.dest, option_string not in self.negative)


def host_and_port(text: Any) -> tuple[str, int]:
    """Parses ``[HOST:]PORT``; the host defaults to localhost."""
    host, _, port = str(text).rpartition(":")
    number = int(port)
    if not 0 <= number <= 65535:
        raise ValueError(text)
    return host.strip("[]") or "localhost", number


# argparse shows the name of the function in its error message.
host_and_port.__name__ = "[HOST:]PORT"


def process_count(text: Any) -> int:
    """Parses the number of processes, 1 to 1024; more is taken for a typing error."""
    count = int(text)
    if not 1 <= count <= 1024:
        raise ValueError(text)
    return count


process_count.__name__ = "number of processes (1 to 1024)"
