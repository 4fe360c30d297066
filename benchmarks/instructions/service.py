"""The hello service of `make bench-check`, see check.py."""

import os

from nameko.rpc import rpc


class HelloService:
    name = "instructions"

    @rpc
    def hello(self, name):
        return "Hello, {}!".format(name)

    @rpc
    async def hello_async(self, name):
        return "Hello, {}!".format(name)

    @rpc
    def mark(self, name):
        """Ends a segment: callgrind dumps and resets its counters before each `getppid`."""
        return "Hello, {} of process {}!".format(name, os.getppid())
