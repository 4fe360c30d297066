"""Installing extensions leaves our package where it is."""

import json
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec

import pytest

import nameko

# What asks for `nameko`, and in which words.
REQUIREMENTS = {
    "nameko-amqp-retry": "nameko>=2.7.0",
    "nameko-autocrud": "nameko>=2.6.0",
    "nameko-chassis": "nameko>=3.0rc11",
    "nameko-grpc": "nameko>=3.0.0-rc9",
    "nameko-prometheus": "nameko<4,>=2",
    "nameko-redis": "nameko>=2.0.0",
    "nameko-sentry": "nameko>=2.5.1",
    "nameko-sqlalchemy": "nameko>=2.0.0",
    "nameko-tracer": "nameko>=2.8.5",
    "opentelemetry-instrumentation-nameko": "nameko>=3.0.0rc9",
}


def test_upstream_was_not_pulled_over_it():
    assert metadata.version("nameko") == nameko.__version__
    assert nameko.__version__.startswith("3.")
    # Upstream has no compiled half.
    assert find_spec("nameko._nameko") is not None


@pytest.mark.parametrize("name", sorted(REQUIREMENTS))
def test_extensions_find_what_they_require(name):
    asked = {
        requirement.replace("(", "").replace(")", "").replace(" ", "")
        for requirement in metadata.requires(name)
    }
    assert REQUIREMENTS[name] in asked


def test_everything_fits():
    check = [sys.executable, "-m", "pip", "--disable-pip-version-check", "check"]
    outcome = subprocess.run(check, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stdout


def test_nobody_requires_eventlet():
    """It is installed for those that import it all the same: nameko-grpc, -chassis, -sentry."""
    asking = [
        distribution.name
        for distribution in metadata.distributions()
        for requirement in distribution.requires or ()
        if requirement.startswith("eventlet") and "extra ==" not in requirement
    ]
    assert asking == []


def test_neither_we_nor_most_others_import_it():
    program = """
import sys
import nameko.cli.main, nameko.events, nameko.rpc, nameko.standalone.rpc, nameko.web.handlers
import nameko_amqp_retry.events, nameko_autocrud, nameko_prometheus, nameko_redis
import nameko_sqlalchemy, nameko_tracer
assert "eventlet" not in sys.modules
import nameko_grpc.entrypoint
assert "eventlet" in sys.modules
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=50)


def test_the_doctor_knows_them(tmp_path):
    doctor = [sys.executable, "-m", "nameko", "doctor", "--format", "json"]
    outcome = subprocess.run(doctor, capture_output=True, text=True, cwd=tmp_path, timeout=50)
    findings = json.loads(outcome.stdout)["findings"]
    by_name = {}
    for finding in findings:
        by_name.setdefault(finding["file"].split()[0], []).append(finding)
    assert set(by_name) == set(REQUIREMENTS)
    # The one of which it says that a part does not work.
    broken = {name for name, said in by_name.items() if "breaks" in str(said)}
    assert broken == {"nameko-sentry"}
