"""Reading a configuration file in a program of one's own, as the command line reads it."""

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
    """What an open YAML file says, with environment variables substituted."""
    setup_yaml_parser()
    return yaml.safe_load(config_file)


def setup_config(
    config_file: IO[Any] | None,
    define: Mapping[str, Any] | None = None,
    broker: str | None = None,
) -> Any:
    """Add to :data:`nameko.config` what an open YAML file says, and what ``define`` does.

    ``broker`` is the AMQP URI where neither that file nor :data:`nameko.config` names one. Returns
    :data:`nameko.config`.
    """
    if config_file:
        config.update(load_config(config_file) or {})
    if broker:
        config.setdefault(AMQP_URI_CONFIG_KEY, broker)
    if define:
        config.update(define)
    return config
