"""Names that the modules of upstream Nameko 2.14.1 let be imported, also those of other modules.

They are listed in imports.json, which is written by dump_imports.py. The migration guide lists the
names that this package leaves out.
"""

import importlib
import json
from pathlib import Path

import pytest

HERE = Path(__file__).parent
IMPORTS = json.loads((HERE / "imports.json").read_text())
GUIDE = HERE.parents[2] / "docs/migration/nameko-2.md"

# The names that this package leaves out, by module.
LEFT_OUT = {
    "nameko.cli.code": {"RaisingInteractiveConsole"},
    "nameko.cli.main": {"get_distribution"},
    "nameko.cli.run": {"MISSING_MODULE_TEMPLATE"},
    "nameko.containers": {"GreenPool", "GreenletExit"},
    "nameko.testing.pytest": {"pytest_sessionstart"},
    "nameko.testing.rabbit": {
        "ConnectionError",
        "HTTPBasicAuth",
        "Session",
        "_quote",
        "get_auth_from_url",
        "urldefragauth",
    },
    "nameko.timer": {"Timeout"},
    "nameko.utils.concurrency": {"LightQueue"},
    "nameko.web.server": {"BROKEN_SOCK", "HttpProtocol", "STATE_IDLE", "get_errno"},
    "nameko.web.websocket": {"IDENTIFY_WEBSOCKET_RULES", "WebSocketWSGI"},
}


@pytest.mark.parametrize("module_name", sorted(IMPORTS))
def test_every_name_of_upstreams_module_can_be_imported(module_name):
    module = importlib.import_module(module_name)
    missing = {name for name in IMPORTS[module_name] if not hasattr(module, name)}
    assert missing == LEFT_OUT.get(module_name, set())


def test_the_migration_guide_lists_the_names_that_are_left_out():
    _, _, section = GUIDE.read_text().partition("## Names that are left out\n")
    section, _, _ = section.partition("\n## ")
    rows = {}
    for line in section.splitlines():
        if line.startswith("| `nameko"):
            module, names, reason = (cell.strip() for cell in line.strip("|").split("|"))
            assert reason
            rows[module.strip("`")] = {name.strip(" `") for name in names.split(",")}
    assert rows == LEFT_OUT
