"""Standalone clients and test helpers."""

import pytest
from amqp.exceptions import AccessRefused

from nameko.containers import WorkerContext
from nameko.extensions import DependencyProvider
from nameko.rpc import rpc
from nameko.standalone.rpc import (
    ClusterRpcProxy,
    ServiceRpcProxy,
)
from nameko.testing.services import dummy, entrypoint_waiter


class TestStandaloneClients:
    def test_context_data_may_be_set_per_call(self, serve, config, uid):
        class Data(DependencyProvider):
            def get_dependency(self, worker_ctx):
                return worker_ctx.data

        class Service:
            name = "service-" + uid
            data = Data()

            @rpc
            def look(self):
                return self.data.get("user_id")

        serve(Service)
        with ClusterRpcProxy(config, timeout=10) as proxy:
            assert proxy[Service.name].look() is None
            proxy._worker_ctx.data["user_id"] = "anna"
            assert proxy[Service.name].look() == "anna"
            assert isinstance(proxy._worker_ctx, WorkerContext)
            assert proxy._reply_listener.queue_consumer.connection.connected

    def test_a_wrong_password_raises_access_refused(self, own_broker):
        uri = own_broker.uri.replace("guest:guest", "guest:wrong")
        with pytest.raises(AccessRefused), ClusterRpcProxy({"AMQP_URI": uri}):
            pass

    def test_a_call_of_a_stopped_client_is_an_error(self, config):
        client = ServiceRpcProxy("nobody", config)
        proxy = client.start()
        client.stop()
        with pytest.raises(RuntimeError, match="This consumer has been stopped"):
            proxy.method()


def test_a_waiter_has_its_own_timeout_class(serve, uid):
    class Service:
        name = "service-" + uid

        @dummy
        def method(self):
            pass

    container = serve(Service)
    with (
        pytest.raises(entrypoint_waiter.Timeout, match=r"Timeout on .*\.method after 0.01 sec"),
        entrypoint_waiter(container, "method", timeout=0.01),
    ):
        pass
