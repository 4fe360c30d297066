"""Reading configuration files in programs, like the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

import yaml

from nameko import config
from nameko.cli.main import (
    ENV_VAR_MATCHER,
    IMPLICIT_ENV_VAR_MATCHER,
    env_var_constructor,
    setup_yaml_parser,
)
from nameko.constants import AMQP_URI_CONFIG_KEY

__all__ = [
    "ENV_VAR_MATCHER",
    "IMPLICIT_ENV_VAR_MATCHER",
    "env_var_constructor",
    "load_config",
    "setup_config",
    "setup_yaml_parser",
]


def load_config(config_file: IO[Any]) -> Any:
    """Parses an open YAML file and substitutes environment variables."""
    setup_yaml_parser()
    return yaml.safe_load(config_file)


def setup_config(
    config_file: IO[Any] | None,
    define: Mapping[str, Any] | None = None,
    broker: str | None = None,
) -> Any:
    """Updates :data:`nameko.config` from an open YAML file and ``define``, and returns it.

    ``broker`` is the AMQP URI to use if neither the file nor :data:`nameko.config` has one.
    """
    if config_file:
        config.update(load_config(config_file) or {})
    if broker:
        config.setdefault(AMQP_URI_CONFIG_KEY, broker)
    if define:
        config.update(define)
    return config
