"""The commands and their arguments. What they do is imported when they are called."""

from __future__ import annotations

import argparse
from typing import Any

from nameko.constants import DEFAULT_AMQP_URI


class Command:
    """A command: its docstring is its help."""

    name: str
    summary: str

    @staticmethod
    def init_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        raise NotImplementedError

    @staticmethod
    def main(args: Any, *unknown_args: str) -> int | None:
        """Do it; the exit code, None for success. CommandError where it cannot be done."""
        raise NotImplementedError


def add_config_arguments(parser: argparse.ArgumentParser, config_default: str = "") -> None:
    parser.add_argument(
        "--config",
        default=config_default,
        metavar="FILE",
        help="YAML file with the configuration; ${NAME:default} in it is an environment variable"
        + (" (default: {})".format(config_default) if config_default else ""),
    )
    parser.add_argument(
        "-d",
        "--define",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="set one configuration key; the value is read as YAML; may be repeated",
    )


def add_broker_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--broker",
        default=None,
        metavar="URI",
        help="where the broker is: amqp://user:password@host:port/vhost (default: AMQP_URI of the "
        "configuration, of the environment, else {})".format(DEFAULT_AMQP_URI),
    )


class Run(Command):
    """Run services until Ctrl-C or SIGTERM; a second one does not wait for running workers.

    A module runs every service class in it; 'module:Class' runs that one.

    Where no broker is configured and none is running on this machine, an embedded one is started
    inside the process. It keeps messages in memory: it is for trying out and for tests.
    """

    name = "run"
    summary = "run services"

    @staticmethod
    def init_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        parser.add_argument(
            "services",
            nargs="+",
            metavar="module[:Class]",
            help="Python path of a module with services, or of one service class",
        )
        add_config_arguments(parser)
        add_broker_argument(parser)
        return parser

    @staticmethod
    def main(args: Any, *unknown_args: str) -> int:
        from nameko.cli import run

        return run.main(args)


class Shell(Command):
    """Open a Python shell with 'n' in it, to call services and dispatch events:

        n.rpc.service.method("argument")
        n.dispatch_event("service", "event_type", "event_data")

    A script on standard input is run instead; the exit code is 1 when it raises.
    """

    name = "shell"
    summary = "call services from a Python shell"

    SHELLS = ["bpython", "ipython", "plain"]

    @classmethod
    def init_parser(cls, parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        add_broker_argument(parser)
        parser.add_argument(
            "--interface",
            choices=cls.SHELLS,
            help="which interpreter to open on a terminal (default: the first one installed)",
        )
        add_config_arguments(parser)
        return parser

    @staticmethod
    def main(args: Any, *unknown_args: str) -> None:
        from nameko.cli import shell

        shell.main(args)


class ShowConfig(Command):
    """Print the configuration that services would get, with environment variables substituted.

    Passwords are not hidden.
    """

    name = "show-config"
    summary = "print the configuration that services would get"

    @staticmethod
    def init_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        add_config_arguments(parser, config_default="config.yaml")
        add_broker_argument(parser)
        return parser

    @staticmethod
    def main(args: Any, *unknown_args: str) -> None:
        from nameko.cli import show_config

        show_config.main(args)


commands: list[type[Command]] = Command.__subclasses__()
