//! Tasks that expire messages and queues, one per virtual host.

use std::{sync::Arc, time::Instant};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{sync::stopped, vhost::VHost};

/// Runs the timers of all present and future virtual hosts until the broker stops.
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

/// Runs the timer of a virtual host until it is deleted or the broker stops.
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
        // Yields between rounds: a cycle of dead letters may be due again at once.
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
