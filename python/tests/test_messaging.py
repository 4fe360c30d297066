"""Consumers and publishers of queues."""

import logging
import pickle
import threading
import time
import warnings
from unittest.mock import Mock

import pytest
from amqp.exceptions import NotFound, PreconditionFailed
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError

from nameko.amqp import UnsendableMessage, get_connection
from nameko.amqp.entities import exchange_to_dict, queue_to_dict
from nameko.amqp.publish import Publisher as PublisherCore
from nameko.amqp.publish import UndeliverableMessage
from nameko.exceptions import ConfigurationError, serialize
from nameko.extensions import DependencyProvider
from nameko.messaging import HeaderDecoder, HeaderEncoder, Publisher, consume
from nameko.testing.services import dummy, entrypoint_hook, entrypoint_waiter


@pytest.fixture
def exchange(uid):
    return Exchange("exchange-" + uid, auto_delete=True, durable=False)


@pytest.fixture
def queue(exchange, uid):
    return Queue("queue-" + uid, exchange, "key", auto_delete=True, durable=False)


@pytest.fixture
def publisher(config, exchange, queue):
    return PublisherCore(
        config["AMQP_URI"], exchange=exchange, routing_key="key", declare=[exchange, queue]
    )


@pytest.fixture
def get(broker_uri, queue):
    """Returns the next message of the queue, received by kombu."""
    with get_connection(broker_uri) as connection, connection.channel() as channel:
        yield lambda: queue(channel).get(accept=["json", "yaml", "pickle"])


def test_published_messages_are_consumed(serve, queue, exchange, uid):
    class Service:
        name = "service-" + uid
        publish = Publisher(exchange=exchange, declare=[queue])

        @dummy
        def send(self, value):
            self.publish(value, routing_key="key")

        @consume(queue)
        def receive(self, body):
            return body

    container = serve(Service)
    with entrypoint_hook(container, "send") as send:
        with entrypoint_waiter(container, "receive") as result:
            send({"payload": [1, "two"]})
        assert result.get() == {"payload": [1, "two"]}


def test_requeue_on_error_redelivers_a_failed_message(serve, queue, publisher, uid):
    bodies = []

    class Service:
        name = "service-" + uid

        @consume(queue, requeue_on_error=True)
        def receive(self, body):
            bodies.append(body)
            if len(bodies) < 3:
                raise ValueError("again")

    container = serve(Service)
    with entrypoint_waiter(
        container, "receive", callback=lambda ctx, result, exc_info: exc_info is None
    ):
        publisher.publish("message")
    assert bodies == ["message"] * 3


def test_a_message_that_always_fails_is_requeued_more_and_more_slowly(
    serve, queue, publisher, uid, expect_log
):
    runs = []

    class Service:
        name = "service-" + uid

        @consume(queue, requeue_on_error=True)
        def receive(self, body):
            runs.append(time.monotonic())
            raise ValueError("always")

    serve(Service)
    text = "a message of `{}` has failed 4 times, requeueing it in 0.8 s".format(queue.name)
    with expect_log("nameko", text, logging.WARNING):
        publisher.publish("message")
    assert len(runs) == 4
    assert runs[-1] - runs[0] >= 0.7


def test_reject_on_error_dead_letters_a_failed_message(serve, publisher, uid):
    failed = Queue("failed-" + uid, auto_delete=True)
    work = Queue(
        "work-" + uid,
        auto_delete=True,
        queue_arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": failed.name},
    )

    class Service:
        name = "service-" + uid

        @consume(work, reject_on_error=True)
        def receive(self, body):
            if body == "bad":
                raise ValueError(body)
            return body

        @consume(failed)
        def look_at(self, body):
            return body

    container = serve(Service)
    with entrypoint_waiter(container, "look_at") as result:
        publisher.publish("bad", exchange="", routing_key=work.name)
    assert result.get() == "bad"
    with entrypoint_waiter(container, "receive") as result:
        publisher.publish("good", exchange="", routing_key=work.name)
    assert result.get() == "good"


def test_requeue_and_reject_on_error_exclude_each_other(queue):
    with pytest.raises(ConfigurationError, match="exclude each other"):
        consume(queue, requeue_on_error=True, reject_on_error=True)(lambda self, body: None)


