"""The commands and their arguments. Their implementations are imported on use."""

from __future__ import annotations

import argparse
from typing import Any

from nameko.cli.actions import FlagAction, host_and_port, process_count
from nameko.constants import DEFAULT_AMQP_URI


class Command:
    """A command. The docstring is its help."""

    name: str
    summary: str
    # Whether unknown arguments are passed to main().
    takes_unknown_args = False

    @staticmethod
    def init_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        raise NotImplementedError

    @staticmethod
    def main(args: Any, *unknown_args: str) -> int | None:
        """Runs the command and returns its exit code; None means 0. CommandError on failure."""
        raise NotImplementedError


def add_config_arguments(parser: argparse.ArgumentParser, config_default: str = "") -> None:
    parser.add_argument(
        "-c",
        "--config",
        action="append",
        default=[],
        metavar="FILE",
        help="YAML configuration file; ${NAME} and ${NAME:default} are environment variables; "
        "repeatable: later files override earlier ones, mappings are merged"
        + (" (default: {})".format(config_default) if config_default else ""),
    )
    parser.add_argument(
        "-d",
        "--define",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="set a configuration key to a YAML value, overriding the files; SECTION.KEY=VALUE "
        "sets a nested one; KEY alone means true; repeatable",
    )
    parser.set_defaults(default_config=config_default)


def add_broker_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--broker",
        default=None,
        metavar="URI",
        help="broker URI: amqp://user:password@host:port/vhost (default: AMQP_URI of the "
        "configuration or the environment, else {})".format(DEFAULT_AMQP_URI),
    )


class Run(Command):
    """Run services until Ctrl-C or SIGTERM.

    A module name runs all service classes in the module, 'module:Class' a single one. The first
    signal shuts down gracefully: running workers finish first. A second signal forces the exit.

    If a broker is configured (--broker, or AMQP_URI in the configuration or environment), the
    command waits until it is reachable. If none is configured and none listens at localhost:5672,
    an embedded in-memory broker is started, for development only.

    With --workers, this process supervises N processes and runs no service itself. It restarts
    processes that die (with a backoff from 0.2 to 30 seconds) and stops all of them on shutdown.
    If none of them can start, it exits with their exit code.

    Examples:
        nameko run shop
        nameko run shop.orders:Orders shop.stock --config config.yaml
        nameko run shop --reload -d max_workers=20
        nameko run shop --config config.yaml --workers 4 --log-format json
    """

    name = "run"
    summary = "run services"

    @staticmethod
    def init_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        parser.add_argument(
            "services",
            nargs="+",
            metavar="module[:Class]",
            help="module with services, or a service class in it",
        )
        add_config_arguments(parser)
        add_broker_argument(parser)
        several = parser.add_mutually_exclusive_group()
        several.add_argument(
            "--workers",
            type=process_count,
            metavar="N",
            help="run N processes, each with all services and its own max_workers; restart those "
            "that die",
        )
        several.add_argument(
            "--reload",
            action="store_true",
            help="restart the services when one of their files changes, for development",
        )
        parser.add_argument(
            "--backdoor-port",
            type=host_and_port,
            metavar="[HOST:]PORT",
            help="listen for 'nameko backdoor PORT', a Python shell inside the process; 0 selects "
            "a free port; with --workers, process K listens at PORT + K - 1",
        )
        parser.add_argument(
            "--log",
            metavar="FILTER",
            help="log level or filter: error, warn, info, debug, or e.g. 'nameko=debug,info' "
            "(default: LOG of the configuration, else info)",
        )
        parser.add_argument(
            "--log-format",
            choices=["text", "json"],
            help="log format: text, or json with one object per line (default: NAMEKO_LOG_FORMAT "
            "of the environment, LOG_FORMAT of the configuration, else text); LOGGING of the "
            "configuration takes precedence",
        )
        # Set by the supervisor: the number of this process, and the file descriptor of the link.
        parser.add_argument("--process", type=int, help=argparse.SUPPRESS)
        parser.add_argument("--link", type=int, help=argparse.SUPPRESS)
        return parser

    @staticmethod
    def main(args: Any, *unknown_args: str) -> int:
        from nameko.cli import run

        return run.main(args)


class Shell(Command):
    """Open a Python shell that can call services and dispatch events:

        n.rpc.service.method("argument")
        n.dispatch_event("service", "event_type", "event_data")

    A script on standard input is run line by line; the first exception aborts it with exit code 1.
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
            help="interpreter to use on a terminal (default: the first one installed)",
        )
        parser.add_argument(
            "--context",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="send a value as context data, with a Python or JSON value; repeatable",
        )
        add_config_arguments(parser)
        return parser

    @staticmethod
    def main(args: Any, *unknown_args: str) -> None:
        from nameko.cli import shell

        shell.main(args)


class Backdoor(Command):
    """Open a Python shell inside services started with 'nameko run --backdoor-port'.

    The name 'runner' is bound to the service runner. Ctrl-D leaves; the services keep running.
    """

    name = "backdoor"
    summary = "open a Python shell inside running services"

    @staticmethod
    def init_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        parser.add_argument("target", metavar="[host:]port", help="address of the backdoor")
        parser.add_argument(
            "--rlwrap",
            action=FlagAction,
            help="connect with netcat or telnet under rlwrap (default on a terminal: the built-in "
            "client)",
        )
        return parser

    @staticmethod
    def main(args: Any, *unknown_args: str) -> None:
        from nameko.cli import backdoor

        backdoor.main(args)


class ShowConfig(Command):
    """Print the configuration as YAML, with environment variables substituted.

    Passwords are not redacted.
    """

    name = "show-config"
    summary = "print the configuration as YAML"

    @staticmethod
    def init_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        add_config_arguments(parser, config_default="config.yaml")
        add_broker_argument(parser)
        return parser

    @staticmethod
    def main(args: Any, *unknown_args: str) -> None:
        from nameko.cli import show_config

        show_config.main(args)


class Test(Command):
    """Run pytest with the given arguments, and exit with its exit code.

    Provided for projects that ran pytest through Nameko 2 to patch Python first. Nothing is patched
    any more: plain 'pytest' is equivalent.
    """

    name = "test"
    summary = "run pytest"
    takes_unknown_args = True

    @staticmethod
    def init_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        parser.usage = "nameko test [PYTEST ARGUMENTS]"
        return parser

    @staticmethod
    def main(args: Any, *unknown_args: str) -> int:
        from nameko.cli import test

        return test.main(unknown_args)


class Doctor(Command):
    """Check a project for code and settings that do not work with this version of Nameko.

    Files are parsed; nothing is imported or run. Requirements files, Dockerfiles and installed
    extensions are checked as well: use the Python interpreter that runs the services.

    The exit code is 1 if anything would break.

    Examples:
        nameko doctor
        nameko doctor shop.orders shop.stock --config config.yaml
        nameko doctor src --format json
    """

    name = "doctor"
    summary = "check a project for incompatibilities with this version"

    @staticmethod
    def init_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        parser.add_argument(
            "targets",
            nargs="*",
            default=["."],
            metavar="module | path",
            help="module, including its imports within the project; file; or directory (default: "
            "the current directory)",
        )
        parser.add_argument(
            "-c",
            "--config",
            metavar="FILE",
            help="YAML configuration file to check for unknown keys",
        )
        parser.add_argument(
            "--format",
            choices=["text", "json"],
            default="text",
            help="output format (default: text)",
        )
        return parser

    @staticmethod
    def main(args: Any, *unknown_args: str) -> int:
        from nameko.cli import doctor

        return doctor.main(args)


commands: list[type[Command]] = Command.__subclasses__()
