"""The commands and their arguments. What they do is imported when they are called."""

from __future__ import annotations

import argparse
from typing import Any

from nameko.cli.actions import FlagAction, host_and_port, process_count
from nameko.constants import DEFAULT_AMQP_URI


class Command:
    """A command: its docstring is its help."""

    name: str
    summary: str
    # Whether arguments that its parser does not know are given to main().
    takes_unknown_args = False

    @staticmethod
    def init_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        raise NotImplementedError

    @staticmethod
    def main(args: Any, *unknown_args: str) -> int | None:
        """Do it; the exit code, None for success. CommandError where it cannot be done."""
        raise NotImplementedError


def add_config_arguments(parser: argparse.ArgumentParser, config_default: str = "") -> None:
    parser.add_argument(
        "-c",
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
        help="set one configuration key, whatever the file says; the value is read as YAML, "
        "KEY alone is true; may be repeated",
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

    With a broker configured (--broker, AMQP_URI in the configuration or in the environment), it
    is waited for. Where none is configured and none is running on this machine, an embedded one
    is started inside the process. It keeps messages in memory: it is for trying out and for tests.

    With --workers, this process runs no service itself: it starts the others, starts another one
    where one dies (after a wait that grows from 0.2 to 30 seconds), and stops them all when it is
    stopped. Where none of them can start, it ends with their exit code.

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
            help="Python path of a module with services, or of one service class",
        )
        add_config_arguments(parser)
        add_broker_argument(parser)
        several = parser.add_mutually_exclusive_group()
        several.add_argument(
            "--workers",
            type=process_count,
            metavar="N",
            help="run N processes, each with all the services and its own max_workers; one that "
            "dies is started again",
        )
        several.add_argument(
            "--reload",
            action="store_true",
            help="start again whenever a file of the services changes, for development",
        )
        parser.add_argument(
            "--backdoor-port",
            type=host_and_port,
            metavar="[HOST:]PORT",
            help="let 'nameko backdoor PORT' open a Python shell inside the process; 0 takes a "
            "free port; with --workers, process number K listens at PORT + K - 1",
        )
        parser.add_argument(
            "--log",
            metavar="FILTER",
            help="what to log: error, warn, info or debug, or a filter like 'nameko=debug,info' "
            "(default: LOG of the configuration, else info)",
        )
        parser.add_argument(
            "--log-format",
            choices=["text", "json"],
            help="how to log on standard error: text for people, json for machines, an object per "
            "line (default: NAMEKO_LOG_FORMAT of the environment, LOG_FORMAT of the "
            "configuration, else text); where the configuration has LOGGING, that holds",
        )
        # Set by the process that starts several: the number of this one, and the link between them.
        parser.add_argument("--process", type=int, help=argparse.SUPPRESS)
        parser.add_argument("--link", type=int, help=argparse.SUPPRESS)
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


class Backdoor(Command):
    """Open a Python shell inside services that were started with 'nameko run --backdoor-port'.

    The runner of the services is 'runner' there. Ctrl-D leaves; the services run on.
    """

    name = "backdoor"
    summary = "open a Python shell inside running services"

    @staticmethod
    def init_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        parser.add_argument(
            "target", metavar="[host:]port", help="where the services have their backdoor"
        )
        parser.add_argument(
            "--rlwrap",
            action=FlagAction,
            help="connect with netcat or telnet under rlwrap; without, on a terminal, lines are "
            "edited by this command itself",
        )
        return parser

    @staticmethod
    def main(args: Any, *unknown_args: str) -> None:
        from nameko.cli import backdoor

        backdoor.main(args)


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


class Test(Command):
    """Run pytest with the arguments given: all are pytest's, and so is the exit code.

    It is there for those who come from a Nameko that had to patch Python first. Nothing is patched
    here, and 'pytest' does the same.
    """

    name = "test"
    summary = "run pytest"
    takes_unknown_args = True

    @staticmethod
    def init_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        parser.usage = "nameko test [pytest's arguments]"
        return parser

    @staticmethod
    def main(args: Any, *unknown_args: str) -> int:
        from nameko.cli import test

        return test.main(unknown_args)


class Doctor(Command):
    """Read a project and tell what in it would not work on this nameko, and how to mend it.

    Files are parsed, nothing is imported or run. Requirements files, Dockerfiles and the installed
    extensions are read, too: run it with the Python that runs the services.

    The exit code is 1 when something breaks.

    Examples:
        nameko doctor
        nameko doctor shop.orders shop.stock --config config.yaml
        nameko doctor src --format json
    """

    name = "doctor"
    summary = "tell what in a project would not work, coming from Nameko 2"

    @staticmethod
    def init_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        parser.add_argument(
            "targets",
            nargs="*",
            default=["."],
            metavar="module | path",
            help="a module, with all it imports of the project; a file; or a folder with all that "
            "is in it (default: this folder)",
        )
        parser.add_argument(
            "-c",
            "--config",
            metavar="FILE",
            help="YAML file with the configuration, to look for keys that nothing reads",
        )
        parser.add_argument(
            "--format",
            choices=["text", "json"],
            default="text",
            help="how to print (default: text)",
        )
        return parser

    @staticmethod
    def main(args: Any, *unknown_args: str) -> int:
        from nameko.cli import doctor

        return doctor.main(args)


commands: list[type[Command]] = Command.__subclasses__()
