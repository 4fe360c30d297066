"""A client that reads calls from standard input, one JSON object per line, and writes the results.

It runs on this package and on Nameko 2. ``caller.rs`` does the same in Rust and describes the
format. Arguments: the broker's URI, then JSON objects with the context data and further
configuration.
"""

import json
import sys

import fleet_errors  # noqa: F401, registers its exceptions

from nameko import serialization
from nameko.standalone.rpc import ClusterRpcProxy


def describe(exc):
    return {
        "class": type(exc).__name__,
        "text": str(exc),
        "exc_type": getattr(exc, "exc_type", None),
        "value": getattr(exc, "value", None),
    }


def main(uri, context="{}", settings="{}"):
    config = {"AMQP_URI": uri, **json.loads(settings)}
    serialization.setup(config)
    with ClusterRpcProxy(config, context_data=json.loads(context)) as cluster:
        for line in iter(sys.stdin.readline, ""):
            call = json.loads(line)
            method = getattr(cluster[call["service"]], call["method"])
            try:
                result = method(*call.get("args", ()), **call.get("kwargs", {}))
                answer = {"result": result}
            except Exception as exc:
                answer = {"error": describe(exc)}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
