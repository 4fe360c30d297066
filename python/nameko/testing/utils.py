"""Utilities for tests."""

from __future__ import annotations

import queue
import socket
import sys
import threading
import time
import warnings
from collections import namedtuple as namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from nameko.extensions import Entrypoint
from nameko.testing.rabbit import HTTPError as HTTPError
from nameko.utils.threads import spawn


def get_extension(container: Any, extension_cls: type, **match_attrs: Any) -> Any:
    """Returns the first extension with the given class and attributes, or None."""
    for ext in container.extensions:
        if isinstance(ext, extension_cls) and all(
            getattr(ext, name) == value for name, value in match_attrs.items()
        ):
            return ext
    return None


def get_container(runner: Any, service_cls: type) -> Any:
    """Returns the container of a service class, or None."""
    for container in runner.containers:
        if container.service_cls == service_cls:
            return container
    return None


@contextmanager
def wait_for_call(timeout: float, mock_method: Any) -> Iterator[Any]:
    """Waits until the mock has been called. TimeoutError after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not mock_method.called:
        if time.monotonic() > deadline:
            raise _timed_out("{} was not called within {} seconds".format(mock_method, timeout))
        time.sleep(0.001)
    yield mock_method


def wait_for_worker_idle(container: Any, timeout: float = 10) -> None:
    """Waits until the container runs no worker. TimeoutError after ``timeout`` seconds."""
    warnings.warn(
        "`wait_for_worker_idle` is deprecated. Use the `entrypoint_waiter` "
        "to wait for specific entrypoints instead.",
        DeprecationWarning,
        stacklevel=2,
    )
    try:
        spawn(container.worker_pool.waitall).wait(timeout)
    except TimeoutError:
        raise _timed_out("{} has running workers".format(container)) from None


def assert_stops_raising(
    fn: Callable[[], Any],
    exception_type: type[BaseException] = Exception,
    timeout: float = 10,
    interval: float = 0.1,
) -> None:
    """Calls ``fn`` every ``interval`` seconds until it does not raise.

    TimeoutError, caused by the last exception, after ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            fn()
        except exception_type as exc:
            if time.monotonic() > deadline:
                raise _timed_out("still raising after {} seconds".format(timeout)) from exc
        else:
            return
        time.sleep(interval)


def _timed_out(text: str) -> BaseException:
    """Returns a TimeoutError.

    If eventlet has been imported, the error is also an ``eventlet.Timeout``, as tests written for
    version 2 expect.
    """
    expected = getattr(sys.modules.get("eventlet"), "Timeout", None)
    if not isinstance(expected, type):
        return TimeoutError(text)
    both = type("Timeout", (TimeoutError, expected), {"__init__": TimeoutError.__init__})
    return both(text)


class MockCallArgs(NamedTuple):
    positional: tuple[Any, ...]
    keyword: dict[str, Any]


def unpack_mock_call(call: Any) -> MockCallArgs:
    return MockCallArgs(*call)


class AnyInstanceOf:
    """Compares equal to all instances of a class."""

    def __init__(self, cls: Any) -> None:
        self.cls = cls

    def __eq__(self, other: object) -> bool:
        return isinstance(self.cls, type) and isinstance(other, self.cls)

    def __hash__(self) -> int:
        return hash(self.cls)

    def __repr__(self) -> str:
        return "<AnyInstanceOf-{}>".format(getattr(self.cls, "__name__", self.cls))


ANY_PARTIAL = AnyInstanceOf(partial)


class DummyProvider(Entrypoint):
    """An entrypoint that does not require a container."""

    def __init__(self, method_name: str | None = None) -> None:
        self.method_name = method_name


def get_rabbit_connections(vhost: str, rabbit_manager: Any) -> list[dict[str, Any]]:
    """Returns the connections to a virtual host, in the format of the management API."""
    connections = rabbit_manager.get_connections() or ()
    return [connection for connection in connections if connection["vhost"] == vhost]


def reset_rabbit_connections(vhost: str, rabbit_manager: Any) -> None:
    """Makes the broker close all connections to a virtual host."""
    for connection in get_rabbit_connections(vhost, rabbit_manager):
        try:
            rabbit_manager.delete_connection(connection["name"])
        except Exception as exc:
            # 404: the connection has been closed meanwhile.
            response = getattr(exc, "response", None)
            if getattr(response, "status_code", None) != 404:
                raise


def find_free_port(host: str = "127.0.0.1") -> int:
    """Returns a port that was free a moment ago."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.bind((host, 0))
    port: int = sock.getsockname()[1]
    sock.close()
    return port


class ResourcePipeline:
    """Creates resources ahead of use and destroys them after it, on background threads.

    Up to ``size`` resources are ready for use, and one more may be waiting to be added.

    ::

        with ResourcePipeline(create, destroy).run() as pipeline:
            with pipeline.get() as resource:
                ...
    """

    STOP = object()

    def __init__(
        self, create: Callable[[], Any], destroy: Callable[[Any], Any], size: int = 3
    ) -> None:
        if size == 0:
            raise RuntimeError("Zero size would create unbounded resources")
        self.create = create
        self.destroy = destroy
        self.size = size
        # Terminated by STOP once no more resources are created.
        self.ready: queue.Queue[Any] = queue.Queue(maxsize=size)
        # Terminated by STOP once no more resources are to be destroyed.
        self.trash: queue.Queue[Any] = queue.Queue()
        self._stopping = threading.Event()

    @contextmanager
    def run(self) -> Iterator[ResourcePipeline]:
        """Creates resources during the block, and destroys all of them at its end."""
        creator, destroyer = spawn(self._create), spawn(self._destroy)
        try:
            yield self
        finally:
            self._stopping.set()
            for unused in iter(self.ready.get, self.STOP):
                self.trash.put(unused)
            self.trash.put(self.STOP)
            destroyer.wait()
            creator.wait()

    @contextmanager
    def get(self) -> Iterator[Any]:
        """Yields a resource for the block."""
        item = self.ready.get()
        if item is self.STOP:
            self.ready.put(item)
            raise RuntimeError("no resource could be created")
        try:
            yield item
        finally:
            self.trash.put(item)

    def _create(self) -> None:
        try:
            # Nothing is created if the pipeline is stopped immediately.
            if not self._stopping.wait(0.01):
                while not self._stopping.is_set():
                    self.ready.put(self.create())
        finally:
            self.ready.put(self.STOP)

    def _destroy(self) -> None:
        for item in iter(self.trash.get, self.STOP):
            self.destroy(item)
