"""The console script ``nameko``, and environment variables in configuration files."""

from __future__ import annotations

import argparse
import inspect
import os
import re
from collections.abc import Sequence
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
    # As above, with a default that may contain braces and nested variables.
    ENV_VAR_MATCHER = regex.compile(
        r"""
        \$\{
        ([^{}:\s]+)     # the name
        (?:
            :
            (           # the default: balanced braces only
                (?: [^{}] | \{ (?2) \} )*
            )
        )?
        \}
        """,
        regex.VERBOSE,
    )

# A plain scalar with a variable is substituted even without a tag.
IMPLICIT_ENV_VAR_MATCHER = re.compile(r".*\$\{.*\}.*")

# The variables without value and default that a configuration has referred to.
unset_variables: set[str] = set()

# A variable nested in the default of another one.
RECURSIVE_ENV_VAR_MATCHER = re.compile(r"\$\{([^}]+)?\}([^$}]+)?\}")


def setup_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line, with all commands."""
    parser = argparse.ArgumentParser(
        prog="nameko",
        description="Run and call microservices.",
        epilog="See 'nameko COMMAND --help' for the options of a command.",
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
    """Makes yaml.safe_load substitute environment variables.

    A plain scalar is parsed as YAML after the substitution, so ``${PORT:8000}`` is a number. A
    quoted one is substituted only with the tag ``!env_var``, or ``!raw_env_var`` to keep it a
    string.
    """
    yaml.add_constructor("!env_var", env_var_constructor, yaml.SafeLoader)
    yaml.add_constructor("!raw_env_var", partial(env_var_constructor, raw=True), yaml.SafeLoader)
    yaml.add_implicit_resolver("!env_var", IMPLICIT_ENV_VAR_MATCHER, Loader=yaml.SafeLoader)


def env_var_constructor(loader: Any, node: Any, raw: bool = False) -> Any:
    """Returns the value of a scalar, with its environment variables substituted."""
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
    if value is None and not default and match.group().endswith(name + "}"):
        unset_variables.add(name)
    if value is None:
        value = default or ""
        while IMPLICIT_ENV_VAR_MATCHER.match(value):
            value = ENV_VAR_MATCHER.sub(_replace_env_var, value)
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line, by default that of this process, and returns the exit code."""
    parser = setup_parser()
    args, unknown_args = parser.parse_known_args(arguments)
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
