"""Threads that can be joined and killed, and a one-shot event that carries a value."""

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

# Seconds that kill() waits for a thread to unwind before it counts the thread as dead.
KILL_GRACE = 1.0

# Seconds after which retries to interrupt a thread end, the delays between retries (s), and the
# delay of the check whether a raised exception ended the thread.
INTERRUPT_TIMEOUT = 60.0
INTERRUPT_FIRST_DELAY = 0.001
INTERRUPT_MAX_DELAY = 0.05
INTERRUPT_CHECK_DELAY = 0.5

_numbers = itertools.count(1)


class ThreadKilled(BaseException):
    """Raised inside a killed thread, and in threads that wait for its result."""


class WaitStrategy:
    """Replaces the wait of a thread for an :class:`Event`.

    The pool of a container installs one while it handles a message: the worker that the handler
    spawned then runs inside the handler's wait, on the same thread.
    """

    __slots__ = ()

    def wait(
        self, event: Event, block: Callable[[float | None], None], timeout: float | None
    ) -> None:
        """Returns when ``event`` is sent, or after ``timeout`` seconds. ``block(timeout)`` is the
        plain wait."""
        raise NotImplementedError


class _CurrentThread(threading.local):
    wait_strategy: WaitStrategy | None = None


# State of the calling thread.
current_thread = _CurrentThread()


class Event:
    """A value or an exception that is sent once, to any number of waiting threads."""

    __slots__ = ("__weakref__", "_exc", "_gate", "_links", "_lock", "_sent", "_value")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent = False
        # Created by the first thread that waits. Most events are sent earlier.
        self._gate: threading.Event | None = None
        self._value: Any = None
        self._exc: BaseException | None = None
        # Created by the first link().
        self._links: list[Callable[[Event], Any]] | None = None

    def ready(self) -> bool:
        return self._sent

    def send(self, value: Any = None, exc: BaseException | ExcInfo | None = None) -> None:
        """Sets the value, or the exception that wait() raises. Further calls have no effect."""
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
        """Calls ``callback(event)`` when the event is sent, at once if it already was."""
        with self._lock:
            if not self._sent:
                if self._links is None:
                    self._links = []
                self._links.append(callback)
                return
        callback(self)

    def unlink(self, callback: Callable[[Event], Any]) -> None:
        """Removes a link."""
        with self._lock:
            if self._links is not None and callback in self._links:
                self._links.remove(callback)

    def wait(self, timeout: float | None = None) -> Any:
        """Returns the value or raises the exception. TimeoutError after ``timeout`` seconds.

        The :class:`WaitStrategy` of the thread may run a worker meanwhile.
        """
        if not self._sent:
            strategy = current_thread.wait_strategy
            if strategy is not None:
                strategy.wait(self, self._wait, timeout)
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
    """Clears an asynchronous exception that the thread ``ident`` has not raised yet.

    For the calling thread, the exception may be raised in here.
    """
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), None)


def retry_interrupt(attempt: Callable[[], bool | None]) -> None:
    """Calls ``attempt()`` until it returns None, retrying on a background thread.

    ``attempt`` tries to interrupt a thread. It returns None if that is no longer needed, False to
    be called again soon, and True if an exception will be raised in the thread. Then it is called
    again later: Python drops exceptions in callbacks of weak references, for example. Retries end
    after :data:`INTERRUPT_TIMEOUT`.
    """
    global _retrying
    retry = _Retry(attempt)
    if retry.ended():
        return
    with _retries_changed:
        _retries.append(retry)
        if _retrying:
            _retries_changed.notify()
            return
        _retrying = True
    threading.Thread(target=_retry_interrupts, name="nameko-interrupts", daemon=True).start()


class _Retry:
    """Repeated attempts to interrupt one thread."""

    __slots__ = ("_attempt", "_deadline", "_delay", "due")

    def __init__(self, attempt: Callable[[], bool | None]) -> None:
        self._attempt = attempt
        self._delay = INTERRUPT_FIRST_DELAY
        # When the next attempt is due, and when attempts end.
        self.due = time.monotonic()
        self._deadline = self.due + INTERRUPT_TIMEOUT

    def ended(self) -> bool:
        """Makes an attempt. Returns whether it was the last one."""
        raised = self._attempt()
        self.due = time.monotonic() + (INTERRUPT_CHECK_DELAY if raised else self._delay)
        self._delay = min(self._delay * 1.5, INTERRUPT_MAX_DELAY)
        return raised is None or self.due > self._deadline