def test_an_undecodable_message_is_dropped_and_logged(serve, queue, publisher, uid, caplog):
    class Service:
        name = "service-" + uid

        @consume(queue)
        def receive(self, body):
            return body

    container = serve(Service)
    with entrypoint_waiter(container, "receive") as result:
        publisher.publish("{", content_type="application/json")
        publisher.publish("good")
    assert result.get() == "good"
    # Another thread may have handled the first one.
    container.stop()
    assert "Can't decode message body" in caplog.text


def test_context_data_travels_in_headers(serve, queue, publisher, uid):
    class Context(DependencyProvider):
        def get_dependency(self, worker_ctx):
            return worker_ctx.data

    class Service:
        name = "service-" + uid
        data = Context()

        @consume(queue)
        def receive(self, body):
            return self.data

    container = serve(Service)
    with entrypoint_waiter(container, "receive") as result:
        publisher.publish("x", headers={"nameko.language": "en", "other": [1, {"a": None}]})
    assert result.get() == {"language": "en", "other": [1, {"a": None}]}


class TestPublisherCore:
    def test_options_become_message_properties(self, publisher, get):
        publisher.publish({"é": 1}, correlation_id="id", headers={"h": "v"}, expiration=10)
        message = get()
        assert message.body == '{"\\u00e9": 1}'
        assert message.properties["delivery_mode"] == 2
        assert message.properties["priority"] == 0
        assert message.properties["correlation_id"] == "id"
        assert message.properties["expiration"] == "10000"
        assert message.headers == {"h": "v"}
        assert (message.content_type, message.content_encoding) == ("application/json", "utf-8")

    def test_headers_are_merged_and_extra_headers_win(self, publisher, get):
        publisher.publish_kwargs["headers"] = {"a": 1, "b": 1, "c": 1}
        publisher.publish("x", headers={"b": 2, "c": 2}, extra_headers={"c": 3})
        assert get().headers == {"a": 1, "b": 2, "c": 3}

    def test_a_body_with_a_content_type_is_sent_unchanged(self, publisher, get):
        publisher.publish("raw", content_type="text/plain")
        message = get()
        assert (message.body, message.content_type) == ("raw", "text/plain")

    def test_a_compressed_message_is_readable_by_kombu(self, publisher, get):
        publisher.publish("x" * 1000, compression="gzip")
        message = get()
        assert message.headers["compression"] == "application/x-gzip"
        assert message.payload == "x" * 1000

    def test_the_serializer_may_be_chosen_per_message(self, publisher, get):
        publisher.publish({"a": 1}, serializer="yaml")
        message = get()
        assert message.content_type == "application/x-yaml"
        assert message.payload == {"a": 1}

    def test_an_unroutable_mandatory_message_is_an_error(self, publisher):
        with pytest.raises(UndeliverableMessage):
            publisher.publish("x", mandatory=True, routing_key="nowhere")
        with pytest.warns(UserWarning, match="Mandatory delivery was requested"):
            publisher.publish("x", mandatory=True, routing_key="nowhere", use_confirms=False)

    def test_a_missing_exchange_does_not_affect_later_messages(self, publisher, get, uid):
        for _ in range(2):
            with pytest.raises(NotFound):
                publisher.publish("x", exchange="missing-" + uid)
        publisher.publish("fine")
        assert get().payload == "fine"

    def test_a_wrong_user_id_is_an_error(self, publisher):
        with pytest.raises(PreconditionFailed):
            publisher.publish("x", user_id="somebody-else")

    def test_a_refusal_has_the_form_of_py_amqps_errors(self, publisher, uid):
        with pytest.raises(NotFound) as raised:
            publisher.publish("x", exchange="missing-" + uid)
        error = raised.value
        assert error.reply_code == error.code == 404
        assert error.reply_text.startswith("NOT_FOUND - no exchange 'missing-{}'".format(uid))
        assert error.method == error.method_name == "Basic.publish"
        assert error.args == (404, error.reply_text, (60, 40), "Basic.publish")
        # The text also names the broker.
        assert "127.0.0.1" in str(error) or "localhost" in str(error)
        assert serialize(error)["exc_path"] == "amqp.exceptions.NotFound"
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is NotFound
        assert copy.args == error.args

    @pytest.mark.parametrize(
        "headers", [{"large": "x" * 200_000}, {"x" * 300: 1}], ids=["large", "long name"]
    )
    def test_a_message_that_amqp_cannot_carry_is_a_permanent_error(self, publisher, headers, get):
        with pytest.raises(UnsendableMessage, match="cannot be sent over AMQP") as raised:
            publisher.publish("x", headers=headers)
        assert isinstance(raised.value, ValueError)
        assert not isinstance(raised.value, (OSError, OperationalError))
        publisher.publish("fine")
        assert get().payload == "fine"

    def test_a_deleted_exchange_is_declared_again(self, publisher, config, exchange):
        publisher.publish("one")
        with get_connection(config["AMQP_URI"]) as connection, connection.channel() as channel:
            exchange(channel).delete()
        publisher.publish("two")


