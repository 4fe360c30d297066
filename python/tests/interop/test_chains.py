"""Calls that travel through services of different kinds."""

import itertools
import re

import pytest
from mixed_fleet import KINDS

PATHS = list(itertools.permutations(KINDS))
PAIRS = list(itertools.permutations(KINDS, 2))

UUID = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


@pytest.mark.parametrize("path", PATHS, ids="-".join)
def test_the_call_id_stack_grows_along_the_way(fleet, caller, path):
    first, *others = path
    stack = caller.result(first + "_fleet", "chain", others)
    expected = ["standalone_rpc_proxy.call", *(kind + "_fleet.chain" for kind in path)]
    assert len(stack) == len(expected), stack
    for call_id, name in zip(stack, expected, strict=True):
        assert re.fullmatch(re.escape(name) + r"\." + UUID, call_id), call_id
    assert len(set(stack)) == len(stack)


def test_the_call_id_stack_is_cut_at_the_same_length_by_all(fleet, callers):
    path = [KINDS[i % len(KINDS)] for i in range(14)]
    stack = callers["python"].result("upstream_fleet", "chain", path)
    assert len(stack) == 11
    assert [call_id.split("_")[0] for call_id in stack] == path[3:]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_a_service_passes_on_its_callers_context_data(fleet, callers, first, second):
    caller = callers["upstream"]
    assert caller.result(first + "_fleet", "pass_on", second, "color", "blau") == "blau"
    # What the caller sent is overwritten for those further on.
    assert caller.result(first + "_fleet", "pass_on", second, "language", "fr") == "fr"


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_an_error_passes_through_a_service(fleet, caller, first, second):
    error = caller.error(first + "_fleet", "fail_in", second, "fail")
    assert error["class"] == "RemoteError"
    assert error["exc_type"] == "RemoteError"
    assert error["value"] == "ValueError bad"


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_an_error_of_a_known_class_keeps_it_along_the_way(fleet, caller, first, second):
    error = caller.error(first + "_fleet", "fail_in", second, "fail_with_known_error")
    assert (error["class"], error["text"]) == ("NotFound", "no order 17")


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_a_wrong_call_within_a_service_is_told_to_its_caller(fleet, caller, first, second):
    error = caller.error(first + "_fleet", "fail_in", second, "greet")
    # A caller that knows the class has an instance of it.
    text = "greet() missing 1 required positional argument: 'name'"
    assert (error["class"], error["text"]) == ("IncorrectSignature", text)
