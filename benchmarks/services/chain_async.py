from nameko.rpc import RpcProxy, rpc


class First:
    name = "bench_chain_first"

    second = RpcProxy("bench_chain_second")

    @rpc
    async def hello(self, name):
        return await self.second.hello(name)


class Second:
    name = "bench_chain_second"

    third = RpcProxy("bench_chain_third")

    @rpc
    async def hello(self, name):
        return await self.third.hello(name)


class Third:
    name = "bench_chain_third"

    @rpc
    async def hello(self, name):
        return "Hello, {}!".format(name)
