"""Worker threads: who runs the next job."""

import threading

import pytest
from topology import DEADLINE

from nameko import _nameko


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
