"""Stopping services when a signal comes, or when the process that started this one says so."""

from __future__ import annotations

import os
import signal
import threading
from logging import getLogger
from typing import Any

from nameko.cli.output import echo
from nameko.runners import ServiceRunner
from nameko.utils.threads import spawn

_log = getLogger("nameko.run")


class Shutdown:
    """Stops a runner at the first SIGTERM or SIGINT and kills it at the second. A third ends the
    process whatever it does.

    Workers that are still running ``timeout`` seconds after the first are killed.
    """

    def __init__(self, runner: ServiceRunner, timeout: float, announce: bool = True) -> None:
        self.runner = runner
        self.timeout = timeout
        # Whether the user is told of it.
        self.announce = announce
        # The signals that came.
        self.signals: list[int] = []
        # Whether the runner has been told to stop.
        self.stopping = False
        # What an extension raised when it was to stop.
        self.failure: BaseException | None = None
        # Set when the runner has been stopped, or killed: there is nothing more to wait for.
        self.over = threading.Event()
        # Calls of begin() come from several threads, and from a signal handler: hence reentrant.
        self._lock = threading.RLock()
        self._previous: dict[int, Any] = {}

    def install(self) -> None:
        for signum in (signal.SIGTERM, signal.SIGINT):
            try:
                self._previous[signum] = signal.signal(signum, self._handle)
            except ValueError:
                return  # Python takes handlers from the main thread only

    def uninstall(self) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def begin(self) -> None:
        """Have the runner stopped. Returns at once; a second call does nothing."""
        with self._lock:
            if self.stopping:
                return
            self.stopping = True
        # The main thread may be in the middle of anything, so the work is done in another one.
        spawn(self._stop)

    def _handle(self, signum: int, frame: Any) -> None:
        self.signals.append(signum)
        if len(self.signals) == 1:
            # Nothing where the parent was quicker: systemd signals every process of a unit.
            self.begin()
        elif len(self.signals) == 2:
            spawn(self._kill)
        else:
            os._exit(128 + signum)

    def _stop(self) -> None:
        if self.announce:
            echo("stopping; once more stops at once")
        stopping = spawn(self.runner.stop)
        try:
            stopping.wait(self.timeout)
        except (Exception, SystemExit) as exc:
            if stopping.dead:
                # Whoever waits for the runner waits no longer once it is killed.
                self.failure = exc
            else:
                _log.warning(
                    "not stopped within %g seconds: what still runs is killed", self.timeout
                )
            self._kill()
        else:
            self.over.set()

    def _kill(self) -> None:
        try:
            self.runner.kill()
        finally:
            self.over.set()
