"""Messages passed to handlers."""

from queue import SimpleQueue

import pytest
from kombu import Exchange, Queue

from nameko.amqp.publish import Publisher as PublisherCore
from nameko.amqp.publish import get_connection
from nameko.messaging import Consumer


class TestMessage:
    @pytest.fixture
    def receive(self, serve, queue, send, uid):
        """``receive(payload, **options)`` sends a message and returns the handler's message.
        The test settles it."""
        messages = SimpleQueue()

        class Held(Consumer):
            def handle_message(self, body, message):
                messages.put(message)

        class Service:
            name = "service-" + uid

            @Held.decorator(queue)
            def method(self, body):
                pass

        serve(Service)

        def receive(*args, **options):
            if args:
                send(*args, **options)
            return messages.get(timeout=10)

        yield receive
        assert messages.empty()

    def test_a_message_has_kombus_attributes(self, receive, queue):
        message = receive({"é": 1}, headers={"a": [1]}, correlation_id="id", priority=3)
        assert message.body == '{"\\u00e9": 1}'
        assert message.payload == message.decode() == {"é": 1}
        assert message.headers == {"a": [1]}
        assert message.headers is message.properties["application_headers"]
        assert message.properties["correlation_id"] == "id"
        assert message.properties["priority"] == 3
        assert message.properties["content_type"] == message.content_type == "application/json"
        assert message.content_encoding == "utf-8"
        assert set(message.delivery_info) == {
            "consumer_tag",
            "delivery_tag",
            "exchange",
            "redelivered",
            "routing_key",
        }
        assert message.delivery_info["exchange"] == queue.exchange.name
        assert message.delivery_info["routing_key"] == "key"
        assert message.delivery_info["redelivered"] is False
        assert message.delivery_tag == message.delivery_info["delivery_tag"]
        assert message.channel.connection
        assert not message.acknowledged
        message.ack()
        assert message.acknowledged

    def test_headers_are_empty_by_default(self, receive):
        message = receive("x")
        assert message.headers == {}
        message.ack()

    def test_headers_may_be_edited(self, receive):
        message = receive("x", headers={"a": 1})
        message.headers["b"] = 2
        assert message.properties["application_headers"] == {"a": 1, "b": 2}
        message.delivery_info["routing_key"] = "another"
        assert message.delivery_info["routing_key"] == "another"
        message.ack()

    def test_a_message_can_be_requeued_and_rejected(self, receive, queue, config):
        message = receive("x")
        message.requeue()
        message = receive()
        assert message.delivery_info["redelivered"] is True
        with pytest.raises(message.MessageStateError):
            message.reject() or message.ack()
        with get_connection(config["AMQP_URI"]) as connection:
            assert queue.bind(connection).queue_declare(passive=True).message_count == 0

    def test_a_message_can_be_published_again(self, receive, send):
        """With its raw body and properties: the body is not serialized twice."""
        message = receive({"a": 1}, headers={"h": 1}, correlation_id="id", expiration=10)
        properties = message.properties.copy()
        headers = properties.pop("application_headers", {})
        properties.pop("expiration")
        message.ack()
        again = receive(message.body, headers=headers, **properties)
        assert again.body == message.body
        assert again.payload == {"a": 1}
        assert again.headers == {"h": 1}
        assert again.properties["correlation_id"] == "id"
        again.ack()

    def test_binary_bodies_stay_bytes(self, receive):
        message = receive(b"\xff\x00", content_type="application/data", content_encoding="binary")
        assert message.body == message.payload == b"\xff\x00"
        message.ack()

    def test_a_delayed_message_has_an_x_death_header(self, receive, queue, delay, send_late):
        """Delay by dead letters: a message expires in a queue without consumers."""
        send_late("late", headers={"kept": 1})
        message = receive()
        assert message.payload == "late"
        assert message.headers["kept"] == 1
        [death] = message.headers["x-death"]
        assert death["exchange"] == delay.exchange.name
        assert (death["queue"], death["reason"], death["count"]) == (delay.name, "expired", 1)
        assert death["routing-keys"] == [queue.name]
        message.ack()

    def test_a_message_that_is_delayed_again_counts_its_deaths(self, receive, send_late):
        """Extensions count retries so. RabbitMQ 4 starts a new x-death at each republishing."""
        headers, counts = {}, []
        for _ in range(3):
            send_late("late", headers=headers)
            message = receive()
            headers = message.headers
            counts += [death["count"] for death in headers["x-death"]]
            message.ack()
        assert counts == [1, 2, 3]

    @pytest.fixture
    def delay(self, queue, uid):
        return Queue(
            "delay-" + uid,
            Exchange("delay-" + uid, auto_delete=True),
            routing_key=queue.name,
            expires=10,
            queue_arguments={"x-dead-letter-exchange": ""},
        )

    @pytest.fixture
    def send_late(self, queue, delay, config):
        def send_late(payload, **options):
            PublisherCore(config["AMQP_URI"]).publish(
                payload,
                exchange=delay.exchange,
                routing_key=queue.name,
                declare=[delay],
                expiration=0.05,
                mandatory=True,
                **options,
            )

        return send_late


@pytest.mark.parametrize("lifetime", [{"expires": 60}, {"auto_delete": True}])
def test_a_queue_that_the_broker_deleted_is_declared_again(config, uid, lifetime):
    """The queue would be gone without a trace after its last consumer, or unused for a time."""
    queue = Queue("queue-" + uid, Exchange("exchange-" + uid), routing_key="key", **lifetime)
    publisher = PublisherCore(
        config["AMQP_URI"], exchange=queue.exchange, routing_key="key", declare=[queue]
    )
    publisher.publish("first")
    with get_connection(config["AMQP_URI"]) as connection:
        bound = queue.bind(connection)
        bound.delete()
        publisher.publish("second")
        assert bound.get().payload == "second"
        bound.delete()
        bound.exchange.delete()


def test_get_connection_allows_a_passive_declaration(config, queue, send):
    """Extensions read the length of a queue that way."""
    send("x")
    with get_connection(config["AMQP_URI"]) as connection:
        declared = queue.bind(connection).queue_declare(passive=True)
    assert declared.message_count == 1
