"""Helpers to test single entrypoints of a container, or service classes without a container."""

from __future__ import annotations

import inspect
import queue
import time
from collections import OrderedDict as OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from nameko.exceptions import ExtensionNotFound
from nameko.extensions import DependencyProvider, Entrypoint, iter_extensions
from nameko.testing.utils import get_extension
from nameko.testing.waiting import WaitResult, watch_calls
from nameko.testing.waiting import wait_for_call as wait_for_call
from nameko.utils.threads import spawn

try:
    # Tests that use this package check for its mock classes.
    from mock import MagicMock  # noqa: UP026
except ImportError:
    from unittest.mock import MagicMock

__all__ = [
    "dummy",
    "entrypoint_hook",
    "entrypoint_waiter",
    "get_extension",
    "once",
    "replace_dependencies",
    "restrict_entrypoints",
    "worker_factory",
]


@contextmanager
def entrypoint_hook(
    container: Any,
    method_name: str,
    context_data: dict[str, Any] | None = None,
    timeout: float | None = 30,
) -> Iterator[Callable[..., Any]]:
    """Yields a function that runs an entrypoint's method in a worker of the container.

    The worker has the container's dependencies and ``context_data``. The function returns the
    result of the method or raises its exception.

    ::

        with entrypoint_hook(container, "remote_method") as remote_method:
            assert remote_method("value") == "value-x-y"

    Raises ExtensionNotFound if there is no such entrypoint. The function raises
    ``entrypoint_waiter.Timeout`` after ``timeout`` seconds, and the exception that kills the
    container.
    """
    entrypoint = get_extension(container, Entrypoint, method_name=method_name)
    if entrypoint is None:
        raise ExtensionNotFound(
            "No entrypoint for '{}' found on container {}.".format(method_name, container)
        )

    def hook(*args: Any, **kwargs: Any) -> Any:
        outcomes: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def run() -> Any:
            with entrypoint_waiter(
                container,
                method_name,
                timeout=timeout,
                # Identity of the arguments identifies this call.
                callback=lambda worker_ctx, *_: worker_ctx.kwargs is kwargs,
            ) as result:
                container.spawn_worker(entrypoint, args, kwargs, context_data=context_data)
            return result.get()

        # If the container dies, the worker never completes.
        container.death.link(outcomes.put)
        worker = spawn(run)
        worker.link(outcomes.put)
        try:
            first = outcomes.get()
            if first is worker:
                return worker.wait()
            first.wait()  # raises the exception that killed the container
            return worker.wait()
        finally:
            container.death.unlink(outcomes.put)
            worker.kill(grace=0)

    yield hook


class EntrypointWaiterTimeout(Exception):
    """The entrypoint did not fire in time."""


class _Result(WaitResult):
    """The result of a worker, with its context."""

    worker_ctx: Any = None

    def send(self, worker_ctx: Any, result: Any, exc_info: Any) -> None:  # type: ignore[override]
        self.worker_ctx = worker_ctx
        super().send(result, exc_info)


class entrypoint_waiter:
    """Waits at the end of a block until an entrypoint has fired and its worker has ended.

    ::

        with entrypoint_waiter(container, "handle_event") as result:
            ...  # dispatch the event
        assert result.get() == "handled"

    ``callback(worker_ctx, result, exc_info)`` is called for each worker of the method; the wait
    ends when it returns a true value. ``entrypoint_waiter.Timeout`` is raised ``timeout`` seconds
    after the start of the block; None disables it.
    """

    Timeout = EntrypointWaiterTimeout

    def __init__(
        self,
        container: Any,
        method_name: str,
        timeout: float | None = 30,
        callback: Callable[..., Any] | None = None,
    ) -> None:
        self._waiting = _wait_for_entrypoint(container, method_name, timeout, callback)

    def __enter__(self) -> WaitResult:
        return self._waiting.__enter__()

    def __exit__(self, *exc_info: Any) -> bool | None:
        return self._waiting.__exit__(*exc_info)


