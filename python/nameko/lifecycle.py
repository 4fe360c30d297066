"""Start and stop of the extensions of a container, by concurrent threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from nameko.extensions import Extension
from nameko.utils.concurrency import call_all, start_all

# Seconds that a stop waits for the start() of an extension, which may block forever.
START_GRACE = 1.0


class Lifecycle:
    """Calls ``setup()``, ``start()``, ``stop()`` and ``kill()`` of the extensions of one container.

    A signal may stop a container while another thread starts it. Extensions are protected from
    this: after the first stop or kill no extension is set up or started. An extension is stopped
    when every running ``setup()`` and its own ``start()`` have returned. The wait for ``start()``
    ends after :data:`START_GRACE` seconds. Extensions without a ``stop()`` are not waited for, and
    a kill does not wait at all.
    """

    def __init__(self) -> None:
        # Guards the attributes below. Notified at the end of a call and at a kill.
        self._changed = threading.Condition()
        # Set by the first stop or kill.
        self._ending = False
        self._killed = False
        # Set while a thread stops the container.
        self._stopping = False
        # The running calls of setup() and start() that a stop waits for.
        self._running: set[_Call] = set()

    def set_up(self, extensions: Iterable[Any]) -> None:
        self._start_all(extensions, "setup")

    def start(self, extensions: Iterable[Any]) -> None:
        self._start_all(extensions, "start")

    @contextmanager
    def ending(self) -> Iterator[bool]:
        """Context of a stop, entered by one thread at a time.

        Entered when no ``setup()`` runs any more. Yields False if the container was killed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._killed or not self._stopping)
            self._ending = self._stopping = True
            self._changed.wait_for(lambda: self._killed or not self._is_running("setup"))
            killed = self._killed
        try:
            yield not killed
        finally:
            with self._changed:
                self._stopping = False
                self._changed.notify_all()

    def stop(self, extensions: Iterable[Any]) -> None:
        _call_all(extensions, "stop", self._stop_one, call_all)

    def kill(self, extensions: Iterable[Any]) -> None:
        with self._changed:
            self._ending = self._killed = True
            self._changed.notify_all()
        _call_all(extensions, "kill", lambda extension: extension.kill(), call_all)

    def _start_all(self, extensions: Iterable[Any], name: str) -> None:
        # The first failure is raised while other extensions still wait, for the broker for example.
        start_one = partial(self._start_one, name=name)
        _call_all(extensions, name, start_one, start_all)

    def _start_one(self, extension: Any, name: str) -> None:
        call = _Call(name, id(extension), threading.get_ident())
        with self._changed:
            if self._ending:
                return
            if _overrides(extension, "stop"):
                self._running.add(call)
        try:
            getattr(extension, name)()
        finally:
            with self._changed:
                self._running.discard(call)
                self._changed.notify_all()
                killed = self._killed
        if killed and name == "start":
            # The kill may have preceded the resources that it has to release.
            extension.kill()

    def _stop_one(self, extension: Any) -> None:
        if getattr(extension, "stop_interrupts_start", False) is not True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._killed or not self._is_running("start", extension), START_GRACE
                )
        extension.stop()

    def _is_running(self, name: str, extension: Any = None) -> bool:
        """Whether another thread runs this method of ``extension``, or of any extension."""
        current = threading.get_ident()
        return any(
            call.name == name
            and call.thread != current
            and (extension is None or call.extension == id(extension))
            for call in self._running
        )


class _Call(NamedTuple):
    name: str
    extension: int
    thread: int


def _call_all(
    extensions: Iterable[Any],
    name: str,
    call: Callable[[Any], None],
    run: Callable[[list[Callable[[], Any]]], Any],
) -> None:
    """Runs ``call(extension)`` concurrently for the extensions that override a method.

    ``run`` runs the calls. The other extensions need no thread.
    """
    calls: list[Callable[[], Any]] = [
        partial(call, extension) for extension in extensions if _overrides(extension, name)
    ]
    if calls:
        run(calls)


def _overrides(extension: Any, name: str) -> bool:
    """Whether an extension overrides the empty method of :class:`Extension`."""
    return getattr(type(extension), name, None) is not getattr(Extension, name) or name in getattr(
        extension, "__dict__", ()
    )
