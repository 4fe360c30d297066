//! Time: messages and queues that expire.
//!
//! Each queue has at most one entry in the vhost's ordered set of deadlines, and one task sleeps until the first of them.

use std::{sync::Arc, time::Instant};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{
    broker_state::stopped,
    vhost::{QueueId, VHost, VHostState},
};

impl VHostState {
    /// Sees to it that the timer looks at a queue in time.
    ///
    /// A deadline is only ever moved forward here. One that turned out too early is put right when it is due, so a busy
    /// queue costs nothing.
    pub(crate) fn schedule(&mut self, id: QueueId) {
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        let Some(next) = queue.next_deadline() else {
            return;
        };
        if let Some(deadline) = queue.deadline {
            if deadline <= next {
                return;
            }
            self.deadlines.remove(&(deadline, id));
        }
        queue.deadline = Some(next);
        let first = self.deadlines.first().is_none_or(|(at, _)| next < *at);
        self.deadlines.insert((next, id));
        if first {
            self.timer.notify_one();
        }
    }

    /// Does what is due; says when to come back.
    fn expire(&mut self, now: Instant) -> Option<Instant> {
        while let Some((at, id)) = self.deadlines.first().copied() {
            if at > now {
                return Some(at);
            }
            self.deadlines.pop_first();
            let Some(queue) = self.queues.get_mut(&id) else {
                continue;
            };
            queue.deadline = None;
            queue.drop_expired(|| now, &mut self.dead_letters);
            if queue.expires_at().is_some_and(|at| at <= now) {
                self.delete_queue(id);
            } else {
                self.schedule(id);
            }
        }
        None
    }
}

/// Runs the timers of the virtual hosts there are and of those to come, until the broker stops.
pub(crate) async fn run_timers(
    mut vhosts: mpsc::UnboundedReceiver<Arc<VHost>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut timers = JoinSet::new();
    loop {
        tokio::select! {
            Some(vhost) = vhosts.recv() => {
                timers.spawn(run(vhost, stop.clone()));
            }
            Some(_) = timers.join_next() => {}
            () = stopped(&mut stop) => break,
        }
    }
    while timers.join_next().await.is_some() {}
}

/// Runs the timer of a virtual host until that is deleted or the broker stops.
async fn run(vhost: Arc<VHost>, mut stop: watch::Receiver<bool>) {
    loop {
        let next = {
            let mut state = vhost.lock();
            if state.deleted {
                return;
            }
            state.expire(Instant::now())
        };
        vhost.wake_others(None);
        // It may be called again at once, and again, while dead letters go round.
        tokio::task::yield_now().await;
        let due = async {
            match next {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = vhost.timer.notified() => {}
            () = stopped(&mut stop) => return,
        }
    }
}
