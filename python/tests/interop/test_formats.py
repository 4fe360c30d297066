"""A fleet that does not talk in JSON: services of every kind call each other."""

import itertools

import pytest
from mixed_fleet import KINDS, Fleet

PAIRS = list(itertools.product(KINDS, KINDS))
FORMATS = ("msgpack", "hex-json")

# What Python services are told of a format of one's own; those in Rust bring it along.
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
    """One service of each kind, each talking in the format, and understanding JSON."""
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
    """A client that talks in JSON, and is answered so."""
    return formats.caller("upstream")


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_values_come_back_as_they_were_sent(asker, first, second):
    assert asker.result(first + "_formats", "relay", second, VALUES) == VALUES


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_compressed_requests_are_read(asker, first, second):
    value = "grün " * 1000
    assert asker.result(first + "_formats", "relay_compressed", second, value) == value


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_an_error_of_the_method(asker, first, second):
    error = asker.error(first + "_formats", "relay_failure", second)
    assert (error["exc_type"], error["value"]) == ("RemoteError", "ValueError bad")


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_numbers_that_other_formats_do_not_have(asker, first, second):
    numbers = asker.result(first + "_formats", "relay_numbers", second)
    assert numbers == ["nan", "inf", "-inf", str(2**64 - 1), str(-(2**63)), "-0.0"]


@pytest.mark.parametrize("format", ["msgpack"], indirect=True)
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_bytes_and_keys_that_are_no_text(asker, first, second):
    service = first + "_formats"
    assert asker.result(service, "relay_bytes", second, "0001fe") == "fe0100"
    # Python reads MessagePack's maps with keys of text or bytes only, unless told otherwise.
    if second == "rust":
        assert asker.result(service, "relay_numbered", second) == {"seven": 7, "minus one": -1}


@pytest.mark.parametrize("kind", ["rust", "upstream"])
@pytest.mark.parametrize("service", KINDS)
def test_a_client_that_talks_in_it(formats, kind, service):
    client = formats.caller(kind, None, settings_of("msgpack", ["msgpack"]))
    assert client.result(service + "_formats", "echo", VALUES) == VALUES
    error = client.error(service + "_formats", "nope")
    assert (error["class"], error["text"]) == ("MethodNotFound", "nope")
    client.stop()
