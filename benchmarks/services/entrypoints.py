"""A service with as many methods as the environment variable says."""

import os

from nameko.rpc import rpc


class Entrypoints:
    name = "bench_entrypoints"

    @rpc
    def hello(self, name):
        return "Hello, {}!".format(name)


def method():
    @rpc
    def hello(self, name):
        return "Hello, {}!".format(name)

    return hello


for number in range(1, int(os.environ["ENTRYPOINTS"])):
    setattr(Entrypoints, "hello_{}".format(number), method())
