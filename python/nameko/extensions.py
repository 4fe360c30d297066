"""Extensions: entrypoints, dependency providers, and the extensions that they share."""

from __future__ import annotations

import inspect
import types
import warnings
import weakref
from collections.abc import Callable, Collection, Iterator
from functools import partial
from logging import getLogger
from typing import Any, TypeVar, overload

from nameko.exceptions import ConfigurationError, IncorrectSignature
from nameko.outcome import Outcome
from nameko.utils.threads import Event

_log = getLogger(__name__)

ENTRYPOINT_EXTENSIONS_ATTR = "nameko_entrypoints"

# More positional arguments than any call has.
UNLIMITED_ARGUMENTS = 1 << 30

# The hooks of a DependencyProvider that are called for each worker.
WORKER_HOOKS = frozenset(
    {"get_dependency", "worker_setup", "before_reply", "worker_result", "worker_teardown"}
)

# A method, returned unchanged by its decorator.
Method = TypeVar("Method", bound=Callable[..., Any])


class Extension:
    """A part of a service that its container sets up, starts and stops.

    An instance in a service class is a declaration. :meth:`bind` creates the instance that a
    container uses from the same arguments, so ``__init__`` runs again: side effects belong into
    :meth:`setup`. Extensions that are attributes of an extension are bound with it. The search for
    them evaluates properties.
    """

    __params: tuple[tuple[Any, ...], dict[str, Any]]
    # A weak proxy of the container of a bound extension, None in a declaration.
    container: Any = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        instance = super().__new__(cls)
        instance.__params = (args, kwargs)
        return instance

    def setup(self) -> None:
        """Called before the container starts, to initialise the extension."""

    def start(self) -> None:
        """Called when every extension of the container is set up, to begin acting on events."""

    def stop(self) -> None:
        """Called when the container stops, to end gracefully. Returns when that is done.

        Called after :meth:`setup` has returned. A :meth:`start` that takes longer than a second may
        still run. A container that was not started may be stopped, too.
        """

    def kill(self) -> None:
        """Called when the container is killed, to end as soon as possible.

        Should log errors instead of raising them.
        """

    def bind(self, container: Any) -> Any:
        """Returns an instance that belongs to ``container``, with its sub-extensions."""
        if self.is_bound():
            raise RuntimeError("Cannot `bind` a bound extension.")
        args, kwargs = self.__params
        instance = type(self)(*args, **kwargs)
        # Weak, because the container refers to its shared extensions.
        instance.container = weakref.proxy(container)
        for name, extension in inspect.getmembers(self, is_extension):
            setattr(instance, name, extension.bind(container))
        return instance

    def is_bound(self) -> bool:
        return self.container is not None

    def __repr__(self) -> str:
        state = "" if self.is_bound() else " [unbound]"
        return "<{}{} at 0x{:x}>".format(type(self).__name__, state, id(self))


class SharedExtension(Extension):
    """An extension with one instance per container and :attr:`sharing_key`."""

    @property
    def sharing_key(self) -> Any:
        return type(self)

    def bind(self, container: Any) -> Any:
        shared = container.shared_extensions.get(self.sharing_key)
        if shared:
            return shared
        instance = super().bind(container)
        container.shared_extensions[self.sharing_key] = instance
        return instance


