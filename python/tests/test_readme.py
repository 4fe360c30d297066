"""The Python of the README, run as it stands."""

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


def test_its_services_answer_its_client(blocks, own_broker):
    services, client = blocks
    module = types.ModuleType("readme")
    exec(compile(services, "README.md", "exec"), module.__dict__)
    config = {"AMQP_URI": own_broker.uri}
    assert DEFAULT_URI in client
    with run_services(config, module.ServiceX, module.ServiceY):
        # It holds an assertion of its own.
        exec(compile(client.replace(DEFAULT_URI, own_broker.uri), "README.md", "exec"), {})
