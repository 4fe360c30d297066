"""The comparison of `make bench-check`, without counting."""

import json
import sys
from pathlib import Path

import pytest

INSTRUCTIONS = Path(__file__).resolve().parents[2] / "benchmarks" / "instructions"


@pytest.fixture
def check(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(INSTRUCTIONS)
    import check

    baseline = tmp_path / "baseline.json"
    baseline.write_text(json.dumps({"this machine": {"Rust, 1 in flight": 1000}}))
    monkeypatch.setattr(check, "BASELINE", baseline)
    yield check
    for module in ("check", "broker", "wire"):
        sys.modules.pop(module, None)


def counts(value, machine="this machine"):
    return {machine: {"Rust, 1 in flight": value}}


def test_passes_within_the_band(check):
    assert check.check(counts(1049)) == []


def test_reports_the_path_that_became_dearer(check):
    [failure] = check.check(counts(1051))
    assert failure == (
        "Rust, 1 in flight: 1,051 instructions per call, 5.1% above the baseline of 1,000 "
        "(allowed: 5%)"
    )


def test_never_passes_without_a_baseline(check):
    [failure] = check.check(counts(1, "another machine"))
    assert failure == "Rust, 1 in flight: no baseline for another machine"


def test_keeps_an_accepted_count_beside_those_of_other_machines(check, monkeypatch):
    monkeypatch.setattr(check, "ROOT", check.BASELINE.parent)
    check.accept(counts(2000, "another machine"))
    assert check.check(counts(2000, "another machine")) == []
    assert check.check(counts(1000)) == []
