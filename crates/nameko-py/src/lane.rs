//! Who runs the next job: the policy of one container's worker threads. Pure: no thread, clock or Python in it.
//!
//! Threads that fight for the GIL cost far more than the jobs they run. So one thread, the *hot* one, runs short jobs
//! back to back. Another is called only when the hot thread has been in one job for longer than [`PATIENCE`], or says
//! itself that it is about to block. Blocking jobs thus spread over all threads; a storm of short ones stays on one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long the hot thread may be in one job before another thread is called for the jobs behind it.
pub(crate) const PATIENCE: Duration = Duration::from_micros(250);

/// Names one thread of a lane.
pub(crate) type Seat = usize;

/// What a thread that asks for work does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn<T> {
    /// Run this job, then ask again.
    Run(T),
    /// Sleep until woken: the seat is on the list of parked threads.
    Park,
    /// Return: the lane has ended.
    End,
}

/// The jobs not begun and the threads that wait for them.
pub(crate) struct Lane<T> {
    jobs: VecDeque<T>,
    max_threads: usize,
    /// Threads that arrived and have not left, and those being started.
    threads: usize,
    /// Threads that were asked for and have not arrived yet.
    starting: usize,
    next_seat: Seat,
    /// The sleeping threads; the last one slept the shortest and is called first, its caches are warm.
    parked: Vec<Seat>,
    /// The thread that began a job last, and when; none after it ran out of jobs or said that it blocks.
    hot: Option<(Seat, Instant)>,
    /// A thread that was called and has not asked for work yet. It may be waiting for the GIL, where calling more
    /// threads would only make the queue for the GIL longer.
    coming: Option<Seat>,
    /// Counts the jobs begun, so that the watchdog sees progress.
    begun: u64,
    ended: bool,
}

impl<T> Lane<T> {
    /// A lane that uses at most `max_threads` threads, at least one.
    pub(crate) fn new(max_threads: usize) -> Self {
        Lane {
            jobs: VecDeque::new(),
            max_threads: max_threads.max(1),
            threads: 0,
            starting: 0,
            next_seat: 0,
            parked: Vec::new(),
            hot: None,
            coming: None,
            begun: 0,
            ended: false,
        }
    }

    /// Adds a job. Returns the thread to wake for it, if one should be woken. Gives the job back when the lane has ended.
    pub(crate) fn push(&mut self, job: T, now: Instant) -> Result<Option<Seat>, T> {
        if self.ended {
            return Err(job);
        }
        self.jobs.push_back(job);
        Ok(if self.is_hot(now) { None } else { self.call() })
    }

    /// A thread takes a seat. It counts as one that was asked for, if any was.
    pub(crate) fn arrive(&mut self) -> Seat {
        if self.starting > 0 {
            self.starting -= 1;
        } else {
            self.threads += 1;
        }
        self.next_seat += 1;
        self.next_seat
    }

    /// A thread asks for work.
    pub(crate) fn take(&mut self, seat: Seat, now: Instant) -> Turn<T> {
        if self.coming == Some(seat) {
            self.coming = None;
        }
        let another_is_hot = self.is_hot(now) && self.hot.is_some_and(|(hot, _)| hot != seat);
        if another_is_hot && !self.ended {
            self.parked.push(seat);
            return Turn::Park;
        }
        if let Some(job) = self.jobs.pop_front() {
            self.hot = Some((seat, now));
            self.begun += 1;
            return Turn::Run(job);
        }
        self.cool(seat);
        if self.ended {
            self.threads -= 1;
            return Turn::End;
        }
        self.parked.push(seat);
        Turn::Park
    }

    /// The thread's job is about to block. Returns the thread to wake for the jobs behind it.
    pub(crate) fn block(&mut self, seat: Seat) -> Option<Seat> {
        self.cool(seat);
        if self.hot.is_none() && !self.jobs.is_empty() {
            self.call()
        } else {
            None
        }
    }

    /// The thread's job gets on: the thread is as good as in a new one.
    pub(crate) fn renew(&mut self, seat: Seat, now: Instant) {
        if let Some((hot, begun)) = &mut self.hot
            && *hot == seat
        {
            *begun = now;
        }
    }

    /// When somebody has to look again whether the hot thread still makes progress; none while nothing waits behind it,
    /// or nobody could be called anyway.
    pub(crate) fn watch_at(&self) -> Option<Instant> {
        if self.jobs.is_empty() || self.coming.is_some() || self.parked.is_empty() {
            return None;
        }
        self.hot.map(|(_, begun)| begun + PATIENCE)
    }

