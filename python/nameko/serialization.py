"""Serializers: kombu's registry lists them, plain JSON has a fast path.

kombu is imported for what plain JSON does not cover: it is slow to import, and many services do
without it.
"""

from __future__ import annotations

import json
import sys
from copy import deepcopy
from typing import Any, NamedTuple

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

# Content encodings of bytes, which are not decoded to text: kombu's SKIP_DECODE.
_BINARY_ENCODINGS = frozenset(["binary", "ascii-8bit"])

# Content types of bare text and bare bytes, accepted by every container: kombu's TRUSTED_CONTENT.
TRUSTED_CONTENT_TYPES = frozenset(["application/data", "application/text"])


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
        import kombu.serialization

        encoder = import_from_path(kwargs.pop("encoder"))
        decoder = import_from_path(kwargs.pop("decoder"))
        kombu.serialization.register(name, encoder=encoder, decoder=decoder, **kwargs)

    serializer = config.get(SERIALIZER_CONFIG_KEY, DEFAULT_SERIALIZER)
    accept = config.get(ACCEPT_CONFIG_KEY, [serializer])
    for name in [serializer, *accept]:
        if not _is_registered(name):
            raise ConfigurationError('Please register a serializer for "{}" format'.format(name))
    return SerializationConfig(serializer, accept)


def _is_registered(name: str) -> bool:
    if name == DEFAULT_SERIALIZER:
        return True
    from kombu.serialization import registry

    return name in registry.name_to_type


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


class _KombuJson(NamedTuple):
    """kombu's registry, and the functions that kombu registers for JSON. An application may
    register others."""

    registry: Any
    dumps: Any
    loads: Any

    def encodes(self) -> bool:
        codec = self.registry._encoders.get("json")
        return codec is None or codec.encoder is self.dumps

    def decodes(self) -> bool:
        return self.registry._decoders.get(JSON_CONTENT_TYPE) in (None, self.loads)


# The modules that are imported, among them that of kombu's registry.
_modules = sys.modules
_KOMBU_REGISTRY = "kombu.serialization"

# None until a module has imported kombu's registry.
_kombu_json: _KombuJson | None = None


def _imported_kombu() -> _KombuJson | None:
    """Returns kombu's registry and functions if they are imported."""
    global _kombu_json
    if _kombu_json is None and _KOMBU_REGISTRY in _modules:
        # Waits for an import that another thread has begun.
        from kombu.serialization import registry
        from kombu.utils import json as kombu_json

        _kombu_json = _KombuJson(registry, kombu_json.dumps, kombu_json.loads)
    return _kombu_json


def dumps(value: Any, serializer: str | None) -> tuple[str, str, bytes]:
    """Returns content type, content encoding and body of a value.

    Without a serializer, text and bytes are sent unchanged and other values as JSON. Raises
    ``kombu.exceptions.EncodeError`` if the serializer does not support the value.
    """
    text = plain_json(value, serializer)
    if text is not None:
        return JSON_CONTENT_TYPE, JSON_CONTENT_ENCODING, text.encode("ascii")
    import kombu.serialization
    from kombu.exceptions import EncodeError

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
    if serializer == "json":
        kombu = _kombu_json
        if kombu is None and _KOMBU_REGISTRY in _modules:
            kombu = _imported_kombu()
        if kombu is None or kombu.encodes():
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
    kombu = _kombu_json
    if kombu is None and _KOMBU_REGISTRY in _modules:
        kombu = _imported_kombu()
    if kombu is not None and not kombu.decodes():
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
        import kombu.serialization

        content_type, content_encoding = delivery.content_type, delivery.content_encoding
        body: Any = decompressed_body(delivery)
        if not _is_binary(content_type):
            body = decoded_text(body, content_encoding)
        return kombu.serialization.loads(body, content_type, content_encoding, accept=accept)
    except RecursionError as exc:
        from kombu.exceptions import DecodeError

        raise DecodeError("the body is nested too deeply: {}".format(exc)) from None


def decompressed_body(delivery: Delivery) -> bytes:
    """Returns the body of a message, decompressed as its ``compression`` header demands."""
    compression = delivery.headers.get("compression")
    if not compression:
        return delivery.body
    from kombu.compression import decompress

    return decompress(delivery.body, compression)


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
    from kombu.serialization import registry

    encoder = registry._encoders.get(registry.type_to_name.get(content_type))
    return encoder is not None and encoder.content_encoding in _BINARY_ENCODINGS


def content_types(accept: Any) -> frozenset[str]:
    """Returns the content types of the serializers in ``accept``, and its content types."""
    kombu = _imported_kombu()
    if kombu is None and set(accept) <= {DEFAULT_SERIALIZER, JSON_CONTENT_TYPE}:
        return frozenset([JSON_CONTENT_TYPE]) | TRUSTED_CONTENT_TYPES
    from kombu.serialization import prepare_accept_content

    return frozenset(prepare_accept_content(accept)) | TRUSTED_CONTENT_TYPES
