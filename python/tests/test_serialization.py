"""What goes over the wire is what Python's json and kombu make of it."""

import datetime
import decimal
import json
import uuid

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


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_plain_json_is_the_text_of_json_dumps(value):
    content_type, encoding, body = serialization.dumps(value, "json")
    assert (content_type, encoding) == ("application/json", "utf-8")
    assert body == json.dumps(value).encode()


@pytest.mark.parametrize("value", PLAIN + EXTENDED, ids=repr)
def test_json_is_what_kombu_makes_and_reads(value):
    body = serialization.dumps(value, "json")[2]
    assert body.decode() == kombu.serialization.dumps(value, "json")[2]
    accept = serialization.content_types(["json"])
    read = serialization.loads(body, "application/json", "utf-8", accept)
    assert read == kombu.serialization.loads(body, "application/json", "utf-8", accept=accept)


@pytest.mark.parametrize("value", [object(), {1, 2}, [print]], ids=["object", "set", "function"])
def test_what_json_cannot_say_is_an_encode_error(value):
    with pytest.raises(EncodeError):
        serialization.dumps(value, "json")


def test_values_that_contain_themselves_are_an_encode_error():
    value = []
    value.append(value)
    with pytest.raises((EncodeError, RecursionError)):
        serialization.dumps(value, "json")


def test_what_is_not_json_is_a_decode_error():
    accept = serialization.content_types(["json"])
    with pytest.raises(DecodeError):
        serialization.loads(b'{"a": ', "application/json", "utf-8", accept)
    with pytest.raises(DecodeError):
        serialization.loads(b"\xff", "application/json", "utf-8", accept)


def test_only_accepted_content_types_are_read():
    accept = serialization.content_types(["json"])
    with pytest.raises(ContentDisallowed):
        serialization.loads(b"", "application/x-yaml", "utf-8", accept)
    assert serialization.loads(b"raw", "application/data", "binary", accept) == b"raw"
    assert serialization.loads(b"raw", "application/text", "utf-8", accept) == "raw"


def test_a_json_encoder_that_someone_registered_is_used():
    registered = kombu.serialization.registry._encoders["json"]
    decoder = kombu.serialization.registry._decoders["application/json"]
    kombu.serialization.register(
        "json", lambda value: "mine", lambda body: "read", "application/json", "utf-8"
    )
    try:
        assert serialization.dumps({}, "json")[2] == b"mine"
        accept = serialization.content_types(["json"])
        assert serialization.loads(b"{}", "application/json", "utf-8", accept) == "read"
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


def test_unknown_serializers_are_refused():
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
