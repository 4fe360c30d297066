//! Who runs the next job: the policy of one container's worker threads. Pure: no thread, clock or Python in it.
//!
//! Threads that fight for the GIL cost far more than the jobs they run. So one thread, the *hot* one, runs short jobs
//! back to back. Another is called only when the hot thread has been in one job for longer than [`STALL_AFTER`], or says
//! itself that it is about to block. Blocking jobs thus spread over all threads; a storm of short ones stays on one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long the hot thread may be in one job before another thread is called for the jobs behind it.
pub(crate) const STALL_AFTER: Duration = Duration::from_micros(250);

/// Names one thread of a scheduler.
pub(crate) type WorkerId = usize;

/// What a thread that asks for work does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<T> {
    /// Run this job, then ask again.
    Run(T),
    /// Sleep until woken: the worker is on the list of parked threads.
    Park,
    /// Return: the scheduler has ended.
    Stop,
}

/// The jobs not begun and the threads that wait for them.
pub(crate) struct Scheduler<T> {
    jobs: VecDeque<T>,
    max_threads: usize,
    /// Threads that arrived and have not left, and those being started.
    threads: usize,
    /// Threads that were asked for and have not arrived yet.
    starting: usize,
    next_worker: WorkerId,
    /// The sleeping threads; the last one slept the shortest and is called first, its caches are warm.
    parked: Vec<WorkerId>,
    /// The thread that began a job last, and when; none after it ran out of jobs or said that it blocks.
    hot: Option<(WorkerId, Instant)>,
    /// A thread that was called and has not asked for work yet. It may be waiting for the GIL, where calling more
    /// threads would only make the queue for the GIL longer.
    waking: Option<WorkerId>,
    /// Counts the jobs begun, so that the watchdog sees progress.
    started_jobs: u64,
    stopped: bool,
}

impl<T> Scheduler<T> {
    /// A scheduler that uses at most `max_threads` threads, at least one.
    pub(crate) fn new(max_threads: usize) -> Self {
        Scheduler {
            jobs: VecDeque::new(),
            max_threads: max_threads.max(1),
            threads: 0,
            starting: 0,
            next_worker: 0,
            parked: Vec::new(),
            hot: None,
            waking: None,
            started_jobs: 0,
            stopped: false,
        }
    }

    /// Adds a job. Returns the thread to wake for it, if one should be woken. Gives the job back when the scheduler has ended.
    pub(crate) fn push(&mut self, job: T, now: Instant) -> Result<Option<WorkerId>, T> {
        if self.stopped {
            return Err(job);
        }
        self.jobs.push_back(job);
        Ok(if self.is_hot(now) {
            None
        } else {
            self.wake_one()
        })
    }

    /// A thread takes a worker. It counts as one that was asked for, if any was.
    pub(crate) fn register(&mut self) -> WorkerId {
        if self.starting > 0 {
            self.starting -= 1;
        } else {
            self.threads += 1;
        }
        self.next_worker += 1;
        self.next_worker
    }

    /// A thread asks for work.
    pub(crate) fn next(&mut self, worker: WorkerId, now: Instant) -> Next<T> {
        if self.waking == Some(worker) {
            self.waking = None;
        }
        let another_is_hot = self.is_hot(now) && self.hot.is_some_and(|(hot, _)| hot != worker);
        if another_is_hot && !self.stopped {
            self.parked.push(worker);
            return Next::Park;
        }
        if let Some(job) = self.jobs.pop_front() {
            self.hot = Some((worker, now));
            self.started_jobs += 1;
            return Next::Run(job);
        }
        self.clear_hot(worker);
        if self.stopped {
            self.threads -= 1;
            return Next::Stop;
        }
        self.parked.push(worker);
        Next::Park
    }

    /// The thread's job is about to block. Returns the thread to wake for the jobs behind it.
    pub(crate) fn block(&mut self, worker: WorkerId) -> Option<WorkerId> {
        self.clear_hot(worker);
        if self.hot.is_none() && !self.jobs.is_empty() {
            self.wake_one()
        } else {
            None
        }
    }

    /// The thread's job gets on: the thread is as good as in a new one.
    pub(crate) fn touch(&mut self, worker: WorkerId, now: Instant) {
        if let Some((hot, begun)) = &mut self.hot
            && *hot == worker
        {
            *begun = now;
        }
    }

    /// When somebody has to look again whether the hot thread still makes progress; none while nothing waits behind it,
    /// or nobody could be called anyway.
    pub(crate) fn next_check_at(&self) -> Option<Instant> {
        if self.jobs.is_empty() || self.waking.is_some() || self.parked.is_empty() {
            return None;
        }
        self.hot.map(|(_, begun)| begun + STALL_AFTER)
    }

    /// Somebody looks: returns the thread to wake when the hot one is stuck.
    pub(crate) fn check_stalled(&mut self, now: Instant) -> Option<WorkerId> {
        if self.jobs.is_empty() || self.is_hot(now) {
            None
        } else {
            self.wake_one()
        }
    }

