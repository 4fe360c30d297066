"""Translation of the compiled client's errors to exceptions compatible with kombu and py-amqp."""

from __future__ import annotations

import errno
import re

from amqp import exceptions as amqp_exceptions
from kombu.exceptions import OperationalError

from nameko._nameko import AmqpError
from nameko.exceptions import ConfigurationError


class UndeliverableMessage(Exception):
    """A mandatory message was not routed to any queue."""


class BrokerUnreachable(OperationalError, OSError):
    """The broker could not be reached, or the connection to it was lost, after all retries."""


class ConnectionLost(amqp_exceptions.RecoverableConnectionError, OperationalError, OSError):
    """The connection was lost, without a retry policy."""


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
    if kind == "access_refused":
        return amqp_exceptions.AccessRefused(text)
    if kind == "not_allowed":
        return amqp_exceptions.NotAllowed(text)
    if kind == "uri":
        return ConfigurationError(text)
    if kind in ("channel_closed", "connection_closed") and code:
        closed = amqp_exceptions.ERROR_MAP.get(code)
        if closed is not None and (kind == "channel_closed" or code != 320):
            return closed(text)
    if kind == "lost" and not retried:
        return ConnectionLost(text)
    return BrokerUnreachable(text)
