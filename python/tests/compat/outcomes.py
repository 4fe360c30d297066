"""The pytest plugin of the runs started by run.py.

It writes the outcome of every test to a file, and sets the port of the Toxiproxy.
"""

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
    # A failing teardown fails a passed test.
    if before is None or report.failed:
        _outcomes[report.nodeid] = report.outcome


def pytest_sessionfinish():
    with open(os.environ["NAMEKO_COMPAT_OUTCOMES"], "w") as out:
        json.dump(_outcomes, out)
