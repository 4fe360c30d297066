"""A client outside of any service: run it while `nameko run examples.hello.chain` runs."""

from nameko.standalone.rpc import ClusterRpcProxy

config = {"AMQP_URI": "pyamqp://guest:guest@localhost"}

with ClusterRpcProxy(config) as cluster_rpc:
    print(cluster_rpc.service_x.remote_method("hello"))

    # Concurrent calls.
    replies = [cluster_rpc.service_x.remote_method.call_async(word) for word in ("hello", "world")]
    print([reply.result() for reply in replies])
