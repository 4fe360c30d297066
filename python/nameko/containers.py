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
from asyncio import CancelledError
from collections import deque
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from logging import getLogger
from types import CoroutineType
from typing import Any

import nameko
from nameko import loop, serialization
from nameko._config import report_unknown_keys, whole_number
from nameko._nameko import PatchGuard
from nameko.bridge import Bridge
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
from nameko.layers import Layer, LayeredRun, check_layers, configured_layers, service_layers
from nameko.lifecycle import Lifecycle
from nameko.log_helpers import make_timing_logger
from nameko.outcome import Outcome, WorkerEnd
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
    # Whether the steps of the worker are logged.
    _verbose = False
    # The start, by time.time(). Set if the duration is logged.
    _started_at: float | None = None
    # How the worker ended: set before worker_result, None until then.
    end: WorkerEnd | None = None
    # Set from before_reply to worker_teardown. A killed worker has none.
    outcome: Outcome | None = None
    # The providers whose get_dependency has returned and whose teardown has not begun.
    _entered: Iterable[Any] = ()
    # Created on first access.
    _state: dict[Any, Any] | None = None
    # Whether a hook observes the worker before or after its reply. Set before the reply.
    _has_hooks = False
    # The provider and the name of a hook that failed before the method.
    _failed_hook: tuple[Any, str] | None = None
    # The exception of a fatal hook, which kills the container.
    _fatal: BaseException | None = None

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
        self._data: dict[str, Any] = data if data is not None else {}
        # The call ids of the callers, oldest first.
        stack = self._data.pop(CALL_ID_STACK_CONTEXT_KEY, ())
        # Peers may send values of any type.
        self._parent_call_id_stack: list[str] = (
            list(stack) if isinstance(stack, (list, tuple, deque)) else []
        )

    @cached_property
    def data(self) -> dict[str, Any]:
        """Context data from the caller, sent on to the services that the worker calls."""
        # A client, which has no service, keeps the dictionary of its program.
        return self._data if self.service is None else WorkerData(self, self._data)

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
    def state(self) -> dict[Any, Any]:
        """Values that dependency providers keep for this worker, by provider.

        Dropped after the last ``worker_teardown``.
        """
        if self._state is None:
            self._state = {}
        return self._state

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
    """Hosts ``service_cls``. ``config`` is ``nameko.config`` by default.

    ``layers`` wrap the workers, outside the layers of the service, see :mod:`nameko.layers`.
    """

    def __init__(
        self, service_cls: Any, config: Any = None, *, layers: Iterable[Layer] = ()
    ) -> None:
        self.service_cls = service_cls
        self.config = nameko.config if config is None else config
        self.service_name = get_service_name(service_cls)
        # The layers of the workers, outermost first.
        self.layers: tuple[Layer, ...] = (
            *configured_layers(self.config),
            *check_layers(layers, "the argument `layers`"),
            *service_layers(service_cls),
        )
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
        # Intact while no hook of the kind is overridden or patched. Created lazily.
        self._result_hook_guard: PatchGuard | None = None
        # The same for the hooks before the reply and after it.
        self._hook_guard: PatchGuard | None = None
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
        for attr_name, dependency in _in_declaration_order(
            self.service_cls, inspect.getmembers(self.service_cls, is_dependency)
        ):
            bound = dependency.bind(self.interface, attr_name)
            self.dependencies.add(bound)
            self.subextensions.update(iter_extensions(bound))
        for method_name, method in inspect.getmembers(self.service_cls, inspect.isfunction):
            for entrypoint in getattr(method, ENTRYPOINT_EXTENSIONS_ATTR, ()):
                bound = entrypoint.bind(self.interface, method_name)
                self.entrypoints.add(bound)
                self.subextensions.update(iter_extensions(bound))

    def add_outer_layers(self, layers: Iterable[Layer]) -> None:
        """Adds layers of a runner, outside those of the container, before its start."""
        configured = len(configured_layers(self.config))
        self.layers = (
            *self.layers[:configured],
            *check_layers(layers, "the argument `layers`"),
            *self.layers[configured:],
        )

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
            report_unknown_keys(self.config)
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

        An exception in a managed thread kills a container, and so does one in a hook among the
        ``fatal_hooks`` of a dependency provider.
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
            worker_ctx._verbose = True
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
        guard = self._result_hook_guard
        if guard is None:
            guard = self._result_hook_guard = self._guard(_DEPENDENCY_RESULT_HOOKS)
        return not guard.intact()

    def _has_hooks(self) -> bool:
        """Whether a hook observes a worker before or after its result is handled."""
        guard = self._hook_guard
        if guard is None:
            guard = self._hook_guard = self._guard(
                {**_DEPENDENCY_REPLY_HOOKS, **_DEPENDENCY_RESULT_HOOKS}
            )
        return not guard.intact()

    def inline_start_guard(self) -> PatchGuard | None:
        """Returns a guard for starting the workers of ``async def`` methods on the loop.

        While it is intact, the part of a worker before its coroutine returns at once. None if that
        part may block: it has layers, a constructor, or hooks that are not
        :func:`~nameko.workers.nonblocking`.
        """
        cls = self.service_cls
        if self.layers:
            return None
        entries = [(cls, name, getattr(object, name)) for name in ("__init__", "__new__")]
        for dependency in self.dependencies:
            get_dependency = type(dependency).get_dependency
            if getattr(get_dependency, "nonblocking", None) is not True:
                return None
            hooks = {**_DEPENDENCY_SETUP_HOOKS, "get_dependency": get_dependency}
            entries += guarded_methods(dependency, hooks)
        guard = PatchGuard(entries)
        return guard if guard.intact() else None

    def _guard(self, dependency_hooks: dict[str, Any]) -> PatchGuard:
        entries = guarded_methods(self, _CONTAINER_RESULT_HOOKS)
        for dependency in self.dependencies:
            entries += guarded_methods(dependency, dependency_hooks)
        return PatchGuard(entries)

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
        return not self._has_hooks()

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
        verbose = worker_ctx._verbose
        if verbose:
            worker_ctx._started_at = time.time()
            _log.debug("setting up %s", worker_ctx)
            _log.debug(
                "call stack for %s: %s", worker_ctx, "->".join(map(str, worker_ctx.call_id_stack))
            )

        result = exc_info = None
        if self.layers:
            result, exc_info = self._run_layers(worker_ctx)
            self._finish_worker(worker_ctx, handle_result, result, exc_info, layered=True)
            return None
        try:
            self._inject_dependencies(worker_ctx)
            self._worker_setup(worker_ctx)
            if verbose:
                _log.debug("calling handler for %s", worker_ctx)
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
            exc_info = self._failed_call(worker_ctx, exc)
        self._finish_worker(worker_ctx, handle_result, result, exc_info)
        return None

    def _resume_worker(
        self, worker: tuple[WorkerContext, Any], result: Any, exc: BaseException | None
    ) -> None:
        """Runs the rest of a worker after its ``async def`` method."""
        worker_ctx, handle_result = worker
        exc_info = None
        if exc is not None:
            exc_info = (type(exc), exc, exc.__traceback__)
            self._failed_call(worker_ctx, exc, exc_info=exc_info)
        self._finish_worker(worker_ctx, handle_result, result, exc_info)

    def _run_layers(self, worker_ctx: WorkerContext) -> Any:
        """Runs a worker up to its reply inside the layers. Returns its result and exc_info."""
        loop.worker.set(worker_ctx)
        failures: list[BaseException] = []
        core = partial(self._run_core, worker_ctx, failures)
        thread = self._worker_threads.get(worker_ctx)
        result = exc_info = None
        try:
            result = LayeredRun(self.layers, worker_ctx, core, thread).run()
        except ThreadKilled:
            raise
        except BaseException as exc:
            if exc not in failures:
                _log_failure(worker_ctx, exc)
            exc_info = sys.exc_info()
            failures.clear()  # the traceback refers to this frame
        if worker_ctx._fatal is not None:
            raise worker_ctx._fatal
        return result, exc_info

    def _run_core(
        self,
        worker_ctx: WorkerContext,
        failures: list[BaseException],
        run_coroutine: Callable[[CoroutineType[Any, Any, Any]], Any],
    ) -> Any:
        """Runs the hooks and the method inside the layers.

        Returns the result or raises the exception. Adds a logged exception to ``failures``.
        """
        result = exc_info = None
        try:
            self._inject_dependencies(worker_ctx)
            self._worker_setup(worker_ctx)
            method = getattr(worker_ctx.service, worker_ctx.entrypoint.method_name)
            result = method(*worker_ctx.args, **worker_ctx.kwargs)
            if isinstance(result, CoroutineType):
                result = run_coroutine(result)
        except ThreadKilled:
            raise
        except BaseException as exc:
            failures.append(exc)
            exc_info = self._failed_call(worker_ctx, exc)
        if self._has_hooks():
            result, exc_info = self._before_reply(worker_ctx, result, exc_info)
        if exc_info is not None:
            try:
                raise exc_info[1]
            finally:
                # The traceback refers to this frame: without it the worker is freed at once.
                del exc_info
        return result

    def _failed_call(self, worker_ctx: WorkerContext, exc: BaseException, **options: Any) -> Any:
        """Logs an exception of a method, or of a hook before it, and returns it as a tuple.

        ``options`` has ``exc_info`` if it is not being handled. Raises the exception of a fatal
        hook.
        """
        if worker_ctx._failed_hook is None:
            _log_failure(worker_ctx, exc, **options)
        else:
            provider, hook = worker_ctx._failed_hook
            self._failed_hook(worker_ctx, provider, hook, exc)
        return type(exc), exc, exc.__traceback__

    def _failed_hook(
        self, worker_ctx: WorkerContext, provider: Any, hook: str, exc: BaseException
    ) -> None:
        """Logs the exception of a hook, or raises it if it is fatal. Called in its handler."""
        if hook in getattr(provider, "fatal_hooks", DependencyProvider.fatal_hooks):
            worker_ctx._fatal = exc
            raise exc
        _log_failure(worker_ctx, exc, "`{}` of {} failed".format(hook, provider))

    def _finish_worker(
        self,
        worker_ctx: WorkerContext,
        handle_result: Any,
        result: Any,
        exc_info: Any,
        layered: bool = False,
    ) -> None:
        """Runs the steps of a worker after its method, or after its layers."""
        verbose = worker_ctx._verbose
        guard = self._hook_guard
        if guard is None or not guard.intact():
            worker_ctx._has_hooks = has_hooks = self._has_hooks()
            if has_hooks and not layered:
                result, exc_info = self._before_reply(worker_ctx, result, exc_info)
        if handle_result is not None:
            if verbose:
                _log.debug("handling result for %s", worker_ctx)
                with _log_time("handled result for %s", worker_ctx):
                    result, exc_info = handle_result(worker_ctx, result, exc_info)
            else:
                result, exc_info = handle_result(worker_ctx, result, exc_info)

        if verbose:
            _log.debug("signalling result for %s", worker_ctx)
        if worker_ctx._has_hooks:
            cancelled = exc_info is not None and isinstance(exc_info[1], CancelledError)
            worker_ctx.end = WorkerEnd.CANCELLED if cancelled else WorkerEnd.COMPLETED
            worker_ctx.outcome = Outcome(result, exc_info)
            self._worker_result(worker_ctx, result, exc_info)
            # The traceback refers to this frame: without it the worker is freed at once.
            del exc_info
            self._worker_teardown(worker_ctx)
            worker_ctx._state = worker_ctx.outcome = None
        if verbose and worker_ctx._started_at is not None:
            _log.debug("ran worker %s in %0.3fs", worker_ctx, time.time() - worker_ctx._started_at)

    def _inject_dependencies(self, worker_ctx: WorkerContext) -> None:
        service = worker_ctx.service
        entered = 0
        provider = None
        try:
            for provider in self.dependencies.in_order:
                dependency = provider.get_dependency(worker_ctx)
                if type(dependency) is CoroutineType:
                    dependency = self._await(worker_ctx, dependency)
                entered += 1
                setattr(service, provider.attr_name, dependency)
        except BaseException:
            worker_ctx._entered = tuple(self.dependencies.in_order)[:entered]
            worker_ctx._failed_hook = provider, "get_dependency"
            raise
        if entered:
            worker_ctx._entered = self.dependencies.in_order

    def _worker_setup(self, worker_ctx: WorkerContext) -> None:
        provider = None
        try:
            for provider in self.dependencies.in_order:
                returned = provider.worker_setup(worker_ctx)
                if type(returned) is CoroutineType:
                    self._await(worker_ctx, returned)
        except BaseException:
            worker_ctx._failed_hook = provider, "worker_setup"
            raise

    def _before_reply(self, worker_ctx: WorkerContext, result: Any, exc_info: Any) -> Any:
        """Returns the result and exc_info after the ``before_reply`` hooks."""
        outcome = worker_ctx.outcome = Outcome(result, exc_info)
        for provider in worker_ctx._entered:
            try:
                returned = provider.before_reply(worker_ctx, outcome)
                if type(returned) is CoroutineType:
                    self._await(worker_ctx, returned)
            except ThreadKilled:
                raise
            except BaseException as exc:
                self._failed_hook(worker_ctx, provider, "before_reply", exc)
                outcome.exception = exc
        return outcome.result, outcome.exc_info

    def _worker_result(self, worker_ctx: WorkerContext, result: Any, exc_info: Any) -> None:
        self._call_result_hooks(worker_ctx, "worker_result", worker_ctx, result, exc_info)

    def _worker_teardown(self, worker_ctx: WorkerContext) -> None:
        thread = self._worker_threads.get(worker_ctx)
        if thread is not None:
            thread.shield()
        try:
            self._call_result_hooks(worker_ctx, "worker_teardown", worker_ctx)
        finally:
            worker_ctx._entered = ()

    def _call_result_hooks(self, worker_ctx: WorkerContext, hook: str, *args: Any) -> None:
        """Calls a hook of all providers, then raises the first exception of a fatal hook."""
        fatal = None
        for provider in worker_ctx._entered:
            try:
                returned = getattr(provider, hook)(*args)
                if type(returned) is CoroutineType:
                    self._await(worker_ctx, returned)
            except ThreadKilled:
                raise
            except BaseException as exc:
                try:
                    self._failed_hook(worker_ctx, provider, hook, exc)
                except BaseException:
                    fatal = fatal or exc
        if fatal is not None:
            raise fatal

    def _has_teardown(self, worker: tuple[WorkerContext, Any]) -> bool:
        return bool(worker[0]._entered) and self.has_result_hooks()

    def _abort_worker(self, thread: WorkerThread, worker: tuple[WorkerContext, Any]) -> None:
        """Tears down a worker that was killed, or failed in a fatal hook or a handler of results.

        The exception that ended it stays: those of the teardown are logged.
        """
        worker_ctx = worker[0]
        if worker_ctx.end is None:
            worker_ctx.end, worker_ctx.outcome = WorkerEnd.KILLED, None
        try:
            if self._has_teardown(worker):
                self._worker_teardown(worker_ctx)
        except BaseException as exc:
            _log_failure(worker_ctx, exc, "`worker_teardown` failed")
        worker_ctx._state = worker_ctx.outcome = None

    def _await(self, worker_ctx: WorkerContext, coroutine: CoroutineType[Any, Any, Any]) -> Any:
        """Runs a coroutine of a worker on the process's loop and waits for its end."""
        thread = self._worker_threads.get(worker_ctx)
        # A kill has no effect on a teardown.
        return Bridge(coroutine, None if thread is None or thread.shielded else thread).run()

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
_DEPENDENCY_SETUP_HOOKS = methods_of(DependencyProvider, "worker_setup")
_DEPENDENCY_REPLY_HOOKS = methods_of(DependencyProvider, "before_reply")

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


def _log_failure(
    worker_ctx: WorkerContext, exc: BaseException, summary: str | None = None, **options: Any
) -> None:
    """Logs the exception of a worker. ``options`` has ``exc_info`` if it is not being handled.

    ``summary`` describes the place of an exception that the method has not raised.
    """
    text: str = "error handling worker %s: %s"
    args: tuple[Any, ...] = (worker_ctx, exc)
    if summary is not None:
        text, args = "%s in worker %s, call %s: %s", (summary, worker_ctx, worker_ctx.call_id, exc)
    if isinstance(exc, worker_ctx.entrypoint.expected_exceptions):
        options.setdefault("exc_info", True)
        _log.warning("(expected) " + text, *args, **options)
    else:
        _log.exception(text, *args, **options)


def _in_declaration_order(cls: type, members: Any) -> Any:
    """Sorts ``(name, value)`` pairs by the place of the name in the class, base classes first."""
    places: dict[str, int] = {}
    for base in reversed(cls.__mro__):
        for name in vars(base):
            places.setdefault(name, len(places))
    return sorted(members, key=lambda member: places.get(member[0], len(places)))
