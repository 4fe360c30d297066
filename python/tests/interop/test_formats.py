"""Serialization formats other than JSON, between services of all kinds."""

import itertools

import pytest
from mixed_fleet import KINDS, Fleet

PAIRS = list(itertools.product(KINDS, KINDS))
FORMATS = ("msgpack", "hex-json")

# Configuration of a custom format for Python services. Rust services define it in code.
HEX_JSON = {
    "encoder": "formats.hex_dumps",
    "decoder": "formats.hex_loads",
    "content_type": "application/x-hex-json",
}

VALUES = [None, True, -1, 2**64 - 1, 0.1, "grün 漢字 😀 \u0000", [], {}, [1, {"a": [None]}]]


def settings_of(format, accept, kind="python"):
    settings = {"serializer": format, "ACCEPT": accept}
    if kind != "rust" and "hex-json" in (format, *accept):
        settings["SERIALIZERS"] = {"hex-json": HEX_JSON}
    return settings


@pytest.fixture(scope="module", params=FORMATS)
def format(request):
    return request.param


@pytest.fixture(scope="module")
def formats(broker_uri, format):
    """A service of each kind, which sends the format and accepts JSON as well."""
    fleet = Fleet(broker_uri)
    processes = []
    for kind in KINDS:
        settings = settings_of(format, ["json", *FORMATS], kind)
        processes.append(fleet.serve(kind, "Formats", "formats", settings))
    for process in processes:
        fleet.ready(process)
    yield fleet
    fleet.stop()


@pytest.fixture(scope="module")
def asker(formats):
    """A JSON client, which gets JSON replies."""
    return formats.caller("upstream")


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_values_round_trip(asker, first, second):
    assert asker.result(first + "_formats", "relay", second, VALUES) == VALUES


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_accepts_compressed_requests(asker, first, second):
    value = "grün " * 1000
    assert asker.result(first + "_formats", "relay_compressed", second, value) == value


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_sends_errors(asker, first, second):
    error = asker.error(first + "_formats", "relay_failure", second)
    assert (error["exc_type"], error["value"]) == ("RemoteError", "ValueError bad")


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_special_numbers_round_trip(asker, first, second):
    numbers = asker.result(first + "_formats", "relay_numbers", second)
    assert numbers == ["nan", "inf", "-inf", str(2**64 - 1), str(-(2**63)), "-0.0"]


@pytest.mark.parametrize("format", ["msgpack"], indirect=True)
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_bytes_and_numeric_keys(asker, first, second):
    service = first + "_formats"
    assert asker.result(service, "relay_bytes", second, "0001fe") == "fe0100"
    # By default, Python accepts only strings and bytes as keys of MessagePack maps.
    if second == "rust":
        assert asker.result(service, "relay_numbered", second) == {"seven": 7, "minus one": -1}


@pytest.mark.parametrize("kind", ["rust", "upstream"])
@pytest.mark.parametrize("service", KINDS)
def test_a_client_can_use_the_format(formats, kind, service):
    client = formats.caller(kind, None, settings_of("msgpack", ["msgpack"]))
    assert client.result(service + "_formats", "echo", VALUES) == VALUES
    error = client.error(service + "_formats", "nope")
    assert (error["class"], error["text"]) == ("MethodNotFound", "nope")
    client.stop()
