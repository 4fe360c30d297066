"""The compiled half by itself: what the Python half relies on.

Runs on the embedded broker, or on the one that NAMEKO_TEST_AMQP_URI names.
"""

import asyncio
import contextlib
import ctypes
import gc
import os
import queue
import signal
import subprocess
import sys
import threading
import uuid
from datetime import datetime
from decimal import Decimal

import pytest

from nameko import _nameko

# How long anything may take before a test fails.
DEADLINE = 20

EXTERNAL = os.environ.get("NAMEKO_TEST_AMQP_URI")


@pytest.fixture(scope="module")
def amqp_uri():
    if EXTERNAL:
        yield EXTERNAL
    else:
        broker = _nameko.Broker()
        yield broker.uri
        broker.stop()


@pytest.fixture
def options(amqp_uri):
    return _nameko.Options(amqp_uri)


class Pool:
    """Jobs with the threads that run them."""

    def __init__(self, max_threads=10):
        self.threads = []
        self.jobs = _nameko.Jobs(max_threads, self._spawn)

    def _spawn(self):
        thread = threading.Thread(target=self._run, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _run(self):
        self.jobs.run()

    def stop(self, discard=False):
        self.jobs.stop(discard)
        for thread in self.threads:
            thread.join(DEADLINE)
            assert not thread.is_alive()


@pytest.fixture
def make_pool():
    with contextlib.ExitStack() as stack:

        def make(max_threads=10):
            pool = Pool(max_threads)
            stack.callback(pool.stop, discard=True)
            return pool

        yield make


@pytest.fixture
def make_consumers(options):
    with contextlib.ExitStack() as stack:

        def make(**callbacks):
            consumers = _nameko.Consumers(options, **callbacks)
            stack.callback(consumers.stop)
            return consumers

        yield make


@pytest.fixture
def unraisable(monkeypatch):
    """What goes to sys.unraisablehook."""
    hooked = queue.Queue()
    monkeypatch.setattr(sys, "unraisablehook", lambda args: hooked.put(args.exc_value))
    return hooked


def a_queue(name=None, **attributes):
    """A queue that goes with its last consumer."""
    name = name or "test-{}".format(uuid.uuid4())
    return {"name": name, "durable": True, "auto_delete": True, **attributes}


def a_reply_queue():
    """A reply queue and the key that replies are sent to."""
    key = str(uuid.uuid4())
    exchange = {"name": "test-rpc", "type": "topic", "durable": True}
    bindings = [{"exchange": exchange, "routing_key": key}]
    arguments = {"x-expires": 60000}
    name = "test-reply-{}".format(key)
    return {"name": name, "durable": True, "arguments": arguments, "bindings": bindings}, key


@pytest.fixture
def make_service(make_consumers, make_pool):
    """Consumes a new queue with `handler`; returns its name."""

    def make(handler, max_threads=10, prefetch=None):
        declared = a_queue()
        consumers = make_consumers()
        consumers.add(declared, handler, make_pool(max_threads).jobs, prefetch)
        assert consumers.start(DEADLINE)
        return declared["name"]

    return make


class TestOptions:
    def test_are_equal_by_value(self):
        uri = "amqp://user:secret@host/vhost"
        assert _nameko.Options(uri) == _nameko.Options(uri)
        assert hash(_nameko.Options(uri)) == hash(_nameko.Options(uri))
        assert _nameko.Options(uri) != _nameko.Options(uri, heartbeat=10)

    def test_do_not_show_the_password(self):
        options = _nameko.Options("amqp://user:secret@host/vhost")
        assert options.uri == "amqp://user:********@host/vhost"
        assert "secret" not in repr(options)

    def test_a_bad_uri_says_what_is_wrong(self):
        with pytest.raises(_nameko.AmqpError, match="no scheme of an AMQP broker") as caught:
            _nameko.Options("http://localhost")
        assert (caught.value.kind, caught.value.code) == ("uri", None)

    @pytest.mark.parametrize(
        ("given", "error", "text"),
        [
            ({"login_method": "KERBEROS"}, ValueError, "PLAIN, AMQPLAIN, EXTERNAL"),
            ({"ssl": "yes"}, TypeError, "ca_certs"),
            ({"ssl": {"cert_reqs": 7}}, ValueError, "0, 1 or 2"),
        ],
    )
    def test_a_bad_setting_says_what_is_allowed(self, given, error, text):
        with pytest.raises(error, match=text):
            _nameko.Options("amqp://", **given)


class TestJobs:
    def test_run_in_the_order_they_came_on_one_thread(self, make_pool):
        jobs, ran = make_pool(1).jobs, []
        for number in range(100):
            jobs.put(lambda number=number: ran.append(number))
        done = threading.Event()
        jobs.put(done.set)
        assert done.wait(DEADLINE)
        assert ran == list(range(100))

    def test_blocking_jobs_run_on_all_threads_at_once(self, make_pool):
        pool = make_pool(10)
        together = threading.Barrier(11)
        for _ in range(10):
            pool.jobs.put(lambda: together.wait(DEADLINE))
        together.wait(DEADLINE)
        assert len(pool.threads) == 10

    def test_never_more_threads_than_allowed(self, make_pool):
        pool = make_pool(2)
        together, release, late = threading.Barrier(3), threading.Event(), threading.Event()

        def block():
            together.wait(DEADLINE)
            release.wait(DEADLINE)

        pool.jobs.put(block)
        pool.jobs.put(block)
        together.wait(DEADLINE)
        pool.jobs.put(late.set)
        assert pool.jobs.pending() == 1
        release.set()
        assert late.wait(DEADLINE)
        assert len(pool.threads) == 2

    @pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
    def test_what_a_job_raises_does_not_end_its_thread(self, make_pool, unraisable, error):
        pool = make_pool(1)
        done = threading.Event()

        def fail():
            raise error("boom")

        pool.jobs.put(fail)
        pool.jobs.put(done.set)
        assert done.wait(DEADLINE)
        assert isinstance(unraisable.get(timeout=DEADLINE), error)

    def test_stop_runs_what_is_queued(self, make_pool):
        pool = make_pool(1)
        begun, release, ran = threading.Event(), threading.Event(), []

        def block():
            begun.set()
            release.wait(DEADLINE)

        pool.jobs.put(block)
        pool.jobs.put(lambda: ran.append(1))
        assert begun.wait(DEADLINE)
        pool.jobs.stop()
        release.set()
        pool.stop()
        assert ran == [1]
        with pytest.raises(RuntimeError, match="stopped"):
            pool.jobs.put(print)

    def test_a_thread_that_cannot_be_started_is_tried_again(self, unraisable):
        threads = []

        def spawn():
            if threads and not failed.is_set():
                failed.set()
                raise RuntimeError("can't start new thread")
            threads.append(threading.Thread(target=lambda: jobs.run(), daemon=True))
            threads[-1].start()

        failed = threading.Event()
        jobs = _nameko.Jobs(2, spawn)
        together = threading.Barrier(3)
        first = threading.Event()
        jobs.put(first.set)
        assert first.wait(DEADLINE)
        jobs.put(lambda: together.wait(DEADLINE))
        jobs.put(lambda: together.wait(DEADLINE))
        together.wait(DEADLINE)
        assert isinstance(unraisable.get(timeout=DEADLINE), RuntimeError)
        jobs.stop()
        for thread in threads:
            thread.join(DEADLINE)


class TestDelivery:
    @pytest.fixture
    def exchange_one(self, options, make_service):
        """Publishes one message and returns it as it was delivered."""

        def exchange_one(body, properties):
            came = queue.Queue()
            name = make_service(came.put)
            _nameko.Publisher(options).publish("", name, body, properties, mandatory=True)
            delivery = came.get(timeout=DEADLINE)
            delivery.ack()
            return name, delivery

        return exchange_one

    def test_has_what_was_published(self, exchange_one):
        sent = {
            "content_type": "application/json",
            "content_encoding": "utf-8",
            "delivery_mode": 2,
            "priority": 3,
            "correlation_id": "c",
            "reply_to": "r",
            "expiration": "10000",
            "message_id": "m",
            "timestamp": 1700000000,
            "type": "t",
            "user_id": "guest",
            "app_id": "a",
            "cluster_id": None,
            "unknown": "is left out",
        }
        name, delivery = exchange_one(b"\x00body", {**sent, "application_headers": {"a": 1}})
        del sent["cluster_id"], sent["unknown"]
        assert delivery.properties == {**sent, "application_headers": {"a": 1}}
        assert delivery.body == b"\x00body"
        assert (delivery.content_type, delivery.content_encoding) == ("application/json", "utf-8")
        assert (delivery.correlation_id, delivery.reply_to) == ("c", "r")
        assert (delivery.exchange, delivery.routing_key) == ("", name)
        assert delivery.redelivered is False
        assert delivery.delivery_tag == 1
        assert delivery.consumer_tag
        assert delivery.acknowledged

    def test_headers_and_properties_are_the_same_dicts_each_time(self, exchange_one):
        _, delivery = exchange_one(b"", {"headers": {"x": "y"}})
        assert delivery.headers is delivery.properties["application_headers"]
        assert delivery.properties is delivery.properties
        assert delivery.headers == {"x": "y"}

    def test_has_no_properties_but_headers_when_none_were_sent(self, exchange_one):
        _, delivery = exchange_one(b"", {})
        assert delivery.properties == {"application_headers": {}}
        assert delivery.content_type is None
        assert delivery.reply_to is None

    def test_headers_have_the_types_of_py_amqp(self, exchange_one):
        headers = {
            "str": "é\u20ac",
            "int": 7,
            "large": 2**40,
            "negative": -(2**40),
            "float": 1.5,
            "true": True,
            "none": None,
            "bytes": b"\xff\x00",
            "list": ["a", 1, [None]],
            "dict": {"a": {"b": []}},
            "datetime": datetime(2020, 1, 2, 3, 4, 5),
            "decimal": Decimal("-12.34"),
        }
        _, delivery = exchange_one(b"", {"headers": headers})
        assert delivery.headers == headers
        assert {name: type(value) for name, value in delivery.headers.items()} == {
            name: type(value) for name, value in headers.items()
        }

    def test_a_large_body_arrives_whole(self, exchange_one):
        body = os.urandom(1024) * 3000
        _, delivery = exchange_one(body, {})
        assert delivery.body == body

    @pytest.mark.parametrize(
        ("properties", "error", "text"),
        [
            ({"headers": {"tags": {1, 2}}}, TypeError, "`tags`.*not set"),
            ({"headers": {"n": 2**64}}, ValueError, "`n`.*64 bits"),
            ({"headers": {1: "one"}}, TypeError, "must be a str"),
            ({"headers": 1}, TypeError, "application_headers|headers"),
            ({"priority": 300}, OverflowError, "`priority`"),
            ({"content_type": 1}, TypeError, "`content_type`"),
            ({"expiration": -1}, ValueError, "`expiration`"),
        ],
    )
    def test_what_amqp_cannot_carry_is_refused_by_name(self, options, properties, error, text):
        with pytest.raises(error, match=text):
            _nameko.Publisher(options).publish("", "nowhere", b"", properties)

    def test_a_header_that_holds_itself_is_refused(self, options):
        endless = []
        endless.append(endless)
        with pytest.raises(ValueError, match="deep"):
            _nameko.Publisher(options).publish("", "nowhere", b"", {"headers": {"x": endless}})

    def test_rejected_with_requeue_it_comes_again(self, options, make_service):
        came = queue.Queue()

        def handler(delivery):
            if not delivery.redelivered:
                delivery.reject(requeue=True)
            came.put(delivery.redelivered)

        name = make_service(handler)
        _nameko.Publisher(options).publish("", name, b"", {})
        assert [came.get(timeout=DEADLINE), came.get(timeout=DEADLINE)] == [False, True]

    def test_a_handler_that_raises_leaves_its_thread_alive(
        self, options, make_service, unraisable
    ):
        came = queue.Queue()

        def handler(delivery):
            delivery.ack()
            came.put(delivery.body)
            raise ValueError(delivery.body)

        name = make_service(handler, max_threads=1)
        publisher = _nameko.Publisher(options)
        publisher.publish("", name, b"1", {})
        publisher.publish("", name, b"2", {})
        assert [came.get(timeout=DEADLINE), came.get(timeout=DEADLINE)] == [b"1", b"2"]
        assert unraisable.get(timeout=DEADLINE).args == (b"1",)


class TestConsumers:
    def test_at_most_prefetch_messages_are_held_unacknowledged(self, options, make_service):
        came = queue.Queue()
        name = make_service(came.put, prefetch=2)
        publisher = _nameko.Publisher(options)
        for number in range(4):
            publisher.publish("", name, b"%d" % number, {})
        held = [came.get(timeout=DEADLINE), came.get(timeout=DEADLINE)]
        held[0].ack()
        assert came.get(timeout=DEADLINE).body == b"2"
        assert came.empty()
        held[1].ack()
        assert came.get(timeout=DEADLINE).body == b"3"

    def test_stopping_with_discard_gives_queued_deliveries_back(
        self, options, make_consumers, make_pool
    ):
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
        publisher.publish("", declared["name"], b"1", {})
        assert begun.wait(DEADLINE)
        publisher.publish("", declared["name"], b"2", {})
        pool.jobs.stop(discard=True)
        release.set()
        pool.stop()
        consumers.kill()
        others = make_consumers()
        others.add(declared, second.put, make_pool(1).jobs)
        assert others.start(DEADLINE)
        assert second.get(timeout=DEADLINE).body == b"2"

    def test_a_cancelled_queue_is_left_with_its_messages(self, options, make_consumers, make_pool):
        declared = a_queue(auto_delete=False, arguments={"x-expires": 60000})
        came, jobs = queue.Queue(), make_pool(1).jobs
        consumers = make_consumers()
        subscription = consumers.add(declared, came.put, jobs)
        assert consumers.start(DEADLINE)
        consumers.cancel(subscription)
        _nameko.Publisher(options).publish("", declared["name"], b"later", {}, mandatory=True)
        consumers.add(declared, came.put, jobs)
        delivery = came.get(timeout=DEADLINE)
        delivery.ack()
        assert delivery.body == b"later"
        with pytest.raises(KeyError):
            consumers.cancel(99)

    def test_start_waits_while_the_broker_refuses_and_tells_why(self, amqp_uri):
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

    def test_come_back_after_a_lost_connection(self, make_pool):
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
        publisher.publish("", declared["name"], b"after", {}, mandatory=True)
        assert came.get(timeout=DEADLINE) == b"after"
        consumers.stop()
        broker.stop()


    def test_a_handler_that_keeps_the_gil_does_not_cost_the_connection(self, make_pool):
        """The broker closes a connection that is silent for two heartbeat intervals of a second."""
        broker = _nameko.Broker()
        lost, done, declared = queue.Queue(), threading.Event(), a_queue()
        _nameko.on_log(lambda *record: lost.put(record))
        options = _nameko.Options(broker.uri, heartbeat=1)
        consumers = _nameko.Consumers(options)

        def hog(delivery):
            # Unlike CDLL, PyDLL keeps the GIL while it calls.
            ctypes.PyDLL(None).usleep(3_000_000)
            delivery.ack()
            done.set()

        consumers.add(declared, hog, make_pool().jobs)
        assert consumers.start(DEADLINE)
        _nameko.Publisher(options).publish("", declared["name"], b"", {})
        assert done.wait(DEADLINE)
        assert consumers.connected
        assert lost.empty()
        consumers.stop()
        _nameko.on_log(lambda *_: None)
        broker.stop()


class TestPublisher:
    def test_a_missing_exchange_is_404_and_harms_no_other_publish(self, options, make_service):
        came = queue.Queue()
        name = make_service(came.put)
        publisher = _nameko.Publisher(options)
        for _ in range(3):
            with pytest.raises(_nameko.AmqpError, match="no exchange 'nowhere'") as caught:
                publisher.publish("nowhere", "key", b"", {}, timeout=DEADLINE)
            assert (caught.value.kind, caught.value.code) == ("channel_closed", 404)
        publisher.publish("", name, b"fine", {}, timeout=DEADLINE)
        assert came.get(timeout=DEADLINE).body == b"fine"

    def test_mandatory_without_a_queue_is_unroutable(self, options):
        publisher = _nameko.Publisher(options)
        with pytest.raises(_nameko.AmqpError) as caught:
            publisher.publish("", "no-such-queue", b"", {}, mandatory=True)
        assert (caught.value.kind, caught.value.code) == ("unroutable", 312)
        publisher.publish("", "no-such-queue", b"", {})

    def test_declares(self, options, make_service):
        exchange = {"name": "test-{}".format(uuid.uuid4()), "type": "topic", "auto_delete": True}
        came = queue.Queue()
        name = make_service(came.put)
        declared = a_queue(name, bindings=[{"exchange": exchange, "routing_key": "a.*"}])
        publisher = _nameko.Publisher(options)
        publisher.declare([exchange], [declared])
        publisher.publish(exchange["name"], "a.b", b"bound", {}, mandatory=True)
        assert came.get(timeout=DEADLINE).body == b"bound"
        with pytest.raises(_nameko.AmqpError) as caught:
            publisher.declare([{**exchange, "type": "fanout"}], [])
        assert caught.value.code == 406

    def test_without_a_broker_it_fails_after_its_retries(self):
        publisher = _nameko.Publisher(_nameko.Options("amqp://127.0.0.1:1"))
        with pytest.raises(_nameko.AmqpError, match=r"127\.0\.0\.1:1") as caught:
            publisher.publish("", "x", b"", {}, max_retries=1, interval_start=0.01)
        assert caught.value.kind == "io"

    def test_start_publish_is_waited_for_later(self, options, make_service):
        came = queue.Queue()
        name = make_service(came.put)
        publisher = _nameko.Publisher(options)
        good = publisher.start_publish("", name, b"good", {}, mandatory=True)
        bad = publisher.start_publish("", "no-such-queue", b"bad", {}, mandatory=True)
        assert good.wait(DEADLINE) is None
        with pytest.raises(_nameko.AmqpError):
            bad.wait(DEADLINE)
        assert came.get(timeout=DEADLINE).body == b"good"


class TestRpc:
    @pytest.fixture
    def client(self, options, make_consumers):
        """call(queue, body) -> Pending, and the listener."""
        declared, key = a_reply_queue()
        consumers = make_consumers()
        replies = _nameko.ReplyListener(consumers, declared)
        assert consumers.start(DEADLINE)
        publisher = _nameko.Publisher(options)

        def call(name, body=b""):
            correlation_id = str(uuid.uuid4())
            pending = replies.expect(correlation_id)
            properties = {"reply_to": key, "correlation_id": correlation_id}
            publisher.call(pending, "", name, body, properties)
            return pending

        call.replies, call.consumers, call.publisher, call.key = replies, consumers, publisher, key
        return call

    @pytest.fixture
    def echo(self, options, make_service):
        """A service that answers with what it gets; `wait` is that of respond()."""

        def echo(wait):
            def handler(delivery):
                delivery.respond(
                    options, "test-rpc", delivery.body, "text/x", "utf-8", ack=True, wait=wait
                )

            return make_service(handler)

        return echo

    @pytest.mark.parametrize("wait", [True, False])
    def test_calls_are_answered(self, client, echo, wait):
        name = echo(wait)
        calls = [(b"%d" % number, client(name, b"%d" % number)) for number in range(200)]
        for body, pending in calls:
            reply = pending.wait(DEADLINE)
            assert reply.body == body
            assert reply.content_type == "text/x"
            assert reply.properties["delivery_mode"] == 2
            assert reply.properties["priority"] == 0
            assert reply.headers == {}
            assert pending.done()
            assert pending.wait() is reply
        assert client.replies.pending == 0

    def test_a_request_without_reply_to_cannot_be_answered(self, options, make_service):
        outcome = queue.Queue()

        def handler(delivery):
            try:
                delivery.respond(options, "test-rpc", b"", "text/x", "utf-8")
            except ValueError as error:
                outcome.put(str(error))
            delivery.ack()

        name = make_service(handler)
        _nameko.Publisher(options).publish("", name, b"", {})
        assert "reply_to" in outcome.get(timeout=DEADLINE)

    def test_a_reply_that_is_refused_is_raised_and_the_request_kept(self, options, make_service):
        outcome = queue.Queue()

        def handler(delivery):
            try:
                delivery.respond(options, "nowhere", b"", "text/x", "utf-8")
            except _nameko.AmqpError as error:
                outcome.put((error.code, delivery.acknowledged))
            delivery.ack()

        name = make_service(handler)
        _nameko.Publisher(options).publish("", name, b"", {"reply_to": "x"})
        assert outcome.get(timeout=DEADLINE) == (404, False)

    def test_a_reply_that_is_refused_in_the_background_is_logged(
        self, options, make_service, client
    ):
        records = queue.Queue()
        _nameko.on_log(lambda *record: records.put(record))

        def handler(delivery):
            delivery.respond(options, "nowhere", b"", "text/x", "utf-8", wait=False)
            assert delivery.acknowledged

        pending = client(make_service(handler))
        level, logger, text = records.get(timeout=DEADLINE)
        _nameko.on_log(lambda *_: None)
        assert (level, logger) == (40, "nameko.delivery")
        assert "could not be sent" in text
        assert "nowhere" in text
        pending.cancel()

    def test_nobody_serves_the_call(self, client):
        pending = client("no-such-queue")
        with pytest.raises(_nameko.AmqpError) as caught:
            pending.wait(DEADLINE)
        assert caught.value.kind == "unroutable"
        del pending
        gc.collect()
        assert client.replies.pending == 0

    def test_a_timeout_leaves_nothing_behind(self, client, make_service):
        pending = client(make_service(lambda delivery: delivery.ack()))
        with pytest.raises(TimeoutError, match=r"0\.01 seconds"):
            pending.wait(0.01)
        assert not pending.done()
        assert client.replies.pending == 1
        del pending
        gc.collect()
        assert client.replies.pending == 0

    def test_a_cancelled_call(self, client, make_service):
        pending = client(make_service(lambda delivery: delivery.ack()))
        pending.cancel()
        assert pending.done()
        assert client.replies.pending == 0
        with pytest.raises(RuntimeError, match="cancelled"):
            pending.wait(DEADLINE)
        other = client.replies.expect("discarded")
        client.replies.discard("discarded")
        assert other.done()

    def test_a_reply_that_nobody_waits_for_is_told(self, client, echo):
        unknown = queue.Queue()
        client.replies.on_unknown(unknown.put)
        properties = {"reply_to": client.key, "correlation_id": "late"}
        client.publisher.publish("", echo(True), b"", properties)
        assert unknown.get(timeout=DEADLINE) == "late"

    def test_a_correlation_id_in_use_is_refused(self, client):
        pending = client.replies.expect("same")
        with pytest.raises(ValueError, match="same"):
            client.replies.expect("same")
        pending.cancel()
        assert client.replies.expect("same")

    @pytest.mark.parametrize("end", ["stop", "kill"])
    def test_calls_fail_when_their_consumers_end(self, client, make_service, end):
        begun = threading.Event()
        pending = client(make_service(lambda delivery: begun.set()))
        assert begun.wait(DEADLINE)
        getattr(client.consumers, end)()
        for call in (pending, client.replies.expect("after")):
            with pytest.raises(_nameko.AmqpError, match="no reply can come") as caught:
                call.wait(DEADLINE)
            assert caught.value.kind == "lost"

    def test_a_nested_call_frees_the_thread_for_others(self, client, options, make_service, echo):
        """Each of ten workers makes a call, which takes longer than the patience of the lane."""
        inner = echo(False)

        def handler(delivery):
            body = client(inner, delivery.body).wait(DEADLINE).body
            delivery.respond(options, "test-rpc", body, "text/x", "utf-8", wait=False)

        name = make_service(handler, max_threads=3)
        calls = [(b"%d" % number, client(name, b"%d" % number)) for number in range(50)]
        for body, pending in calls:
            assert pending.wait(DEADLINE).body == body

    def test_replies_are_awaited_on_an_asyncio_loop(self, client, echo):
        name = echo(False)

        async def main():
            loop = asyncio.get_running_loop()
            completions = _nameko.Completions()
            loop.add_reader(completions.fileno(), completions.run)
            try:
                bodies = []
                for rounds in range(3):
                    calls = [client(name, b"%d" % (rounds * 10 + n)) for n in range(10)]
                    for pending in calls:
                        done = loop.create_future()
                        pending.add_done_callback(completions, lambda d=done: d.set_result(1))
                        await asyncio.wait_for(done, DEADLINE)
                        assert pending.done()
                        bodies.append(int(pending.wait().body))
                return bodies
            finally:
                loop.remove_reader(completions.fileno())

        assert asyncio.run(main()) == list(range(30))

    def test_a_call_completes_over_a_lost_connection(self, make_pool):
        """The reply queue outlives the connection: the reply comes after it is made again."""
        broker = _nameko.Broker()
        options = _nameko.Options(broker.uri)
        connected, requests = queue.Queue(), queue.Queue()
        declared, key = a_reply_queue()
        client = _nameko.Consumers(options, on_connected=lambda: connected.put(True))
        replies = _nameko.ReplyListener(client, declared)
        assert client.start(DEADLINE)
        connected.get(timeout=DEADLINE)
        pending = replies.expect("c")
        broker.close_connections()
        connected.get(timeout=DEADLINE)
        _nameko.Publisher(options).publish("test-rpc", key, b"late", {"correlation_id": "c"})
        assert pending.wait(DEADLINE).body == b"late"
        assert requests.empty()
        client.stop()
        broker.stop()

    def test_a_call_fails_when_its_reply_queue_is_gone(self):
        broker = _nameko.Broker()
        connected = queue.Queue()
        declared, _ = a_reply_queue()
        client = _nameko.Consumers(
            _nameko.Options(broker.uri), on_connected=lambda: connected.put(True)
        )
        replies = _nameko.ReplyListener(client, declared)
        assert client.start(DEADLINE)
        connected.get(timeout=DEADLINE)
        pending = replies.expect("c")
        broker.stop()
        # In memory: another broker on the same port knows nothing of the queue.
        other = _nameko.Broker(port=broker.port)
        with pytest.raises(_nameko.AmqpError, match="reply queue was gone") as caught:
            pending.wait(DEADLINE)
        assert caught.value.kind == "lost"
        client.stop()
        other.stop()


class TestInterrupts:
    def test_ctrl_c_ends_a_wait(self, make_consumers):
        replies = _nameko.ReplyListener(make_consumers(), a_reply_queue()[0])
        pending = replies.expect("never")
        threading.Timer(0.05, signal.raise_signal, [signal.SIGINT]).start()
        with pytest.raises(KeyboardInterrupt):
            pending.wait(DEADLINE)

    def test_ctrl_c_ends_a_start(self):
        consumers = _nameko.Consumers(_nameko.Options("amqp://127.0.0.1:1"), lambda *_: None)
        threading.Timer(0.05, signal.raise_signal, [signal.SIGINT]).start()
        with pytest.raises(KeyboardInterrupt):
            consumers.start(DEADLINE)
        consumers.kill()

    def test_an_exception_set_from_outside_ends_a_wait_on_a_worker(self, make_consumers):
        replies = _nameko.ReplyListener(make_consumers(), a_reply_queue()[0])
        pending, outcome, begun = replies.expect("never"), queue.Queue(), threading.Event()

        def work():
            try:
                begun.set()
                outcome.put(pending.wait(DEADLINE))
            except BaseException as error:
                outcome.put(type(error))

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        assert begun.wait(DEADLINE)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
        )
        assert outcome.get(timeout=DEADLINE) is SystemExit


