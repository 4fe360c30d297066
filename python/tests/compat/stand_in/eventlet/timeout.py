"""A time limit for a block."""

import signal
import threading
from functools import partial

from nameko._nameko import interrupt
from nameko.utils.threads import retry_interrupt

# Minimum delay in seconds. A timeout of 0 must not interrupt code that does not wait.
_MIN_DELAY = 0.05
_SIGNAL = signal.SIGUSR2


class Timeout(BaseException):
    """Raised in the creating thread after ``seconds``.

    On the main thread, a signal interrupts any wait. On other threads, the exception is raised
    after the current wait.
    """

    def __init__(self, seconds=None, exception=None) -> None:
        super().__init__(seconds)
        self.seconds = seconds
        self.exception = exception
        self._timer = None
        self.start()

    def start(self) -> None:
        if self.seconds is None:
            return
        thread = threading.current_thread()
        if thread is threading.main_thread():
            signal.signal(_SIGNAL, self._on_signal)
            expire = self._send_signal
        else:
            # Only classes can be raised in another thread.
            self._raised = type("Timeout", (Timeout,), {"__init__": BaseException.__init__})
            expire = partial(retry_interrupt, partial(self._interrupt, thread.ident))
        self._timer = threading.Timer(max(self.seconds, _MIN_DELAY), expire)
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def pending(self) -> bool:
        return self._timer is not None

    def __enter__(self):
        return self

    def __exit__(self, exc_type, exc, traceback) -> bool:
        self.cancel()
        mine = exc is self or exc_type is getattr(self, "_raised", ())
        return mine and self.exception is False

    def _send_signal(self) -> None:
        signal.pthread_kill(threading.main_thread().ident, _SIGNAL)

    def _interrupt(self, ident) -> bool | None:
        # Once, since it may be caught without a cancel().
        return None if self._timer is None or interrupt(ident, self._raised) else False

    def _on_signal(self, signum, frame) -> None:
        if self._timer is None:
            return  # cancelled before the signal was handled
        if self.exception is None or self.exception is False:
            raise self
        raise self.exception

    def __str__(self) -> str:
        return "{} seconds".format(self.seconds)
