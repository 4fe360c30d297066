"""The stages between a request and its reply that belong to RPC alone.

The overridable hooks of :mod:`nameko.rpc.server` and the fast path call the same stages. The
others are :func:`nameko.serialization.decode`, ``Entrypoint.check_signature``,
``HeaderDecoder.unpack_message_headers``, ``ServiceContainer.new_worker_context`` and
``Delivery.respond``, which publishes the reply and then acknowledges the request.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from kombu.serialization import registry

from nameko.exceptions import MalformedRequest, UnserializableValueError, serialize
from nameko.serialization import JSON_CONTENT_ENCODING, JSON_CONTENT_TYPE, dumps, plain_json

# The result and exc_info that dependencies see, the error object, the serializer, and the content
# type, content encoding and body of the reply.
Reply = tuple[Any, Any, dict[str, Any] | None, str, str, str, bytes]


def request_arguments(body: Any) -> tuple[Any, Any]:
    """Returns the positional and keyword arguments of a request. Raises MalformedRequest."""
    try:
        return body["args"], body["kwargs"]
    except KeyError:
        raise MalformedRequest("Message missing `args` or `kwargs`")
    except Exception:
        raise MalformedRequest(
            "the request is not an object with `args` and `kwargs`: {:.100}".format(repr(body))
        ) from None


def plain_reply(result: Any, serializer: str) -> bytes | None:
    """Returns the reply with a result, None unless it is plain JSON, see :func:`plain_json`."""
    # Faster than encoding the envelope as a dict.
    text = plain_json(result, serializer)
    return None if text is None else f'{{"result": {text}, "error": null}}'.encode("ascii")


def encode_reply(result: Any, exc_info: Any, serializer: str, default: str = "json") -> Reply:
    """Returns the reply to a request. Raises no Exception.

    An UnserializableValueError replaces a result that the serializer does not support. If it does
    not support the error either, the error is encoded with ``default``, or else as JSON.
    """
    error = None if exc_info is None else serialize(exc_info[1])
    if error is None:
        plain = plain_reply(result, serializer)
        if plain is not None:
            return result, None, None, serializer, JSON_CONTENT_TYPE, JSON_CONTENT_ENCODING, plain
    try:
        encoded = dumps({"result": result, "error": error}, serializer)
        return result, exc_info, error, serializer, *encoded
    except Exception:
        if error is None:
            error, exc_info = serialize(UnserializableValueError(result)), sys.exc_info()
    envelope = {"result": None, "error": error}
    for name in (serializer, default):
        try:
            return None, exc_info, error, name, *dumps(envelope, name)
        except Exception:
            pass  # a serializer that is not installed, for example
    # Without the registered encoder, which may be an application's own.
    body = json.dumps(envelope).encode("ascii")
    return None, exc_info, error, "json", JSON_CONTENT_TYPE, JSON_CONTENT_ENCODING, body


def reply_serializer(content_type: str | None, default: str) -> str:
    """Returns the serializer of the reply to a request of this content type."""
    serializer: Any = registry.type_to_name.get(content_type)
    return serializer if serializer in registry._encoders else default
