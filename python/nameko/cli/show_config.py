"""``nameko show-config``."""

from __future__ import annotations

import sys
from typing import Any

import yaml

from nameko.cli.command_module import make_callable
from nameko.cli.config import load_config, warnings


def main(args: Any) -> None:
    config = load_config(args)
    for warning in warnings(config):
        print("warning: {}".format(warning), file=sys.stderr)
    print(yaml.dump(config, default_flow_style=False))


make_callable(__name__)