    /// Somebody looks: returns the thread to wake when the hot one is stuck.
    pub(crate) fn watch(&mut self, now: Instant) -> Option<Seat> {
        if self.jobs.is_empty() || self.is_hot(now) {
            None
        } else {
            self.call()
        }
    }

    /// Whether one more thread should be started, so that one is always there to be called. Counts it as started;
    /// [`Lane::not_started`] takes that back.
    pub(crate) fn wants_thread(&mut self) -> bool {
        let wanted = !self.ended
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
    pub(crate) fn not_started(&mut self) {
        if self.starting > 0 {
            self.starting -= 1;
            self.threads -= 1;
        }
    }

    /// Takes no more jobs; threads end when those that are here have been run. Returns the threads to wake, and with
    /// `discard` the jobs that will not be run.
    pub(crate) fn end(&mut self, discard: bool) -> (Vec<Seat>, VecDeque<T>) {
        self.ended = true;
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
    pub(crate) fn is_quick(&self, seat: Seat, now: Instant) -> bool {
        self.is_hot(now) && self.hot.is_some_and(|(hot, _)| hot == seat)
    }

    /// Jobs begun since the lane was made.
    pub(crate) fn begun(&self) -> u64 {
        self.begun
    }

    pub(crate) fn is_parked(&self, seat: Seat) -> bool {
        self.parked.contains(&seat)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// No thread is here or on its way.
    pub(crate) fn is_deserted(&self) -> bool {
        self.threads == 0
    }

    /// Somebody takes jobs, and not long ago.
    fn is_hot(&self, now: Instant) -> bool {
        self.hot
            .is_some_and(|(_, begun)| now.saturating_duration_since(begun) < PATIENCE)
    }

    fn cool(&mut self, seat: Seat) {
        if self.hot.is_some_and(|(hot, _)| hot == seat) {
            self.hot = None;
        }
    }

    /// Calls a parked thread, one at a time.
    fn call(&mut self) -> Option<Seat> {
        if self.coming.is_none() {
            self.coming = self.parked.pop();
            self.coming
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lane with `count` threads that found nothing to do.
    fn idle(count: usize) -> (Lane<u32>, Vec<Seat>, Instant) {
        let now = Instant::now();
        let mut lane = Lane::new(count);
        let seats: Vec<Seat> = (0..count).map(|_| lane.arrive()).collect();
        for seat in &seats {
            assert_eq!(lane.take(*seat, now), Turn::Park);
        }
        (lane, seats, now)
    }

    #[test]
    fn a_storm_of_short_jobs_stays_on_one_thread() {
        let (mut lane, _, mut now) = idle(10);
        let hot = lane
            .push(0, now)
            .unwrap()
            .expect("the first job wakes a thread");
        for job in 1..100 {
            assert_eq!(lane.push(job, now), Ok(None), "nobody else is woken");
        }
        for job in 0..100 {
            assert_eq!(
                lane.take(hot, now),
                Turn::Run(job),
                "in the order they came"
            );
            now += PATIENCE / 2;
            assert_eq!(lane.watch(now), None);
        }
        assert_eq!(lane.take(hot, now), Turn::Park);
    }

    #[test]
    fn a_thread_that_gets_on_keeps_the_jobs_behind_its_own() {
        let (mut lane, _, now) = idle(3);
        let first = lane.push(1, now).unwrap().unwrap();
        assert_eq!(lane.take(first, now), Turn::Run(1));
        let later = now + PATIENCE;
        lane.renew(first, later);
        assert_eq!(lane.push(2, later), Ok(None));
        assert_eq!(lane.watch_at(), Some(later + PATIENCE));
        assert!(lane.watch(later + PATIENCE).is_some(), "it is stuck then");
    }

    #[test]
    fn a_job_behind_a_stuck_thread_is_given_to_another() {
        let (mut lane, _, now) = idle(3);
        let first = lane.push(1, now).unwrap().unwrap();
        assert_eq!(lane.take(first, now), Turn::Run(1));
        assert_eq!(lane.push(2, now), Ok(None));
        assert_eq!(lane.watch_at(), Some(now + PATIENCE));
        let later = now + PATIENCE;
        let second = lane.watch(later).expect("the first is stuck");
        assert_ne!(second, first);
        assert_eq!(
            lane.watch_at(),
            None,
            "nothing to watch while it is on its way"
        );
        assert_eq!(lane.take(second, later), Turn::Run(2));
    }

    #[test]
    fn a_job_that_comes_while_all_busy_threads_are_stuck_wakes_one_at_once() {
        let (mut lane, _, now) = idle(2);
        let first = lane.push(1, now).unwrap().unwrap();
        assert_eq!(lane.take(first, now), Turn::Run(1));
        assert!(lane.push(2, now + PATIENCE).unwrap().is_some());
    }

    #[test]
    fn a_thread_that_says_it_blocks_passes_the_work_on() {
        let (mut lane, _, now) = idle(2);
        let first = lane.push(1, now).unwrap().unwrap();
        assert_eq!(lane.take(first, now), Turn::Run(1));
        assert_eq!(lane.push(2, now), Ok(None));
        let second = lane.block(first).expect("another is called at once");
        assert_eq!(lane.take(second, now), Turn::Run(2));
        assert_eq!(lane.take(first, now), Turn::Park, "the other is hot now");
    }

    #[test]
    fn blocking_jobs_get_every_thread_and_no_more() {
        let (mut lane, _, mut now) = idle(4);
        let mut woken = lane.push(0, now).unwrap();
        for job in 1..6 {
            assert_eq!(lane.push(job, now), Ok(None));
        }
        let mut running = 0;
        while let Some(seat) = woken {
            assert_eq!(lane.take(seat, now), Turn::Run(running));
            running += 1;
            now += PATIENCE;
            woken = lane.watch(now);
        }
        assert_eq!((running, lane.pending()), (4, 2));
        assert_eq!(lane.watch_at(), None, "nobody is left to call");
    }

    #[test]
    fn only_one_thread_is_called_at_a_time() {
        let (mut lane, _, now) = idle(3);
        assert!(lane.push(1, now).unwrap().is_some());
        assert_eq!(
            lane.watch(now + PATIENCE * 10),
            None,
            "the called one may be waiting for the gil"
        );
        assert_eq!(lane.push(2, now + PATIENCE * 10), Ok(None));
    }

    #[test]
    fn threads_are_asked_for_one_at_a_time_up_to_the_limit() {
        let now = Instant::now();
        let mut lane = Lane::<u32>::new(2);
        assert!(lane.wants_thread());
        assert!(!lane.wants_thread(), "one is on its way");
        let first = lane.arrive();
        assert!(
            lane.wants_thread(),
            "a spare, before the first begins a job"
        );
        lane.not_started();
        assert!(lane.wants_thread(), "it failed, so it is tried again");
        let second = lane.arrive();
        assert_eq!(lane.take(second, now), Turn::Park);
        assert!(!lane.wants_thread());
        assert_eq!(lane.take(first, now), Turn::Park);
        assert_eq!(lane.push(1, now), Ok(Some(first)));
    }

    #[test]
    fn a_thread_whose_starter_was_interrupted_counts_whenever_it_arrives() {
        let now = Instant::now();
        for arrives_first in [true, false] {
            let mut lane = Lane::new(2);
            lane.push(1, now).unwrap();
            assert!(lane.wants_thread());
            let seat = if arrives_first {
                let seat = lane.arrive();
                lane.not_started();
                seat
            } else {
                lane.not_started();
                lane.arrive()
            };
            lane.end(false);
            assert_eq!(lane.take(seat, now), Turn::Run(1));
            assert_eq!(lane.take(seat, now), Turn::End);
            assert!(lane.is_deserted());
        }
    }

    #[test]
    fn ending_runs_what_is_here_and_wakes_all() {
        let (mut lane, seats, now) = idle(3);
        let hot = lane.push(1, now).unwrap().unwrap();
        assert_eq!(lane.push(2, now), Ok(None));
        let (woken, discarded) = lane.end(false);
        assert_eq!((woken.len(), discarded.len()), (2, 0));
        assert_eq!(lane.push(3, now), Err(3));
        assert_eq!(lane.take(hot, now), Turn::Run(1));
        let other = seats.into_iter().find(|seat| *seat != hot).unwrap();
        assert_eq!(lane.take(other, now), Turn::Run(2));
        assert_eq!(lane.take(other, now), Turn::End);
        assert_eq!(lane.take(hot, now), Turn::End);
    }

    #[test]
    fn ending_at_once_gives_the_jobs_back() {
        let (mut lane, _, now) = idle(1);
        let hot = lane.push(1, now).unwrap().unwrap();
        assert_eq!(lane.push(2, now), Ok(None));
        assert_eq!(lane.end(true).1, [1, 2]);
        assert_eq!(lane.take(hot, now), Turn::End);
    }
}
