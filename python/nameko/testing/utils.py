"""Small helpers for tests."""

from __future__ import annotations

import socket
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from nameko.extensions import Entrypoint
from nameko.utils.threads import spawn


def get_extension(container: Any, extension_cls: type, **match_attrs: Any) -> Any:
    """The first extension of the container of this class, and with these attributes; else None."""
    for ext in container.extensions:
        if isinstance(ext, extension_cls) and all(
            getattr(ext, name) == value for name, value in match_attrs.items()
        ):
            return ext
    return None


def get_container(runner: Any, service_cls: type) -> Any:
    """The container of the runner that hosts this class; else None."""
    for container in runner.containers:
        if container.service_cls == service_cls:
            return container
    return None


@contextmanager
def wait_for_call(timeout: float, mock_method: Any) -> Iterator[Any]:
    """Wait until the mock has been called; TimeoutError after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not mock_method.called:
        if time.monotonic() > deadline:
            raise TimeoutError("{} was not called within {} seconds".format(mock_method, timeout))
        time.sleep(0.001)
    yield mock_method


def wait_for_worker_idle(container: Any, timeout: float = 10) -> None:
    """Wait until the container runs no worker; TimeoutError after ``timeout`` seconds."""
    warnings.warn(
        "`wait_for_worker_idle` is deprecated. Use the `entrypoint_waiter` "
        "to wait for specific entrypoints instead.",
        DeprecationWarning,
        stacklevel=2,
    )
    spawn(container._worker_pool.waitall).wait(timeout)


def assert_stops_raising(
    fn: Callable[[], Any],
    exception_type: type[BaseException] = Exception,
    timeout: float = 10,
    interval: float = 0.1,
) -> None:
    """Call ``fn`` every ``interval`` seconds until it does not raise; TimeoutError, with what it
    raised last, after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            fn()
        except exception_type as exc:
            if time.monotonic() > deadline:
                raise TimeoutError("still raising after {} seconds".format(timeout)) from exc
        else:
            return
        time.sleep(interval)


class MockCallArgs(NamedTuple):
    positional: tuple[Any, ...]
    keyword: dict[str, Any]


def unpack_mock_call(call: Any) -> MockCallArgs:
    return MockCallArgs(*call)


class AnyInstanceOf:
    """Equal to every instance of a class."""

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
    """An entrypoint that needs no container."""

    def __init__(self, method_name: str | None = None) -> None:
        self.method_name = method_name


def find_free_port(host: str = "127.0.0.1") -> int:
    """A port that nothing listened at a moment ago."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.bind((host, 0))
    port: int = sock.getsockname()[1]
    sock.close()
    return port
