"""The pytest plugin in each run that run.py starts. It tells run.py what became of every test, and
the tests where the Toxiproxy is."""

import json
import os

# Node id -> passed, failed or skipped.
_outcomes: dict[str, str] = {}


def pytest_collection(session):
    for plugin in session.config.pluginmanager.get_plugins():
        if hasattr(plugin, "TOXIPROXY_PORT"):
            plugin.TOXIPROXY_PORT = int(os.environ["NAMEKO_COMPAT_TOXIPROXY"])


def pytest_runtest_logreport(report):
    before = _outcomes.get(report.nodeid)
    # One whose fixtures fail when it is over has failed, although it passed.
    if before is None or report.failed:
        _outcomes[report.nodeid] = report.outcome


def pytest_sessionfinish():
    with open(os.environ["NAMEKO_COMPAT_OUTCOMES"], "w") as out:
        json.dump(_outcomes, out)
