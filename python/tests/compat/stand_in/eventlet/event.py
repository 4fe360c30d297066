"""A value that is sent once. Unlike nameko's, waiting threads can be killed without delay."""

import threading
import time


class Event:
    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._sent = threading.Event()
        self._value = None
        self._exc = None

    def ready(self) -> bool:
        return self._sent.is_set()

    def send(self, result=None, exc=None) -> None:
        assert not self.ready(), "Trying to re-send() an already-triggered event."
        self._value = result
        self._exc = exc[1] if isinstance(exc, tuple) else exc
        self._sent.set()

    def send_exception(self, *exc) -> None:
        self.send(None, exc if len(exc) > 1 else exc[0])

    def wait(self, timeout=None):
        """Returns the value or raises the exception. Returns None after ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        # In short waits, since asynchronous exceptions are raised in between.
        while not self._sent.wait(0.005):
            if deadline is not None and time.monotonic() > deadline:
                return None
        if self._exc is not None:
            raise self._exc
        return self._value
