"""The stages between a request and its reply that belong to RPC alone.

The overridable hooks of :mod:`nameko.rpc.server` and the fast path call the same stages. The
others are :func:`nameko.serialization.decode`, ``Entrypoint.check_signature``,
``HeaderDecoder.unpack_message_headers``, ``ServiceContainer.new_worker_context`` and
``Delivery.respond``, which publishes the reply and then acknowledges the request.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from kombu.serialization import registry

from nameko import serialization
from nameko.exceptions import MalformedRequest, UnserializableValueError, serialize


class Reply(NamedTuple):
    """A reply, and the outcome of the worker that dependencies see."""

    result: Any
    exc_info: Any
    # The envelope: a dict with `result` and `error`.
    payload: dict[str, Any]
    content_type: str
    content_encoding: str
    body: bytes


def request_arguments(body: Any) -> tuple[Any, Any]:
    """Returns the positional and keyword arguments of a request. Raises MalformedRequest."""
    try:
        return body["args"], body["kwargs"]
    except KeyError:
        raise MalformedRequest("Message missing `args` or `kwargs`")


def encode_reply(result: Any, exc_info: Any, serializer: str) -> Reply:
    """Returns the reply to a request.

    An UnserializableValueError replaces a result that the serializer does not support.
    """
    payload = {"result": result, "error": None if exc_info is None else serialize(exc_info[1])}
    try:
        encoded = serialization.dumps(payload, serializer)
    except Exception:
        payload = {"result": None, "error": serialize(UnserializableValueError(result))}
        result, exc_info = None, sys.exc_info()
        encoded = serialization.dumps(payload, serializer)
    return Reply(result, exc_info, payload, *encoded)


def reply_serializer(content_type: str | None, default: str) -> str:
    """Returns the serializer of the reply to a request of this content type."""
    serializer: Any = registry.type_to_name.get(content_type)
    return serializer if serializer in registry._encoders else default
