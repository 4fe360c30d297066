"""A service of a mixed fleet, for this package and Nameko 2. ``fleet.rs`` implements it in Rust.

The environment variable ``FLEET``, ``python`` or ``upstream``, is the first part of its name.
"""

import os

from fleet_errors import NotFound

from nameko.extensions import DependencyProvider
from nameko.rpc import RpcProxy, rpc

KIND = os.environ["FLEET"]


class CurrentWorker(DependencyProvider):
    def get_dependency(self, worker_ctx):
        return worker_ctx


class OutOfStock(Exception):
    pass


class Fleet:
    name = "{}_fleet".format(KIND)

    worker = CurrentWorker()
    rust = RpcProxy("rust_fleet")
    python = RpcProxy("python_fleet")
    upstream = RpcProxy("upstream_fleet")

    @rpc
    def echo(self, value):
        return value

    @rpc
    def greet(self, name, greeting=None):
        return "{}, {}!".format(greeting or "Hello", name)

    @rpc
    def fail(self):
        raise ValueError("bad")

    @rpc
    def fail_with_own_error(self, item):
        raise OutOfStock("no {} left".format(item))

    @rpc
    def fail_with_known_error(self):
        raise NotFound(17)

    @rpc
    def unserialisable(self):
        return object()

    @rpc
    def context(self, key):
        return self.worker.data.get(key)

    @rpc
    def chain(self, path):
        if path:
            return getattr(self, path[0]).chain(path[1:])
        return self.worker.call_id_stack

    @rpc
    def pass_on(self, next, key, value):
        self.worker.data[key] = value
        return getattr(self, next).context(key)

    @rpc
    def fail_in(self, next, method):
        return getattr(getattr(self, next), method)()


class Shared:
    name = "shared_fleet"

    @rpc
    def who(self):
        return KIND