class DependencyProvider(Extension):
    """Provides an attribute of the service instance to each worker.

    The hooks of one worker and its method run in the same thread. A hook may be ``async def``: it
    runs on the loop of ``async def`` methods, and the worker waits for it.

    What a provider keeps for a worker belongs into ``worker_ctx.state[self]``, dropped after
    :meth:`worker_teardown`.

    An exception in :meth:`get_dependency` or :meth:`before_reply` is the outcome of the call.
    """

    attr_name: str | None = None

    # The hooks in which an exception kills the container. In the others, an exception before the
    # reply is the outcome of the call, and one after the reply is logged.
    fatal_hooks: Collection[str] = ("worker_setup", "worker_result", "worker_teardown")

    def bind(self, container: Any, attr_name: str) -> Any:  # type: ignore[override]
        """Like :meth:`Extension.bind`, for the attribute ``attr_name`` of the service."""
        instance = super().bind(container)
        instance.attr_name = attr_name
        self.attr_name = attr_name
        unknown = set(instance.fatal_hooks) - WORKER_HOOKS
        if unknown:
            raise ConfigurationError(
                "`{}.fatal_hooks` contains {}; the hooks of a worker are {}".format(
                    type(self).__name__,
                    ", ".join(map(repr, sorted(unknown))),
                    ", ".join(sorted(WORKER_HOOKS)),
                )
            )
        return instance

    def get_dependency(self, worker_ctx: Any) -> Any:
        """Returns the object to inject as ``self.<attr_name>``."""

    def worker_setup(self, worker_ctx: Any) -> Any:
        """Called before the method runs."""

    def before_reply(self, worker_ctx: Any, outcome: Outcome) -> Any:
        """Called with the outcome, before the reply is sent and the message is acknowledged.

        May set ``outcome.result`` or ``outcome.exception``. An exception raised here replaces the
        outcome.
        """

    def worker_result(
        self, worker_ctx: Any, result: Any = None, exc_info: tuple[Any, Any, Any] | None = None
    ) -> Any:
        """Called with the result or the exception of the method, after the reply."""

    def worker_teardown(self, worker_ctx: Any) -> Any:
        """Called at the end of each worker for which :meth:`get_dependency` has returned.

        ``worker_ctx.end`` says how it ended; it may have been killed before the reply.
        """

    def __repr__(self) -> str:
        if not self.is_bound():
            return super().__repr__()
        return "<{} [{}.{}] at 0x{:x}>".format(
            type(self).__name__, self.container.service_name, self.attr_name, id(self)
        )


