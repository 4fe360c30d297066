"""Managed threads in custom entrypoints."""

import threading
import time
from queue import SimpleQueue

import pytest

from nameko.extensions import Entrypoint
from nameko.testing.utils import get_extension
from nameko.utils.threads import ThreadKilled


class TestManagedThreads:
    def test_a_custom_entrypoint_may_poll_in_a_thread(self, serve, uid):
        """A poller: a managed thread that spawns a worker for each item."""

        class Poll(Entrypoint):
            def __init__(self, source, **kwargs):
                self.source = source
                super().__init__(**kwargs)

            def setup(self):
                assert self.container.config["AMQP_URI"]

            def start(self):
                self.thread = self.container.spawn_managed_thread(self.run, identifier="poll")

            def run(self):
                while True:
                    found = self.source.get()
                    self.container.spawn_worker(
                        self, (found,), {}, context_data={"k": "v"}, handle_result=self.handle
                    )

            def handle(self, worker_ctx, result, exc_info):
                outcomes.put((worker_ctx.data, result, exc_info and exc_info[0]))
                return result, exc_info

            def stop(self):
                self.thread.kill()

        source, outcomes = SimpleQueue(), SimpleQueue()
        poll = Poll.decorator

        class Service:
            name = "service-" + uid

            @poll(source, expected_exceptions=ValueError)
            def receive(self, found):
                if found == "bad":
                    raise ValueError()
                return found

        container = serve(Service)
        source.put("good")
        source.put("bad")
        assert {outcomes.get(timeout=10)[1:] for _ in range(2)} == {
            ("good", None),
            (None, ValueError),
        }
        thread = get_extension(container, Poll).thread
        assert not thread.dead
        stopper = threading.Thread(target=container.stop)
        stopper.start()
        # Counts as dead, although the thread is still in a blocking call.
        stopper.join(10)
        assert not stopper.is_alive()
        assert thread.dead

    def test_a_handle_can_be_joined_and_linked(self, serve, uid):
        class Service:
            name = "service-" + uid

        container, notified = serve(Service), SimpleQueue()
        thread = container.spawn_managed_thread(lambda: "result")
        thread.link(lambda handle, word: notified.put((handle, word)), "word")
        assert thread.wait() == "result"
        assert notified.get(timeout=10) == (thread, "word")
        assert thread.dead

    def test_a_kill_raises_in_a_busy_thread(self, serve, uid):
        begun, ended = threading.Event(), SimpleQueue()

        def busy():
            try:
                begun.set()
                while True:
                    time.sleep(0.001)
            except BaseException as exc:
                ended.put(type(exc))
                raise

        class Service:
            name = "service-" + uid

        container = serve(Service)
        thread = container.spawn_managed_thread(busy)
        assert begun.wait(10)
        thread.kill()
        assert ended.get(timeout=10) is ThreadKilled
        with pytest.raises(ThreadKilled):
            thread.wait()
        # A kill is no failure.
        assert not container._died.ready()
