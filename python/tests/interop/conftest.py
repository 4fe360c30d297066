"""Fixtures of the mixed fleet."""

import pytest
from mixed_fleet import BINARIES, KINDS, PEER, Fleet

# Context data sent by all clients.
CONTEXT = {"language": "de", "custom": "grün"}


@pytest.fixture(scope="session", autouse=True)
def built():
    """Checks for the binaries, which `make test` builds."""
    programs = ("fleet", "caller", "listeners", "nameko")
    for needed in (PEER, *(BINARIES / name for name in programs)):
        assert needed.exists(), "{} is missing: make .venv/.peer, cargo build".format(needed)


@pytest.fixture(scope="module")
def empty_fleet(broker_uri):
    fleet = Fleet(broker_uri)
    yield fleet
    fleet.stop()


@pytest.fixture(scope="module")
def fleet(empty_fleet):
    """A fleet with a running service of each kind."""
    for process in [empty_fleet.serve(kind) for kind in KINDS]:
        empty_fleet.ready(process)
    return empty_fleet


@pytest.fixture(scope="module")
def callers(empty_fleet):
    """A client of each kind, with CONTEXT as context data."""
    return {kind: empty_fleet.caller(kind, CONTEXT) for kind in KINDS}


@pytest.fixture(params=KINDS)
def caller(request, callers):
    """A client. The test runs with each kind."""
    return callers[request.param]


@pytest.fixture(params=KINDS)
def service(request, fleet):
    """The name of a running service. The test runs with each kind."""
    return request.param + "_fleet"
