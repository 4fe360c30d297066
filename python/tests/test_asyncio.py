"""``async def`` methods, and clients on an asyncio loop."""

import asyncio
import threading

import pytest

from nameko.exceptions import MethodNotFound, RemoteError, RpcTimeout, UnknownService
from nameko.extensions import DependencyProvider
from nameko.messaging import Publisher
from nameko.rpc import RpcProxy, rpc
from nameko.standalone.rpc import ClusterRpcProxy, ServiceRpcProxy


class WorkerThread(DependencyProvider):
    def get_dependency(self, worker_ctx):
        return threading.current_thread()


@pytest.fixture
def service(serve, uid):
    class ServiceY:
        name = "service-y-" + uid

        @rpc
        def append_id(self, value):
            return "{}-y".format(value)

    class ServiceX:
        name = "service-x-" + uid
        y = RpcProxy(ServiceY.name)
        unknown = RpcProxy("unknown-" + uid)
        thread = WorkerThread()
        publish = Publisher()

        @rpc
        async def remote_method(self, value):
            return await self.y.append_id("{}-x".format(value))

        @rpc
        async def many(self, count):
            return await asyncio.gather(*[self.y.append_id(i) for i in range(count)])

        @rpc
        async def in_tasks(self):
            tasks = [asyncio.create_task(self.y.append_id(i)) for i in range(2)]
            return [await task for task in tasks]

        @rpc
        async def overlapping(self):
            replies = [self.y.append_id.call_async(i) for i in range(3)]
            return [await reply for reply in replies]

        @rpc
        async def call_unknown(self):
            try:
                await self.unknown.method()
            except UnknownService as exc:
                return str(exc)

        @rpc
        async def fails(self):
            await asyncio.sleep(0)
            raise ValueError("async")

        @rpc
        async def on_one_loop(self):
            return [threading.current_thread().name, self.thread.name]

        @rpc
        async def publishes(self):
            await self.publish("lost", routing_key="nowhere-" + uid)
            return "published"

    serve(ServiceY)
    serve(ServiceX)
    return ServiceX.name


def test_methods_may_be_coroutines(service, cluster, uid):
    x = cluster[service]
    assert x.remote_method("hello") == "hello-x-y"
    assert x.many(30) == ["{}-y".format(i) for i in range(30)]
    assert x.in_tasks() == ["0-y", "1-y"]
    assert x.overlapping() == ["0-y", "1-y", "2-y"]
    assert x.call_unknown() == "Unknown service `unknown-{}`".format(uid)
    assert x.publishes() == "published"
    with pytest.raises(RemoteError, match="ValueError async"):
        x.fails()


def test_coroutines_share_a_loop_and_hooks_stay_in_the_worker_thread(service, cluster):
    first, second = cluster[service].on_one_loop(), cluster[service].on_one_loop()
    assert first[0] == second[0] == "nameko-loop"
    assert first[1].startswith(service + "-worker-")


def test_a_client_can_be_awaited(service, config):
    async def main():
        async with ClusterRpcProxy(config, timeout=10) as cluster:
            x = cluster[service]
            calls = [x.remote_method(i) for i in range(20)]
            assert await asyncio.gather(*calls) == ["{}-x-y".format(i) for i in range(20)]
            with pytest.raises(MethodNotFound):
                await x.nothing()
            with pytest.raises(RemoteError):
                await x.fails()

    asyncio.run(main())
    asyncio.run(main())


def test_an_awaited_call_times_out_and_can_be_cancelled(serve, config, uid):
    go = threading.Event()

    class Service:
        name = "service-" + uid

        @rpc
        def slow(self):
            go.wait(20)

        @rpc
        def quick(self):
            return "quick"

    serve(Service)

    async def main():
        async with ServiceRpcProxy(Service.name, config, timeout=0.05) as service:
            with pytest.raises(RpcTimeout):
                await service.slow()
            task = asyncio.create_task(service.slow())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        async with ServiceRpcProxy(Service.name, config, timeout=10) as service:
            assert await service.quick() == "quick"

    asyncio.run(main())
    go.set()
