"""Coroutine methods, which await their calls of other services."""

import asyncio

from nameko.rpc import RpcProxy, rpc


class ServiceY:
    name = "service_y"

    @rpc
    async def append_id(self, value):
        await asyncio.sleep(0)
        return "{}-y".format(value)


class ServiceX:
    name = "service_x"

    y = RpcProxy("service_y")

    @rpc
    async def remote_method(self, value):
        return await self.y.append_id("{}-x".format(value))

    @rpc
    async def many(self, values):
        return await asyncio.gather(*[self.y.append_id(value) for value in values])
