"""Loading the configuration from the arguments of a command."""

from __future__ import annotations

import os
import re
from typing import Any

import yaml

from nameko._config import merge, unknown_keys
from nameko.constants import AMQP_URI_CONFIG_KEY
from nameko.exceptions import CommandError


def load_config(args: Any) -> dict[str, Any]:
    """Loads the configuration from the arguments and the environment.

    Precedence: ``--define``, ``--broker``, the last ``--config``, those before it, the environment
    variable AMQP_URI. CommandError if a file cannot be read or parsed.
    """
    config: dict[str, Any] = {}
    for path in config_files(args):
        merge(config, read_config_file(path))
    # Empty values are ignored in all sources: a script may pass an empty variable.
    if getattr(args, "broker", None):
        config[AMQP_URI_CONFIG_KEY] = args.broker
    for definition in getattr(args, "define", ()):
        define(config, definition)
    if not config.get(AMQP_URI_CONFIG_KEY) and os.environ.get(AMQP_URI_CONFIG_KEY):
        config[AMQP_URI_CONFIG_KEY] = os.environ[AMQP_URI_CONFIG_KEY]
    return config


def config_files(args: Any) -> list[str]:
    """Returns the paths of the configuration files."""
    paths = args.config or getattr(args, "default_config", None) or []
    return [paths] if isinstance(paths, str) else list(paths)


def define(config: dict[str, Any], definition: str) -> None:
    """Sets the value of ``KEY=VALUE``; ``KEY`` alone means true.

    A dot in the key separates names of nested mappings, ``\\.`` is a dot in a name.
    """
    key, separator, value = definition.partition("=")
    key = key.strip()
    names = [name.replace("\\.", ".") for name in re.split(r"(?<!\\)\.", key)]
    if not all(names):
        raise CommandError("--define takes KEY=VALUE, not {!r}".format(definition))
    for name in names[:-1]:
        inner = config.get(name)
        config[name] = inner = inner if isinstance(inner, dict) else {}
        config = inner
    config[names[-1]] = _parse(value, "--define {}".format(key)) if separator else True


def warnings(config: dict[str, Any]) -> list[str]:
    """Returns the probable mistakes in a configuration that no service has read."""
    return [*unset_variables(), *unknown_keys(config)]


def unset_variables() -> list[str]:
    """Returns a warning for each environment variable without value and default."""
    from nameko.cli import main

    return [
        "the environment variable {0} is not set and has no default, so it is empty; ${{{0}:}} "
        "allows that".format(name)
        for name in sorted(main.unset_variables)
    ]


def read_config_file(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as exc:
        raise CommandError(
            "Cannot read the configuration file {}: {}".format(path, exc.strerror or exc)
        )
    except UnicodeDecodeError as exc:
        raise CommandError("The configuration file {} is not UTF-8: {}".format(path, exc))
    config = _parse(text, path)
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise CommandError(
            "{}: expected a mapping of keys to values, not {}".format(path, type(config).__name__)
        )
    return config


def _parse(text: str, origin: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = "{}:{}:{}".format(origin, mark.line + 1, mark.column + 1) if mark else origin
        problem = exc.problem or exc.context or "syntax error"
        raise CommandError("{}: invalid YAML: {}".format(where, problem))
    except yaml.YAMLError as exc:
        raise CommandError("{}: {}".format(origin, exc))
