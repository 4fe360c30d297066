"""Containers: each hosts one service class, with its extensions and its workers."""

from __future__ import annotations

import inspect
import logging
import os
import sys
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Iterable
from logging import getLogger
from types import CoroutineType
from typing import Any

import nameko
from nameko import loop, serialization
from nameko._config import whole_number
from nameko._nameko import PatchGuard
from nameko.constants import (
    CALL_ID_STACK_CONTEXT_KEY,
    DEFAULT_MAX_WORKERS,
    DEFAULT_PARENT_CALLS_TRACKED,
    MAX_WORKERS_CONFIG_KEY,
    PARENT_CALLS_CONFIG_KEY,
)
from nameko.exceptions import ConfigurationError, ContainerBeingKilled
from nameko.extensions import (
    ENTRYPOINT_EXTENSIONS_ATTR,
    DependencyProvider,
    is_dependency,
    iter_extensions,
)
from nameko.lifecycle import Lifecycle
from nameko.log_helpers import make_timing_logger
from nameko.utils import eventlet_guard, import_from_path
from nameko.utils.concurrency import LiveDict, SpawningSet
from nameko.utils.patch_guard import guarded_methods, methods_of
from nameko.utils.threads import KILL_GRACE, Event, ExcInfo, ManagedThread, ThreadKilled
from nameko.workers import WorkerPool, WorkerThread, is_nonblocking

# The name in Nameko 2.
is_method = inspect.isfunction

_log = getLogger(__name__)
_log_time = make_timing_logger(_log)


def get_service_name(service_cls: Any) -> str:
    """Returns the name of a service class. Raises ConfigurationError if it is not a string."""
    service_name = getattr(service_cls, "name", None)
    if service_name is None:
        raise ConfigurationError(
            "Service class must define a `name` attribute ({}.{})".format(
                service_cls.__module__, service_cls.__name__
            )
        )
    if not isinstance(service_name, str):
        raise ConfigurationError(
            "Service name attribute must be a string ({}.{}.name)".format(
                service_cls.__module__, service_cls.__name__
            )
        )
    return service_name


def get_container_cls(config: Any = None) -> Any:
    """Returns the container class of the setting ``SERVICE_CONTAINER_CLS``, by default
    :class:`ServiceContainer`."""
    config = nameko.config if config is None else config
    return import_from_path(config.get("SERVICE_CONTAINER_CLS")) or ServiceContainer


def new_call_id() -> str:
    return str(uuid.uuid4())


class ContextData(dict[str, Any]):
    """The context data that a worker sends. Changes apply to the worker, too."""

    __slots__ = ("_data",)

    def __init__(self, data: dict[str, Any], call_id_stack: list[str]) -> None:
        super().__init__(data)
        super().__setitem__(CALL_ID_STACK_CONTEXT_KEY, call_id_stack)
        # WorkerContext.data
        self._data = data

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self._data[key] = value

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        self._data.pop(key, None)

    def update(self, *args: Any, **kwargs: Any) -> None:
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def setdefault(self, key: str, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: str, *default: Any) -> Any:
        self._data.pop(key, None)
        return super().pop(key, *default)

    def copy(self) -> dict[str, Any]:
        return dict(self)

    def __reduce__(self) -> Any:
        return dict, (dict(self),)


class WorkerData(dict[str, Any]):
    """The context data of a worker. Its call id stack can be read as well, as in version 3."""

    __slots__ = ("_worker_ctx",)

    def __init__(self, worker_ctx: WorkerContext, data: dict[str, Any]) -> None:
        super().__init__(data)
        # Weak, because the context refers to its data.
        self._worker_ctx = weakref.ref(worker_ctx)

    def __missing__(self, key: str) -> Any:
        worker_ctx = self._worker_ctx()
        if key != CALL_ID_STACK_CONTEXT_KEY or worker_ctx is None:
            raise KeyError(key)
        return worker_ctx.call_id_stack

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or key == CALL_ID_STACK_CONTEXT_KEY

    def get(self, key: str, default: Any = None) -> Any:
        try:
            return self[key]
        except KeyError:
            return default

    def __reduce__(self) -> Any:
        return dict, (dict(self),)