@contextmanager
def _wait_for_entrypoint(
    container: Any,
    method_name: str,
    timeout: float | None,
    callback: Callable[..., Any] | None,
) -> Iterator[WaitResult]:
    if not get_extension(container, Entrypoint, method_name=method_name):
        raise RuntimeError("{} has no entrypoint `{}`".format(container.service_name, method_name))
    result = _Result()
    # Gets an item for the result, and one for the teardown of the worker.
    seen: queue.SimpleQueue[None] = queue.SimpleQueue()

    def on_worker_result(args: Any, kwargs: Any, res: Any, exc: Any) -> bool:
        worker_ctx, worker_result, exc_info = args
        if worker_ctx.entrypoint.method_name != method_name:
            return False
        if callable(callback) and not callback(worker_ctx, worker_result, exc_info):
            return False
        first = not result.has_result
        result.send(worker_ctx, worker_result, exc_info)
        return first

    def on_worker_teardown(args: Any, kwargs: Any, res: Any, exc: Any) -> bool:
        return result.worker_ctx is args[0]

    deadline = None if timeout is None else time.monotonic() + timeout
    release = partial(seen.put, None)
    with (
        watch_calls(container, "_worker_teardown", on_worker_teardown, WaitResult(), release),
        watch_calls(container, "_worker_result", on_worker_result, WaitResult(), release),
    ):
        yield result
        try:
            for _ in range(2):
                seen.get(
                    timeout=None if deadline is None else max(0.0, deadline - time.monotonic())
                )
        except queue.Empty:
            raise EntrypointWaiterTimeout(
                "Timeout on {}.{} after {} seconds".format(
                    container.service_name, method_name, timeout
                )
            ) from None


def worker_factory(service_cls: Any, **dependencies: Any) -> Any:
    """Returns an instance of the service class, with a MagicMock or a given object per dependency.

    ::

        service = worker_factory(ConversionService)
        service.maths_rpc.multiply.side_effect = lambda x, y: x * y
        assert service.inches_to_cm(300) == 762
    """
    service = service_cls()
    for name, attr in inspect.getmembers(service_cls):
        if isinstance(attr, DependencyProvider):
            dependency = dependencies.pop(name) if name in dependencies else MagicMock()
            setattr(service, name, dependency)
    if dependencies:
        raise ExtensionNotFound(
            "DependencyProvider(s) '{}' not found on {}.".format(dependencies.keys(), service_cls)
        )
    return service


class MockDependencyProvider(DependencyProvider):
    """Injects a given object or a MagicMock."""

    def __init__(self, attr_name: str, dependency: Any = None) -> None:
        self.attr_name = attr_name
        self.dependency = MagicMock() if dependency is None else dependency

    def get_dependency(self, worker_ctx: Any) -> Any:
        return self.dependency


def replace_dependencies(container: Any, *dependencies: str, **dependency_map: Any) -> Any:
    """Replaces dependencies of a container before its start.

    Dependencies named in ``dependencies`` are replaced by MagicMocks, those in ``dependency_map``
    by the given objects. Returns the mock of a single name, else an iterator of the mocks. Shared
    extensions that only the replaced ones used, such as their connection, do not start.

    ::

        maths_rpc = replace_dependencies(container, "maths_rpc")
        maths_rpc.divide.return_value = 39.37
    """
    if set(dependencies).intersection(dependency_map):
        raise RuntimeError("Cannot replace the same dependency via both args and kwargs.")
    mocks = {name: MagicMock() for name in dependencies}
    _replace_dependencies(container, **dependency_map, **mocks)
    replaced = iter(mocks.values())
    return next(replaced) if len(mocks) == 1 else replaced


def _replace_dependencies(container: Any, **dependency_map: Any) -> None:
    if container.started:
        raise RuntimeError("You must replace dependencies before the container is started.")
    existing = {provider.attr_name: provider for provider in container.dependencies}
    missing = set(dependency_map) - set(existing)
    if missing:
        raise ExtensionNotFound("Dependency(s) '{}' not found on {}.".format(missing, container))
    for name, replacement in dependency_map.items():
        container.dependencies.remove(existing[name])
        container.dependencies.add(MockDependencyProvider(name, dependency=replacement))
    # The connection of a replaced proxy, for example, would wait for a broker.
    remaining = container.entrypoints | container.dependencies
    used = {part for extension in remaining for part in iter_extensions(extension)}
    replaced = {part for name in dependency_map for part in iter_extensions(existing[name])}
    container.subextensions -= replaced - used


def restrict_entrypoints(container: Any, *entrypoints: str) -> None:
    """Removes all other entrypoints from a container before its start."""
    if container.started:
        raise RuntimeError("You must restrict entrypoints before the container is started.")
    missing = set(entrypoints) - {entrypoint.method_name for entrypoint in container.entrypoints}
    if missing:
        raise ExtensionNotFound("Entrypoint(s) '{}' not found on {}.".format(missing, container))
    for entrypoint in list(container.entrypoints):
        if entrypoint.method_name not in entrypoints:
            container.entrypoints.remove(entrypoint)


class Once(Entrypoint):
    """An entrypoint that fires once, with the given arguments, when the container starts."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        options = {
            name: kwargs.pop(name, ())
            for name in ("expected_exceptions", "sensitive_arguments", "sensitive_variables")
        }
        self.args = args
        self.kwargs = kwargs
        super().__init__(**options)

    def start(self) -> None:
        self.container.spawn_worker(self, self.args, self.kwargs)


once = Once.decorator

# An entrypoint that never fires on its own.
dummy = Entrypoint.decorator
