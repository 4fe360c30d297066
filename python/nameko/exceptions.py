"""The exceptions of Nameko, and the serialization of exceptions in RPC replies."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, TypeVar

E = TypeVar("E", bound=type[BaseException])


class ExtensionNotFound(AttributeError):
    """The container has no extension with that name."""


class RpcTimeout(Exception):
    """No reply was received in time. The call may still be running, or run later."""


class ReplyQueueExpiredWithPendingReplies(Exception):
    """The reply queue expired during a loss of the connection, and its replies are lost."""


class ContainerBeingKilled(Exception):
    """Raised by :meth:`ServiceContainer.spawn_worker` once the container is dying.

    Entrypoints must handle it as if they had not fired: an RPC entrypoint, for example, requeues
    the message.
    """


class RemoteError(Exception):
    """The called method raised an exception that is not registered in this process.

    ``exc_type`` is the name of the exception's class and ``value`` its text. ``exc_path`` and
    ``exc_args`` are the dotted path of the class and its arguments as received, or None.
    """

    exc_path: str | None = None
    exc_args: list[Any] | None = None

    def __init__(self, exc_type: str | None = None, value: Any = "") -> None:
        self.exc_type = exc_type
        self.value = value
        super().__init__("{} {}".format(exc_type, value))


# Dotted path -> exception class, for classes that are deserialized to instances.
registry: dict[str, type[BaseException]] = {}


def get_module_path(exc_type: type) -> str:
    """Returns the dotted path of a class, for example ``nameko.exceptions.MethodNotFound``."""
    module = inspect.getmodule(exc_type)
    module_name = module.__name__ if module is not None else exc_type.__module__
    return "{}.{}".format(module_name, exc_type.__name__)


def safe_for_serialization(value: Any) -> Any:
    """Converts a value for any serializer.

    Strings are kept, mappings and iterables converted recursively, other values become strings.
    """
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
    """Serializes an exception to the error object of an RPC reply."""
    try:
        exc_args = list(map(_safe_or_text, exc.args))
    except Exception:
        exc_args = []  # a class with an `args` of its own
    return {
        "exc_type": type(exc).__name__,
        "exc_path": get_module_path(type(exc)),
        "exc_args": exc_args,
        "value": _safe_or_text(exc),
    }


def _safe_or_text(value: Any) -> Any:
    # A value that cannot be iterated, such as a closed cursor or a list that contains itself, must
    # neither hide the error from the caller nor end the service.
    try:
        return safe_for_serialization(value)
    except Exception:
        return _text(value)


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception:
        return "[__unicode__ failed]"


def deserialize(data: Any) -> BaseException:
    """Deserializes an error object.

    Returns an instance of the registered class (see :func:`deserialize_to_instance`). If there is
    none, or it does not accept the arguments, returns a :class:`RemoteError`.
    """
    if not isinstance(data, dict):
        return RemoteError("MalformedError", "the error is not an object: {!r}".format(data))
    exc_path = data.get("exc_path")
    exc_args = data.get("exc_args", ())
    exc_type = registry.get(exc_path) if isinstance(exc_path, str) else None
    if exc_type is not None:
        try:
            return exc_type(*exc_args)
        except Exception:
            pass  # its constructor does not take the arguments that `args` holds
    error = RemoteError(exc_type=data.get("exc_type"), value=data.get("value"))
    error.exc_path = exc_path
    error.exc_args = exc_args
    return error


def deserialize_to_instance(exc_type: E) -> E:
    """Class decorator that registers an exception: callers receive the class, not a RemoteError."""
    registry[get_module_path(exc_type)] = exc_type
    return exc_type


class BadRequest(Exception):
    """An error of the caller."""


@deserialize_to_instance
class MalformedRequest(BadRequest):
    """The message is not a valid request."""


@deserialize_to_instance
class MethodNotFound(BadRequest):
    """The service has no such method."""


@deserialize_to_instance
class IncorrectSignature(BadRequest):
    """The arguments do not match the signature of the method."""


class UnknownService(Exception):
    """No service with that name is running."""

    def __init__(self, service_name: str) -> None:
        self._service_name = service_name
        super().__init__(service_name)

    def __str__(self) -> str:
        return "Unknown service `{}`".format(self._service_name)


class UnserializableValueError(Exception):
    """A method returned a value that cannot be serialized."""

    def __init__(self, value: Any) -> None:
        try:
            self.repr_value = repr(value)
        except Exception:
            self.repr_value = "[__repr__ failed]"
        super().__init__()

    def __str__(self) -> str:
        return "Unserializable value: `{}`".format(self.repr_value)


class ConfigurationError(Exception):
    """The configuration, or a declaration in a service class, is invalid."""


class CommandError(Exception):
    """A command failed. The text is printed to the user."""


class ConnectionNotFound(BadRequest):
    """There is no WebSocket connection with that id."""
