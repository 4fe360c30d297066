"""Layers: code around the workers of every kind of entrypoint.

::

    def audit(call, next):
        try:
            return next()
        finally:
            log.info("%s.%s took %.3f s", call.service_name, call.method_name, call.duration)


    class Shop:
        name = "shop"
        layers = [audit]

A layer is a function, or any other callable. ``next()`` runs the layers inside it, the hooks of the
dependency providers up to ``before_reply``, and the method; it returns the result or raises the
exception. The layer returns the result of the call, or raises its exception. A layer that does not
call ``next`` answers itself: neither the method nor a hook runs. The reply is sent after the
outermost layer has returned.

An ``async def`` layer awaits ``next()``. Layers and methods of both kinds can be mixed; the thread
of the worker then waits for the coroutines.

Layers are listed outermost first, and set at four places. From outside to inside: the
configuration key ``LAYERS``, a list of import paths; ``ServiceRunner(config, layers=[...])``;
``ServiceContainer(cls, config, layers=[...])``; the attribute ``layers`` of the service class.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from types import CoroutineType
from typing import Any

from nameko import loop
from nameko.bridge import Bridge
from nameko.exceptions import ConfigurationError
from nameko.extensions import Extension
from nameko.utils import get_redacted_args, import_from_path
from nameko.workers import WorkerThread

LAYERS_CONFIG_KEY = "LAYERS"

Layer = Callable[["Call", "Next"], Any]


class Call:
    """The call that a layer wraps."""

    __slots__ = ("_started_at", "worker_ctx")

    def __init__(self, worker_ctx: Any) -> None:
        self.worker_ctx = worker_ctx
        self._started_at = time.monotonic()

    @property
    def service_name(self) -> str:
        name: str = self.worker_ctx.service_name
        return name

    @property
    def method_name(self) -> str:
        name: str = self.worker_ctx.entrypoint.method_name
        return name

    @property
    def entrypoint(self) -> Any:
        """The entrypoint that has started the worker."""
        return self.worker_ctx.entrypoint

    @property
    def call_id(self) -> str:
        call_id: str = self.worker_ctx.call_id
        return call_id

    @property
    def args(self) -> Any:
        """The positional arguments of the method."""
        return self.worker_ctx.args

    @property
    def kwargs(self) -> Any:
        """The keyword arguments of the method."""
        return self.worker_ctx.kwargs

    @property
    def context_data(self) -> dict[str, Any]:
        """The context data. Changes apply to the dependencies, the method and its own calls."""
        data: dict[str, Any] = self.worker_ctx.data
        return data

    @property
    def duration(self) -> float:
        """Seconds since the outermost layer was called."""
        return time.monotonic() - self._started_at

    def redacted_args(self) -> dict[str, Any]:
        """Returns a copy of the arguments by name, for logs, without ``sensitive_arguments``."""
        return get_redacted_args(self.entrypoint, *self.args, **self.kwargs)

    def __repr__(self) -> str:
        return "<Call {}>".format(self.call_id)


class Next:
    """Runs the rest of a call, once. See the module."""

    __slots__ = ("_bridge", "_called", "_cancel", "_run")

    def __init__(self, run: Callable[[], Any], cancel: Callable[[Bridge], None]) -> None:
        self._run = run
        self._cancel = cancel
        self._called = False
        # Set while the layer is a coroutine.
        self._bridge: Bridge | None = None

    def __call__(self) -> Any:
        if self._called:
            raise RuntimeError("a layer called `next` twice: a method runs once per call")
        self._called = True
        if self._bridge is not None and loop.awaiting_loop() is not None:
            return self._bridge.call(self._run, partial(self._cancel, self._bridge))
        return self._run()


class LayeredRun:
    """One call inside its layers, on the thread of its worker.

    ``core(run_coroutine)`` runs the innermost part: the hooks of the providers and the method.
    ``handle`` is that of the worker, see :class:`Bridge`.
    """

    def __init__(
        self,
        layers: tuple[Layer, ...],
        worker_ctx: Any,
        core: Callable[[Callable[[Any], Any]], Any],
        handle: WorkerThread | None,
    ) -> None:
        self._layers = layers
        self._call = Call(worker_ctx)
        self._core = core
        self._handle = handle
        # Guards the attributes below, which the loop reads to cancel.
        self._lock = threading.Lock()
        # The coroutines that the thread waits for, outermost first.
        self._bridges: list[Bridge] = []
        # Set if a layer was cancelled that waits for a part without a coroutine.
        self._cancelled = False

    def run(self, index: int = 0) -> Any:
        """Runs the layers from ``index`` on. Returns the result or raises the exception."""
        if index == len(self._layers):
            return self._core(self.run_coroutine)
        following = Next(partial(self.run, index + 1), self._cancel)
        result = self._layers[index](self._call, following)
        if isinstance(result, CoroutineType):
            return self.run_coroutine(_settle(result), following)
        return result

    def run_coroutine(
        self, coroutine: Coroutine[Any, Any, Any], following: Next | None = None
    ) -> Any:
        """Runs the coroutine of a layer, or of the method, and waits for its end."""
        bridge = Bridge(coroutine, self._handle)
        if following is not None:
            following._bridge = bridge
        with self._lock:
            self._bridges.append(bridge)
            cancelled = self._cancelled
        if cancelled:
            bridge.cancel()
        try:
            return bridge.run()
        finally:
            with self._lock:
                self._bridges.pop()

    def _cancel(self, outside: Bridge) -> None:
        """Cancels the part of the call inside a layer. Called on the loop.

        A part that has no coroutine, such as a method without ``async def``, runs to its end.
        """
        with self._lock:
            innermost = self._bridges[-1]
            if innermost is outside:
                self._cancelled = True
                return
        innermost.cancel()


async def _settle(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Awaits the coroutine of a layer, and the one that it may return: ``return next()``."""
    result = await coroutine
    while isinstance(result, CoroutineType):
        result = await result
    return result


