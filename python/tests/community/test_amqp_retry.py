"""nameko-amqp-retry: retries failed messages later, through dead letter queues."""

import pytest
from kombu import Exchange, Queue
from nameko_amqp_retry import Backoff, entrypoint_retry
from nameko_amqp_retry.events import event_handler
from nameko_amqp_retry.messaging import consume
from nameko_amqp_retry.rpc import rpc

from nameko.amqp.publish import Publisher
from nameko.exceptions import RemoteError
from nameko.standalone.events import event_dispatcher
from nameko.testing.services import entrypoint_waiter


class Quick(Backoff):
    schedule = (20, 40)
    random_sigma = 0
    limit = 3


# Callback of an entrypoint_waiter that accepts the last attempt.
def settled(worker_ctx, result, exc_info):
    return exc_info is None or not isinstance(exc_info[1], Backoff)


def test_retries_rpc(serve, cluster, uid):
    class Service:
        name = "service-" + uid

        @rpc
        def flaky(self, value, times):
            attempts.append(value)
            if len(attempts) <= times:
                raise Quick()
            return value

        @rpc
        def never(self):
            raise Quick()

    attempts = []
    serve(Service)
    assert cluster[Service.name].flaky("value", times=2) == "value"
    assert attempts == ["value"] * 3
    with pytest.raises(RemoteError, match="Backoff aborted after '3' retries"):
        cluster[Service.name].never()


def test_does_not_retry_other_errors(serve, cluster, uid):
    class Service:
        name = "service-" + uid

        @rpc(expected_exceptions=KeyError)
        def method(self):
            raise ValueError("that")

    serve(Service)
    with pytest.raises(RemoteError, match="that"):
        cluster[Service.name].method()


def test_the_call_id_stack_has_the_backoff(serve, cluster, uid):
    class Service:
        name = "service-" + uid

        @rpc
        def method(self):
            raise Quick()

    container, stacks = serve(Service), []

    def collect(worker_ctx, result, exc_info):
        stacks.append([call.split(".", 2)[-1] for call in worker_ctx.call_id_stack])
        return len(stacks) == 2

    with entrypoint_waiter(container, "method", callback=collect):
        reply = cluster[Service.name].method.call_async()
    with pytest.raises(RemoteError):
        reply.result()
    first, second = stacks
    assert second[-2] == first[-1] + ".backoff"


def test_retries_with_the_decorator(serve, cluster, uid):
    class Service:
        name = "service-" + uid

        @rpc
        @entrypoint_retry(retry_for=ValueError, limit=5, schedule=(10,), random_sigma=0)
        def method(self):
            attempts.append(1)
            if len(attempts) < 3:
                raise ValueError()
            return len(attempts)

    attempts = []
    serve(Service)
    assert cluster[Service.name].method() == 3


def test_retries_events(serve, config, uid):
    class Service:
        name = "service-" + uid

        @event_handler("source-" + uid, "happened")
        def handle(self, data):
            seen.append(data)
            if len(seen) < 3:
                raise Quick()
            return data

    seen = []
    container = serve(Service)
    with entrypoint_waiter(container, "handle", callback=settled) as result:
        event_dispatcher(config)("source-" + uid, "happened", {"a": 1})
    assert result.get() == {"a": 1}
    assert seen == [{"a": 1}] * 3


def test_gives_up_after_the_limit(serve, config, uid):
    queue = Queue("queue-" + uid, Exchange("exchange-" + uid, auto_delete=True), "key")

    class Service:
        name = "service-" + uid

        @consume(queue)
        def receive(self, body):
            seen.append(body)
            raise Quick()

    seen = []
    container = serve(Service)
    with entrypoint_waiter(container, "receive", callback=settled) as result:
        Publisher(config["AMQP_URI"], exchange=queue.exchange, routing_key="key").publish([1])
    with pytest.raises(Backoff.Expired):
        result.get()
    # The first attempt, and as many retries as the limit.
    assert seen == [[1]] * 4
