"""Context data of single calls: ``with_context`` of the clients."""

import asyncio
import copy
import warnings

import pytest
from kombu import Exchange, Queue

from nameko.events import EventDispatcher, event_handler
from nameko.extensions import DependencyProvider
from nameko.messaging import Publisher, consume
from nameko.rpc import ClusterRpc, RpcProxy, rpc
from nameko.standalone.events import async_event_dispatcher, event_dispatcher
from nameko.standalone.rpc import (
    AsyncClusterRpcClient,
    AsyncServiceRpcClient,
    ClusterRpcProxy,
    ServiceRpcProxy,
)
from nameko.testing.services import dummy, entrypoint_hook, entrypoint_waiter


class Context(DependencyProvider):
    """Injects the context data of the call, with the stack of call ids."""

    def get_dependency(self, worker_ctx):
        return dict(worker_ctx.context_data)


@pytest.fixture
def peer(serve, uid):
    """A service that returns or receives context data."""

    class Peer:
        name = "peer-" + uid
        context = Context()

        @rpc
        def look(self):
            return self.context

        @rpc
        def with_context(self, value):
            return value

        @event_handler("source-" + uid, "happened")
        def handle(self, event):
            return self.context

    return serve(Peer)


@pytest.fixture
def caller(serve, peer, uid):
    """``caller(body)`` returns the result of a method with this body."""

    def start(body):
        class Caller:
            name = "caller-" + uid
            context = Context()
            peer_rpc = RpcProxy("peer-" + uid)
            cluster = ClusterRpc()
            method = dummy(body)

        with entrypoint_hook(serve(Caller), "method", {"tenant": "a", "language": "fr"}) as method:
            return method()

    return start


def values(context):
    return {key: value for key, value in context.items() if key != "call_id_stack"}


class TestInServices:
    def test_values_are_added_for_one_call(self, caller):
        def body(self):
            peer = self.peer_rpc.with_context({"x-trace": "t"}, tenant="b")
            return peer.look(), self.peer_rpc.look()

        changed, plain = caller(body)
        assert values(changed) == {"tenant": "b", "language": "fr", "x-trace": "t"}
        assert values(plain) == {"tenant": "a", "language": "fr"}
        assert len(changed["call_id_stack"]) == 2

    def test_for_a_cluster(self, caller, uid):
        def body(self):
            return self.cluster.with_context(tenant="b")["peer-" + uid].look()

        assert values(caller(body)) == {"tenant": "b", "language": "fr"}

    def test_for_an_async_method(self, caller):
        async def body(self):
            return await self.peer_rpc.with_context(tenant="b").look()

        assert values(caller(body)) == {"tenant": "b", "language": "fr"}

    def test_none_removes_a_value(self, caller):
        def body(self):
            return self.peer_rpc.with_context(tenant=None).look()

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert values(caller(body)) == {"language": "fr"}

    def test_nested_contexts_are_merged(self, caller):
        def body(self):
            return self.peer_rpc.with_context(tenant="b", a=1).with_context(tenant="c", b=2).look()

        assert values(caller(body)) == {"tenant": "c", "language": "fr", "a": 1, "b": 2}

    def test_later_changes_of_the_worker_apply(self, serve, peer, uid):
        class Current(DependencyProvider):
            def get_dependency(self, worker_ctx):
                return worker_ctx

        class Caller:
            name = "caller-" + uid
            worker = Current()
            peer_rpc = RpcProxy("peer-" + uid)

            @dummy
            def method(self):
                scoped = self.peer_rpc.with_context(tenant="b")
                self.worker.data["user_id"] = 7
                return scoped.look()

        with entrypoint_hook(serve(Caller), "method") as method:
            assert values(method()) == {"tenant": "b", "user_id": 7}

    def test_events_and_messages(self, serve, peer, uid):
        exchange = Exchange("exchange-" + uid, auto_delete=True, durable=False)
        queue = Queue("queue-" + uid, exchange, "key", auto_delete=True, durable=False)

        class Source:
            name = "source-" + uid
            context = Context()
            dispatch = EventDispatcher()
            publish = Publisher(exchange=exchange, declare=[queue])

            @dummy
            def method(self):
                self.dispatch.with_context(tenant="b")("happened", 1)
                self.publish.with_context(tenant="c")("body", routing_key="key")

            @consume(queue)
            def receive(self, body):
                return self.context

        source = serve(Source)
        with (
            entrypoint_hook(source, "method", {"tenant": "a"}) as method,
            entrypoint_waiter(peer, "handle") as event,
            entrypoint_waiter(source, "receive") as message,
        ):
            method()
        assert values(event.get()) == {"tenant": "b"}
        assert values(message.get()) == {"tenant": "c"}


