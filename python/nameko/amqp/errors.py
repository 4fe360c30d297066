"""Translation of the compiled client's errors to exceptions compatible with kombu and py-amqp."""

from __future__ import annotations

import errno
import functools
import re
from typing import Any

from amqp import exceptions as amqp_exceptions
from kombu.exceptions import OperationalError

from nameko._nameko import AmqpError
from nameko.exceptions import ConfigurationError


class UndeliverableMessage(Exception):
    """A mandatory message was not routed to any queue."""


class BrokerUnreachable(OperationalError, OSError):
    """The broker could not be reached, or the connection to it was lost, after all retries."""


class PublishTimeout(BrokerUnreachable, TimeoutError):
    """A message was not confirmed in time: the broker accepts no messages, for example short of
    memory, or does not answer. The message may still arrive."""


class ConnectionLost(amqp_exceptions.RecoverableConnectionError, OperationalError, OSError):
    """The connection was lost, without a retry policy."""


class UnsendableMessage(ValueError):
    """AMQP cannot carry a name, a header or the whole message: it was not sent, and a retry does
    not help."""


class _Described:
    """An error of py-amqp with its arguments, whose text also names the broker and the remedy."""

    description: str

    def __str__(self) -> str:
        return self.description

    def __reduce__(self) -> Any:
        # A copy in another process is py-amqp's error.
        error: Any = self
        plain: Any = type(self).__bases__[1]
        return plain, (error.reply_text, error.method_sig, error.method_name, error.reply_code)


@functools.cache
def _described(error_class: Any) -> Any:
    """Returns a subclass of an error of py-amqp with the same name."""
    names = {"__module__": error_class.__module__, "__doc__": error_class.__doc__}
    return type(error_class.__name__, (_Described, error_class), names)


# The format of Rust: "Connection refused (os error 111)".
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


def _name_os_error(match: re.Match[str]) -> str:
    return "({})".format(errno.errorcode.get(int(match[1]), match[0].strip("()")))


def translate(error: AmqpError, retried: bool = True) -> Exception:
    """Returns the exception for ``error``. ``retried``: whether the retries are exhausted."""
    kind, code = error.kind, error.code
    text = _OS_ERROR.sub(_name_os_error, error.text)
    if kind == "unroutable":
        return UndeliverableMessage(text)
    if kind == "nacked":
        return amqp_exceptions.MessageNacked(text)
    if kind == "uri":
        return ConfigurationError(text)
    if kind == "unsendable":
        return UnsendableMessage(text)
    if error.reply_text is not None:
        closed = amqp_exceptions.ERROR_MAP.get(code)
        if closed is not None and (kind != "connection_closed" or code != 320):
            refusal: Exception = _described(closed)(error.reply_text, error.method, reply_code=code)
            refusal.description = text  # type: ignore[attr-defined]
            return refusal
    if kind in ("blocked", "timeout"):
        return PublishTimeout(text)
    if kind == "lost" and not retried:
        return ConnectionLost(text)
    return BrokerUnreachable(text)