class TestProcess:
    def test_probe(self, amqp_uri):
        assert _nameko.probe(amqp_uri)
        assert not _nameko.probe("amqp://127.0.0.1:1")

    def test_a_port_in_use_is_named(self):
        broker = _nameko.Broker()
        with pytest.raises(OSError, match=str(broker.port)):
            _nameko.Broker(port=broker.port)
        broker.stop()
        broker.stop()

    def run(self, code, *arguments):
        """Runs code in a process of its own; its output."""
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            timeout=DEADLINE * 3,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.split()

    def test_a_forked_child_publishes_on_a_connection_of_its_own(self, options, make_service, amqp_uri):
        came = queue.Queue()
        name = make_service(came.put)
        code = """
import os, sys
from nameko import _nameko
uri, name = sys.argv[1:]
def publish(body):
    _nameko.Publisher(_nameko.Options(uri)).publish("", name, body, {}, mandatory=True, timeout=10)
publish(b"parent")
child = os.fork()
if not child:
    publish(b"child")
    _nameko.shutdown()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
publish(b"parent again")
_nameko.shutdown()
"""
        self.run(code, amqp_uri, name)
        assert [came.get(timeout=DEADLINE).body for _ in range(3)] == [
            b"parent",
            b"child",
            b"parent again",
        ]

    def test_nothing_hangs_over_a_shutdown(self):
        code = """
from nameko import _nameko
broker = _nameko.Broker()
options = _nameko.Options(broker.uri)
consumers = _nameko.Consumers(options)
replies = _nameko.ReplyListener(consumers, {"name": "replies"})
assert consumers.start(10)
away = _nameko.Publisher(_nameko.Options("amqp://127.0.0.1:1"))
pending = [replies.expect("c"), away.start_publish("", "x", b"", {}, max_retries=None)]
_nameko.shutdown()
for call in pending:
    try:
        call.wait(10)
    except _nameko.AmqpError as error:
        print(error.kind)
"""
        assert self.run(code) == ["lost", "lost"]

    def test_shutdown_ends_every_thread_and_is_no_end(self):
        code = """
import os, threading
from nameko import _nameko
def threads():
    return len(os.listdir("/proc/self/task"))
def use():
    broker = _nameko.Broker()
    options = _nameko.Options(broker.uri)
    consumers = _nameko.Consumers(options)
    jobs = _nameko.Jobs(2, lambda: threading.Thread(target=lambda: jobs.run()).start())
    done = threading.Event()
    consumers.add({"name": "q", "auto_delete": True}, lambda delivery: done.set(), jobs)
    assert consumers.start(10)
    _nameko.Publisher(options).publish("", "q", b"", {})
    assert done.wait(10)
    consumers.stop()
    jobs.stop()
    broker.stop()
    _nameko.shutdown()
    for thread in threading.enumerate():
        if thread is not threading.main_thread():
            thread.join(10)
before = threads()
for _ in range(2):
    use()
    assert threading.active_count() == 1
    assert threads() == before, (before, threads())
_nameko.shutdown()
print("done")
"""
        assert self.run(code) == ["done"]