class TestHeaders:
    def test_a_value_of_none_is_dropped_with_a_warning(self):
        encoder = HeaderEncoder()
        with pytest.warns(UserWarning, match="unserialisable header value"):
            headers = encoder.get_message_headers(Mock(context_data={"a": 1, "b": None}))
        assert headers == {"nameko.a": 1}

    def test_foreign_headers_keep_their_names(self):
        message = Mock(headers={"nameko.a": 1, "b": 2, "namekoc": 3})
        assert HeaderDecoder().unpack_message_headers(message) == {"a": 1, "b": 2, "namekoc": 3}

    def test_the_prefix_can_be_changed(self):
        class Encoder(HeaderEncoder):
            header_prefix = "other"

        assert Encoder().get_message_headers(Mock(context_data={"a": 1})) == {"other.a": 1}


def test_deprecated_options_warn():
    class OldPublisher(Publisher):
        retry = False

    with pytest.warns(DeprecationWarning, match="'retry' should be specified"):
        assert OldPublisher().options == {"retry": False}
    with pytest.warns(DeprecationWarning, match="`queue` kwarg"):
        Publisher(queue=Queue("q"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Publisher(exchange=Exchange("e"))


def test_declarations_carry_kombus_options():
    queue = Queue(
        "q",
        Exchange("e", type="topic", durable=False, arguments={"alternate-exchange": "x"}),
        "key",
        queue_arguments={"x-queue-mode": "lazy"},
        expires=1.5,
        max_length=10,
        binding_arguments={"b": 1},
    )
    assert queue_to_dict(queue) == {
        "name": "q",
        "durable": True,
        "exclusive": False,
        "auto_delete": False,
        "passive": False,
        "no_declare": False,
        "arguments": {"x-queue-mode": "lazy", "x-expires": 1500, "x-max-length": 10},
        "bindings": [
            {
                "exchange": {
                    "name": "e",
                    "type": "topic",
                    "durable": False,
                    "auto_delete": False,
                    "passive": False,
                    "no_declare": False,
                    "arguments": {"alternate-exchange": "x"},
                },
                "routing_key": "key",
                "arguments": {"b": 1},
            }
        ],
    }
    assert queue_to_dict(Queue("q"))["bindings"] == []
    assert exchange_to_dict(Exchange("amq.topic", type="topic"))["no_declare"]
    assert exchange_to_dict(Exchange(""))["no_declare"]


def test_a_waiting_consumer_does_not_delay_another(serve, uid, config):
    go, seen = threading.Event(), []

    class Waiting(consume.__self__):
        def handle_message(self, body, message):
            go.wait(10)
            super().handle_message(body, message)

    queues = {name: Queue("{}-{}".format(name, uid), auto_delete=True) for name in ("a", "b")}

    class Service:
        name = "service-" + uid

        @Waiting.decorator(queues["a"])
        def waits(self, body):
            seen.append(body)

        @consume(queues["b"])
        def passes(self, body):
            seen.append(body)

    container = serve(Service, max_workers=1)
    publisher = PublisherCore(config["AMQP_URI"])
    with entrypoint_waiter(container, "passes", callback=lambda ctx, *_: ctx.args == ("b2",)):
        publisher.publish("a1", routing_key=queues["a"].name)
        publisher.publish("b1", routing_key=queues["b"].name)
        publisher.publish("b2", routing_key=queues["b"].name)
    assert seen == ["b1", "b2"]
    with entrypoint_waiter(container, "waits"):
        go.set()
