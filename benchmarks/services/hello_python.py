import time

from nameko.rpc import rpc


class HelloService:
    name = "bench_python"

    @rpc
    def hello(self, name):
        return "Hello, {}!".format(name)

    @rpc
    def wait(self, name):
        time.sleep(1)
        return "Hello, {}!".format(name)
