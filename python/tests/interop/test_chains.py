"""Calls through services of different kinds."""

import itertools
import re

import pytest
from mixed_fleet import KINDS

PATHS = list(itertools.permutations(KINDS))
PAIRS = list(itertools.permutations(KINDS, 2))

UUID = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


@pytest.mark.parametrize("path", PATHS, ids="-".join)
def test_the_call_id_stack_grows_along_the_path(fleet, caller, path):
    first, *others = path
    stack = caller.result(first + "_fleet", "chain", others)
    expected = ["standalone_rpc_proxy.call", *(kind + "_fleet.chain" for kind in path)]
    assert len(stack) == len(expected), stack
    for call_id, name in zip(stack, expected, strict=True):
        assert re.fullmatch(re.escape(name) + r"\." + UUID, call_id), call_id
    assert len(set(stack)) == len(stack)


def test_all_kinds_limit_the_call_id_stack_to_the_same_length(fleet, callers):
    path = [KINDS[i % len(KINDS)] for i in range(14)]
    stack = callers["python"].result("upstream_fleet", "chain", path)
    assert len(stack) == 11
    assert [call_id.split("_")[0] for call_id in stack] == path[3:]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_a_service_forwards_context_data(fleet, callers, first, second):
    caller = callers["upstream"]
    assert caller.result(first + "_fleet", "pass_on", second, "color", "blau") == "blau"
    # The service overrides the value of its caller.
    assert caller.result(first + "_fleet", "pass_on", second, "language", "fr") == "fr"


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_an_error_propagates_through_a_service(fleet, caller, first, second):
    error = caller.error(first + "_fleet", "fail_in", second, "fail")
    assert error["class"] == "RemoteError"
    assert error["exc_type"] == "RemoteError"
    assert error["value"] == "ValueError bad"


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_a_registered_exception_keeps_its_class_along_the_path(fleet, caller, first, second):
    error = caller.error(first + "_fleet", "fail_in", second, "fail_with_known_error")
    assert (error["class"], error["text"]) == ("NotFound", "no order 17")


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_an_invalid_call_within_a_service_fails_the_outer_call(fleet, caller, first, second):
    error = caller.error(first + "_fleet", "fail_in", second, "greet")
    # Deserialized to an instance, since the class is registered.
    text = "greet() missing 1 required positional argument: 'name'"
    assert (error["class"], error["text"]) == ("IncorrectSignature", text)
