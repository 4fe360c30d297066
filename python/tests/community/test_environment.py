"""Installing extensions does not replace this package."""

import json
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec

import pytest

import nameko

# Extensions and their requirement of nameko.
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


def test_upstream_is_not_installed():
    assert metadata.version("nameko") == nameko.__version__
    assert nameko.__version__.startswith("3.")
    # Upstream has no compiled module.
    assert find_spec("nameko._nameko") is not None


@pytest.mark.parametrize("name", sorted(REQUIREMENTS))
def test_the_requirements_of_extensions_are_known(name):
    requirements = {
        requirement.replace("(", "").replace(")", "").replace(" ", "")
        for requirement in metadata.requires(name)
    }
    assert REQUIREMENTS[name] in requirements


def test_pip_check_passes():
    check = [sys.executable, "-m", "pip", "--disable-pip-version-check", "check"]
    outcome = subprocess.run(check, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stdout


def test_no_extension_requires_eventlet():
    """It is installed for extensions that import it nevertheless: nameko-grpc, -chassis,
    -sentry."""
    dependents = [
        distribution.name
        for distribution in metadata.distributions()
        for requirement in distribution.requires or ()
        if requirement.startswith("eventlet") and "extra ==" not in requirement
    ]
    assert dependents == []


def test_most_extensions_do_not_import_eventlet():
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


def test_the_doctor_knows_the_extensions(tmp_path):
    doctor = [sys.executable, "-m", "nameko", "doctor", "--format", "json"]
    outcome = subprocess.run(doctor, capture_output=True, text=True, cwd=tmp_path, timeout=50)
    findings = json.loads(outcome.stdout)["findings"]
    by_name = {}
    for finding in findings:
        by_name.setdefault(finding["file"].split()[0], []).append(finding)
    assert set(by_name) == set(REQUIREMENTS)
    broken = {name for name, found in by_name.items() if "breaks" in str(found)}
    assert broken == {"nameko-sentry"}
