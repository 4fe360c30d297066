"""The public API of upstream Nameko 2.14.1, with compatible signatures.

It is listed in surface.json, which is written by dump_surface.py.
"""

import importlib
import inspect
import json
from pathlib import Path

import pytest

SURFACE = json.loads((Path(__file__).parent / "surface.json").read_text())

_KOMBU_CONSUMER = "a hook of kombu's ConsumerMixin, replaced by the compiled client"
_REPLIES = "replies are matched by the compiled client, without polling"
_COMMANDS = "internal to upstream's commands"
_SERVER = "internal to eventlet's web server, replaced by the compiled one"
# Missing or incompatible names, with the reason.
EXCEPTIONS = {
    "nameko.cli.actions.FlagAction.__init__": "flags have a single negative prefix, `--no-`",
    "nameko.cli.code.RaisingInteractiveConsole": _COMMANDS,
    "nameko.cli.commands.Command.name": _COMMANDS,
    "nameko.cli.run.MISSING_MODULE_TEMPLATE": _COMMANDS,
    "nameko.messaging.QueueConsumer.get_consumers": _KOMBU_CONSUMER,
    "nameko.messaging.QueueConsumer.on_iteration": _KOMBU_CONSUMER,
    "nameko.messaging.QueueConsumer.on_consume_ready": _KOMBU_CONSUMER,
    "nameko.runners.run_services": "the configuration is optional, as in version 3",
    "nameko.standalone.rpc.ConsumeEvent.__init__": _REPLIES,
    "nameko.standalone.rpc.ConsumeEvent.exception": _REPLIES,
    "nameko.standalone.rpc.ConsumeEvent.send": _REPLIES,
    "nameko.standalone.rpc.ConsumeEvent.send_exception": _REPLIES,
    "nameko.standalone.rpc.PollingQueueConsumer.consumer": _REPLIES,
    "nameko.standalone.rpc.PollingQueueConsumer.ack_message": _REPLIES,
    "nameko.standalone.rpc.PollingQueueConsumer.get_message": _REPLIES,
    "nameko.standalone.rpc.PollingQueueConsumer.on_message": _REPLIES,
    "nameko.testing.pytest.pytest_sessionstart": "warned of threads that eventlet had not patched",
    "nameko.web.server.BROKEN_SOCK": _SERVER,
    "nameko.web.server.STATE_IDLE": _SERVER,
    "nameko.web.server.WebServer.process_request": _SERVER,
    "nameko.web.server.WebServer.run": _SERVER,
    "nameko.web.websocket.IDENTIFY_WEBSOCKET_RULES": "asked for the version of Werkzeug",
}

MODULES = sorted(SURFACE)

MISSING = object()


@pytest.mark.parametrize("module_name", MODULES)
def test_module_has_the_api_of_upstream(module_name):
    module = importlib.import_module(module_name)
    missing = list(find_differences(module_name, module, SURFACE[module_name]))
    assert not missing, "\n".join(missing)


def find_differences(path, owner, names):
    for name, described in names.items():
        full_name = "{}.{}".format(path, name)
        if full_name in EXCEPTIONS:
            continue
        value = inspect.getattr_static(owner, name, MISSING)
        value = getattr(owner, name, None) if isinstance(value, property) else value
        if value is MISSING:
            yield full_name
        elif isinstance(described, dict):
            yield from find_differences(full_name, value, described)
        elif described is not None:
            reason = incompatibility(described, getattr(value, "__func__", value))
            if reason:
                yield "{}: {}".format(full_name, reason)


def incompatibility(described, function):
    """Returns the reason why a call of upstream's function might fail here, or None."""
    theirs = described.split()
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as exc:
        return str(exc)
    ours = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    kinds = {p.kind for p in parameters}
    takes_all = inspect.Parameter.VAR_POSITIONAL in kinds and inspect.Parameter.VAR_KEYWORD in kinds
    if takes_all:
        return None
    plain = [name.rstrip("=") for name in theirs if not name.startswith("*")]
    if ours[: len(plain)] != plain:
        return "takes {}, upstream {}".format(ours, plain)
    optional = {p.name for p in parameters if p.default is not p.empty}
    for name in ours:
        if name not in optional and name + "=" in theirs:
            return "`{}` is required".format(name)
        if name not in optional and name not in theirs:
            return "`{}` is required, but unknown to upstream".format(name)
    for prefix, kind in (
        ("*", inspect.Parameter.VAR_POSITIONAL),
        ("**", inspect.Parameter.VAR_KEYWORD),
    ):
        stars = [name for name in theirs if name.startswith("*")]
        if any(s.startswith(prefix) and s[len(prefix)] != "*" for s in stars) and kind not in kinds:
            return "does not take {} arguments".format(prefix)
    return None
