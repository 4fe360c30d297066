"""``nameko.config``, and the meaning of configuration files."""

import datetime
import json
import logging
import re
from pathlib import Path

import pytest
import yaml

from nameko import _nameko, config
from nameko._config import merge, report_unknown_keys, track
from nameko.cli.config import define
from nameko.cli.main import setup_yaml_parser
from nameko.containers import ServiceContainer
from nameko.exceptions import CommandError
from nameko.extensions import DependencyProvider
from nameko.testing.services import dummy

ROOT = Path(__file__).parents[2]
CASES = json.loads((ROOT / "crates/nameko/tests/data/configurations.json").read_text())


def test_patch_is_undone_after_its_block():
    with config.patch({"a": 1}, clear=True):
        with config.patch({"b": 2}):
            assert config == {"a": 1, "b": 2}
        assert config == {"a": 1}

        @config.patch({"c": 3}, clear=True)
        def patched():
            return dict(config)

        assert patched() == {"c": 3}
        assert config == {"a": 1}


def test_setup_replaces_all_values():
    with config.patch({"a": 1}):
        config.setup({"b": 2})
        assert config == {"b": 2}


def described(value):
    """Describes a value by its counterpart in JSON, or by its type and text if it has none."""
    if isinstance(value, dict):
        return {str(key): described(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [described(item) for item in value]
    if isinstance(value, set):
        return "set {}".format(sorted(value))
    if isinstance(value, bytes):
        return "bytes {}".format(list(value))
    if isinstance(value, datetime.date):
        return "date {}".format(value)
    if isinstance(value, float) and not abs(value) < float("inf"):
        return str(value)
    if isinstance(value, int) and value >= 2**64:
        return "int {}".format(value)
    return value


# The cases of crates/nameko/src/config/tests.rs.
@pytest.mark.parametrize("case", CASES, ids=[case["text"] for case in CASES])
def test_a_file_has_the_same_meaning_in_rust(case, monkeypatch):
    monkeypatch.delenv("X", raising=False)
    for name, value in case.get("environment", {}).items():
        monkeypatch.setenv(name, value)
    setup_yaml_parser()
    if "error" in case:
        try:
            read = yaml.safe_load(case["text"])
        except yaml.YAMLError:
            return
        assert not isinstance(read, dict)  # an error of the command line
        return
    read = yaml.safe_load(case["text"]) or {}
    assert described(read) == case.get("python", case["value"])


def test_layers_are_merged_and_definitions_are_nested():
    values = {"smtp": {"host": "localhost", "port": 25}, "hosts": ["a", "b"], "size": 1}
    layer = {"smtp": {"host": "mail.example.com"}, "hosts": ["c"], "size": {"unit": "kg"}}
    merge(values, layer)
    define(values, "smtp.tls.verify=false")
    define(values, "LOGGING.loggers.nameko\\.rpc.level=DEBUG")
    define(values, "size.amount=2")
    define(values, "smtp.port.number=26")
    define(values, "a.b")
    assert values == {
        "smtp": {
            "host": "mail.example.com",
            "port": {"number": 26},
            "tls": {"verify": False},
        },
        "hosts": ["c"],
        "size": {"unit": "kg", "amount": 2},
        "LOGGING": {"loggers": {"nameko.rpc": {"level": "DEBUG"}}},
        "a": {"b": True},
    }
    assert layer["size"] == {"unit": "kg"}, "the layer is not changed"
    for wrong in ("", "=1", ".=1", "a.=1", ".a=1", "a..b=1"):
        with pytest.raises(CommandError):
            define(values, wrong)


def test_keys_that_are_not_read_are_reported_with_the_nearest_known_one(caplog):
    class Mail(DependencyProvider):
        def setup(self):
            self.container.config.get("rpc_timeouts")

    class Service:
        name = "service"
        mail = Mail()

        @dummy
        def method(self):
            pass

    values = {"max_worker": 7, "rpc_timeouts": {}, "amqp_uri": "memory://", "mine": 1}
    with config.patch(values, clear=True):
        track(config)
        container = ServiceContainer(Service, config)
        with caplog.at_level(logging.WARNING, "nameko.config"):
            container.start()
            container.stop()
            report_unknown_keys(config)
    assert caplog.messages == [
        "the unknown key `max_worker` has no effect; did you mean `max_workers`?",
        "the unknown key `amqp_uri` has no effect; did you mean `AMQP_URI`?",
    ]


def test_all_keys_of_the_reference_are_known():
    page = (ROOT / "docs/reference/configuration.md").read_text()
    tables = page.partition("## Environment variables")[0]
    documented = re.findall(r"^\| `(\w+)` \|", tables, re.M)
    assert set(documented) <= set(_nameko.config_keys())
