"""Loading the configuration from the arguments of a command."""

from __future__ import annotations

import os
from typing import Any

import yaml

from nameko.constants import AMQP_URI_CONFIG_KEY
from nameko.exceptions import CommandError, ConfigurationError


def load_config(args: Any) -> dict[str, Any]:
    """Loads the configuration from the arguments and the environment.

    Precedence: ``--define``, ``--broker``, ``--config``, the environment variable AMQP_URI.
    CommandError if a file cannot be read or parsed.
    """
    config = read_config_file(args.config) if args.config else {}
    # Empty values are ignored in all sources: a script may pass an empty variable.
    if getattr(args, "broker", None):
        config[AMQP_URI_CONFIG_KEY] = args.broker
    for definition in getattr(args, "define", ()):
        key, separator, value = definition.partition("=")
        key = key.strip()
        if not key:
            raise CommandError("--define takes KEY=VALUE, not {!r}".format(definition))
        config[key] = _parse(value, "--define {}".format(key)) if separator else True
    if not config.get(AMQP_URI_CONFIG_KEY) and os.environ.get(AMQP_URI_CONFIG_KEY):
        config[AMQP_URI_CONFIG_KEY] = os.environ[AMQP_URI_CONFIG_KEY]
    return config


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


def number_of_seconds(config: dict[str, Any], key: str, default: float) -> float:
    """Returns a duration in seconds, ``default`` if unset. ConfigurationError if it is invalid."""
    value = config.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9:
        raise ConfigurationError("{} must be a number of seconds, not {!r}".format(key, value))
    return value
