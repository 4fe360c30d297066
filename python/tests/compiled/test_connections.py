"""Consumers and publishers: options, errors and reconnects."""

import ctypes
import queue
import threading
import uuid

import pytest
from topology import DEADLINE, a_queue

from nameko import _nameko


class TestOptions:
    def test_options_compare_by_value(self):
        uri = "amqp://user:secret@host/vhost"
        assert _nameko.Options(uri) == _nameko.Options(uri)
        assert hash(_nameko.Options(uri)) == hash(_nameko.Options(uri))
        assert _nameko.Options(uri) != _nameko.Options(uri, heartbeat=10)

    def test_options_redact_the_password(self):
        options = _nameko.Options("amqp://user:secret@host/vhost")
        assert options.uri == "amqp://user:********@host/vhost"
        assert "secret" not in repr(options)

    def test_reports_an_invalid_uri(self):
        with pytest.raises(_nameko.AmqpError, match="is not an AMQP scheme") as caught:
            _nameko.Options("http://localhost")
        assert (caught.value.kind, caught.value.code) == ("uri", None)

    @pytest.mark.parametrize(
        ("given", "error", "text"),
        [
            ({"login_method": "KERBEROS"}, ValueError, "PLAIN, AMQPLAIN or EXTERNAL"),
            ({"ssl": "yes"}, TypeError, "ca_certs"),
            ({"ssl": {"cert_reqs": 7}}, ValueError, "CERT_NONE"),
        ],
    )
    def test_reports_invalid_settings(self, given, error, text):
        with pytest.raises(error, match=text):
            _nameko.Options("amqp://", **given)


class TestConsumers:
    def test_limits_unacknowledged_messages_to_the_prefetch(self, options, make_service):
        came = queue.Queue()
        name = make_service(came.put, prefetch=2)
        publisher = _nameko.Publisher(options)
        for number in range(4):
            publisher.publish(("", name, b"%d" % number, {}))
        held = [came.get(timeout=DEADLINE), came.get(timeout=DEADLINE)]
        held[0].ack()
        assert came.get(timeout=DEADLINE).body == b"2"
        assert came.empty()
        held[1].ack()
        assert came.get(timeout=DEADLINE).body == b"3"

    def test_a_stop_with_discard_requeues_deliveries(self, options, make_consumers, make_pool):
        declared = a_queue(auto_delete=False, arguments={"x-expires": 60000})
        pool, second = make_pool(1), queue.Queue()
        begun, release = threading.Event(), threading.Event()

        def block(delivery):
            delivery.ack()
            begun.set()
            release.wait(DEADLINE)

        consumers = make_consumers()
        consumers.add(declared, block, pool.jobs)
        assert consumers.start(DEADLINE)
        publisher = _nameko.Publisher(options)
        publisher.publish(("", declared["name"], b"1", {}))
        assert begun.wait(DEADLINE)
        publisher.publish(("", declared["name"], b"2", {}))
        pool.jobs.stop(discard=True)
        release.set()
        pool.stop()
        consumers.kill()
        others = make_consumers()
        others.add(declared, second.put, make_pool(1).jobs)
        assert others.start(DEADLINE)
        assert second.get(timeout=DEADLINE).body == b"2"

    def test_a_cancelled_queue_keeps_its_messages(self, options, make_consumers, make_pool):
        declared = a_queue(auto_delete=False, arguments={"x-expires": 60000})
        came, jobs = queue.Queue(), make_pool(1).jobs
        consumers = make_consumers()
        subscription = consumers.add(declared, came.put, jobs)
        assert consumers.start(DEADLINE)
        consumers.cancel(subscription)
        _nameko.Publisher(options).publish(("", declared["name"], b"later", {}), mandatory=True)
        consumers.add(declared, came.put, jobs)
        delivery = came.get(timeout=DEADLINE)
        delivery.ack()
        assert delivery.body == b"later"
        with pytest.raises(KeyError):
            consumers.cancel(99)

    def test_start_retries_and_reports_errors(self, amqp_uri):
        errors = queue.Queue()
        wrong = amqp_uri.replace("guest:guest@", "guest:wrong@")
        assert wrong != amqp_uri
        consumers = _nameko.Consumers(
            _nameko.Options(wrong), on_error=lambda error, wait: errors.put((error, wait))
        )
        outcome = queue.Queue()
        threading.Thread(target=lambda: outcome.put(consumers.start()), daemon=True).start()
        error, wait = errors.get(timeout=DEADLINE)
        assert isinstance(error, _nameko.AmqpError)
        assert (error.kind, error.code) == ("access_refused", 403)
        assert wait > 0
        assert consumers.connected is False
        consumers.stop()
        assert outcome.get(timeout=DEADLINE) is False

    def test_start_returns_false_after_its_timeout(self):
        consumers = _nameko.Consumers(_nameko.Options("amqp://127.0.0.1:1"), lambda *_: None)
        assert consumers.start(timeout=0.01) is False
        consumers.kill()

    def test_reconnects_after_a_lost_connection(self, make_pool):
        broker = _nameko.Broker()
        connected, came, declared = queue.Queue(), queue.Queue(), a_queue()
        consumers = _nameko.Consumers(
            _nameko.Options(broker.uri), on_connected=lambda: connected.put(True)
        )

        def handler(delivery):
            delivery.ack()
            came.put(delivery.body)

        consumers.add(declared, handler, make_pool(1).jobs)
        assert consumers.start(DEADLINE)
        connected.get(timeout=DEADLINE)
        assert consumers.connected
        broker.close_connections()
        connected.get(timeout=DEADLINE)
        publisher = _nameko.Publisher(_nameko.Options(broker.uri))
        publisher.publish(("", declared["name"], b"after", {}), mandatory=True)
        assert came.get(timeout=DEADLINE) == b"after"
        consumers.stop()
        broker.stop()

    def test_sends_heartbeats_while_a_handler_holds_the_gil(self, make_pool, log_records):
        """The broker closes a connection without traffic for two heartbeat intervals, two
        seconds."""
        broker = _nameko.Broker()
        done, declared = threading.Event(), a_queue()
        options = _nameko.Options(broker.uri, heartbeat=1)
        consumers = _nameko.Consumers(options)

        def hog(delivery):
            # Unlike CDLL, PyDLL holds the GIL during calls.
            ctypes.PyDLL(None).usleep(3_000_000)
            delivery.ack()
            done.set()

        consumers.add(declared, hog, make_pool().jobs)
        assert consumers.start(DEADLINE)
        _nameko.Publisher(options).publish(("", declared["name"], b"", {}))
        assert done.wait(DEADLINE)
        assert consumers.connected
        assert log_records.empty()
        consumers.stop()
        broker.stop()