# The retries, and whether their thread runs. It ends when there are none.
_retries: list[_Retry] = []
_retrying = False
_retries_changed = threading.Condition()


def _reset_after_fork() -> None:
    """Resets the state in a forked child, which has no other thread."""
    global _retrying, _retries_changed
    _retrying, _retries_changed = False, threading.Condition()
    _retries.clear()


os.register_at_fork(after_in_child=_reset_after_fork)


def _retry_interrupts() -> None:
    global _retrying
    while True:
        with _retries_changed:
            if not _retries:
                _retrying = False
                return
            retry = min(_retries, key=lambda retry: retry.due)
            delay = retry.due - time.monotonic()
            if delay > 0:
                _retries_changed.wait(delay)
                continue
        if retry.ended():
            with _retries_changed:
                _retries.remove(retry)


class ManagedThread:
    """A daemon thread running ``fn``, with a handle to join, kill and observe it.

    Python cannot stop a thread inside a blocking call. :meth:`kill` raises :class:`ThreadKilled`
    in the thread, waits for it for a moment, and then counts it as dead: waiters and links are
    notified, and later effects of the thread are ignored.

    The exception is raised where it leaves no lock behind: in the body of a ``with`` or a ``try``,
    or in a function that neither acquires nor releases anything explicitly.
    """

    def __init__(self, fn: Callable[[], Any], name: str | None = None) -> None:
        self._fn = fn
        self._lock = threading.Lock()
        self._event = Event()
        self._links: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self._killed: BaseException | None = None
        self._ended = False
        # Result and exception, once it has ended.
        self._outcome: tuple[Any, BaseException | None] = (None, None)
        self._thread = threading.Thread(
            target=self._run, name=name or "nameko-{}".format(next(_numbers)), daemon=True
        )

    def start(self) -> ManagedThread:
        self._thread.start()
        return self

    @property
    def dead(self) -> bool:
        return self._ended

    def is_current(self) -> bool:
        """Whether this is the calling thread."""
        return self._thread is threading.current_thread()

    def wait(self, timeout: float | None = None) -> Any:
        """Returns the result of ``fn``, or raises its exception or :class:`ThreadKilled`.
        TimeoutError after ``timeout`` seconds."""
        return self._event.wait(timeout)

    def link(self, callback: Callable[..., Any], *args: Any) -> None:
        """Calls ``callback(handle, *args)`` at the end of the thread, at once if it has ended."""
        with self._lock:
            if not self._ended:
                self._links.append((callback, args))
                return
        callback(self, *args)

    def kill(self, exc: BaseException | None = None, grace: float = KILL_GRACE) -> None:
        """Stops the thread as soon as possible, with the limits described in the class.

        ``exc`` is raised in waiters in place of :class:`ThreadKilled`.
        """
        if self.is_current():
            raise exc or ThreadKilled()
        self.interrupt(exc)
        if self._killed is not None and not self._ended:
            try:
                self._event.wait(grace)
            except TimeoutError:
                self._finish(None, self._killed)
            except BaseException:
                pass  # raised in its own waiters

    def interrupt(self, exc: BaseException | None = None) -> None:
        """The first half of :meth:`kill`: raises in the thread and does not wait for it."""
        with self._lock:
            if self._ended or self._killed is not None:
                return
            self._killed = exc or ThreadKilled()
            ident = self._thread.ident
        if ident is not None and ident != threading.get_ident():
            retry_interrupt(self._try_interrupt)

    def _try_interrupt(self) -> bool | None:
        with self._lock:
            ident = self._thread.ident
            if self._ended or ident is None:
                return None
            return interrupt(ident, ThreadKilled)

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
            # Killed while it was ending.
            self._finish(None, self._killed)

    def _finish(self, result: Any, exc: BaseException | None) -> None:
        with self._lock:
            if not self._ended:
                self._ended = True
                self._outcome = (result, exc)
        # A concurrent kill interrupts this function at the latest; _run() then calls it again.
        self._event.send(*self._outcome)
        with self._lock:
            links, self._links = self._links, []
        for callback, args in links:
            try:
                callback(self, *args)
            except Exception:
                sys.excepthook(*sys.exc_info())


def spawn(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> ManagedThread:
    """Runs ``fn(*args, **kwargs)`` in a new thread."""
    return ManagedThread(lambda: fn(*args, **kwargs)).start()
