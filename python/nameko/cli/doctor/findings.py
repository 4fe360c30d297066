"""What the doctor finds."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Severity(enum.Enum):
    """How much it matters; the value is what is printed."""

    BREAKS = "breaks"
    DIFFERS = "works differently"
    FINE = "fine"


@dataclass(frozen=True)
class Finding:
    """One thing, where it is, why it matters, and what to do."""

    severity: Severity
    # A file, or the name of a package.
    place: str
    # From 1; 0 where there is none.
    line: int
    what: str
    why: str
    # Empty where nothing is to be done.
    fix: str = ""

    def order(self) -> tuple[int, str, int, str]:
        """What matters first; then by place."""
        return list(Severity).index(self.severity), self.place, self.line, self.what

    @property
    def where(self) -> str:
        return "{}:{}".format(self.place, self.line) if self.line else self.place