class TestPublisher:
    def test_a_missing_exchange_fails_only_its_publish(self, options, make_service):
        came = queue.Queue()
        name = make_service(came.put)
        publisher = _nameko.Publisher(options)
        for _ in range(3):
            with pytest.raises(_nameko.AmqpError, match="no exchange 'nowhere'") as caught:
                publisher.publish(("nowhere", "key", b"", {}), timeout=DEADLINE)
            assert (caught.value.kind, caught.value.code) == ("channel_closed", 404)
        publisher.publish(("", name, b"fine", {}), timeout=DEADLINE)
        assert came.get(timeout=DEADLINE).body == b"fine"

    def test_an_unroutable_mandatory_message_raises(self, options):
        publisher = _nameko.Publisher(options)
        with pytest.raises(_nameko.AmqpError) as caught:
            publisher.publish(("", "no-such-queue", b"", {}), mandatory=True)
        assert (caught.value.kind, caught.value.code) == ("unroutable", 312)
        publisher.publish(("", "no-such-queue", b"", {}))

    def test_declares_exchanges_and_queues(self, options, make_service):
        exchange = {"name": "test-{}".format(uuid.uuid4()), "type": "topic", "auto_delete": True}
        came = queue.Queue()
        name = make_service(came.put)
        declared = a_queue(name, bindings=[{"exchange": exchange, "routing_key": "a.*"}])
        publisher = _nameko.Publisher(options)
        publisher.declare([exchange], [declared])
        publisher.publish((exchange["name"], "a.b", b"bound", {}), mandatory=True)
        assert came.get(timeout=DEADLINE).body == b"bound"
        with pytest.raises(_nameko.AmqpError) as caught:
            publisher.declare([{**exchange, "type": "fanout"}], [])
        assert caught.value.code == 406

    def test_fails_after_its_retries_without_a_broker(self):
        publisher = _nameko.Publisher(_nameko.Options("amqp://127.0.0.1:1"))
        with pytest.raises(_nameko.AmqpError, match=r"127\.0\.0\.1:1") as caught:
            publisher.publish(("", "x", b"", {}), _nameko.Retry(1, 0.01))
        assert caught.value.kind == "io"

    def test_start_publish_returns_before_the_confirm(self, options, make_service):
        came = queue.Queue()
        name = make_service(came.put)
        publisher = _nameko.Publisher(options)
        good = publisher.start_publish(("", name, b"good", {}), mandatory=True)
        bad = publisher.start_publish(("", "no-such-queue", b"bad", {}), mandatory=True)
        assert good.wait(DEADLINE) is None
        with pytest.raises(_nameko.AmqpError):
            bad.wait(DEADLINE)
        assert came.get(timeout=DEADLINE).body == b"good"