class TestStandaloneClients:
    """A gateway that is no service passes the tenant and the trace of its request on."""

    def test_a_client_of_one_service(self, peer, config):
        context = {"tenant": "a"}
        with ServiceRpcProxy(peer.service_name, config, context, timeout=10) as service:
            scoped = service.with_context(user_id=7)
            assert values(scoped.look()) == {"tenant": "a", "user_id": 7}
            assert values(service.look()) == {"tenant": "a"}

    def test_a_client_of_all_services(self, peer, config):
        with ClusterRpcProxy(config, timeout=10) as cluster:
            scoped = cluster.with_context(user_id=7)
            assert values(scoped[peer.service_name].look()) == {"user_id": 7}

    @pytest.mark.parametrize("client_cls", [AsyncClusterRpcClient, AsyncServiceRpcClient])
    def test_asyncio_clients(self, peer, config, client_cls):
        arguments = [peer.service_name] if client_cls is AsyncServiceRpcClient else []

        async def run():
            async with client_cls(*arguments, config=config, timeout=10) as client:
                scoped = client.with_context(user_id=7)
                service = scoped if arguments else scoped[peer.service_name]
                return await service.look()

        assert values(asyncio.run(run())) == {"user_id": 7}

    def test_the_callers_trace_is_kept(self, peer, config):
        with ClusterRpcProxy(config, timeout=10) as cluster:
            scoped = cluster.with_context(call_id_stack=["browser.1", "gateway.2"])
            stack = scoped[peer.service_name].look()["call_id_stack"]
        assert stack[:2] == ["browser.1", "gateway.2"]
        assert stack[2].startswith("standalone_rpc_proxy.call.")
        assert stack[3].startswith(peer.service_name + ".look.")

    def test_the_trace_is_cut_as_anywhere(self, peer, config):
        config = {**config, "parent_calls_tracked": 1}
        with ClusterRpcProxy(config, timeout=10) as cluster:
            scoped = cluster.with_context(call_id_stack=["one", "two"])
            stack = scoped[peer.service_name].look()["call_id_stack"]
        assert stack[0] == "two"

    def test_event_dispatchers(self, peer, config, uid):
        dispatch = event_dispatcher(config, context_data={"tenant": "a"})
        scoped = dispatch.with_context(user_id=7, call_id_stack=["gateway.1"])
        with entrypoint_waiter(peer, "handle") as result:
            scoped("source-" + uid, "happened", 1)
        assert values(result.get()) == {"tenant": "a", "user_id": 7}
        assert result.get()["call_id_stack"][0] == "gateway.1"
        with entrypoint_waiter(peer, "handle") as result:
            asyncio.run(
                async_event_dispatcher(config).with_context(user_id=8)(
                    "source-" + uid, "happened", 1
                )
            )
        assert values(result.get()) == {"user_id": 8}

    def test_a_client_can_be_copied(self, peer, config):
        with ServiceRpcProxy(peer.service_name, config, timeout=10) as service:
            scoped = copy.copy(service.with_context(user_id=7))
            assert values(scoped.look()) == {"user_id": 7}
            assert copy.copy(scoped.worker_ctx).data == {"user_id": 7}

    def test_a_remote_method_may_have_its_name(self, peer, config):
        with ServiceRpcProxy(peer.service_name, config, timeout=10) as service:
            assert service["with_context"]("value") == "value"


class TestInvalidValues:
    @pytest.fixture
    def service(self, peer, config):
        with ServiceRpcProxy(peer.service_name, config, timeout=10) as proxy:
            yield proxy

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (object(), "`nameko.tenant`: AMQP headers carry str, int, .* not object"),
            ({1, 2}, "not set"),
            ({1: 2}, "a name must be a str, but 1 is not"),
        ],
    )
    def test_a_value_that_is_no_header(self, service, value, message):
        scoped = service.with_context(tenant=value)
        for _ in range(2):
            with pytest.raises(TypeError, match=message):
                scoped.look()
        assert values(service.look()) == {}

    def test_a_number_of_more_than_64_bits(self, service):
        with pytest.raises(ValueError, match=r"`nameko.tenant`: an integer of more than 64 bits"):
            service.with_context(tenant=2**64).look()

    @pytest.mark.parametrize("context", ["text", 7, [("a", 1)], {1: 2}, {"": 1}])
    def test_anything_but_a_mapping_of_names(self, service, context):
        with pytest.raises(TypeError, match=r"with_context takes a mapping|keys of context data"):
            service.with_context(context)

    def test_a_trace_that_is_no_list(self, service):
        with pytest.raises(TypeError, match="call_id_stack is a list of call ids, not 'text'"):
            service.with_context(call_id_stack="text")
