//! Scheduling policy of the worker thread pool. A pure state machine: no thread, clock or Python.
//!
//! Threads that compete for the GIL cost far more than the jobs they run. So one thread, the *hot*
//! one, runs short jobs back to back. Another is woken only if the hot thread has been in one job
//! for longer than [`STALL_AFTER`], or reports that it is about to block. Blocking jobs thus spread
//! over all threads, while a burst of short ones stays on one. After [`EAGER_AFTER`] stalls in a
//! row the jobs are taken to block: each thread that starts one wakes the next.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long the hot thread may be in one job before another thread is woken for the jobs behind it.
pub(crate) const STALL_AFTER: Duration = Duration::from_micros(250);

/// The number of stalls in a row, without a short job in between, after which jobs are taken to
/// block.
const EAGER_AFTER: u32 = 4;

/// A thread of a scheduler.
pub(crate) type WorkerId = usize;

/// The next step of a worker thread.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<T> {
    /// Run this job, then ask again.
    Run(T),
    /// Start one more thread, then ask again. It is counted until
    /// [`Scheduler::thread_not_started`] reports a failure.
    StartThread,
    /// Sleep until woken: the worker is on the list of parked threads.
    Park,
    /// Return: the scheduler has stopped.
    Stop,
}

/// The queued jobs and the threads that wait for them.
pub(crate) struct Scheduler<T> {
    jobs: VecDeque<T>,
    max_threads: usize,
    /// The number of threads that are registered or being started.
    threads: usize,
    /// The number of threads that are being started.
    starting: usize,
    next_worker: WorkerId,
    /// The sleeping threads. The last one is woken first, as its caches are warm.
    parked: Vec<WorkerId>,
    /// The thread that started the latest job, and when. None once it is out of jobs or blocks.
    hot: Option<(WorkerId, Instant)>,
    /// A woken thread that has not asked for work yet. It may be waiting for the GIL, so that more
    /// threads would only add to the contention.
    waking: Option<WorkerId>,
    /// The number of jobs started, by which the watchdog detects progress.
    started_jobs: u64,
    /// The number of stalls since the last short job.
    stalls: u32,
    /// Whether the next thread that asks must do without a spare, after a failed start.
    start_failed: bool,
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
            stalls: 0,
            start_failed: false,
            stopped: false,
        }
    }

    /// Queues a job. Returns the thread to wake for it, if any.
    ///
    /// # Errors
    ///
    /// Returns the job if the scheduler has stopped.
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

    /// Registers a thread, which completes a requested start if there is one.
    pub(crate) fn register(&mut self) -> WorkerId {
        if self.starting > 0 {
            self.starting -= 1;
        } else {
            self.threads += 1;
        }
        self.next_worker += 1;
        self.next_worker
    }

    /// Returns the next step of a thread, and another thread to wake, if any.
    ///
    /// A spare thread is started before a job is taken: a job that is taken starts at once, so that
    /// jobs start in order.
    pub(crate) fn next(&mut self, worker: WorkerId, now: Instant) -> (Next<T>, Option<WorkerId>) {
        if self.waking == Some(worker) {
            self.waking = None;
        }
        if self.is_hot_worker(worker, now) {
            self.stalls = 0;
        }
        let jobs_block = self.stalls >= EAGER_AFTER;
        let another_is_hot = self.is_hot(now) && self.hot.is_some_and(|(hot, _)| hot != worker);
        if another_is_hot && !jobs_block && !self.stopped {
            self.parked.push(worker);
            return (Next::Park, None);
        }
        let may_start = !std::mem::take(&mut self.start_failed);
        if may_start && !self.jobs.is_empty() && self.request_thread() {
            self.hot = Some((worker, now));
            return (Next::StartThread, None);
        }
        if let Some(job) = self.jobs.pop_front() {
            self.hot = Some((worker, now));
            self.started_jobs += 1;
            let woken = if jobs_block && !self.jobs.is_empty() {
                self.wake_one()
            } else {
                None
            };
            return (Next::Run(job), woken);
        }
        self.clear_hot(worker);
        if self.stopped {
            self.threads -= 1;
            return (Next::Stop, None);
        }
        self.parked.push(worker);
        (Next::Park, None)
    }

    /// Marks the thread's job as about to block. Returns the thread to wake for the jobs behind it.
    pub(crate) fn block(&mut self, worker: WorkerId) -> Option<WorkerId> {
        self.clear_hot(worker);
        if self.hot.is_none() && !self.jobs.is_empty() {
            self.wake_one()
        } else {
            None
        }
    }

    /// Restarts the stall timeout of the hot thread.
    pub(crate) fn touch(&mut self, worker: WorkerId, now: Instant) {
        if let Some((hot, begun)) = &mut self.hot
            && *hot == worker
        {
            *begun = now;
        }
    }

    /// The time of the next check for a stall. None if no job waits or no thread could be woken.
    pub(crate) fn next_check_at(&self) -> Option<Instant> {
        if self.jobs.is_empty() || self.waking.is_some() || self.parked.is_empty() {
            return None;
        }
        self.hot.map(|(_, begun)| begun + STALL_AFTER)
    }

    /// Checks for a stall. Returns the thread to wake if the hot one is stalled.
    pub(crate) fn check_stalled(&mut self, now: Instant) -> Option<WorkerId> {
        if self.jobs.is_empty() || self.is_hot(now) {
            return None;
        }
        let woken = self.wake_one();
        if woken.is_some() {
            self.stalls = self.stalls.saturating_add(1);
        }
        woken
    }

    /// Requests one more thread if none is spare. Returns whether to start it.
    fn request_thread(&mut self) -> bool {
        let starts = !self.stopped
            && self.parked.is_empty()
            && self.starting == 0
            && self.threads < self.max_threads;
        if starts {
            self.threads += 1;
            self.starting += 1;
        }
        starts
    }

    /// Reports that a requested thread could not be started. Has no effect if it has registered
    /// nevertheless, when its starter was interrupted afterwards.
    pub(crate) fn thread_not_started(&mut self) {
        self.start_failed = true;
        if self.starting > 0 {
            self.starting -= 1;
            self.threads -= 1;
        }
    }

    /// Refuses further jobs; threads end once the queue is empty. Returns the threads to wake, and
    /// with `discard` the removed jobs.
    pub(crate) fn stop(&mut self, discard: bool) -> (Vec<WorkerId>, VecDeque<T>) {
        self.stopped = true;
        let jobs = if discard {
            std::mem::take(&mut self.jobs)
        } else {
            VecDeque::new()
        };
        (std::mem::take(&mut self.parked), jobs)
    }

    /// The number of queued jobs.
    pub(crate) fn pending(&self) -> usize {
        self.jobs.len()
    }

    /// Whether the thread is hot, so that its last job was short.
    pub(crate) fn is_hot_worker(&self, worker: WorkerId, now: Instant) -> bool {
        self.is_hot(now) && self.hot.is_some_and(|(hot, _)| hot == worker)
    }

    /// The number of jobs started so far.
    pub(crate) fn started_jobs(&self) -> u64 {
        self.started_jobs
    }

    pub(crate) fn is_parked(&self, worker: WorkerId) -> bool {
        self.parked.contains(&worker)
    }

    pub(crate) fn has_stopped(&self) -> bool {
        self.stopped
    }

    /// Whether a thread has started a job recently.
    fn is_hot(&self, now: Instant) -> bool {
        self.hot
            .is_some_and(|(_, begun)| now.saturating_duration_since(begun) < STALL_AFTER)
    }

    fn clear_hot(&mut self, worker: WorkerId) {
        if self.hot.is_some_and(|(hot, _)| hot == worker) {
            self.hot = None;
        }
    }

    /// Wakes a parked thread, one at a time.
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

    /// The next step of a thread that wakes no other.
    fn step<T: std::fmt::Debug>(
        scheduler: &mut Scheduler<T>,
        worker: WorkerId,
        now: Instant,
    ) -> Next<T> {
        let (next, woken) = scheduler.next(worker, now);
        assert_eq!(woken, None);
        next
    }

    /// A scheduler with `count` parked threads.
    fn idle(count: usize) -> (Scheduler<u32>, Vec<WorkerId>, Instant) {
        let now = Instant::now();
        let mut scheduler = Scheduler::new(count);
        let workers: Vec<WorkerId> = (0..count).map(|_| scheduler.register()).collect();
        for worker in &workers {
            assert_eq!(step(&mut scheduler, *worker, now), Next::Park);
        }
        (scheduler, workers, now)
    }

    #[test]
    fn a_burst_of_short_jobs_stays_on_one_thread() {
        let (mut scheduler, _, mut now) = idle(10);
        let hot = scheduler
            .push(0, now)
            .unwrap()
            .expect("the first job wakes a thread");
        for job in 1..100 {
            assert_eq!(
                scheduler.push(job, now),
                Ok(None),
                "no other thread is woken"
            );
        }
        for job in 0..100 {
            assert_eq!(
                step(&mut scheduler, hot, now),
                Next::Run(job),
                "first in, first out"
            );
            now += STALL_AFTER / 2;
            assert_eq!(scheduler.check_stalled(now), None);
        }
        assert_eq!(step(&mut scheduler, hot, now), Next::Park);
    }

    #[test]
    fn a_thread_that_makes_progress_keeps_the_jobs_behind_its_own() {
        let (mut scheduler, _, now) = idle(3);
        let first = scheduler.push(1, now).unwrap().unwrap();
        assert_eq!(step(&mut scheduler, first, now), Next::Run(1));
        let later = now + STALL_AFTER;
        scheduler.touch(first, later);
        assert_eq!(scheduler.push(2, later), Ok(None));
        assert_eq!(scheduler.next_check_at(), Some(later + STALL_AFTER));
        assert!(
            scheduler.check_stalled(later + STALL_AFTER).is_some(),
            "it is stalled then"
        );
    }

    #[test]
    fn a_job_behind_a_stalled_thread_moves_to_another() {
        let (mut scheduler, _, now) = idle(3);
        let first = scheduler.push(1, now).unwrap().unwrap();
        assert_eq!(step(&mut scheduler, first, now), Next::Run(1));
        assert_eq!(scheduler.push(2, now), Ok(None));
        assert_eq!(scheduler.next_check_at(), Some(now + STALL_AFTER));
        let later = now + STALL_AFTER;
        let second = scheduler
            .check_stalled(later)
            .expect("the first is stalled");
        assert_ne!(second, first);
        assert_eq!(
            scheduler.next_check_at(),
            None,
            "no check while it is waking"
        );
        assert_eq!(step(&mut scheduler, second, later), Next::Run(2));
    }

    #[test]
    fn a_job_wakes_a_thread_at_once_while_all_others_are_stalled() {
        let (mut scheduler, _, now) = idle(2);
        let first = scheduler.push(1, now).unwrap().unwrap();
        assert_eq!(step(&mut scheduler, first, now), Next::Run(1));
        assert!(scheduler.push(2, now + STALL_AFTER).unwrap().is_some());
    }

    #[test]
    fn a_thread_that_blocks_hands_its_jobs_over() {
        let (mut scheduler, _, now) = idle(2);
        let first = scheduler.push(1, now).unwrap().unwrap();
        assert_eq!(step(&mut scheduler, first, now), Next::Run(1));
        assert_eq!(scheduler.push(2, now), Ok(None));
        let second = scheduler.block(first).expect("another is woken at once");
        assert_eq!(step(&mut scheduler, second, now), Next::Run(2));
        assert_eq!(
            step(&mut scheduler, first, now),
            Next::Park,
            "the other is hot now"
        );
    }

    #[test]
    fn blocking_jobs_use_every_thread_and_no_more() {
        let (mut scheduler, _, mut now) = idle(4);
        let mut woken = scheduler.push(0, now).unwrap();
        for job in 1..6 {
            assert_eq!(scheduler.push(job, now), Ok(None));
        }
        let mut running = 0;
        while let Some(worker) = woken {
            assert_eq!(step(&mut scheduler, worker, now), Next::Run(running));
            running += 1;
            now += STALL_AFTER;
            woken = scheduler.check_stalled(now);
        }
        assert_eq!((running, scheduler.pending()), (4, 2));
        assert_eq!(scheduler.next_check_at(), None, "no thread is left to wake");
    }

    #[test]
    fn only_one_thread_is_woken_at_a_time() {
        let (mut scheduler, _, now) = idle(3);
        assert!(scheduler.push(1, now).unwrap().is_some());
        assert_eq!(
            scheduler.check_stalled(now + STALL_AFTER * 10),
            None,
            "the woken one may be waiting for the gil"
        );
        assert_eq!(scheduler.push(2, now + STALL_AFTER * 10), Ok(None));
    }

    #[test]
    fn threads_are_started_one_at_a_time_up_to_the_limit() {
        let now = Instant::now();
        let mut scheduler = Scheduler::<u32>::new(2);
        let first = scheduler.register();
        for job in 1..4 {
            scheduler.push(job, now).unwrap();
        }
        assert_eq!(
            step(&mut scheduler, first, now),
            Next::StartThread,
            "a spare, before the first job is taken"
        );
        assert!(!scheduler.request_thread(), "one is being started");
        scheduler.thread_not_started();
        assert_eq!(
            step(&mut scheduler, first, now),
            Next::Run(1),
            "jobs do not wait for a thread that cannot be started"
        );
        assert_eq!(
            step(&mut scheduler, first, now),
            Next::StartThread,
            "it is tried again"
        );
        let second = scheduler.register();
        assert_eq!(step(&mut scheduler, second, now), Next::Park);
        assert_eq!(step(&mut scheduler, first, now), Next::Run(2));
        assert!(!scheduler.request_thread(), "the limit is reached");
    }

    #[test]
    fn threads_wake_each_other_while_jobs_block() {
        let (mut scheduler, _, mut now) = idle(20);
        let mut woken = scheduler.push(0, now).unwrap();
        for job in 1..30 {
            assert_eq!(scheduler.push(job, now), Ok(None));
        }
        for job in 0..EAGER_AFTER {
            let worker = woken.unwrap();
            assert_eq!(step(&mut scheduler, worker, now), Next::Run(job));
            now += STALL_AFTER;
            woken = scheduler.check_stalled(now);
        }
        for job in EAGER_AFTER..20 {
            let (next, another) = scheduler.next(woken.unwrap(), now);
            assert_eq!(next, Next::Run(job), "without a pause");
            woken = another;
        }
        assert_eq!(woken, None, "all threads run");
        // One thread that runs two jobs in a row runs short ones.
        assert_eq!(scheduler.next(1, now).0, Next::Run(20));
        assert_eq!(step(&mut scheduler, 1, now), Next::Run(21));
        assert_eq!(step(&mut scheduler, 2, now), Next::Park);
    }

    #[test]
    fn a_thread_whose_starter_was_interrupted_counts_once_registered() {
        let now = Instant::now();
        for registers_first in [true, false] {
            let mut scheduler = Scheduler::new(2);
            scheduler.push(1, now).unwrap();
            assert!(scheduler.request_thread());
            let worker = if registers_first {
                let worker = scheduler.register();
                scheduler.thread_not_started();
                worker
            } else {
                scheduler.thread_not_started();
                scheduler.register()
            };
            scheduler.stop(false);
            assert_eq!(step(&mut scheduler, worker, now), Next::Run(1));
            assert_eq!(step(&mut scheduler, worker, now), Next::Stop);
            assert_eq!(scheduler.threads, 0);
        }
    }

    #[test]
    fn stopping_runs_queued_jobs_and_wakes_all_threads() {
        let (mut scheduler, workers, now) = idle(3);
        let hot = scheduler.push(1, now).unwrap().unwrap();
        assert_eq!(scheduler.push(2, now), Ok(None));
        let (woken, discarded) = scheduler.stop(false);
        assert_eq!((woken.len(), discarded.len()), (2, 0));
        assert_eq!(scheduler.push(3, now), Err(3));
        assert_eq!(step(&mut scheduler, hot, now), Next::Run(1));
        let other = workers.into_iter().find(|worker| *worker != hot).unwrap();
        assert_eq!(step(&mut scheduler, other, now), Next::Run(2));
        assert_eq!(step(&mut scheduler, other, now), Next::Stop);
        assert_eq!(step(&mut scheduler, hot, now), Next::Stop);
    }

    #[test]
    fn stopping_at_once_returns_queued_jobs() {
        let (mut scheduler, _, now) = idle(1);
        let hot = scheduler.push(1, now).unwrap().unwrap();
        assert_eq!(scheduler.push(2, now), Ok(None));
        assert_eq!(scheduler.stop(true).1, [1, 2]);
        assert_eq!(step(&mut scheduler, hot, now), Next::Stop);
    }
}
