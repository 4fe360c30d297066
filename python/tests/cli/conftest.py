"""Fixtures for tests of the command line."""

import pytest
from program import Program


@pytest.fixture
def running(folder, broker_uri):
    """The hello service under ``nameko run``."""
    with Program("run", "hello", "--broker", broker_uri, cwd=folder.path) as program:
        program.wait_for("ready at")
        yield program
