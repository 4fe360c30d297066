"""Starting and stopping the extensions of a container, which two threads may do at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from nameko.extensions import Extension
from nameko.utils.concurrency import call_all, start_all

# How long (s) a stop waits for the start() of an extension, which may wait for what never comes.
START_GRACE = 1.0


class Lifecycle:
    """Calls ``setup()``, ``start()``, ``stop()`` and ``kill()`` of the extensions of one container.

    A signal stops a container while another thread is starting it. Extensions need not be written
    for that. Once the container is to end, nothing more is set up or started. An extension is
    stopped when all that are being set up are, and when its own ``start()`` has returned, which is
    waited for :data:`START_GRACE` seconds. What has no ``stop()`` is not waited for, and a kill
    waits for nothing.
    """

    def __init__(self) -> None:
        # Guards what follows; notified when a call is over, and at a kill.
        self._changed = threading.Condition()
        # Set for good by the first stop or kill.
        self._ending = False
        self._killed = False
        # Whether a thread is stopping the container.
        self._stopping = False
        # Of setup() and start(), those that run and are waited for.
        self._running: set[_Call] = set()

    def set_up(self, extensions: Iterable[Any]) -> None:
        self._start_all(extensions, "setup")

    def start(self, extensions: Iterable[Any]) -> None:
        self._start_all(extensions, "start")

    @contextmanager
    def ending(self) -> Iterator[bool]:
        """While the container is stopped, by one thread at a time. Begins when nothing is being set
        up any more, with False where it was killed meanwhile."""
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
        # One that fails is told of while others wait, for the broker for example.
        begin = partial(self._start_one, name=name)
        _call_all(extensions, name, begin, start_all)

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
            # It was killed when it had nothing yet that could be.
            extension.kill()

    def _stop_one(self, extension: Any) -> None:
        if getattr(extension, "stop_interrupts_start", False) is not True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._killed or not self._is_running("start", extension), START_GRACE
                )
        extension.stop()

    def _is_running(self, name: str, extension: Any = None) -> bool:
        """Whether another thread is in that method of the extension, or of any."""
        here = threading.get_ident()
        return any(
            call.name == name
            and call.thread != here
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
    """``call`` each extension that has a method of that name, all at once; ``run`` does it. The
    others cost no thread."""
    calls: list[Callable[[], Any]] = [
        partial(call, extension) for extension in extensions if _overrides(extension, name)
    ]
    if calls:
        run(calls)


def _overrides(extension: Any, name: str) -> bool:
    """Whether it has such a method, other than the empty one of :class:`Extension`."""
    return getattr(type(extension), name, None) is not getattr(Extension, name) or name in getattr(
        extension, "__dict__", ()
    )