def configured_layers(config: Mapping[str, Any]) -> tuple[Layer, ...]:
    """Returns the layers of the configuration key ``LAYERS``. ConfigurationError if it is invalid.

    Items are import paths, such as ``shop.layers.audit``, or callables.
    """
    values = config.get(LAYERS_CONFIG_KEY)
    if values is None:
        return ()
    if not isinstance(values, (list, tuple)):
        raise ConfigurationError(
            "{} must be a list of import paths, such as `shop.layers.audit`, not {!r}".format(
                LAYERS_CONFIG_KEY, values
            )
        )
    layers = []
    for value in values:
        if isinstance(value, str):
            try:
                value = import_from_path(value.replace(":", "."))
            except Exception as exc:
                raise ConfigurationError(
                    "{} contains {!r}, which cannot be imported: {}".format(
                        LAYERS_CONFIG_KEY, value, exc
                    )
                ) from exc
        layers.append(value)
    return check_layers(layers, LAYERS_CONFIG_KEY)


def service_layers(service_cls: Any) -> tuple[Layer, ...]:
    """Returns the layers of a service class. ConfigurationError if its ``layers`` is invalid."""
    layers = getattr(service_cls, "layers", ())
    if inspect.isroutine(layers) or isinstance(layers, (property, Extension)):
        return ()  # a method or a dependency with this name
    return check_layers(layers, "`{}.layers`".format(service_cls.__name__))


def check_layers(layers: Iterable[Any], place: str) -> tuple[Layer, ...]:
    """Returns layers as a tuple. ConfigurationError, which names ``place``, if one is invalid."""
    if isinstance(layers, (str, Mapping)) or not isinstance(layers, Iterable):
        raise ConfigurationError("{} must be a list of layers, not {!r}".format(place, layers))
    layers = tuple(layers)
    for layer in layers:
        if not callable(layer) or isinstance(layer, type):
            raise ConfigurationError(
                "{} contains {!r}; a layer is a function `layer(call, next)`".format(place, layer)
            )
    return layers