class ProviderCollector:
    """Mixin for an extension that serves other extensions, its providers, until all have left."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._providers: set[Any] = set()
        self._providers_registered = False
        self._last_provider_unregistered = Event()
        super().__init__(*args, **kwargs)

    def register_provider(self, provider: Any) -> None:
        self._providers_registered = True
        _log.debug("registering provider %s for %s", provider, self)
        self._providers.add(provider)

    def unregister_provider(self, provider: Any) -> None:
        if provider not in self._providers:
            return
        _log.debug("unregistering provider %s for %s", provider, self)
        self._providers.remove(provider)
        if not self._providers:
            _log.debug("last provider unregistered for %s", self)
            self._last_provider_unregistered.send()

    def wait_for_providers(self) -> None:
        """Waits until all providers have left. Returns at once if there never was one."""
        if self._providers_registered:
            _log.debug("waiting for providers to unregister %s", self)
            self._last_provider_unregistered.wait()
            _log.debug("all providers unregistered %s", self)

    def stop(self) -> None:
        self.wait_for_providers()


def register_entrypoint(fn: Any, entrypoint: Entrypoint) -> None:
    """Registers an entrypoint on a method."""
    descriptors = getattr(fn, ENTRYPOINT_EXTENSIONS_ATTR, None)
    if descriptors is None:
        descriptors = set()
        setattr(fn, ENTRYPOINT_EXTENSIONS_ATTR, descriptors)
    descriptors.add(entrypoint)


class Entrypoint(Extension):
    """Runs a method of the service for requests, events or ticks of a timer.

    ``expected_exceptions``: an exception class, or a tuple of classes, of errors by the caller.
    ``sensitive_arguments``: see :func:`nameko.utils.get_redacted_args`.
    """

    method_name: str | None = None
    # Defaults for subclasses that do not call this __init__.
    expected_exceptions: Any = ()
    sensitive_arguments: Any = ()
    _signature: Signature | None = None

    def __init__(
        self, expected_exceptions: Any = (), sensitive_arguments: Any = (), **kwargs: Any
    ) -> None:
        sensitive_variables = kwargs.pop("sensitive_variables", ())
        if sensitive_variables:
            sensitive_arguments = sensitive_variables
            warnings.warn(
                "The `sensitive_variables` argument has been renamed to "
                "`sensitive_arguments`. This warning will be removed in "
                "version 2.9.0.",
                DeprecationWarning,
                stacklevel=2,
            )
        self.expected_exceptions = expected_exceptions
        self.sensitive_arguments = sensitive_arguments
        super().__init__(**kwargs)

    def bind(self, container: Any, method_name: str) -> Any:  # type: ignore[override]
        """Like :meth:`Extension.bind`, for the method ``method_name`` of the service."""
        instance = super().bind(container)
        instance.method_name = method_name
        return instance

    def check_signature(self, args: Any, kwargs: Any) -> None:
        """Raises IncorrectSignature if the method does not accept these arguments."""
        signature = self.signature()
        if signature.accepts(args, kwargs):
            return
        try:
            # None in place of the service instance.
            inspect.getcallargs(signature.fn, None, *args, **kwargs)
        except TypeError as exc:
            raise IncorrectSignature(str(exc))

    def signature(self) -> Signature:
        """Returns the signature of the method, cached until the method is replaced."""
        fn = getattr(self.container.service_cls, self.method_name or "")
        if self._signature is None or self._signature.fn is not fn:
            self._signature = Signature(fn)
        return self._signature

    @overload
    @classmethod
    def decorator(cls, fn: Method, /) -> Method: ...

    @overload
    @classmethod
    def decorator(cls, *args: Any, **kwargs: Any) -> Callable[[Method], Method]: ...

    @classmethod
    def decorator(cls, *args: Any, **kwargs: Any) -> Any:
        """Declares the entrypoint on a method: ``@entrypoint`` or ``@entrypoint(options)``."""

        def registering_decorator(
            fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> Callable[..., Any]:
            register_entrypoint(fn, cls(*args, **kwargs))
            return fn

        if len(args) == 1 and isinstance(args[0], types.FunctionType):
            return registering_decorator(args[0], args=(), kwargs={})
        return partial(registering_decorator, args=args, kwargs=kwargs)

    def __repr__(self) -> str:
        if not self.is_bound():
            return super().__repr__()
        return "<{} [{}.{}] at 0x{:x}>".format(
            type(self).__name__, self.container.service_name, self.method_name, id(self)
        )


class Signature:
    """A quick check of arguments. A negative result is inconclusive: getcallargs then decides."""

    __slots__ = ("all_names", "fn", "max_positional", "min_positional", "names")

    def __init__(self, fn: Any) -> None:
        self.fn = fn
        # Parameters that keywords may name, None if only getcallargs can decide.
        self.names: tuple[str, ...] | None = None
        # The same, if keywords may name all parameters.
        self.all_names: frozenset[str] | None = None
        try:
            spec = inspect.getfullargspec(fn)
        except TypeError:
            self.min_positional, self.max_positional = 1, 0  # accepts nothing
            return
        count = len(spec.args) - 1
        # Without self the count is negative, and nothing is accepted.
        self.min_positional = (
            count - len(spec.defaults or ()) if not spec.kwonlyargs else UNLIMITED_ARGUMENTS
        )
        self.max_positional = count if spec.varargs is None else UNLIMITED_ARGUMENTS
        if spec.varargs is None and spec.varkw is None and not spec.kwonlyargs:
            self.names = tuple(spec.args[1:])
            self.all_names = frozenset(self.names)

    def accepts(self, args: Any, kwargs: Any) -> bool:
        if type(args) not in (list, tuple) or type(kwargs) is not dict:
            return False
        given = len(args)
        if not kwargs:
            return self.min_positional <= given <= self.max_positional
        if not given and kwargs.keys() == self.all_names:
            return True
        names = self.names
        if names is None or given > self.max_positional:
            return False
        # Keywords must name parameters without a positional argument, among them all required ones.
        rest = names[given:]
        for name in kwargs:
            if name not in rest:
                return False
        return all(name in kwargs for name in names[given : self.min_positional])


def is_extension(obj: Any) -> bool:
    return isinstance(obj, Extension)


def is_dependency(obj: Any) -> bool:
    return isinstance(obj, DependencyProvider)


def is_entrypoint(obj: Any) -> bool:
    return isinstance(obj, Entrypoint)


def iter_extensions(extension: Extension) -> Iterator[Extension]:
    """Yields the sub-extensions of an extension, the deepest first."""
    for _, sub_extension in inspect.getmembers(extension, is_extension):
        yield from iter_extensions(sub_extension)
        yield sub_extension