class WorkerContext:
    """One call of one entrypoint: the service instance, the arguments and the context data."""

    _call_id: str | None = None
    _call_id_stack: list[str] | None = None
    # The start, by time.time(). Set if the duration is logged.
    _started_at: float | None = None

    def __init__(
        self,
        container: Any,
        service: Any,
        entrypoint: Any,
        args: Any = None,
        kwargs: Any = None,
        data: dict[str, Any] | None = None,
    ) -> None:
        self.container = container
        # A container written for version 3 may have no configuration of its own.
        self.config = getattr(container, "config", nameko.config)
        self.service = service
        self.entrypoint = entrypoint
        self.service_name = container.service_name
        self.args = args if args is not None else ()
        self.kwargs = kwargs if kwargs is not None else {}
        # Context data from the caller, sent on to the services that the worker calls.
        self.data: dict[str, Any] = data if data is not None else {}
        # The call ids of the callers, oldest first.
        stack = self.data.pop(CALL_ID_STACK_CONTEXT_KEY, ())
        # Peers may send values of any type.
        self._parent_call_id_stack: list[str] = (
            list(stack) if isinstance(stack, (list, tuple, deque)) else []
        )
        # A client, which has no service, keeps the dictionary of its program.
        if service is not None:
            self.data = WorkerData(self, self.data)

    @property
    def call_id(self) -> str:
        if self._call_id is None:
            self._call_id = "{}.{}.{}".format(
                self.service_name, self.entrypoint.method_name, new_call_id()
            )
        return self._call_id

    @property
    def call_id_stack(self) -> list[str]:
        """A copy of the ids of the calls up to this one, at most parent_calls_tracked + 1."""
        if self._call_id_stack is None:
            parent_calls_tracked = self.config.get(
                PARENT_CALLS_CONFIG_KEY, DEFAULT_PARENT_CALLS_TRACKED
            )
            stack = [*self._parent_call_id_stack, self.call_id]
            self._call_id_stack = stack[-(parent_calls_tracked + 1) :]
        return self._call_id_stack.copy()

    @property
    def context_data(self) -> dict[str, Any]:
        """The context data sent to the services that this worker calls."""
        return ContextData(self.data, self.call_id_stack)

    @property
    def origin_call_id(self) -> str | None:
        return self._parent_call_id_stack[0] if self._parent_call_id_stack else None

    @property
    def immediate_parent_call_id(self) -> str | None:
        return self._parent_call_id_stack[-1] if self._parent_call_id_stack else None

    def __repr__(self) -> str:
        return "<{} [{}.{}] at 0x{:x}>".format(
            type(self).__name__, self.service_name, self.entrypoint.method_name, id(self)
        )


