"""The job queue and its worker threads."""

import threading

import pytest
from topology import DEADLINE

from nameko import _nameko
from nameko.utils.jobs import run_jobs


def call(function):
    """Returns a job that calls a function without arguments."""
    return lambda _: function()


class TestJobs:
    def test_a_single_thread_runs_jobs_in_order(self, make_pool):
        jobs, ran = make_pool(1).jobs, []
        for number in range(100):
            jobs.put(ran.append, number)
        done = threading.Event()
        jobs.put(call(done.set))
        assert done.wait(DEADLINE)
        assert ran == list(range(100))

    def test_blocking_jobs_run_concurrently(self, make_pool):
        pool = make_pool(10)
        barrier = threading.Barrier(11)
        for _ in range(10):
            pool.jobs.put(barrier.wait, DEADLINE)
        barrier.wait(DEADLINE)
        assert len(pool.threads) == 10

    def test_limits_the_number_of_threads(self, make_pool):
        pool = make_pool(2)
        barrier, release, late = threading.Barrier(3), threading.Event(), threading.Event()

        def block(_):
            barrier.wait(DEADLINE)
            release.wait(DEADLINE)

        pool.jobs.put(block)
        pool.jobs.put(block)
        barrier.wait(DEADLINE)
        pool.jobs.put(call(late.set))
        assert pool.jobs.pending() == 1
        release.set()
        assert late.wait(DEADLINE)
        assert len(pool.threads) == 2

    @pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
    def test_a_raising_job_keeps_its_thread_alive(self, make_pool, unraisable, error):
        pool = make_pool(1)
        done = threading.Event()

        def fail(_):
            raise error("boom")

        pool.jobs.put(fail)
        pool.jobs.put(call(done.set))
        assert done.wait(DEADLINE)
        assert isinstance(unraisable.get(timeout=DEADLINE), error)

    def test_a_stop_runs_queued_jobs(self, make_pool):
        pool = make_pool(1)
        started, release, ran = threading.Event(), threading.Event(), []

        def block(_):
            started.set()
            release.wait(DEADLINE)

        pool.jobs.put(block)
        pool.jobs.put(ran.append, 1)
        assert started.wait(DEADLINE)
        pool.jobs.stop()
        release.set()
        pool.stop()
        assert ran == [1]
        with pytest.raises(RuntimeError, match="stopped"):
            pool.jobs.put(print)

    def test_retries_when_a_thread_cannot_be_started(self, unraisable):
        threads = []

        def spawn(jobs):
            if threads and not failed.is_set():
                failed.set()
                raise RuntimeError("can't start new thread")
            threads.append(threading.Thread(target=run_jobs, args=(jobs,), daemon=True))
            threads[-1].start()

        failed = threading.Event()
        jobs = _nameko.Jobs(2, spawn)
        spawn(jobs)
        barrier = threading.Barrier(3)
        first = threading.Event()
        jobs.put(call(first.set))
        assert first.wait(DEADLINE)
        jobs.put(barrier.wait, DEADLINE)
        jobs.put(barrier.wait, DEADLINE)
        barrier.wait(DEADLINE)
        assert isinstance(unraisable.get(timeout=DEADLINE), RuntimeError)
        jobs.stop()
        for thread in threads:
            thread.join(DEADLINE)
