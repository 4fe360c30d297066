"""Calling a method of many objects at once; a dictionary that many threads change."""

from __future__ import annotations

import queue
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from nameko.utils.threads import ManagedThread, spawn

K = TypeVar("K")
V = TypeVar("V")


class LiveDict(dict[K, V]):
    """A dictionary that other threads may change while it is iterated over: iterating sees what
    was in it when it began."""

    def __iter__(self) -> Iterator[K]:
        return iter(self.keys())

    def keys(self) -> list[K]:  # type: ignore[override]
        return list(super().keys())

    def values(self) -> list[V]:  # type: ignore[override]
        return list(super().values())

    def items(self) -> list[tuple[K, V]]:  # type: ignore[override]
        return list(super().items())


class ThreadPool:
    """The pool that :func:`fail_fast_imap` takes: a thread per call."""

    def spawn(self, fn: Callable[..., Any], *args: Any) -> ManagedThread:
        return spawn(fn, *args)


def fail_fast_imap(pool: Any, call: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """Call ``call(item)`` for each item in a thread of the pool and yield the results as they come.

    The first exception kills the other threads and is raised.
    """
    finished: queue.SimpleQueue[Any] = queue.SimpleQueue()
    ongoing = {pool.spawn(call, item) for item in items}
    for thread in ongoing:
        thread.link(finished.put)

    while ongoing:
        thread = finished.get()
        ongoing.discard(thread)
        try:
            result = thread.wait()
        except BaseException:
            for other in ongoing:
                if isinstance(other, ManagedThread):
                    other.kill(grace=0)
                else:
                    other.kill()
            raise
        yield result


class SpawningProxy:
    """A method called on the proxy is called on every item at once, each in a thread of its own.

    It returns when all are done, with the list of results. With ``abort_on_error`` the first
    exception kills the other calls; without, all calls end first and then the first item's
    exception is raised.
    """

    def __init__(self, items: Iterable[Any], abort_on_error: bool = False) -> None:
        self._items = items
        self.abort_on_error = abort_on_error

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def spawning_method(*args: Any, **kwargs: Any) -> list[Any] | None:
            items = list(self._items)
            if not items:
                return None

            def call(item: Any) -> Any:
                return getattr(item, name)(*args, **kwargs)

            if self.abort_on_error:
                return list(fail_fast_imap(ThreadPool(), call, items))
            return call_all([lambda item=item: call(item) for item in items])  # type: ignore[misc]

        return spawning_method


def call_all(calls: list[Callable[[], Any]]) -> list[Any]:
    """Run the calls at the same time and return their results in order.

    The last one runs in the calling thread, so that one call costs no thread. When all are over,
    the first exception in the order of the calls is raised.
    """
    *others, last = calls
    threads = [spawn(call) for call in others]
    failure: BaseException | None = None
    result = None
    try:
        result = last()
    except Exception:
        failure = sys.exc_info()[1]
    results = []
    error: BaseException | None = None
    for thread in threads:
        try:
            results.append(thread.wait())
        except BaseException as exc:
            if thread.dead and error is None:
                error = exc
            elif not thread.dead:
                raise  # Ctrl-C in the waiting thread
    if error is not None or failure is not None:
        raise error or failure  # type: ignore[misc]
    results.append(result)
    return results


def start_all(calls: list[Callable[[], Any]]) -> None:
    """Run the calls at the same time. Returns when all are over, or raises the first exception as
    soon as there is one: the other calls go on, and may wait for what never comes."""
    if len(calls) == 1:
        calls[0]()
        return
    finished: queue.SimpleQueue[ManagedThread] = queue.SimpleQueue()
    for call in calls:
        spawn(call).link(finished.put)
    for _ in calls:
        finished.get().wait()


class SpawningSet(set[Any]):
    """A set whose ``all`` calls a method on every item at once."""

    @property
    def all(self) -> SpawningProxy:
        return SpawningProxy(self)
