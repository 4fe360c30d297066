"""Calls a service with the standalone client, from threads."""

import load

from nameko.standalone.rpc import ClusterRpcProxy

options = load.arguments("uri", "service")
with ClusterRpcProxy({"AMQP_URI": options.uri}) as cluster:
    hello = cluster[options.service].hello

    def call() -> None:
        assert hello("zq") == load.GREETING

    load.measure(options, load.in_threads(call))
