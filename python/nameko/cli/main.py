"""The console script ``nameko``, and configuration files with environment variables in them."""

from __future__ import annotations

import argparse
import inspect
import os
import re
from functools import partial
from typing import Any

import yaml

import nameko
from nameko.cli import commands
from nameko.cli.output import drop_output, error
from nameko.exceptions import CommandError, ConfigurationError

try:
    import regex
except ImportError:
    has_regex_module = False
    # ${NAME} or ${NAME:default}; the default ends at the first closing brace.
    ENV_VAR_MATCHER: Any = re.compile(
        r"""
            \$\{
            ([^}:\s]+)  # the name
            :?
            ([^}]+)?    # the default
            \}
        """,
        re.VERBOSE,
    )
else:
    has_regex_module = True
    # The same, and the default may hold braces and variables of its own.
    ENV_VAR_MATCHER = regex.compile(
        r"""
        \$\{
        ([^{}:\s]+)     # the name
        (?:
            :
            (           # the default: no braces, or pairs of them around a default
                (?: [^{}] | \{ (?2) \} )*
            )
        )?
        \}
        """,
        regex.VERBOSE,
    )

# A plain scalar that holds a variable is substituted without a tag.
IMPLICIT_ENV_VAR_MATCHER = re.compile(r".*\$\{.*\}.*")

# A variable inside the default of another.
RECURSIVE_ENV_VAR_MATCHER = re.compile(r"\$\{([^}]+)?\}([^$}]+)?\}")


def setup_parser() -> argparse.ArgumentParser:
    """The parser of the command line, with all commands."""
    parser = argparse.ArgumentParser(
        prog="nameko",
        description="Run microservices, and call them.",
        epilog="'nameko COMMAND --help' says more about a command.",
    )
    parser.add_argument("-v", "--version", action="version", version=nameko.__version__)
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in commands.commands:
        command_parser = subparsers.add_parser(
            command.name,
            help=command.summary,
            description=inspect.getdoc(command),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.init_parser(command_parser)
        command_parser.set_defaults(
            main=command.main, takes_unknown_args=command.takes_unknown_args
        )
    return parser


def setup_yaml_parser() -> None:
    """Have yaml.safe_load substitute environment variables.

    A plain scalar is read as YAML again after the substitution, so ``${PORT:8000}`` is a number.
    A quoted one is left alone, unless it is tagged ``!env_var``, or ``!raw_env_var`` to stay text.
    """
    yaml.add_constructor("!env_var", env_var_constructor, yaml.SafeLoader)
    yaml.add_constructor("!raw_env_var", partial(env_var_constructor, raw=True), yaml.SafeLoader)
    yaml.add_implicit_resolver("!env_var", IMPLICIT_ENV_VAR_MATCHER, Loader=yaml.SafeLoader)


def env_var_constructor(loader: Any, node: Any, raw: bool = False) -> Any:
    """The value of a scalar with environment variables in it."""
    raw_value = loader.construct_scalar(node)
    if not has_regex_module and RECURSIVE_ENV_VAR_MATCHER.match(raw_value):
        raise ConfigurationError("Nested environment variable lookup requires the `regex` module")
    value = ENV_VAR_MATCHER.sub(_replace_env_var, raw_value)
    if value == raw_value:
        return value
    return value if raw else yaml.safe_load(value)


def _replace_env_var(match: Any) -> str:
    name, default = match.groups()
    value = os.environ.get(name)
    if value is None:
        value = default or ""
        while IMPLICIT_ENV_VAR_MATCHER.match(value):
            value = ENV_VAR_MATCHER.sub(_replace_env_var, value)
    return value


def main() -> int:
    """Run the command line of this process; returns its exit code."""
    parser = setup_parser()
    args, unknown_args = parser.parse_known_args()
    if not hasattr(args, "main"):
        parser.print_help()
        return 2
    if unknown_args and not args.takes_unknown_args:
        parser.error("unrecognized arguments: {}".format(" ".join(unknown_args)))
    setup_yaml_parser()
    try:
        code: int = args.main(args, *unknown_args) or 0
    except (CommandError, ConfigurationError) as exc:
        error(exc)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        drop_output()
        return 1
    return code
