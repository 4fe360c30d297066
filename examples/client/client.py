"""Calls from a program that is no service: run it while `nameko run examples.hello.chain` runs."""

from nameko.standalone.rpc import ClusterRpcProxy

config = {"AMQP_URI": "pyamqp://guest:guest@localhost"}

with ClusterRpcProxy(config) as cluster_rpc:
    print(cluster_rpc.service_x.remote_method("hello"))

    # Without waiting for each reply before the next call.
    replies = [cluster_rpc.service_x.remote_method.call_async(word) for word in ("hello", "world")]
    print([reply.result() for reply in replies])
