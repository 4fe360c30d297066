"""A limit on how long a block may take."""

import signal
import threading

from nameko.utils.threads import raise_in_thread

# A limit of 0 is one on waiting: what does not wait gets through (s).
_LEAST = 0.05
_SIGNAL = signal.SIGUSR2


class Timeout(BaseException):
    """Raised in the thread that made it, after ``seconds``.

    In the main thread a signal ends any wait. Elsewhere the exception is met after one.
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
        self._expired = threading.Event()
        if thread is threading.main_thread():
            signal.signal(_SIGNAL, self._on_signal)
            interrupt = self._send_signal
        else:
            # Only a class can be raised in another thread.
            self._raised = type("Timeout", (Timeout,), {"__init__": BaseException.__init__})
            interrupt = lambda: raise_in_thread(thread.ident, self._raised)  # noqa: E731
        self._timer = threading.Timer(max(self.seconds, _LEAST), interrupt)
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

    def _on_signal(self, signum, frame) -> None:
        if self._timer is None:
            return  # cancelled while the signal was on its way
        if self.exception is None or self.exception is False:
            raise self
        raise self.exception

    def __str__(self) -> str:
        return "{} seconds".format(self.seconds)
