"""The exceptions of Nameko, and how an exception travels from a service to its caller."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, TypeVar

E = TypeVar("E", bound=type[BaseException])


class ExtensionNotFound(AttributeError):
    """A container has no extension of that name."""


class RpcTimeout(Exception):
    """No reply came in time. The call may still be running, or run later."""


class ReplyQueueExpiredWithPendingReplies(Exception):
    """The reply queue expired while the connection was away: the replies in it are lost."""


class ContainerBeingKilled(Exception):
    """Raised by :meth:`ServiceContainer.spawn_worker` once the container is dying.

    An entrypoint that meets it behaves as if it had not been there: an RPC entrypoint, for
    example, gives the message back to the queue.
    """


class RemoteError(Exception):
    """The called method raised an exception that this process does not know how to rebuild.

    ``exc_type`` is the name of the exception's class, ``value`` its text. ``exc_path`` and
    ``exc_args`` are the dotted path of the class and its arguments as they came, or None.
    """

    exc_path: str | None = None
    exc_args: list[Any] | None = None

    def __init__(self, exc_type: str | None = None, value: Any = "") -> None:
        self.exc_type = exc_type
        self.value = value
        super().__init__("{} {}".format(exc_type, value))


# Dotted path of an exception class -> the class, for those that callers get back as themselves.
registry: dict[str, type[BaseException]] = {}


def get_module_path(exc_type: type) -> str:
    """The dotted path of a class, for example ``nameko.exceptions.MethodNotFound``."""
    module = inspect.getmodule(exc_type)
    module_name = module.__name__ if module is not None else exc_type.__module__
    return "{}.{}".format(module_name, exc_type.__name__)


def safe_for_serialization(value: Any) -> Any:
    """A value that any serializer takes: strings as they are, the items of mappings and
    iterables made safe one by one, everything else as its text."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return {
            safe_for_serialization(key): safe_for_serialization(val) for key, val in value.items()
        }
    if isinstance(value, Iterable):
        return list(map(safe_for_serialization, value))
    return _text(value)


def serialize(exc: BaseException) -> dict[str, Any]:
    """An exception as the error object of an RPC reply."""
    return {
        "exc_type": type(exc).__name__,
        "exc_path": get_module_path(type(exc)),
        "exc_args": list(map(_safe_or_text, exc.args)),
        "value": _safe_or_text(exc),
    }


def _safe_or_text(value: Any) -> Any:
    # One that cannot be walked through (a cursor that is closed, a list that contains itself) must
    # not keep the error from its caller, nor end the service.
    try:
        return safe_for_serialization(value)
    except Exception:
        return _text(value)


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception:
        return "[__unicode__ failed]"


def deserialize(data: dict[str, Any]) -> BaseException:
    """The exception that an error object stands for: an instance of the registered class where
    there is one (see :func:`deserialize_to_instance`), else a :class:`RemoteError`."""
    exc_path = data.get("exc_path")
    exc_args = data.get("exc_args", ())
    if exc_path in registry:
        return registry[exc_path](*exc_args)
    error = RemoteError(exc_type=data.get("exc_type"), value=data.get("value"))
    error.exc_path = exc_path
    error.exc_args = exc_args
    return error


def deserialize_to_instance(exc_type: E) -> E:
    """Class decorator: callers in this process get the class itself back, not a RemoteError."""
    registry[get_module_path(exc_type)] = exc_type
    return exc_type


class BadRequest(Exception):
    """The caller is at fault."""


@deserialize_to_instance
class MalformedRequest(BadRequest):
    """The message is not a request."""


@deserialize_to_instance
class MethodNotFound(BadRequest):
    """The service has no such method."""


@deserialize_to_instance
class IncorrectSignature(BadRequest):
    """The arguments do not fit the method."""


class UnknownService(Exception):
    """No service of that name is running."""

    def __init__(self, service_name: str) -> None:
        self._service_name = service_name
        super().__init__(service_name)

    def __str__(self) -> str:
        return "Unknown service `{}`".format(self._service_name)


class UnserializableValueError(Exception):
    """A method returned something that cannot be sent."""

    def __init__(self, value: Any) -> None:
        try:
            self.repr_value = repr(value)
        except Exception:
            self.repr_value = "[__repr__ failed]"
        super().__init__()

    def __str__(self) -> str:
        return "Unserializable value: `{}`".format(self.repr_value)


class ConfigurationError(Exception):
    """The configuration, or a declaration in a service class, is wrong."""


class CommandError(Exception):
    """A command line tool could not do what it was asked; the text is for the user."""


class ConnectionNotFound(BadRequest):
    """There is no WebSocket connection of that id."""
