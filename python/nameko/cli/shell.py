"""``nameko shell``."""

from __future__ import annotations

import ast
import json
import os
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from amqp.exceptions import AMQPError
from kombu.exceptions import OperationalError

import nameko
import nameko.cli.code as code
from nameko import _nameko
from nameko.amqp import connection
from nameko.cli.command_module import make_callable
from nameko.cli.commands import Shell
from nameko.cli.config import load_config, warnings
from nameko.constants import AMQP_URI_CONFIG_KEY, DEFAULT_AMQP_URI
from nameko.exceptions import CommandError
from nameko.standalone.events import event_dispatcher
from nameko.standalone.rpc import ClusterRpcProxy
from nameko.utils import sanitize_url


class ShellRunner:
    """Opens an interpreter with ``local`` as its namespace."""

    def __init__(self, banner: str, local: dict[str, Any]) -> None:
        self.banner = banner
        self.local = local

    def bpython(self) -> None:
        import bpython

        bpython.embed(banner=self.banner, locals_=self.local)

    def ipython(self) -> None:
        from IPython import embed

        embed(banner1=self.banner, user_ns=self.local)

    def plain(self) -> None:
        code.interact(banner=self.banner, local=self.local, raise_expections=not on_terminal())

    def start_shell(self, name: str | None) -> None:
        """Opens the interpreter ``name``, or the first installed one; the plain shell without a
        terminal."""
        if not on_terminal():
            available_shells = ["plain"]
        else:
            available_shells = [name] if name else Shell.SHELLS

        startup = os.environ.get("PYTHONSTARTUP")
        if startup and os.path.isfile(startup):
            with open(startup) as file:
                exec(compile(file.read(), startup, "exec"), self.local)
            del os.environ["PYTHONSTARTUP"]

        for shell in available_shells:
            try:
                return getattr(self, shell)()
            except ImportError:
                if shell == name:
                    print("{} is not installed, falling back to the plain shell".format(name))
        self.plain()


def on_terminal() -> bool:
    """Whether standard input is a terminal. It is None if closed."""
    return sys.stdin is not None and sys.stdin.isatty()


def make_nameko_helper(config: dict[str, Any], context: dict[str, Any] | None = None) -> Any:
    """Returns the object ``n`` of the shell."""
    module: Any = ModuleType("nameko")
    module.__doc__ = """Nameko shell helper for making rpc calls and dispatching
events.

Usage:
    >>> n.rpc.service.method()
    "reply"

    >>> n.rpc.with_context(user_id=7).service.method()
    "reply"

    >>> n.dispatch_event('service', 'event_type', 'event_data')
"""
    proxy = ClusterRpcProxy(config)
    module.rpc = proxy.start()
    module.dispatch_event = event_dispatcher(config)
    if context:
        module.rpc = module.rpc.with_context(context)
        module.dispatch_event = module.dispatch_event.with_context(context)
    module.config = config
    module.disconnect = proxy.stop
    return module


def parse_context(definitions: Iterable[str]) -> dict[str, Any]:
    """Parses ``KEY=VALUE`` definitions of ``--context``. Values are Python or JSON literals; other
    words are strings. CommandError if a definition is invalid."""
    context = {}
    for definition in definitions:
        key, separator, text = definition.partition("=")
        if not key or not separator:
            raise CommandError(
                "--context takes KEY=VALUE, such as tenant=acme, not {!r}".format(definition)
            )
        context[key] = _word_or_literal(text)
    return context


def _word_or_literal(text: str) -> Any:
    for parse in (ast.literal_eval, json.loads):
        try:
            return parse(text)
        except (ValueError, SyntaxError):
            pass
    if text.lstrip().startswith(("[", "(", "{", "'", '"')):
        raise CommandError("--context: {!r} is neither a Python nor a JSON literal".format(text))
    return text


def main(args: Any) -> None:
    # Version 3 reads the configuration from there.
    config = nameko.config
    config.setup(load_config(args))
    for warning in warnings(config):
        print("warning: {}".format(warning), file=sys.stderr)
    context = parse_context(getattr(args, "context", ()))
    if not config.get(AMQP_URI_CONFIG_KEY) and not _nameko.probe(DEFAULT_AMQP_URI):
        raise CommandError(
            "no broker is configured, and none runs at localhost:5672\n  start a service with "
            "`nameko run`, which embeds one, or pass --broker amqp://user:password@host/"
        )
    broker_from = " (from --config)" if not args.broker and config.get(AMQP_URI_CONFIG_KEY) else ""
    broker = connection.amqp_uri(config)
    config.setdefault(AMQP_URI_CONFIG_KEY, broker)

    banner = "Nameko Python {} shell on {}\nBroker: {}{}".format(
        sys.version, sys.platform, sanitize_url(broker), broker_from
    )
    try:
        helper = make_nameko_helper(config, context)
    except (OperationalError, AMQPError) as exc:
        raise CommandError(str(exc))
    except (TypeError, ValueError) as exc:
        raise CommandError("--context: {}".format(exc))
    try:
        ShellRunner(banner, {"n": helper}).start_shell(name=args.interface)
    finally:
        helper.disconnect()


make_callable(__name__)
