//! Time: messages and queues that expire.
//!
//! Each queue has at most one entry in the vhost's ordered set of deadlines, and one task sleeps until the first of them.

use std::{sync::Arc, time::Instant};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{sync::stopped, vhost::VHost};

/// Runs the timers of the virtual hosts there are and of those to come, until the broker stops.
pub(crate) async fn run_all(
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
