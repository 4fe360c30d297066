"""The bytes and properties of replies, which are the same for all kinds."""

import json

import pytest

REQUEST = '{"args": [], "kwargs": %s}'


def test_reply_and_its_properties(fleet, service):
    reply = fleet.raw(service, "greet", REQUEST % '{"name": "grün"}')
    assert reply["body"] == '{"result": "Hello, gr\\u00fcn!", "error": null}'
    assert (reply["content_type"], reply["content_encoding"]) == ("application/json", "utf-8")
    assert reply["headers"] == {}
    assert reply["properties"]["correlation_id"] == "the-id"
    assert reply["properties"]["delivery_mode"] == 2
    assert reply["properties"]["priority"] == 0


@pytest.mark.parametrize(
    ("method", "kwargs", "error"),
    [
        (
            "nope",
            "{}",
            {
                "exc_type": "MethodNotFound",
                "exc_path": "nameko.exceptions.MethodNotFound",
                "exc_args": ["nope"],
                "value": "nope",
            },
        ),
        (
            "echo",
            "{}",
            {
                "exc_type": "IncorrectSignature",
                "exc_path": "nameko.exceptions.IncorrectSignature",
                "exc_args": ["echo() missing 1 required positional argument: 'value'"],
                "value": "echo() missing 1 required positional argument: 'value'",
            },
        ),
    ],
)
def test_error_reply(fleet, service, method, kwargs, error):
    reply = fleet.raw(service, method, REQUEST % kwargs)
    assert json.loads(reply["body"]) == {"result": None, "error": error}


def test_error_of_a_method(fleet, service):
    reply = json.loads(fleet.raw(service, "fail", REQUEST % "{}")["body"])
    assert reply["result"] is None
    assert reply["error"]["exc_type"] == "ValueError"
    assert reply["error"]["exc_args"] == ["bad"]
    assert reply["error"]["value"] == "bad"
    assert reply["error"]["exc_path"].endswith("ValueError")


def test_error_of_a_registered_class(fleet, service):
    reply = json.loads(fleet.raw(service, "fail_with_known_error", REQUEST % "{}")["body"])
    error = reply["error"]
    # Rust services also send the arguments with their types; others ignore the key.
    assert error.pop("exc_args_json", None) == ("[17]" if service.startswith("rust") else None)
    assert error == {
        "exc_type": "NotFound",
        "exc_path": "fleet_errors.NotFound",
        "exc_args": ["17"],
        "value": "no order 17",
    }


def test_request_without_arguments(fleet, service):
    reply = json.loads(fleet.raw(service, "echo", '{"args": [1]}')["body"])
    assert reply["error"]["exc_path"] == "nameko.exceptions.MalformedRequest"
    assert reply["error"]["exc_args"] == ["Message missing `args` or `kwargs`"]


@pytest.mark.parametrize("body", ["[]", "null", '"text"', "17"])
def test_request_that_is_not_an_object(fleet, service, body):
    reply = json.loads(fleet.raw(service, "echo", body)["body"])
    # Nameko 2 indexes the body.
    expected = "TypeError" if service.startswith("upstream") else "MalformedRequest"
    assert reply["error"]["exc_type"] == expected
