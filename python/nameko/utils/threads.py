"""Threads that can be waited for and killed, and a one-shot event that carries a value."""

from __future__ import annotations

import ctypes
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from nameko._nameko import interrupt

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

# How long kill() waits for a thread to unwind before it counts it as dead all the same (s).
KILL_GRACE = 1.0

# How long it is tried to interrupt a thread that is never where it may be interrupted (s), and the
# pauses between two attempts (s).
INTERRUPT_TIMEOUT = 60.0
INTERRUPT_FIRST_DELAY = 0.001
INTERRUPT_MAX_DELAY = 0.05

_numbers = itertools.count(1)

# Per thread: ``message``, the message that it handles (see nameko.workers), if it handles one.
current = threading.local()


class ThreadKilled(BaseException):
    """Raised inside a thread that is being killed, and to whoever waits for its result."""


class Event:
    """A value or an exception that is sent once and that any number of threads may wait for."""

    __slots__ = ("__weakref__", "_exc", "_gate", "_links", "_lock", "_sent", "_value")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent = False
        # What threads wait for; made by the first, as most events are sent before.
        self._gate: threading.Event | None = None
        self._value: Any = None
        self._exc: BaseException | None = None
        # Made when the first is added.
        self._links: list[Callable[[Event], Any]] | None = None

    def ready(self) -> bool:
        return self._sent

    def send(self, value: Any = None, exc: BaseException | ExcInfo | None = None) -> None:
        """Set the value, or the exception that waiters are to meet. Only the first one counts."""
        with self._lock:
            if self._sent:
                return
            self._value = value
            self._exc = exc[1] if isinstance(exc, tuple) else exc
            self._sent = True
            links, self._links = self._links, None
            if self._gate is not None:
                self._gate.set()
        for callback in links or ():
            callback(self)

    def send_exception(self, *exc: Any) -> None:
        self.send(exc=exc[0] if len(exc) == 1 else exc)

    def link(self, callback: Callable[[Event], Any]) -> None:
        """Call ``callback(event)`` when it is sent; at once where it was already."""
        with self._lock:
            if not self._sent:
                if self._links is None:
                    self._links = []
                self._links.append(callback)
                return
        callback(self)

    def unlink(self, callback: Callable[[Event], Any]) -> None:
        """Take a link back."""
        with self._lock:
            if self._links is not None and callback in self._links:
                self._links.remove(callback)

    def wait(self, timeout: float | None = None) -> Any:
        """The value, or raise the exception. ``TimeoutError`` after ``timeout`` seconds.

        In the handler of a message, the worker that it spawned runs meanwhile, on this thread.
        """
        if not self._sent:
            context = getattr(current, "message", None)
            if context is not None:
                context.wait(self, self._wait, timeout)
            else:
                self._wait(timeout)
        if not self._sent:
            raise TimeoutError("nothing was sent within {} seconds".format(timeout))
        if self._exc is not None:
            raise self._exc
        return self._value

    def _wait(self, timeout: float | None) -> None:
        with self._lock:
            if self._sent:
                return
            if self._gate is None:
                self._gate = threading.Event()
            gate = self._gate
        gate.wait(timeout)


def clear_pending_exc(ident: int) -> None:
    """Take back an exception that was to be raised in the thread ``ident`` and was not met yet.

    That of the thread itself may be raised in here.
    """
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), None)


def retry_interrupt(attempt: Callable[[], bool]) -> None:
    """Call ``attempt()`` until it is true: now, and then every now and then on another thread.

    It tries to interrupt a thread, and is true too where nothing is left to interrupt. It is given
    up after :data:`INTERRUPT_TIMEOUT`.
    """
    global _retrying
    if attempt():
        return
    with _attempts_lock:
        _attempts.append((time.monotonic() + INTERRUPT_TIMEOUT, attempt))
        if _retrying:
            return
        _retrying = True
    threading.Thread(target=_retry_interrupts, name="nameko-interrupts", daemon=True).start()


# What is tried again, until when; and whether a thread does so. It ends when nothing is left.
_attempts: list[tuple[float, Callable[[], bool]]] = []
_retrying = False
_attempts_lock = threading.Lock()


def _reset_after_fork() -> None:
    """In a forked child, where none of the threads exists."""
    global _retrying, _attempts_lock
    _retrying, _attempts_lock = False, threading.Lock()
    _attempts.clear()


os.register_at_fork(after_in_child=_reset_after_fork)


