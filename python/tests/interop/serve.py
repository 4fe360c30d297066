"""Runs example services until it is terminated.

Works on this engine and on Nameko 2. Arguments: broker URI, further configuration as a JSON object,
and services as ``module:Class``. Prints ``ready`` when they can be called.
"""

import json
import sys
from importlib import import_module, metadata

if metadata.version("nameko").startswith("2."):
    import eventlet

    eventlet.monkey_patch()

from nameko.runners import ServiceRunner


def main(uri, settings, *services):
    runner = ServiceRunner({"AMQP_URI": uri, **json.loads(settings)})
    for service in services:
        module, _, class_name = service.partition(":")
        runner.add_service(getattr(import_module(module), class_name))
    runner.start()
    print("ready", flush=True)  # noqa: T201
    runner.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
