"""Serializers: kombu's registry says which there are; JSON has a short way of its own."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any, NamedTuple

import kombu.serialization
from kombu.serialization import registry

import nameko
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

# Content types that are taken whatever a container accepts: bare text and bare bytes.
TRUSTED_CONTENT_TYPES = frozenset(kombu.serialization.TRUSTED_CONTENT)


class SerializationConfig(NamedTuple):
    """The serializer to send with, and those to accept."""

    serializer: str
    accept: list[str]


def setup(config: Any = None) -> SerializationConfig:
    """Register the configured serializers; return the one to send with and those to accept.

    Without ``config`` it takes ``nameko.config``. ConfigurationError where a name is not known.
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
    """What ``json.dumps`` calls for each value, made once: ``encode(value, 0)`` gives pieces."""
    encoder = json.JSONEncoder()
    make = json.encoder.c_make_encoder  # type: ignore[attr-defined]
    if make is None:  # not CPython
        return lambda value, indent: (encoder.encode(value),)
    text = json.encoder.encode_basestring_ascii
    # Without looking for circles: those end in a RecursionError.
    return make(None, encoder.default, text, None, ": ", ", ", False, False, True)


# encode_json(value, 0) gives the pieces of a value's text.
encode_json = _make_json_encoder()
# scan_json(text, 0) gives the value, and where in the text it ends.
scan_json = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
# What kombu registered under "json"; someone may register another one in its place.
_KOMBU_JSON_ENCODER = registry._encoders["json"]
_KOMBU_JSON_DECODER = registry._decoders[JSON_CONTENT_TYPE]


def dumps(value: Any, serializer: str | None) -> tuple[str, str, bytes]:
    """Content type, content encoding and body of a value.

    Without a serializer text and bytes go as they are, and everything else as JSON.

    ``kombu.exceptions.EncodeError`` where the serializer cannot take it.
    """
    if serializer == "json" and registry._encoders["json"] is _KOMBU_JSON_ENCODER:
        try:
            body = "".join(encode_json(value, 0)).encode("ascii")
            return JSON_CONTENT_TYPE, JSON_CONTENT_ENCODING, body
        except (TypeError, ValueError, RecursionError):
            pass  # kombu's encoder knows more types, and says what is wrong with the rest
    content_type, content_encoding, body = kombu.serialization.dumps(value, serializer)
    if isinstance(body, str):
        body = body.encode(content_encoding or "utf-8")
    return content_type, content_encoding, body


def loads(body: bytes, content_type: str | None, content_encoding: str | None, accept: Any) -> Any:
    """The value of a body. ``accept``: the content types that may be decoded.

    ``kombu.exceptions.DecodeError`` or ``ContentDisallowed`` where it cannot or may not be read.
    """
    if (
        content_type == JSON_CONTENT_TYPE
        and content_type in accept
        and content_encoding == JSON_CONTENT_ENCODING
        and b"__type__" not in body
        and registry._decoders.get(JSON_CONTENT_TYPE) is _KOMBU_JSON_DECODER
    ):
        try:
            text = body.decode("utf-8")
            value, end = scan_json(text, 0)
            if end == len(text):
                return value
        except (ValueError, StopIteration):
            pass  # kombu's decoder takes white space around it, or says what is wrong
    return kombu.serialization.loads(body, content_type, content_encoding, accept=accept)


def content_types(accept: Any) -> frozenset[str]:
    """The content types of the serializers in ``accept``, which may hold content types too."""
    return frozenset(kombu.serialization.prepare_accept_content(accept)) | TRUSTED_CONTENT_TYPES
