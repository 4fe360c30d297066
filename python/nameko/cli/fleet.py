"""Where each of several processes stands, and what follows from that."""

from __future__ import annotations

import enum


class Place(enum.Enum):
    """How far the process at one place is."""

    STARTING = "starting"
    READY = "ready"
    # The last one that was started here ended before it was ready.
    FAILING = "failing"


class Verdict(enum.Enum):
    GO_ON = "go on"
    # All are ready, for the first time.
    ALL_READY = "all ready"
    # None can start.
    GIVE_UP = "give up"


class Fleet:
    """``count`` places, numbered from 1. Processes are started at some of them at first."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._places: dict[int, Place] = {}
        # Whether all have been ready at a time, and that was told.
        self._was_complete = False

    def started(self, number: int) -> None:
        self._places.setdefault(number, Place.STARTING)

    def ready(self, number: int) -> Verdict:
        self._places[number] = Place.READY
        ready = sum(place is Place.READY for place in self._places.values())
        if self._was_complete or ready < self.count:
            return Verdict.GO_ON
        self._was_complete = True
        return Verdict.ALL_READY

    def ended(self, number: int, was_ready: bool) -> Verdict:
        self._places[number] = Place.STARTING if was_ready else Place.FAILING
        if all(place is Place.FAILING for place in self._places.values()):
            return Verdict.GIVE_UP
        return Verdict.GO_ON
