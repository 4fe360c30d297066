"""Timers: entrypoints that fire at regular intervals.

::

    class Service:
        name = "service"

        @timer(interval=5)
        def tick(self): ...
"""

from __future__ import annotations

import itertools
import numbers
import threading
from decimal import Decimal
from logging import getLogger
from time import monotonic
from typing import Any

from nameko.exceptions import ConfigurationError
from nameko.extensions import Entrypoint
from nameko.utils.threads import KILL_GRACE, ManagedThread, ThreadKilled
from nameko.utils.threads import Event as Event

_log = getLogger(__name__)


class Timer(Entrypoint):
    """Fires every ``interval`` seconds, at first after one interval, or at once if ``eager``.

    The nth tick is due n intervals after the start, independent of the duration of workers. A tick
    waits for the worker of the previous one; overdue ticks follow without a pause. A failing worker
    does not stop the timer. Each instance of a service has its own timers.
    """

    def __init__(self, interval: float, eager: bool = False, **kwargs: Any) -> None:
        self.interval = interval
        self.eager = eager
        # Set by stop() and kill().
        self.should_stop = threading.Event()
        # Set at the end of a worker, cleared before the next one. Set by kill().
        self.worker_complete = threading.Event()
        # Runs the ticks. Created by start().
        self._thread: ManagedThread | None = None
        super().__init__(**kwargs)

    def start(self) -> None:
        _log.debug("starting %s", self)
        # Not in setup(): a subclass may set the interval after it.
        interval: Any = self.interval
        if (
            not isinstance(interval, (numbers.Real, Decimal))
            or not 0 <= float(interval) <= threading.TIMEOUT_MAX
        ):
            raise ConfigurationError(
                "the interval of the timer `{}.{}` is a number of seconds, not {!r}".format(
                    self.container.service_name, self.method_name, interval
                )
            )
        self._thread = self.container.spawn_managed_thread(self._run)

    def stop(self) -> None:
        """Ends the ticks. Waits for a running worker, not for the interval."""
        _log.debug("stopping %s", self)
        self.should_stop.set()
        if self._thread is not None:
            try:
                self._thread.wait()
            except ThreadKilled:
                _log.debug("%s was killed while it stopped", self)

    def kill(self) -> None:
        """Ends the ticks without waiting for a running worker."""
        _log.debug("killing %s", self)
        # Wakes a waiting thread, which then returns: better than an exception at an arbitrary
        # place.
        self.should_stop.set()
        self.worker_complete.set()
        if self._thread is None or self._thread.is_current():
            return
        try:
            self._thread.wait(KILL_GRACE)
        except TimeoutError:
            self._thread.kill()
        except (Exception, ThreadKilled) as exc:
            _log.debug("%s ended with %r", self, exc)

    def handle_timer_tick(self) -> None:
        """Spawns the worker of one tick. ContainerBeingKilled ends the timer's thread."""
        self.container.spawn_worker(self, (), {}, handle_result=self.handle_result)

    def handle_result(self, worker_ctx: Any, result: Any, exc_info: Any) -> tuple[Any, Any]:
        self.worker_complete.set()
        return result, exc_info

    def _run(self) -> None:
        start = monotonic()
        for count in itertools.count(0 if self.eager else 1):
            # Before should_stop is checked: kill() sets should_stop first.
            self.worker_complete.clear()
            if self.should_stop.wait(max(start + count * float(self.interval) - monotonic(), 0)):
                return
            self.handle_timer_tick()
            self.worker_complete.wait()


timer = Timer.decorator
