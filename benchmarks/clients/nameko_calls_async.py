"""Calls a service with the standalone client, from tasks."""

import asyncio

import load

from nameko.standalone.rpc import AsyncClusterRpcClient


async def main() -> None:
    options = load.arguments("uri", "service")
    async with AsyncClusterRpcClient(config={"AMQP_URI": options.uri}) as cluster:
        hello = cluster[options.service].hello

        async def call() -> None:
            assert await hello("zq") == load.GREETING

        await load.measure_async(options, call)


asyncio.run(main())
