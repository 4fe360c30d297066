"""A service of a mixed fleet with a format other than JSON. ``formats.rs`` implements it in Rust.

It runs on this package and on Nameko 2; the environment variable ``FLEET`` is the first part of its
name. The configuration selects the format: ``msgpack``, or ``hex-json``, which is defined here.
"""

import json
import math
import os

from nameko.rpc import RpcProxy, rpc


def hex_dumps(value):
    return json.dumps(value).encode().hex()


def hex_loads(body):
    return json.loads(bytes.fromhex(body if isinstance(body, str) else bytes(body).decode()))


class Formats:
    name = "{}_formats".format(os.environ["FLEET"])

    rust = RpcProxy("rust_formats")
    python = RpcProxy("python_formats")
    upstream = RpcProxy("upstream_formats")
    small_rust = RpcProxy("rust_formats", compression="gzip")
    small_python = RpcProxy("python_formats", compression="gzip")
    small_upstream = RpcProxy("upstream_formats", compression="bzip2")

    @rpc
    def echo(self, value):
        return value

    @rpc
    def fail(self):
        raise ValueError("bad")

    @rpc
    def backwards(self, data):
        return data[::-1]

    @rpc
    def numbered(self, names):
        return {name: number for number, name in names.items()}

    @rpc
    def relay(self, next, value):
        """Returns the value as another service echoes it."""
        return getattr(self, next).echo(value)

    @rpc
    def relay_compressed(self, next, value):
        return getattr(self, "small_" + next).echo(value)

    @rpc
    def relay_failure(self, next):
        getattr(self, next).fail()

    @rpc
    def relay_bytes(self, next, digits):
        return getattr(self, next).backwards(bytes.fromhex(digits)).hex()

    @rpc
    def relay_numbered(self, next):
        return getattr(self, next).numbered({7: "seven", -1: "minus one"})

    @rpc
    def relay_numbers(self, next):
        numbers = [math.nan, math.inf, -math.inf, 2**64 - 1, -(2**63), -0.0]
        return [repr(number) for number in getattr(self, next).echo(numbers)]
