"""Requests, replies, and interrupts of the wait for a reply."""

import asyncio
import ctypes
import gc
import queue
import signal
import threading

import pytest
from topology import DEADLINE, a_reply_queue

from nameko import _nameko


class TestRpc:
    @pytest.mark.parametrize("wait", [True, False])
    def test_calls_get_replies(self, client, echo, wait):
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

    def test_replying_requires_reply_to(self, options, make_service):
        outcome = queue.Queue()

        def handler(delivery):
            try:
                delivery.respond(options, "test-rpc", b"", "text/x", "utf-8")
            except ValueError as error:
                outcome.put(str(error))
            delivery.ack()

        name = make_service(handler)
        _nameko.Publisher(options).publish(("", name, b"", {}))
        assert "reply_to" in outcome.get(timeout=DEADLINE)

    def test_a_rejected_reply_raises_and_keeps_the_request(self, options, make_service):
        outcome = queue.Queue()

        def handler(delivery):
            try:
                delivery.respond(options, "nowhere", b"", "text/x", "utf-8")
            except _nameko.AmqpError as error:
                outcome.put((error.code, delivery.acknowledged))
            delivery.ack()

        name = make_service(handler)
        _nameko.Publisher(options).publish(("", name, b"", {"reply_to": "x"}))
        assert outcome.get(timeout=DEADLINE) == (404, False)

    def test_a_reply_rejected_in_the_background_is_logged(
        self, options, make_service, client, log_records
    ):
        def handler(delivery):
            delivery.respond(options, "nowhere", b"", "text/x", "utf-8", wait=False)
            assert delivery.acknowledged

        pending = client(make_service(handler))
        level, logger, text = log_records.get(timeout=DEADLINE)
        assert (level, logger) == (40, "nameko.delivery")
        assert "could not be sent" in text
        assert "nowhere" in text
        pending.cancel()

    def test_a_call_without_a_queue_is_unroutable(self, client):
        pending = client("no-such-queue")
        with pytest.raises(_nameko.AmqpError) as caught:
            pending.wait(DEADLINE)
        assert caught.value.kind == "unroutable"
        del pending
        gc.collect()
        assert client.replies.pending == 0

    def test_a_timed_out_call_is_removed(self, client, make_service):
        pending = client(make_service(lambda delivery: delivery.ack()))
        with pytest.raises(TimeoutError, match=r"0\.01 seconds"):
            pending.wait(0.01)
        assert not pending.done()
        assert client.replies.pending == 1
        del pending
        gc.collect()
        assert client.replies.pending == 0

    def test_cancels_a_call(self, client, make_service):
        pending = client(make_service(lambda delivery: delivery.ack()))
        pending.cancel()
        assert pending.done()
        assert client.replies.pending == 0
        with pytest.raises(RuntimeError, match="cancelled"):
            pending.wait(DEADLINE)
        other = client.replies.expect("discarded")
        client.replies.discard("discarded")
        assert other.done()

    def test_reports_unknown_replies(self, client, echo):
        unknown = queue.Queue()
        client.replies.on_unknown(unknown.put)
        properties = {"reply_to": client.key, "correlation_id": "late"}
        client.publisher.publish(("", echo(True), b"", properties))
        assert unknown.get(timeout=DEADLINE).correlation_id == "late"

    def test_rejects_a_correlation_id_in_use(self, client):
        pending = client.replies.expect("same")
        with pytest.raises(ValueError, match="same"):
            client.replies.expect("same")
        pending.cancel()
        assert client.replies.expect("same")

    @pytest.mark.parametrize("end", ["stop", "kill"])
    def test_calls_fail_when_their_consumers_stop(self, client, make_service, end):
        started = threading.Event()
        pending = client(make_service(lambda delivery: started.set()))
        assert started.wait(DEADLINE)
        getattr(client.consumers, end)()
        for call in (pending, client.replies.expect("after")):
            with pytest.raises(_nameko.AmqpError, match="no reply can arrive") as caught:
                call.wait(DEADLINE)
            assert caught.value.kind == "lost"

    def test_a_nested_call_frees_its_thread(self, client, options, make_service, echo):
        """Each worker makes a call that takes longer than the delay before the next one is
        woken."""
        inner = echo(False)

        def handler(delivery):
            body = client(inner, delivery.body).wait(DEADLINE).body
            delivery.respond(options, "test-rpc", body, "text/x", "utf-8", wait=False)

        name = make_service(handler, max_threads=3)
        calls = [(b"%d" % number, client(name, b"%d" % number)) for number in range(50)]
        for body, pending in calls:
            assert pending.wait(DEADLINE).body == body

    def test_replies_can_be_awaited_on_an_asyncio_loop(self, client, echo):
        name = echo(False)

        async def main():
            loop = asyncio.get_running_loop()
            completions = _nameko.Completions()

            def run_callbacks():
                for callback in completions.take():
                    callback()

            loop.add_reader(completions.fileno(), run_callbacks)
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

    def test_a_call_survives_a_lost_connection(self, make_pool):
        """The reply queue outlives the connection, so the reply is received after the reconnect."""
        broker = _nameko.Broker()
        options = _nameko.Options(broker.uri)
        connected = queue.Queue()
        declared, key = a_reply_queue()
        client = _nameko.Consumers(options, on_connected=lambda: connected.put(True))
        replies = _nameko.ReplyListener(client, declared)
        assert client.start(DEADLINE)
        connected.get(timeout=DEADLINE)
        pending = replies.expect("c")
        broker.close_connections()
        connected.get(timeout=DEADLINE)
        _nameko.Publisher(options).publish(("test-rpc", key, b"late", {"correlation_id": "c"}))
        assert pending.wait(DEADLINE).body == b"late"
        client.stop()
        broker.stop()

    def test_a_call_fails_when_its_reply_queue_is_lost(self):
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
        # The queue was in memory, so the new broker on the same port does not have it.
        other = _nameko.Broker(port=broker.port)
        with pytest.raises(_nameko.AmqpError, match="reply queue was gone") as caught:
            pending.wait(DEADLINE)
        assert caught.value.kind == "lost"
        client.stop()
        other.stop()


class TestInterrupts:
    def test_ctrl_c_interrupts_a_wait(self, make_consumers):
        replies = _nameko.ReplyListener(make_consumers(), a_reply_queue()[0])
        pending = replies.expect("never")
        threading.Timer(0.05, signal.raise_signal, [signal.SIGINT]).start()
        with pytest.raises(KeyboardInterrupt):
            pending.wait(DEADLINE)

    def test_ctrl_c_interrupts_a_start(self):
        consumers = _nameko.Consumers(_nameko.Options("amqp://127.0.0.1:1"), lambda *_: None)
        threading.Timer(0.05, signal.raise_signal, [signal.SIGINT]).start()
        with pytest.raises(KeyboardInterrupt):
            consumers.start(DEADLINE)
        consumers.kill()

    def test_an_async_exception_interrupts_a_wait(self, make_consumers):
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
