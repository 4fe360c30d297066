//! Connections of a runtime whose threads are blocked.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use nameko_amqp::{Consumers, Publisher, move_connections};
use tokio::{runtime::Builder, task::JoinHandle};

use crate::support::{
    Event, Recorder, auto_delete_queue, broker, connect_options, in_time, message, subscription,
};

/// Blocks the only thread of a runtime until the sender is dropped.
fn block(runtime: &tokio::runtime::Handle) -> (mpsc::Sender<()>, JoinHandle<()>) {
    let (hold, held) = mpsc::channel::<()>();
    let (begun, begin) = mpsc::channel();
    let blocking = runtime.spawn(async move {
        begun.send(()).unwrap();
        let _ = held.recv();
    });
    begin.recv().unwrap();
    (hold, blocking)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_a_blocked_runtime_stay_alive_and_deliver() {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    stay_alive(runtime.handle()).await;
    runtime.shutdown_background();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_a_blocked_runtime_of_one_thread_stay_alive_and_deliver() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || runtime.block_on(ended));
    stay_alive(&handle).await;
    drop(end);
    assert!(thread.join().is_ok());
}

/// Blocks the only thread of a runtime that runs a connection.
async fn stay_alive(blocked: &tokio::runtime::Handle) {
    let broker = broker().await;
    let mut options = connect_options(&broker);
    options.heartbeat = 1;
    let (recorder, mut events) = Recorder::new();
    let queue = auto_delete_queue("queue");
    let (subscription, mut deliveries) = subscription(queue.clone());
    let consumers = Consumers::new(options, recorder);
    consumers.add(subscription);
    let starting = consumers.clone();
    in_time(blocked.spawn(async move { starting.start().await }))
        .await
        .unwrap()
        .unwrap();

    let (hold, blocking) = block(blocked);
    assert!(move_connections(blocked.id()));
    let publisher = Publisher::shared(&connect_options(&broker));
    // Longer than a broker waits for a heartbeat.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        in_time(publisher.publish(message("", &queue.name, "now"), None))
            .await
            .unwrap();
        in_time(deliveries.recv()).await.unwrap().acker.ack();
    }
    drop(hold);
    in_time(blocking).await.unwrap();
    assert!(matches!(
        in_time(events.recv()).await,
        Some(Event::Connected(false))
    ));
    assert!(events.try_recv().is_err(), "the connection was not lost");
    in_time(consumers.stop()).await;
}
