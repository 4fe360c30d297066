import asyncio

from nameko.rpc import rpc


class HelloService:
    name = "bench_python_async"

    @rpc
    async def hello(self, name):
        return "Hello, {}!".format(name)

    @rpc
    async def wait(self, name):
        await asyncio.sleep(1)
        return "Hello, {}!".format(name)