    /// Whether one more thread should be started, so that one is always there to be called. Counts it as started;
    /// [`Scheduler::thread_not_started`] takes that back.
    pub(crate) fn request_thread(&mut self) -> bool {
        let wanted = !self.stopped
            && self.parked.is_empty()
            && self.starting == 0
            && self.threads < self.max_threads;
        if wanted {
            self.threads += 1;
            self.starting += 1;
        }
        wanted
    }

    /// The wanted thread could not be started. Where it has arrived all the same (who started it was interrupted
    /// afterwards), it counts.
    pub(crate) fn thread_not_started(&mut self) {
        if self.starting > 0 {
            self.starting -= 1;
            self.threads -= 1;
        }
    }

    /// Takes no more jobs; threads end when those that are here have been run. Returns the threads to wake, and with
    /// `discard` the jobs that will not be run.
    pub(crate) fn stop(&mut self, discard: bool) -> (Vec<WorkerId>, VecDeque<T>) {
        self.stopped = true;
        let jobs = if discard {
            std::mem::take(&mut self.jobs)
        } else {
            VecDeque::new()
        };
        (std::mem::take(&mut self.parked), jobs)
    }

    /// Jobs not begun.
    pub(crate) fn pending(&self) -> usize {
        self.jobs.len()
    }

    /// Whether the thread has run its last job without calling for another thread's help.
    pub(crate) fn is_hot_worker(&self, worker: WorkerId, now: Instant) -> bool {
        self.is_hot(now) && self.hot.is_some_and(|(hot, _)| hot == worker)
    }

    /// Jobs begun since the scheduler was made.
    pub(crate) fn started_jobs(&self) -> u64 {
        self.started_jobs
    }

    pub(crate) fn is_parked(&self, worker: WorkerId) -> bool {
        self.parked.contains(&worker)
    }

    pub(crate) fn has_stopped(&self) -> bool {
        self.stopped
    }

    /// No thread is here or on its way.
    pub(crate) fn has_no_threads(&self) -> bool {
        self.threads == 0
    }

    /// Somebody takes jobs, and not long ago.
    fn is_hot(&self, now: Instant) -> bool {
        self.hot
            .is_some_and(|(_, begun)| now.saturating_duration_since(begun) < STALL_AFTER)
    }

    fn clear_hot(&mut self, worker: WorkerId) {
        if self.hot.is_some_and(|(hot, _)| hot == worker) {
            self.hot = None;
        }
    }

