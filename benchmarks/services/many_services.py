"""As many services as the environment variable says, up to number 99."""

import os

from nameko.rpc import rpc


def service(number):
    class Service:
        name = "bench_services_{:02}".format(number)

        @rpc
        def hello(self, name):
            return "Hello, {}!".format(name)

    return Service


for number in range(100 - int(os.environ["SERVICES"]), 100):
    globals()["Service{}".format(number)] = service(number)
