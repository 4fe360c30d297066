//! Tasks on the I/O thread.

use std::{sync::Arc, thread, time::Duration};

use nameko_amqp::{
    Consumers, Delivery, Publisher, Subscription, io_thread_id, leave_io_thread, run_on_io_thread,
};
use tokio::sync::mpsc;

use crate::support::{
    Event, Recorder, auto_delete_queue, broker, connect_options, in_time, message,
};

const IO_THREAD: &str = "nameko-io";

fn thread_name() -> String {
    thread::current().name().unwrap_or_default().to_owned()
}

/// Starts a consumer of `queue` whose sink runs a task on the I/O thread for each delivery.
async fn consume<F>(
    options: nameko_amqp::ConnectOptions,
    queue: &str,
    task: impl Fn(Delivery) -> F + Send + Sync + 'static,
) -> (Consumers, mpsc::UnboundedReceiver<Event>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (recorder, events) = Recorder::new();
    let consumers = Consumers::new(options, recorder);
    consumers.add(Subscription {
        queue: auto_delete_queue(queue),
        prefetch: Some(10),
        sink: Arc::new(move |delivery| {
            assert!(run_on_io_thread(Box::pin(task(delivery))).is_ok());
        }),
        on_recovered: None,
    });
    in_time(consumers.start()).await.unwrap();
    (consumers, events)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_stays_while_it_waits_for_a_confirm_and_moves_on_when_it_sleeps() {
    let broker = broker().await;
    let options = connect_options(&broker);
    let publisher = Publisher::shared(&options);
    // Connected, so that the task waits for nothing but the confirm.
    in_time(publisher.publish(message("", "nobody", ""), None))
        .await
        .unwrap();
    let (sender, mut names) = mpsc::unbounded_channel();
    let publishing = publisher.clone();
    let (consumers, _events) = consume(options, "work", move |delivery| {
        let (publisher, sender) = (publishing.clone(), sender.clone());
        async move {
            sender.send(thread_name()).unwrap();
            let reply = message("", "nobody", "done");
            publisher.publish(reply, None).await.unwrap();
            sender.send(thread_name()).unwrap();
            delivery.acker.ack();
            tokio::time::sleep(Duration::from_millis(1)).await;
            sender.send(thread_name()).unwrap();
        }
    })
    .await;
    in_time(publisher.publish(message("", "work", ""), None))
        .await
        .unwrap();
    let mut next = async || in_time(names.recv()).await.unwrap();
    assert_eq!(next().await, IO_THREAD);
    assert_eq!(next().await, IO_THREAD, "after the confirm");
    assert_ne!(next().await, IO_THREAD, "after the sleep");
    in_time(consumers.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_thread_takes_over_from_a_blocked_one() {
    let broker = broker().await;
    let mut options = connect_options(&broker);
    options.heartbeat = 1;
    let (sender, mut handled) = mpsc::unbounded_channel();
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(Some(held));
    let (consumers, mut events) = consume(options.clone(), "jobs", move |delivery| {
        let sender = sender.clone();
        let blocks = held.lock().unwrap().take();
        async move {
            sender.send(io_thread_id()).unwrap();
            if let Some(held) = blocks {
                let _ = held.recv();
            }
            delivery.acker.ack();
            sender.send(io_thread_id()).unwrap();
        }
    })
    .await;
    let publisher = Publisher::shared(&options);
    let publish = async || {
        in_time(publisher.publish(message("", "jobs", ""), None))
            .await
            .unwrap();
    };
    in_time(async {
        publish().await;
        let blocked = handled.recv().await.unwrap().unwrap();
        assert!(leave_io_thread(blocked));
        assert!(leave_io_thread(blocked), "it was left before");
        // Longer than a broker waits for a heartbeat.
        let start = std::time::Instant::now();
        while start.elapsed() < Duration::from_secs(4) {
            publish().await;
            let next = handled.recv().await.unwrap();
            assert!(next.is_some_and(|next| next != blocked), "{next:?}");
            assert_eq!(handled.recv().await.unwrap(), next);
        }
        drop(hold);
        assert_eq!(handled.recv().await.unwrap(), None, "the thread was left");
    })
    .await;
    assert!(matches!(
        in_time(events.recv()).await,
        Some(Event::Connected(false))
    ));
    assert!(events.try_recv().is_err(), "no connection was lost");
    in_time(consumers.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_a_task_ends_it_alone() {
    let broker = broker().await;
    let options = connect_options(&broker);
    let (sender, mut handled) = mpsc::unbounded_channel();
    let (consumers, _events) = consume(options.clone(), "panics", move |delivery| {
        let sender = sender.clone();
        async move {
            delivery.acker.ack();
            assert_ne!(delivery.body, "panic");
            sender.send(thread_name()).unwrap();
        }
    })
    .await;
    let publisher = Publisher::shared(&options);
    for body in ["panic", "go on"] {
        in_time(publisher.publish(message("", "panics", body), None))
            .await
            .unwrap();
    }
    assert_eq!(in_time(handled.recv()).await.unwrap(), IO_THREAD);
    in_time(consumers.stop()).await;
}
