"""Runs the Python samples of the README."""

import pathlib
import re
import types

import pytest

from nameko.runners import run_services

README = pathlib.Path(__file__).parents[2] / "README.md"
DEFAULT_URI = "pyamqp://guest:guest@localhost"


@pytest.fixture
def blocks():
    return re.findall(r"^```python\n(.*?)^```", README.read_text(), re.M | re.S)


def test_the_services_and_the_client_run(blocks, own_broker):
    services, client = blocks
    module = types.ModuleType("readme")
    exec(compile(services, "README.md", "exec"), module.__dict__)
    config = {"AMQP_URI": own_broker.uri}
    assert DEFAULT_URI in client
    with run_services(config, module.ServiceX, module.ServiceY):
        # The sample contains an assertion.
        exec(compile(client.replace(DEFAULT_URI, own_broker.uri), "README.md", "exec"), {})
