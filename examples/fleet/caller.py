"""Calls what its input says, a JSON object a line, and answers each with a line.

Its twin in Rust lies beside it. It runs on this engine as well as on Nameko 2. Arguments: the
broker, and as JSON objects the context data of all calls, and the rest of the configuration.
"""

import json
import sys

import fleet_errors  # noqa: F401, it registers what it defines

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