class ServiceContainer:
    """Hosts ``service_cls``. ``config`` is ``nameko.config`` by default."""

    def __init__(self, service_cls: Any, config: Any = None) -> None:
        self.service_cls = service_cls
        self.config = nameko.config if config is None else config
        self.service_name = get_service_name(service_cls)
        # The instances of SharedExtension, by sharing_key.
        self.shared_extensions: dict[Any, Any] = {}
        self.max_workers = (
            whole_number(self.config, MAX_WORKERS_CONFIG_KEY, DEFAULT_MAX_WORKERS)
            or DEFAULT_MAX_WORKERS
        )
        # Validated here instead of at the first call.
        whole_number(self.config, PARENT_CALLS_CONFIG_KEY, DEFAULT_PARENT_CALLS_TRACKED)
        self.serializer, self.accept = serialization.setup(self.config)

        self.entrypoints = SpawningSet()
        self.dependencies = SpawningSet()
        self.subextensions = SpawningSet()
        self._bind_extensions()

        self.started = False
        self._lifecycle = Lifecycle()
        # Intact while no result hook is overridden or patched. Created lazily.
        self._result_hook_guard: PatchGuard | None = None
        self._being_killed = False
        self._kill_lock = threading.Lock()
        # Sent once the container has stopped; carries the exception that killed it.
        self._died = Event()
        self._worker_threads: LiveDict[WorkerContext, WorkerThread] = LiveDict()
        # Running threads, with their names for logs.
        self._managed_threads: LiveDict[ManagedThread, str] = LiveDict()
        self._worker_pool = WorkerPool(
            self.max_workers,
            # More than workers, for the handlers of each consumer that wait for something.
            max_threads=self.max_workers * (2 + len(self.extensions)),
            name=self.service_name,
            host=self,
        )

    def _bind_extensions(self) -> None:
        # Dependencies first, because they may add methods to the class.
        for attr_name, dependency in inspect.getmembers(self.service_cls, is_dependency):
            bound = dependency.bind(self.interface, attr_name)
            self.dependencies.add(bound)
            self.subextensions.update(iter_extensions(bound))
        for method_name, method in inspect.getmembers(self.service_cls, inspect.isfunction):
            for entrypoint in getattr(method, ENTRYPOINT_EXTENSIONS_ATTR, ()):
                bound = entrypoint.bind(self.interface, method_name)
                self.entrypoints.add(bound)
                self.subextensions.update(iter_extensions(bound))

    @property
    def extensions(self) -> SpawningSet:
        return SpawningSet(self.entrypoints | self.dependencies | self.subextensions)

    @property
    def worker_pool(self) -> WorkerPool:
        """The threads of the container."""
        return self._worker_pool

    @property
    def worker_threads(self) -> LiveDict[WorkerContext, WorkerThread]:
        """The running workers, by their contexts."""
        return self._worker_threads

    @property
    def death(self) -> Event:
        """Sent once the container has stopped; carries the exception that killed it."""
        return self._died

    @property
    def interface(self) -> ServiceContainer:
        """The container as seen by extensions."""
        return self

    def start(self) -> None:
        """Sets up all extensions, then starts them. Returns when the service is serving, or when
        another thread has stopped it."""
        eventlet_guard()
        _log.debug("starting %s", self)
        self.started = True
        _started.add(self)
        with _log_time("started %s", self):
            self._lifecycle.set_up(self.extensions)
            self._lifecycle.start(self.extensions)

    def stop(self) -> None:
        """Stops gracefully: entrypoints, then workers drain, then dependencies, then the other
        extensions. Kills managed threads that still run."""
        if self._died.ready():
            _log.debug("already stopped %s", self)
            return
        if self._being_killed:
            _log.debug("already being killed %s", self)
            self._wait_for_death()
            return

        _log.debug("stopping %s", self)
        with _log_time("stopped %s", self), self._lifecycle.ending() as alive:
            if self._died.ready():
                return  # stopped by another thread
            if not alive:
                self._wait_for_death()
                return
            self._lifecycle.stop(self.entrypoints)
            self._worker_pool.waitall()
            self._lifecycle.stop(self.dependencies)
            self._lifecycle.stop(self.subextensions)
            self._kill_managed_threads()
            self._worker_pool.stop()
            self.started = False
            self._died.send(None)

    def kill(self, exc_info: ExcInfo | None = None) -> None:
        """Stops at once: waits for nothing, and messages in progress return to their queues.

        :meth:`wait` raises the exception of ``exc_info``.
        """
        with self._kill_lock:
            first, self._being_killed = not self._being_killed, True
        if not first:
            # Two threads failed concurrently, or one failed because of the kill.
            _log.debug("already killing %s ... waiting for death", self)
            self._wait_for_death()
            return
        if self._died.ready():
            _log.debug("already stopped %s", self)
            return

        if exc_info is not None:
            _log.info("killing %s due to %s", self, exc_info[1])
        else:
            _log.info("killing %s", self)

        self._kill_extensions(self.entrypoints)
        self._kill_worker_threads()
        self._kill_extensions(self.extensions)
        self._kill_managed_threads()
        self._worker_pool.stop(discard=True)
        self.started = False
        # No effect if a stop() was first.
        self._died.send(None, exc_info)

    def wait(self) -> None:
        """Waits until the container has stopped. Raises the exception that killed it.

        An exception in a managed thread or in a dependency's hook kills a container.
        """
        return self._died.wait()

    def spawn_worker(
        self,
        entrypoint: Any,
        args: Any,
        kwargs: Any,
        context_data: dict[str, Any] | None = None,
        handle_result: Any = None,
    ) -> WorkerContext:
        """Runs the entrypoint's method in a worker. Waits while ``max_workers`` are running.

        ``handle_result(worker_ctx, result, exc_info)`` is called in the worker with the outcome of
        the method. It returns the result and exc_info that dependencies see.

        The worker of a :func:`~nameko.workers.nonblocking` handler of a message starts when the
        handler returns or waits for an event.

        Raises ContainerBeingKilled if the container is being killed or has stopped.
        """
        worker_ctx = self.new_worker_context(entrypoint, args, kwargs, context_data)
        self._worker_pool.spawn((worker_ctx, handle_result), inline=is_nonblocking(entrypoint))
        return worker_ctx

    def new_worker_context(
        self, entrypoint: Any, args: Any, kwargs: Any, context_data: dict[str, Any] | None
    ) -> WorkerContext:
        """Returns the context of a new worker, with a fresh instance of the service.

        Raises ContainerBeingKilled.
        """
        if self._being_killed:
            _log.info("Worker spawn prevented due to being killed")
            raise ContainerBeingKilled()
        service = self.service_cls()
        worker_ctx = WorkerContext(self, service, entrypoint, args, kwargs, context_data)
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("spawning %s", worker_ctx)
        return worker_ctx

    def spawn_managed_thread(self, fn: Any, identifier: str | None = None) -> ManagedThread:
        """Runs ``fn`` in a thread. An exception in it kills the container.

        The caller has to end the thread: :meth:`stop` kills threads that still run at its end.
        ``identifier`` is the name of the thread in logs, by default the name of ``fn``.
        """
        if identifier is None:
            identifier = getattr(fn, "__name__", "<unknown>")
        thread = ManagedThread(fn, name="{}-{}".format(self.service_name, identifier))
        self._managed_threads[thread] = identifier
        thread.link(self._handle_managed_thread_exited, identifier)
        return thread.start()

    def has_result_hooks(self) -> bool:
        """Whether a hook observes a worker after its result is handled.

        Without such hooks a worker ends before the broker has confirmed its reply.
        """
        if self._result_hook_guard is None:
            entries = guarded_methods(self, _CONTAINER_RESULT_HOOKS)
            for dependency in self.dependencies:
                entries += guarded_methods(dependency, _DEPENDENCY_RESULT_HOOKS)
            self._result_hook_guard = PatchGuard(entries)
        return not self._result_hook_guard.intact()

    def _worker_ends_inline(self, worker: tuple[WorkerContext, Any]) -> bool:
        """Whether the rest of the worker after its method is non-blocking."""
        worker_ctx, handle_result = worker
        if handle_result is not None:
            entrypoint = worker_ctx.entrypoint
            handle_result_is_nonblocking = getattr(entrypoint, "handle_result_is_nonblocking", None)
            if handle_result_is_nonblocking is None or not handle_result_is_nonblocking():
                return False
            # A partial of the entrypoint's handle_result, or of a function with the same guarantee.
            if getattr(getattr(handle_result, "func", None), "nonblocking", None) is not True:
                return False
        return not self.has_result_hooks()

    def _on_worker_start(self, thread: WorkerThread, worker: tuple[WorkerContext, Any]) -> None:
        self._worker_threads[worker[0]] = thread

    def _on_worker_end(self, thread: WorkerThread, worker: tuple[WorkerContext, Any]) -> None:
        self._worker_threads.pop(worker[0], None)
        if thread.exc is not None:
            self._handle_thread_exited(thread)

    def _run_worker(
        self, worker_ctx: WorkerContext, handle_result: Any
    ) -> CoroutineType[Any, Any, Any] | None:
        """Runs a worker, up to the coroutine of an ``async def`` method, which it returns."""
        verbose = _log.isEnabledFor(logging.DEBUG)
        if verbose:
            worker_ctx._started_at = time.time()
            _log.debug("setting up %s", worker_ctx)
            _log.debug(
                "call stack for %s: %s", worker_ctx, "->".join(map(str, worker_ctx.call_id_stack))
            )

        self._inject_dependencies(worker_ctx)
        self._worker_setup(worker_ctx)
        if verbose:
            _log.debug("calling handler for %s", worker_ctx)
        result = exc_info = None
        try:
            method = getattr(worker_ctx.service, worker_ctx.entrypoint.method_name)
            result = method(*worker_ctx.args, **worker_ctx.kwargs)
            if isinstance(result, CoroutineType):
                loop.worker.set(worker_ctx)
                return result
        except ThreadKilled:
            raise
        # Also sys.exit() and a cancelled coroutine, which are no Exception: a request must not be
        # able to end the service, nor the next instance that receives it.
        except BaseException as exc:
            _log_failure(worker_ctx, exc)
            exc_info = sys.exc_info()
        self._finish_worker(worker_ctx, handle_result, result, exc_info, verbose)
        return None

    def _resume_worker(
        self, worker: tuple[WorkerContext, Any], result: Any, exc: BaseException | None
    ) -> None:
        """Runs the rest of a worker after its ``async def`` method."""
        worker_ctx, handle_result = worker
        exc_info = None
        if exc is not None:
            exc_info = (type(exc), exc, exc.__traceback__)
            _log_failure(worker_ctx, exc, exc_info=exc_info)
        verbose = _log.isEnabledFor(logging.DEBUG)
        self._finish_worker(worker_ctx, handle_result, result, exc_info, verbose)

    def _finish_worker(
        self,
        worker_ctx: WorkerContext,
        handle_result: Any,
        result: Any,
        exc_info: Any,
        verbose: bool,
    ) -> None:
        if handle_result is not None:
            if verbose:
                _log.debug("handling result for %s", worker_ctx)
                with _log_time("handled result for %s", worker_ctx):
                    result, exc_info = handle_result(worker_ctx, result, exc_info)
            else:
                result, exc_info = handle_result(worker_ctx, result, exc_info)

        if verbose:
            _log.debug("signalling result for %s", worker_ctx)
        self._worker_result(worker_ctx, result, exc_info)
        # The traceback refers to this frame: without it the worker is freed at once.
        del exc_info
        self._worker_teardown(worker_ctx)
        if verbose and worker_ctx._started_at is not None:
            _log.debug("ran worker %s in %0.3fs", worker_ctx, time.time() - worker_ctx._started_at)

    def _inject_dependencies(self, worker_ctx: WorkerContext) -> None:
        service = worker_ctx.service
        for provider in self.dependencies:
            setattr(service, provider.attr_name, provider.get_dependency(worker_ctx))

    def _worker_setup(self, worker_ctx: WorkerContext) -> None:
        for provider in self.dependencies:
            provider.worker_setup(worker_ctx)

    def _worker_result(self, worker_ctx: WorkerContext, result: Any, exc_info: Any) -> None:
        for provider in self.dependencies:
            provider.worker_result(worker_ctx, result, exc_info)

    def _worker_teardown(self, worker_ctx: WorkerContext) -> None:
        for provider in self.dependencies:
            provider.worker_teardown(worker_ctx)

    def _kill_extensions(self, extensions: Iterable[Any]) -> None:
        # The container is being killed already, so further errors are only logged.
        try:
            self._lifecycle.kill(extensions)
        except Exception as exc:
            _log.warning("Extension raised `%s` during kill", exc)

    def _kill_worker_threads(self) -> None:
        if self._worker_threads:
            _log.warning("killing %s active workers(s)", len(self._worker_threads))
            for worker_ctx, thread in self._worker_threads.items():
                _log.warning("killing active worker for %s", worker_ctx)
                # A worker that kills its own container returns from the kill.
                if thread.ident != threading.get_ident():
                    thread.kill()

    def _kill_managed_threads(self) -> None:
        threads = self._managed_threads.items()
        if not threads:
            return
        _log.warning("killing %s managed thread(s)", len(threads))
        deadline = time.monotonic() + KILL_GRACE
        for thread, identifier in threads:
            _log.warning("killing managed thread `%s`", identifier)
            thread.interrupt()
        for thread, _ in threads:
            if not thread.is_current():
                thread.kill(grace=max(0.0, deadline - time.monotonic()))

    def _handle_managed_thread_exited(self, thread: ManagedThread, identifier: str) -> None:
        self._managed_threads.pop(thread, None)
        self._handle_thread_exited(thread)

    def _handle_thread_exited(self, thread: ManagedThread | WorkerThread) -> None:
        try:
            thread.wait()
        except ThreadKilled:
            _log.debug("%s thread killed by container", self)
        except BaseException:
            self.fail()

    def fail(self) -> None:
        """Kills the container with the exception being handled.

        For errors of an extension or of the container, after which its state is unknown.
        """
        _log.critical("%s thread exited with error", self, exc_info=True)
        self.kill(sys.exc_info())  # type: ignore[arg-type]

    def _wait_for_death(self) -> None:
        try:
            self._died.wait()
        except (Exception, SystemExit):
            pass  # raised by wait()

    def __repr__(self) -> str:
        return "<ServiceContainer [{}] at 0x{:x}>".format(self.service_name, id(self))


# The result hooks as defined here, which have no effect, recorded before anything can patch them.
_CONTAINER_RESULT_HOOKS = methods_of(ServiceContainer, "_worker_result", "_worker_teardown")
_DEPENDENCY_RESULT_HOOKS = methods_of(DependencyProvider, "worker_result", "worker_teardown")

# The containers started in this process.
_started: weakref.WeakSet[ServiceContainer] = weakref.WeakSet()


def _reset_after_fork() -> None:
    """Ends the containers in a forked child, which has none of their threads and connections."""
    for container in _started:
        container.started = False
        container._being_killed = True  # no worker starts
        container._died = Event()
        container._died.send(None)
    _started.clear()


os.register_at_fork(after_in_child=_reset_after_fork)


def _log_failure(worker_ctx: WorkerContext, exc: BaseException, **options: Any) -> None:
    """Logs the exception of a method. ``options`` has ``exc_info`` if it is not being handled."""
    if isinstance(exc, worker_ctx.entrypoint.expected_exceptions):
        options.setdefault("exc_info", True)
        _log.warning("(expected) error handling worker %s: %s", worker_ctx, exc, **options)
    else:
        _log.exception("error handling worker %s: %s", worker_ctx, exc, **options)
