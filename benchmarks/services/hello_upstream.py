from nameko.rpc import rpc


class HelloService:
    name = "bench_upstream"

    @rpc
    def hello(self, name):
        return "Hello, {}!".format(name)
