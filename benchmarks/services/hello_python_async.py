from nameko.rpc import rpc


class HelloService:
    name = "bench_python_async"

    @rpc
    async def hello(self, name):
        return "Hello, {}!".format(name)
