"""Serializers: kombu's registry lists them, plain JSON has a fast path."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any, NamedTuple

import kombu.serialization
from kombu.compression import decompress
from kombu.exceptions import DecodeError, EncodeError
from kombu.serialization import registry

import nameko
from nameko._nameko import Delivery
from nameko.constants import (
    ACCEPT_CONFIG_KEY,
    DEFAULT_SERIALIZER,
    SERIALIZER_CONFIG_KEY,
    SERIALIZERS_CONFIG_KEY,
)
from nameko.exceptions import ConfigurationError
from nameko.utils import import_from_path

JSON_CONTENT_TYPE = "application/json"
JSON_CONTENT_ENCODING = "utf-8"

# Content encodings of bytes, which are not decoded to text.
_BINARY_ENCODINGS = kombu.serialization.SKIP_DECODE

# Content types of bare text and bare bytes, accepted by every container.
TRUSTED_CONTENT_TYPES = frozenset(kombu.serialization.TRUSTED_CONTENT)


class SerializationConfig(NamedTuple):
    """The serializer for sent messages and the accepted serializers."""

    serializer: str
    accept: list[str]


def setup(config: Any = None) -> SerializationConfig:
    """Registers the configured serializers and returns the names of those in use.

    ``config`` is ``nameko.config`` by default. Raises ConfigurationError for an unknown name.
    """
    config = nameko.config if config is None else config
    serializers = deepcopy(config.get(SERIALIZERS_CONFIG_KEY, {}))
    for name, kwargs in serializers.items():
        encoder = import_from_path(kwargs.pop("encoder"))
        decoder = import_from_path(kwargs.pop("decoder"))
        kombu.serialization.register(name, encoder=encoder, decoder=decoder, **kwargs)

    serializer = config.get(SERIALIZER_CONFIG_KEY, DEFAULT_SERIALIZER)
    accept = config.get(ACCEPT_CONFIG_KEY, [serializer])
    for name in [serializer, *accept]:
        if name not in registry.name_to_type:
            raise ConfigurationError('Please register a serializer for "{}" format'.format(name))
    return SerializationConfig(serializer, accept)


def _make_json_encoder() -> Any:
    """Returns the function that ``json.dumps`` creates and calls for each value.

    ``encode(value, 0)`` returns the parts of the text.
    """
    encoder = json.JSONEncoder()
    make = json.encoder.c_make_encoder  # type: ignore[attr-defined]
    if make is None:  # not CPython
        return lambda value, indent: (encoder.encode(value),)
    text = json.encoder.encode_basestring_ascii
    # Without the check for circular references: they end in a RecursionError.
    return make(None, encoder.default, text, None, ": ", ", ", False, False, True)


_encode_json = _make_json_encoder()
# scan(text, 0) returns the value and the index of its end.
_scan_json = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
# The codec that kombu registers for JSON. An application may register another one.
_KOMBU_JSON_ENCODER = registry._encoders["json"]
_KOMBU_JSON_DECODER = registry._decoders[JSON_CONTENT_TYPE]


def dumps(value: Any, serializer: str | None) -> tuple[str, str, bytes]:
    """Returns content type, content encoding and body of a value.

    Without a serializer, text and bytes are sent unchanged and other values as JSON. Raises
    ``kombu.exceptions.EncodeError`` if the serializer does not support the value.
    """
    text = plain_json(value, serializer)
    if text is not None:
        return JSON_CONTENT_TYPE, JSON_CONTENT_ENCODING, text.encode("ascii")
    content_type, content_encoding, body = kombu.serialization.dumps(value, serializer)
    if isinstance(body, str):
        content_encoding = content_encoding or JSON_CONTENT_ENCODING
        try:
            body = body.encode(content_encoding)
        except (UnicodeError, LookupError) as exc:
            raise EncodeError(str(exc)) from exc
    if not isinstance(body, (bytes, bytearray)):
        raise EncodeError(
            "the serializer {!r} returned {}, not str or bytes".format(serializer, type(body))
        )
    return content_type, content_encoding or "binary", bytes(body)


def plain_json(value: Any, serializer: str | None) -> str | None:
    """Returns the JSON text of a value, None if the registered encoder has to encode it.

    That is the case for other serializers, another JSON encoder, and values that only kombu's
    encoder may support.
    """
    if serializer == "json" and registry._encoders["json"] is _KOMBU_JSON_ENCODER:
        try:
            return "".join(_encode_json(value, 0))
        except (TypeError, ValueError, RecursionError):
            pass
    return None


def loads_json(text: str) -> Any:
    """Returns the value of a JSON text without surrounding white space.

    Raises ValueError or StopIteration if the registered decoder has to decode it or report the
    error.
    """
    if registry._decoders.get(JSON_CONTENT_TYPE) is not _KOMBU_JSON_DECODER:
        raise ValueError("another JSON decoder is registered")
    value, end = _scan_json(text, 0)
    if end != len(text):
        raise ValueError("text after the value")
    return value


def decode(delivery: Delivery, accept: Any) -> Any:
    """Returns the decoded body of a message.

    ``accept`` contains the accepted content types. Raises ``kombu.exceptions.DecodeError`` or
    ``ContentDisallowed``.
    """
    text = delivery.json_text
    try:
        if text is not None and JSON_CONTENT_TYPE in accept:
            try:
                return loads_json(text)
            except (ValueError, StopIteration):
                pass
        content_type, content_encoding = delivery.content_type, delivery.content_encoding
        body: Any = decompressed_body(delivery)
        if not _is_binary(content_type):
            body = decoded_text(body, content_encoding)
        return kombu.serialization.loads(body, content_type, content_encoding, accept=accept)
    except RecursionError as exc:
        raise DecodeError("the body is nested too deeply: {}".format(exc)) from None


def decompressed_body(delivery: Delivery) -> bytes:
    """Returns the body of a message, decompressed as its ``compression`` header demands."""
    compression = delivery.headers.get("compression")
    return decompress(delivery.body, compression) if compression else delivery.body


def decoded_text(body: bytes, content_encoding: str | None) -> str | bytes:
    """Returns the text of a body in any text codec of Python, as py-amqp does; the body itself if
    it is binary or not valid in its codec."""
    if content_encoding and content_encoding.lower() not in _BINARY_ENCODINGS:
        try:
            return body.decode(content_encoding)
        # ValueError: a null character in the name of the codec.
        except (LookupError, ValueError):
            pass
    return body


def _is_binary(content_type: str | None) -> bool:
    """Whether the decoder of a content type expects bytes, although peers may set an encoding."""
    encoder = registry._encoders.get(registry.type_to_name.get(content_type))
    return encoder is not None and encoder.content_encoding in _BINARY_ENCODINGS


def content_types(accept: Any) -> frozenset[str]:
    """Returns the content types of the serializers in ``accept``, and its content types."""
    return frozenset(kombu.serialization.prepare_accept_content(accept)) | TRUSTED_CONTENT_TYPES