def _retry_interrupts() -> None:
    global _retrying
    pause = INTERRUPT_FIRST_DELAY
    while True:
        time.sleep(pause)
        pause = min(pause * 1.5, INTERRUPT_MAX_DELAY)
        with _attempts_lock:
            attempts = _attempts.copy()
            _attempts.clear()
        now = time.monotonic()
        left = [each for each in attempts if not each[1]() and now < each[0]]
        with _attempts_lock:
            _attempts.extend(left)
            if not _attempts:
                _retrying = False
                return
            if len(_attempts) > len(left):
                pause = INTERRUPT_FIRST_DELAY  # others came


class ManagedThread:
    """A daemon thread running ``fn``, with a handle to wait for it, kill it and learn of its end.

    Python cannot stop a thread inside a blocking call. :meth:`kill` raises :class:`ThreadKilled`
    in the thread, waits for it for a moment, and then counts it as dead: its waiters and links are
    told, and what it may still do later is ignored.

    It is raised where no lock stays behind: in the body of a ``with`` or a ``try``, or in a
    function that neither acquires nor releases anything by hand.
    """

    def __init__(self, fn: Callable[[], Any], name: str | None = None) -> None:
        self._fn = fn
        self._lock = threading.Lock()
        self._event = Event()
        self._links: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self._killed: BaseException | None = None
        self._over = False
        # Result and exception, once it is over.
        self._outcome: tuple[Any, BaseException | None] = (None, None)
        self._thread = threading.Thread(
            target=self._run, name=name or "nameko-{}".format(next(_numbers)), daemon=True
        )

    def start(self) -> ManagedThread:
        self._thread.start()
        return self

    @property
    def dead(self) -> bool:
        return self._over

    def is_current(self) -> bool:
        """Whether this is the calling thread."""
        return self._thread is threading.current_thread()

    def wait(self, timeout: float | None = None) -> Any:
        """What ``fn`` returned; raises what it raised, or :class:`ThreadKilled`. TimeoutError
        after ``timeout`` seconds."""
        return self._event.wait(timeout)

    def link(self, callback: Callable[..., Any], *args: Any) -> None:
        """Call ``callback(handle, *args)`` when the thread is over; at once where it is already."""
        with self._lock:
            if not self._over:
                self._links.append((callback, args))
                return
        callback(self, *args)

    def kill(self, exc: BaseException | None = None, grace: float = KILL_GRACE) -> None:
        """Stop the thread as soon as it can be stopped; see the class for what that means.

        ``exc``: what waiters meet in place of :class:`ThreadKilled`.
        """
        if self.is_current():
            raise exc or ThreadKilled()
        self.interrupt(exc)
        if self._killed is not None and not self._over:
            try:
                self._event.wait(grace)
            except TimeoutError:
                self._finish(None, self._killed)
            except BaseException:
                pass  # its own waiters meet it

    def interrupt(self, exc: BaseException | None = None) -> None:
        """The first half of :meth:`kill`: raise in the thread, do not wait for it."""
        with self._lock:
            if self._over or self._killed is not None:
                return
            self._killed = exc or ThreadKilled()
            ident = self._thread.ident
        if ident is not None and ident != threading.get_ident():
            retry_interrupt(self._try_to_interrupt)

    def _try_to_interrupt(self) -> bool:
        with self._lock:
            ident = self._thread.ident
            return self._over or ident is None or interrupt(ident, ThreadKilled)

    def _run(self) -> None:
        try:
            try:
                if self._killed is not None:
                    raise self._killed
                result = self._fn()
            except ThreadKilled as killed:
                self._finish(None, self._killed or killed)
            except BaseException as exc:
                self._finish(None, exc)
            else:
                self._finish(result, None)
        except ThreadKilled:
            # Killed while it was already ending.
            self._finish(None, self._killed)

    def _finish(self, result: Any, exc: BaseException | None) -> None:
        with self._lock:
            if not self._over:
                self._over = True
                self._outcome = (result, exc)
        # A kill that comes just now interrupts this here at the latest; _run() then calls again.
        self._event.send(*self._outcome)
        with self._lock:
            links, self._links = self._links, []
        for callback, args in links:
            try:
                callback(self, *args)
            except Exception:
                sys.excepthook(*sys.exc_info())


def spawn(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> ManagedThread:
    """Run ``fn(*args, **kwargs)`` in a thread of its own."""
    return ManagedThread(lambda: fn(*args, **kwargs)).start()
