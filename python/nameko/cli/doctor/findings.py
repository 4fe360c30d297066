"""Findings of the doctor."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Severity(enum.Enum):
    """Severity of a finding; the values are printed."""

    BREAKS = "breaks"
    DIFFERS = "works differently"
    FINE = "fine"


@dataclass(frozen=True)
class Finding:
    """A problem with its location, reason and fix."""

    severity: Severity
    # A file, or the name of a package.
    place: str
    # From 1; 0 without a line.
    line: int
    what: str
    why: str
    # Empty if there is none.
    fix: str = ""

    def order(self) -> tuple[int, str, int, str]:
        """Sort key: by severity, then by location."""
        return list(Severity).index(self.severity), self.place, self.line, self.what

    @property
    def where(self) -> str:
        return "{}:{}".format(self.place, self.line) if self.line else self.place
