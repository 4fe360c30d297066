from nameko.rpc import rpc


class HelloService:
    name = "bench_python"

    @rpc
    def hello(self, name):
        return "Hello, {}!".format(name)
