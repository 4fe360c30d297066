"""Clients of all kinds call services of all kinds.

Nameko 2 also calls itself, which defines the expected behaviour of the others.
"""

import json

import pytest

VALUES = [
    None,
    True,
    0,
    -1,
    2**31,
    2**63 - 1,
    -(2**63),
    2**64 - 1,
    0.1,
    1e300,
    -0.0,
    1.0,
    "",
    "plain",
    'grün 漢字 😀 \u0000 " \\ \u2028',
    "2026-11-22T15:57:00+00:00",
    [],
    {},
    [1, [2, [3, {"a": None}]]],
    {"key": {"nested": [1.5, "x", {}]}, "schlüssel": True},
]


def test_values_round_trip(caller, service):
    result = caller.result(service, "echo", VALUES)
    assert json.dumps(result) == json.dumps(VALUES)


def test_a_large_value_round_trips(caller, service):
    value = "grün" * 250_000
    assert caller.result(service, "echo", value) == value


def test_takes_positional_and_named_arguments(caller, service):
    assert caller.result(service, "greet", "zq") == "Hello, zq!"
    assert caller.result(service, "greet", name="zq") == "Hello, zq!"
    assert caller.result(service, "greet", "zq", greeting="Hi") == "Hi, zq!"
    assert caller.result(service, "greet", name="zq", greeting=None) == "Hello, zq!"


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ([], {}, "greet() missing 1 required positional argument: 'name'"),
        (["a", "b", "c"], {}, "greet() takes from 2 to 3 positional arguments but 4 were given"),
        (["a"], {"nome": "b"}, "greet() got an unexpected keyword argument 'nome'"),
        (["a"], {"name": "b"}, "greet() got multiple values for argument 'name'"),
    ],
)
def test_rejects_wrong_arguments(caller, service, args, kwargs, text):
    error = caller.error(service, "greet", *args, **kwargs)
    assert (error["class"], error["text"]) == ("IncorrectSignature", text)


def test_rejects_an_unknown_method(caller, service):
    error = caller.error(service, "nope")
    assert (error["class"], error["text"]) == ("MethodNotFound", "nope")


def test_rejects_an_unknown_service(caller):
    error = caller.error("no_such_fleet", "echo", 1)
    assert (error["class"], error["text"]) == ("UnknownService", "Unknown service `no_such_fleet`")


def test_sends_an_exception_of_the_method(caller, service):
    assert caller.error(service, "fail") == {
        "class": "RemoteError",
        "exc_type": "ValueError",
        "value": "bad",
        "text": "ValueError bad",
    }


def test_sends_an_exception_of_a_custom_class(caller, service):
    error = caller.error(service, "fail_with_own_error", "tea")
    assert error["text"] == "OutOfStock no tea left"
    assert error["exc_type"] == "OutOfStock"


def test_a_registered_exception_keeps_its_class(caller, service):
    error = caller.error(service, "fail_with_known_error")
    assert (error["class"], error["text"]) == ("NotFound", "no order 17")


def test_reports_an_unserializable_result(caller, service):
    error = caller.error(service, "unserialisable")
    assert error["class"] == "RemoteError"
    assert error["exc_type"] == "UnserializableValueError"
    assert error["value"].startswith("Unserializable value: `")
    # The service stays available.
    assert caller.result(service, "echo", 1) == 1


def test_sends_context_data(caller, service):
    assert caller.result(service, "context", "language") == "de"
    assert caller.result(service, "context", "custom") == "grün"
    assert caller.result(service, "context", "absent") is None


def test_the_command_line_calls_all_kinds_of_services(fleet, service):
    nameko = fleet.binary("nameko")
    call = (nameko, "call", "--broker", fleet.uri, service + ".greet")
    assert fleet.run(*call, "name='zq'") == "'Hello, zq!'\n"
