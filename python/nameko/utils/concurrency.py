"""Concurrent calls of many objects, and a dictionary shared by threads."""

from __future__ import annotations

import queue
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from nameko.utils.threads import ManagedThread, spawn

K = TypeVar("K")
V = TypeVar("V")


class LiveDict(dict[K, V]):
    """A dictionary that other threads may change during an iteration, which uses a snapshot."""

    def __iter__(self) -> Iterator[K]:
        return iter(self.keys())

    def keys(self) -> list[K]:  # type: ignore[override]
        return list(super().keys())

    def values(self) -> list[V]:  # type: ignore[override]
        return list(super().values())

    def items(self) -> list[tuple[K, V]]:  # type: ignore[override]
        return list(super().items())


class ThreadPool:
    """A pool for :func:`fail_fast_imap` with one thread per call."""

    def spawn(self, fn: Callable[..., Any], *args: Any) -> ManagedThread:
        return spawn(fn, *args)


def fail_fast_imap(pool: Any, call: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """Calls ``call(item)`` for each item in a thread of the pool and yields results as available.

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
    """Calls methods on every item concurrently, each in a thread of its own.

    A method returns the list of results when all calls have ended. With ``abort_on_error`` the
    first exception kills the other calls; without, the exception of the first item is raised after
    all calls have ended.
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
    """Runs the calls concurrently and returns their results in order.

    The last call runs in the calling thread, so that a single call needs no thread. After all calls
    have ended, the first exception in the order of the calls is raised.
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
    """Runs the calls concurrently. Returns when all have ended, or raises the first exception at
    once: the other calls continue, and may block forever."""
    if len(calls) == 1:
        calls[0]()
        return
    finished: queue.SimpleQueue[ManagedThread] = queue.SimpleQueue()
    for call in calls:
        spawn(call).link(finished.put)
    for _ in calls:
        finished.get().wait()


class SpawningSet(set[Any]):
    """A set in the order of insertion, with a proxy ``all`` that calls methods on every item
    concurrently."""

    def __init__(self, items: Iterable[Any] = ()) -> None:
        # The items as keys, for fast iteration.
        self.in_order = dict.fromkeys(items)
        super().__init__(self.in_order)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.in_order)

    def add(self, item: Any) -> None:
        super().add(item)
        self.in_order[item] = None

    def update(self, *others: Iterable[Any]) -> None:
        for other in others:
            for item in other:
                self.add(item)

    def __ior__(self, other: Any) -> SpawningSet:  # type: ignore[misc]
        self.update(other)
        return self

    def discard(self, item: Any) -> None:
        super().discard(item)
        self.in_order.pop(item, None)

    def remove(self, item: Any) -> None:
        super().remove(item)
        del self.in_order[item]

    def pop(self) -> Any:
        item = next(iter(self.in_order))
        self.remove(item)
        return item

    def clear(self) -> None:
        super().clear()
        self.in_order.clear()

    @property
    def all(self) -> SpawningProxy:
        return SpawningProxy(self)