    /// Calls a parked thread, one at a time.
    fn wake_one(&mut self) -> Option<WorkerId> {
        if self.waking.is_none() {
            self.waking = self.parked.pop();
            self.waking
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A scheduler with `count` threads that found nothing to do.
    fn idle(count: usize) -> (Scheduler<u32>, Vec<WorkerId>, Instant) {
        let now = Instant::now();
        let mut scheduler = Scheduler::new(count);
        let workers: Vec<WorkerId> = (0..count).map(|_| scheduler.register()).collect();
        for worker in &workers {
            assert_eq!(scheduler.next(*worker, now), Next::Park);
        }
        (scheduler, workers, now)
    }

    #[test]
    fn a_storm_of_short_jobs_stays_on_one_thread() {
        let (mut scheduler, _, mut now) = idle(10);
        let hot = scheduler
            .push(0, now)
            .unwrap()
            .expect("the first job wakes a thread");
        for job in 1..100 {
            assert_eq!(scheduler.push(job, now), Ok(None), "nobody else is woken");
        }
        for job in 0..100 {
            assert_eq!(
                scheduler.next(hot, now),
                Next::Run(job),
                "in the order they came"
            );
            now += STALL_AFTER / 2;
            assert_eq!(scheduler.check_stalled(now), None);
        }
        assert_eq!(scheduler.next(hot, now), Next::Park);
    }

    #[test]
    fn a_thread_that_gets_on_keeps_the_jobs_behind_its_own() {
        let (mut scheduler, _, now) = idle(3);
        let first = scheduler.push(1, now).unwrap().unwrap();
        assert_eq!(scheduler.next(first, now), Next::Run(1));
        let later = now + STALL_AFTER;
        scheduler.touch(first, later);
        assert_eq!(scheduler.push(2, later), Ok(None));
        assert_eq!(scheduler.next_check_at(), Some(later + STALL_AFTER));
        assert!(
            scheduler.check_stalled(later + STALL_AFTER).is_some(),
            "it is stuck then"
        );
    }

    #[test]
    fn a_job_behind_a_stuck_thread_is_given_to_another() {
        let (mut scheduler, _, now) = idle(3);
        let first = scheduler.push(1, now).unwrap().unwrap();
        assert_eq!(scheduler.next(first, now), Next::Run(1));
        assert_eq!(scheduler.push(2, now), Ok(None));
        assert_eq!(scheduler.next_check_at(), Some(now + STALL_AFTER));
        let later = now + STALL_AFTER;
        let second = scheduler.check_stalled(later).expect("the first is stuck");
        assert_ne!(second, first);
        assert_eq!(
            scheduler.next_check_at(),
            None,
            "nothing to watch while it is on its way"
        );
        assert_eq!(scheduler.next(second, later), Next::Run(2));
    }

    #[test]
    fn a_job_that_comes_while_all_busy_threads_are_stuck_wakes_one_at_once() {
        let (mut scheduler, _, now) = idle(2);
        let first = scheduler.push(1, now).unwrap().unwrap();
        assert_eq!(scheduler.next(first, now), Next::Run(1));
        assert!(scheduler.push(2, now + STALL_AFTER).unwrap().is_some());
    }

    #[test]
    fn a_thread_that_says_it_blocks_passes_the_work_on() {
        let (mut scheduler, _, now) = idle(2);
        let first = scheduler.push(1, now).unwrap().unwrap();
        assert_eq!(scheduler.next(first, now), Next::Run(1));
        assert_eq!(scheduler.push(2, now), Ok(None));
        let second = scheduler.block(first).expect("another is called at once");
        assert_eq!(scheduler.next(second, now), Next::Run(2));
        assert_eq!(
            scheduler.next(first, now),
            Next::Park,
            "the other is hot now"
        );
    }

    #[test]
    fn blocking_jobs_get_every_thread_and_no_more() {
        let (mut scheduler, _, mut now) = idle(4);
        let mut woken = scheduler.push(0, now).unwrap();
        for job in 1..6 {
            assert_eq!(scheduler.push(job, now), Ok(None));
        }
        let mut running = 0;
        while let Some(worker) = woken {
            assert_eq!(scheduler.next(worker, now), Next::Run(running));
            running += 1;
            now += STALL_AFTER;
            woken = scheduler.check_stalled(now);
        }
        assert_eq!((running, scheduler.pending()), (4, 2));
        assert_eq!(scheduler.next_check_at(), None, "nobody is left to call");
    }

    #[test]
    fn only_one_thread_is_called_at_a_time() {
        let (mut scheduler, _, now) = idle(3);
        assert!(scheduler.push(1, now).unwrap().is_some());
        assert_eq!(
            scheduler.check_stalled(now + STALL_AFTER * 10),
            None,
            "the called one may be waiting for the gil"
        );
        assert_eq!(scheduler.push(2, now + STALL_AFTER * 10), Ok(None));
    }

    #[test]
    fn threads_are_asked_for_one_at_a_time_up_to_the_limit() {
        let now = Instant::now();
        let mut scheduler = Scheduler::<u32>::new(2);
        assert!(scheduler.request_thread());
        assert!(!scheduler.request_thread(), "one is on its way");
        let first = scheduler.register();
        assert!(
            scheduler.request_thread(),
            "a spare, before the first begins a job"
        );
        scheduler.thread_not_started();
        assert!(
            scheduler.request_thread(),
            "it failed, so it is tried again"
        );
        let second = scheduler.register();
        assert_eq!(scheduler.next(second, now), Next::Park);
        assert!(!scheduler.request_thread());
        assert_eq!(scheduler.next(first, now), Next::Park);
        assert_eq!(scheduler.push(1, now), Ok(Some(first)));
    }

    #[test]
    fn a_thread_whose_starter_was_interrupted_counts_whenever_it_arrives() {
        let now = Instant::now();
        for arrives_first in [true, false] {
            let mut scheduler = Scheduler::new(2);
            scheduler.push(1, now).unwrap();
            assert!(scheduler.request_thread());
            let worker = if arrives_first {
                let worker = scheduler.register();
                scheduler.thread_not_started();
                worker
            } else {
                scheduler.thread_not_started();
                scheduler.register()
            };
            scheduler.stop(false);
            assert_eq!(scheduler.next(worker, now), Next::Run(1));
            assert_eq!(scheduler.next(worker, now), Next::Stop);
            assert!(scheduler.has_no_threads());
        }
    }

    #[test]
    fn ending_runs_what_is_here_and_wakes_all() {
        let (mut scheduler, workers, now) = idle(3);
        let hot = scheduler.push(1, now).unwrap().unwrap();
        assert_eq!(scheduler.push(2, now), Ok(None));
        let (woken, discarded) = scheduler.stop(false);
        assert_eq!((woken.len(), discarded.len()), (2, 0));
        assert_eq!(scheduler.push(3, now), Err(3));
        assert_eq!(scheduler.next(hot, now), Next::Run(1));
        let other = workers.into_iter().find(|worker| *worker != hot).unwrap();
        assert_eq!(scheduler.next(other, now), Next::Run(2));
        assert_eq!(scheduler.next(other, now), Next::Stop);
        assert_eq!(scheduler.next(hot, now), Next::Stop);
    }

    #[test]
    fn ending_at_once_gives_the_jobs_back() {
        let (mut scheduler, _, now) = idle(1);
        let hot = scheduler.push(1, now).unwrap().unwrap();
        assert_eq!(scheduler.push(2, now), Ok(None));
        assert_eq!(scheduler.stop(true).1, [1, 2]);
        assert_eq!(scheduler.next(hot, now), Next::Stop);
    }
}
