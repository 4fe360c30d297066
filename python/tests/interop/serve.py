"""Serves the services of fleet.py until it is told to stop.

Runs on this engine as well as on Nameko 2. Arguments: the broker, and the services' class names.
It prints ``ready`` when they can be called.
"""

import sys

try:
    import eventlet
except ImportError:
    pass
else:
    eventlet.monkey_patch()

import fleet
from nameko.runners import ServiceRunner


def main(uri, *class_names):
    runner = ServiceRunner({"AMQP_URI": uri})
    for class_name in class_names:
        runner.add_service(getattr(fleet, class_name))
    runner.start()
    print("ready", flush=True)  # noqa: T201
    runner.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
