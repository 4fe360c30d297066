"""Calls a service with upstream's standalone client: several calls at once, from one thread."""

import time

import load

from nameko.standalone.rpc import ClusterRpcProxy

options = load.arguments("uri", "service")
with ClusterRpcProxy({"AMQP_URI": options.uri}) as cluster:
    hello = cluster[options.service].hello

    def run(concurrency: int, end: float) -> list:
        latencies = []
        begin = time.monotonic()
        while begin < end:
            replies = [hello.call_async("zq") for _ in range(concurrency)]
            for reply in replies:
                assert reply.result() == load.GREETING
            now = time.monotonic()
            latencies += [now - begin] * concurrency
            begin = now
        return latencies

    load.measure(options, run)
