"""Shutting down services on a signal or a request of the supervisor."""

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
    """Stops a runner on the first SIGTERM or SIGINT, kills it on the second, exits on the third.

    Workers that still run ``timeout`` seconds after the first signal are killed.
    """

    def __init__(self, runner: ServiceRunner, timeout: float, announce: bool = True) -> None:
        self.runner = runner
        self.timeout = timeout
        # Whether the shutdown is printed.
        self.announce = announce
        # Signals received.
        self.signals: list[int] = []
        self.stopping = False
        # Exception raised by an extension while stopping.
        self.failure: BaseException | None = None
        # Set once the runner has been stopped or killed.
        self.over = threading.Event()
        # Reentrant, since begin() is called from a signal handler as well as from threads.
        self._lock = threading.RLock()
        self._previous: dict[int, Any] = {}

    def install(self) -> None:
        for signum in (signal.SIGTERM, signal.SIGINT):
            try:
                self._previous[signum] = signal.signal(signum, self._handle)
            except ValueError:
                return  # only the main thread can set handlers

    def uninstall(self) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def begin(self) -> None:
        """Starts the shutdown in the background. Idempotent."""
        with self._lock:
            if self.stopping:
                return
            self.stopping = True
        # On a thread of its own, since the main thread may hold any lock.
        spawn(self._stop)

    def _handle(self, signum: int, frame: Any) -> None:
        self.signals.append(signum)
        if len(self.signals) == 1:
            # A no-op after a request of the supervisor: systemd signals every process of a unit.
            self.begin()
        elif len(self.signals) == 2:
            spawn(self._kill)
        else:
            os._exit(128 + signum)

    def _stop(self) -> None:
        if self.announce:
            echo("shutting down (press Ctrl-C again to force)")
        stopping = spawn(self.runner.stop)
        try:
            stopping.wait(self.timeout)
        except (Exception, SystemExit) as exc:
            if stopping.dead:
                # Killing the runner ends the wait for it.
                self.failure = exc
            else:
                _log.warning("not stopped within %g seconds, killing running workers", self.timeout)
            self._kill()
        else:
            self.over.set()

    def _kill(self) -> None:
        try:
            self.runner.kill()
        finally:
            self.over.set()
