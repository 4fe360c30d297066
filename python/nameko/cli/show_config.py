"""``nameko show-config``."""

from __future__ import annotations

from typing import Any

import yaml

from nameko.cli.command_module import make_callable
from nameko.cli.config import load_config


def main(args: Any) -> None:
    print(yaml.dump(load_config(args), default_flow_style=False))


make_callable(__name__)
