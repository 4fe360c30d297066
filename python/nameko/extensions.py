"""What a service is made of: entrypoints, dependency providers, and extensions they share."""

from __future__ import annotations

import inspect
import types
import warnings
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from logging import getLogger
from typing import Any, TypeVar, overload

from nameko.exceptions import IncorrectSignature
from nameko.utils.threads import Event

_log = getLogger(__name__)

ENTRYPOINT_EXTENSIONS_ATTR = "nameko_entrypoints"

# A method that is decorated, and comes back as it was.
Method = TypeVar("Method", bound=Callable[..., Any])


class Extension:
    """Something a container sets up, starts and stops on behalf of a service.

    An instance in a service class is a declaration. :meth:`bind` makes the instance that a
    container uses from the same arguments, so ``__init__`` runs again: keep it free of side
    effects and put those into :meth:`setup`. Extensions found as attributes of an extension are
    bound with it; looking for them evaluates its properties.
    """

    __params: tuple[tuple[Any, ...], dict[str, Any]]
    # A weak proxy of the ServiceContainer of a bound extension; None in a declaration.
    container: Any = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        instance = super().__new__(cls)
        instance.__params = (args, kwargs)
        return instance

    def setup(self) -> None:
        """Called before the container starts: initialise what is needed."""

    def start(self) -> None:
        """Called once every extension of the container is set up: begin to act on events."""

    def stop(self) -> None:
        """Called when the container shuts down: end gracefully, return when it is done.

        Not before :meth:`setup` has returned. :meth:`start` may still run where it takes longer
        than a second. A container that was not started is stopped, too.
        """

    def kill(self) -> None:
        """Called when the container is dying: end as soon as possible.

        An extension does not raise here; it logs what is worth knowing.
        """

    def bind(self, container: Any) -> Any:
        """An instance of this extension, and of those below it, that belongs to ``container``."""
        if self.is_bound():
            raise RuntimeError("Cannot `bind` a bound extension.")
        args, kwargs = self.__params
        instance = type(self)(*args, **kwargs)
        # Weak, because the container holds its shared extensions by their key.
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
    """An extension of which a container has one instance per :attr:`sharing_key`."""

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
    """Provides one attribute of the service instance, for each worker anew.

    All hooks of one worker, and the method between them, run in the same thread.
    """

    attr_name: str | None = None

    def bind(self, container: Any, attr_name: str) -> Any:  # type: ignore[override]
        """Like :meth:`Extension.bind`, for the attribute ``attr_name`` of the service."""
        instance = super().bind(container)
        instance.attr_name = attr_name
        self.attr_name = attr_name
        return instance

    def get_dependency(self, worker_ctx: Any) -> Any:
        """The object that the service instance gets as ``self.<attr_name>``."""

    def worker_setup(self, worker_ctx: Any) -> None:
        """Called before the method runs."""

    def worker_result(
        self, worker_ctx: Any, result: Any = None, exc_info: tuple[Any, Any, Any] | None = None
    ) -> None:
        """Called with what the method returned or raised."""

    def worker_teardown(self, worker_ctx: Any) -> None:
        """Called when the worker is over."""

    def __repr__(self) -> str:
        if not self.is_bound():
            return super().__repr__()
        return "<{} [{}.{}] at 0x{:x}>".format(
            type(self).__name__, self.container.service_name, self.attr_name, id(self)
        )


class ProviderCollector:
    """Mixin for an extension that serves other extensions until the last of them leaves."""

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
        """Wait until every provider has left; at once where there never was one."""
        if self._providers_registered:
            _log.debug("waiting for providers to unregister %s", self)
            self._last_provider_unregistered.wait()
            _log.debug("all providers unregistered %s", self)

    def stop(self) -> None:
        self.wait_for_providers()


def register_entrypoint(fn: Any, entrypoint: Entrypoint) -> None:
    """Note on the method that ``entrypoint`` fires it."""
    descriptors = getattr(fn, ENTRYPOINT_EXTENSIONS_ATTR, None)
    if descriptors is None:
        descriptors = set()
        setattr(fn, ENTRYPOINT_EXTENSIONS_ATTR, descriptors)
    descriptors.add(entrypoint)


class Entrypoint(Extension):
    """Fires a method of the service: a request, an event, a timer.

    ``expected_exceptions``: an exception class or a tuple of them that are the caller's fault.
    ``sensitive_arguments``: see :func:`nameko.utils.get_redacted_args`.
    """

    method_name: str | None = None
    # For subclasses whose __init__ does not come here.
    expected_exceptions: Any = ()
    sensitive_arguments: Any = ()
    # The binder of the method's arguments and the function it was made for.
    _signature: tuple[Any, Signature] | None = None

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
        """Raise IncorrectSignature where the method does not take these arguments."""
        fn = getattr(self.container.service_cls, self.method_name or "")
        cached = self._signature
        if cached is None or cached[0] is not fn:
            cached = self._signature = (fn, Signature(fn))
        if cached[1].accepts(args, kwargs):
            return
        try:
            # None stands for the service instance.
            inspect.getcallargs(fn, None, *args, **kwargs)
        except TypeError as exc:
            raise IncorrectSignature(str(exc))

    @overload
    @classmethod
    def decorator(cls, fn: Method, /) -> Method: ...

    @overload
    @classmethod
    def decorator(cls, *args: Any, **kwargs: Any) -> Callable[[Method], Method]: ...

    @classmethod
    def decorator(cls, *args: Any, **kwargs: Any) -> Any:
        """Declares an entrypoint on a method: ``@entrypoint`` or ``@entrypoint(options)``."""

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
    """Says quickly that arguments fit a method. A doubt is no: getcallargs then decides."""

    __slots__ = ("all_names", "most", "names", "required")

    def __init__(self, fn: Any) -> None:
        # Parameters that keywords may name; None where only getcallargs can tell.
        self.names: tuple[str, ...] | None = None
        # The same, where keywords may name all.
        self.all_names: frozenset[str] | None = None
        try:
            spec = inspect.getfullargspec(fn)
        except TypeError:
            self.required, self.most = 1, 0  # accepts nothing
            return
        count = len(spec.args) - 1
        # Positional arguments without a default; a method without self takes nothing at all.
        self.required = count - len(spec.defaults or ()) if not spec.kwonlyargs else 1 << 30
        self.most = count if spec.varargs is None else 1 << 30
        if spec.varargs is None and spec.varkw is None and not spec.kwonlyargs:
            self.names = tuple(spec.args[1:])
            self.all_names = frozenset(self.names)

    def accepts(self, args: Any, kwargs: Any) -> bool:
        if type(args) not in (list, tuple) or type(kwargs) is not dict:
            return False
        given = len(args)
        if not kwargs:
            return self.required <= given <= self.most
        if not given and kwargs.keys() == self.all_names:
            return True
        names = self.names
        if names is None or given > self.most:
            return False
        # Keywords must name parameters that no positional argument filled, and fill all
        # required ones.
        rest = names[given:]
        for name in kwargs:
            if name not in rest:
                return False
        return all(name in kwargs for name in names[given : self.required])


def is_extension(obj: Any) -> bool:
    return isinstance(obj, Extension)


def is_dependency(obj: Any) -> bool:
    return isinstance(obj, DependencyProvider)


def is_entrypoint(obj: Any) -> bool:
    return isinstance(obj, Entrypoint)


def iter_extensions(extension: Extension) -> Iterator[Extension]:
    """The extensions below this one, the deepest first."""
    for _, sub_extension in inspect.getmembers(extension, is_extension):
        yield from iter_extensions(sub_extension)
        yield sub_extension
