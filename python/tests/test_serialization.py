"""Bodies on the wire are those of Python's json and of kombu."""

import datetime
import decimal
import json
import uuid
from types import SimpleNamespace

import kombu.serialization
import pytest
from kombu.exceptions import ContentDisallowed, DecodeError, EncodeError

from nameko import serialization
from nameko.exceptions import ConfigurationError
from nameko.rpc import RpcProxy, rpc
from nameko.standalone.rpc import ServiceRpcProxy

PLAIN = [
    None,
    True,
    1,
    1.5,
    float("inf"),
    "text",
    "é €",
    "\ud800",
    [1, [2, {"k": "v"}]],
    {"a": {"b": [None]}},
    {1: "int key"},
    (1, 2),
]
EXTENDED = [
    datetime.datetime(2020, 1, 2, 3, 4, 5),
    datetime.date(2020, 1, 2),
    decimal.Decimal("1.10"),
    uuid.UUID(int=1),
    {"nested": [decimal.Decimal(1)]},
]


def decode(body, content_type="application/json", content_encoding="utf-8", json_text=None):
    """Decodes the body of a message. ``json_text`` is its text if the compiled half finds JSON."""
    delivery = SimpleNamespace(
        body=body,
        content_type=content_type,
        content_encoding=content_encoding,
        headers={},
        json_text=json_text,
    )
    return serialization.decode(delivery, serialization.content_types(["json"]))


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_plain_json_is_the_text_of_json_dumps(value):
    content_type, encoding, body = serialization.dumps(value, "json")
    assert (content_type, encoding) == ("application/json", "utf-8")
    assert body == json.dumps(value).encode()


@pytest.mark.parametrize("value", PLAIN + EXTENDED, ids=repr)
def test_json_is_encoded_and_decoded_like_kombus(value):
    body = serialization.dumps(value, "json")[2]
    assert body.decode() == kombu.serialization.dumps(value, "json")[2]
    accept = serialization.content_types(["json"])
    expected = kombu.serialization.loads(body, "application/json", "utf-8", accept=accept)
    assert decode(body) == expected
    if value in PLAIN:
        assert decode(body, json_text=body.decode()) == expected


@pytest.mark.parametrize("value", [object(), {1, 2}, [print]], ids=["object", "set", "function"])
def test_an_unsupported_value_is_an_encode_error(value):
    with pytest.raises(EncodeError):
        serialization.dumps(value, "json")


def test_a_value_that_contains_itself_is_an_encode_error():
    value = []
    value.append(value)
    with pytest.raises((EncodeError, RecursionError)):
        serialization.dumps(value, "json")


def test_malformed_json_is_a_decode_error():
    with pytest.raises(DecodeError):
        decode(b'{"a": ', json_text='{"a": ')
    with pytest.raises(DecodeError):
        decode(b"\xff")


def test_white_space_around_json_is_ignored():
    assert decode(b" [1]\n", json_text=" [1]\n") == [1]


@pytest.mark.parametrize(
    "encoding",
    [
        "latin-1",
        "iso-8859-1",
        "ISO-8859-15",
        "cp1252",
        "utf-16",
        "utf-16-be",
        "utf-8-sig",
        "utf-32",
        "shift_jis",
        "utf8",
    ],
)
def test_a_body_is_read_in_its_content_encoding(encoding):
    text = '{"name": "caf\u00e9 \\u20ac"}'
    if encoding == "shift_jis":
        text = text.replace("\u00e9", "\u30a2")
    assert decode(text.encode(encoding), content_encoding=encoding) == json.loads(text)


@pytest.mark.parametrize("encoding", ["no-such-codec", "rot13", "a\x00b", "", None])
def test_a_body_in_an_unknown_encoding_is_read_as_utf_8(encoding):
    assert decode(b'{"a": 1}', content_encoding=encoding) == {"a": 1}


def test_a_binary_serializer_gets_bytes_in_any_content_encoding():
    body = serialization.dumps("e", "msgpack")[2]
    accept = serialization.content_types(["msgpack"])
    delivery = SimpleNamespace(
        body=body,
        content_type="application/x-msgpack",
        content_encoding="utf-8",
        headers={},
        json_text=None,
    )
    assert serialization.decode(delivery, accept) == "e"


@pytest.mark.parametrize("body", [7, None, "\u20ac"], ids=str)
def test_a_serializer_that_returns_no_body_is_an_encode_error(body):
    kombu.serialization.register("odd", lambda value: body, None, "text/odd", "latin-1")
    try:
        with pytest.raises(EncodeError):
            serialization.dumps({}, "odd")
    finally:
        kombu.serialization.unregister("odd")


def test_only_accepted_content_types_are_decoded():
    with pytest.raises(ContentDisallowed):
        decode(b"", "application/x-yaml")
    assert decode(b"raw", "application/data", "binary") == b"raw"
    assert decode(b"raw", "application/text") == "raw"


def test_a_registered_json_codec_is_used():
    registered = kombu.serialization.registry._encoders["json"]
    decoder = kombu.serialization.registry._decoders["application/json"]
    kombu.serialization.register(
        "json", lambda value: "mine", lambda body: "read", "application/json", "utf-8"
    )
    try:
        assert serialization.dumps({}, "json")[2] == b"mine"
        assert decode(b"{}", json_text="{}") == "read"
    finally:
        kombu.serialization.registry._encoders["json"] = registered
        kombu.serialization.registry._decoders["application/json"] = decoder


def test_setup_registers_configured_serializers():
    config = {
        "serializer": "shouting",
        "SERIALIZERS": {
            "shouting": {
                "encoder": "test_serialization.shout",
                "decoder": "test_serialization.whisper",
                "content_type": "text/shouting",
            }
        },
    }
    assert serialization.setup(config) == ("shouting", ["shouting"])
    assert serialization.dumps("a", "shouting")[2] == b"A"


def shout(value):
    return value.upper()


def whisper(body):
    return body.lower()


def test_an_unknown_serializer_is_a_configuration_error():
    with pytest.raises(ConfigurationError, match='register a serializer for "nope" format'):
        serialization.setup({"serializer": "nope"})


@pytest.mark.parametrize("name", ["pickle", "yaml"])
def test_a_configured_serializer_is_used_for_requests_and_replies(serve, config, uid, name):
    class Service:
        name = "service-" + uid
        itself = RpcProxy("service-" + uid)

        @rpc
        def echo(self, value):
            return value

        @rpc
        def pass_on(self, value):
            return self.itself.echo(value)

    serve(Service, serializer=name)
    with ServiceRpcProxy(Service.name, {**config, "serializer": name}, timeout=10) as service:
        assert service.pass_on({"a": [1, None]}) == {"a": [1, None]}
