from nameko.rpc import rpc


class Compute:
    name = "bench_compute"

    @rpc
    def hello(self, name):
        return "Hello, {}!".format(name)

    @rpc
    def compute(self, name):
        sum(number * number for number in range(50_000))
        return "Hello, {}!".format(name)
