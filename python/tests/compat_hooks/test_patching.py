"""Patches of classes and modules take effect, also in running containers."""

from unittest.mock import patch

import pytest

from nameko.amqp.publish import Publisher as PublisherCore
from nameko.containers import ServiceContainer
from nameko.messaging import Consumer, QueueConsumer, consume
from nameko.rpc import (
    MethodProxy,
    ReplyListener,
    Responder,
    Rpc,
    RpcCall,
    RpcConsumer,
    RpcProxy,
    get_rpc_exchange,
    rpc,
)
from nameko.testing.services import entrypoint_waiter


class TestPatching:
    @pytest.fixture
    def service(self, serve, uid):
        class Service:
            name = "service-" + uid
            peer = RpcProxy("service-" + uid, timeout=10)

            @rpc
            def echo(self, value):
                return value

            @rpc
            def call(self, value):
                return self.peer.echo(value)

        return serve(Service)

    @pytest.mark.parametrize(
        ("cls", "method"),
        [
            (Rpc, "handle_message"),
            (Rpc, "handle_result"),
            (RpcConsumer, "handle_message"),
            (RpcConsumer, "handle_result"),
            (QueueConsumer, "handle_message"),
            (QueueConsumer, "ack_message"),
            (ReplyListener, "handle_message"),
            (ReplyListener, "get_reply_event"),
            (RpcProxy, "get_dependency"),
            (MethodProxy, "__call__"),
            (MethodProxy, "_call"),
            (RpcCall, "get_response"),
            (PublisherCore, "publish"),
            (ServiceContainer, "spawn_worker"),
            (ServiceContainer, "_run_worker"),
            (ServiceContainer, "_inject_dependencies"),
            (ServiceContainer, "_worker_setup"),
            (ServiceContainer, "_worker_result"),
            (ServiceContainer, "_worker_teardown"),
        ],
        ids=lambda value: getattr(value, "__name__", value),
    )
    def test_a_patched_method_is_called(self, service, cluster, cls, method):
        original, calls = getattr(cls, method), []

        def spy(self, *args, **kwargs):
            calls.append(self)
            return original(self, *args, **kwargs)

        proxy = cluster[service.service_name]
        assert proxy.call("before") == "before"
        with patch.object(cls, method, spy):
            assert proxy.call("patched") == "patched"
            # Completes the hooks that run after the reply.
            service.stop()
        assert calls

    def test_a_patched_name_of_the_module_is_used(self, service, cluster):
        with (
            patch("nameko.rpc.Responder", wraps=Responder) as responder,
            patch("nameko.rpc.get_rpc_exchange", wraps=get_rpc_exchange) as exchange,
            patch("nameko.rpc.uuid") as uuid,
        ):
            uuid.uuid4.return_value = "correlation-id"
            reply = cluster[service.service_name].echo.call_async("patched")
            assert reply.result() == "patched"
        assert reply.correlation_id == "correlation-id"
        assert responder.call_count == 1
        assert exchange.called
        assert (
            cluster[service.service_name].echo.call_async("after").correlation_id
            != "correlation-id"
        )

    def test_a_patched_consumer_is_called(self, serve, queue, send, uid):
        class Service:
            name = "service-" + uid

            @consume(queue)
            def receive(self, body):
                return body

        container = serve(Service)
        with (
            patch.object(
                Consumer, "handle_message", autospec=True, side_effect=Consumer.handle_message
            ) as handle_message,
            patch.object(
                Consumer, "handle_result", autospec=True, side_effect=Consumer.handle_result
            ) as handle_result,
            entrypoint_waiter(container, "receive"),
        ):
            send(1)
        assert handle_message.call_count == handle_result.call_count == 1
