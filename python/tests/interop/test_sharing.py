"""A service with instances of different kinds."""

import itertools

import pytest
from mixed_fleet import KINDS

PAIRS = list(itertools.combinations(KINDS, 2))


@pytest.mark.parametrize("kinds", PAIRS, ids="-".join)
def test_instances_share_the_calls(empty_fleet, callers, kinds):
    instances = [empty_fleet.serve(kind, "Shared") for kind in kinds]
    for instance in instances:
        empty_fleet.ready(instance)
    answers = [callers["python"].result("shared_fleet", "who") for _ in range(20)]
    # The broker serves consumers round robin.
    assert set(answers) == set(kinds)
    assert min(answers.count(kind) for kind in kinds) >= 5, answers

    instances[0].stop()
    answers = {callers["python"].result("shared_fleet", "who") for _ in range(5)}
    assert answers == {kinds[1]}
    instances[1].stop()
