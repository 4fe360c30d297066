"""The exceptions that users of kombu and py-amqp catch, made from those of the compiled client."""

from __future__ import annotations

import errno
import re

from amqp import exceptions as amqp_exceptions
from kombu.exceptions import OperationalError

from nameko._nameko import AmqpError
from nameko.exceptions import ConfigurationError


class UndeliverableMessage(Exception):
    """A message that had to reach a queue reached none."""


class BrokerUnreachable(OperationalError, OSError):
    """The broker could not be reached, or the connection to it was lost, after all retries."""


class ConnectionLost(amqp_exceptions.RecoverableConnectionError, OperationalError, OSError):
    """The connection was lost and no retry was asked for."""


# As Rust writes it: "Connection refused (os error 111)".
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


def _name_os_error(match: re.Match[str]) -> str:
    return "({})".format(errno.errorcode.get(int(match[1]), match[0].strip("()")))


def translate(error: AmqpError, retried: bool = True) -> Exception:
    """The exception to raise for ``error``. ``retried``: the retry policy was already used up."""
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
