"""Many calls at once, the order of their workers and the time of their replies."""

import threading
import time

from nameko.extensions import Entrypoint
from nameko.rpc import rpc
from nameko.standalone.rpc import ClusterRpcProxy
from nameko.testing.services import dummy
from nameko.testing.utils import get_extension


def until(condition, seconds=10):
    """Waits until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not hold after {} s".format(seconds)
        time.sleep(0.001)


def test_a_thousand_blocking_calls_run_at_once(serve, config, uid):
    """Each waits for all others."""
    count = 1000
    barrier = threading.Barrier(count)

    class Service:
        name = "service-" + uid

        @rpc
        def block(self):
            return barrier.wait(20)

    serve(Service, max_workers=10_000)
    with ClusterRpcProxy(config, timeout=30) as cluster:
        replies = [cluster[Service.name].block.call_async() for _ in range(count)]
        assert sorted(reply.result() for reply in replies) == list(range(count))


def test_a_reply_does_not_wait_for_the_next_worker(serve, config, uid):
    """The second worker runs on the thread of the first one, which has to send its reply before."""
    gates = [threading.Event() for _ in range(3)]
    began = threading.Event()

    class Service:
        name = "service-" + uid

        @rpc
        def method(self, number):
            began.set()
            gates[number].wait(20)
            return number

    container = serve(Service, max_workers=1, prefetch_count=12)
    with ClusterRpcProxy(config, timeout=10) as cluster:
        replies = [cluster[Service.name].method.call_async(number) for number in range(3)]
        assert began.wait(10)
        until(lambda: len(container.worker_pool._waiting) == 2)
        for number, reply in enumerate(replies):
            gates[number].set()
            assert reply.result() == number


def test_workers_begin_in_the_order_in_which_they_were_spawned(serve, uid):
    class Service:
        name = "service-" + uid

        @dummy
        def method(self, number):
            began.append(number)

    for _ in range(50):
        began = []
        container = serve(Service)
        entrypoint = get_extension(container, Entrypoint, method_name="method")
        for number in range(10):
            container.spawn_worker(entrypoint, (number,), {})
        container.stop()
        assert began == list(range(10))
