//! Consumes messages until Ctrl-C, through any number of restarts of the broker:
//!
//! ```shell
//! cargo run -p nameko-amqp --example consume -- amqp://guest:guest@localhost
//! ```
#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::{sync::Arc, time::Duration};

use nameko_amqp::{
    ConnectOptions, Consumers, Delivery, Error, Exchange, Observer, Queue, Subscription,
};

/// Prints the state of the connection.
struct PrintState;

impl Observer for PrintState {
    fn connection_error(&self, error: &Error, retry_in: Duration) {
        println!("{error}; trying again in {retry_in:.1?}");
    }

    fn connected(&self, reconnect: bool) {
        println!(
            "{}",
            if reconnect {
                "reconnected"
            } else {
                "connected"
            }
        );
    }

    fn lost(&self, error: &Error) {
        println!("{error}");
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let uri = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "amqp://guest:guest@localhost".to_owned());
    let consumers = Consumers::new(ConnectOptions::from_uri(&uri)?, Arc::new(PrintState));
    consumers.add(Subscription {
        queue: Queue::new("greetings").bind(Exchange::topic("news"), "hello.*"),
        prefetch: Some(10),
        sink: Arc::new(|delivery: Delivery| {
            let text = String::from_utf8_lossy(&delivery.body);
            println!("{}: {text}", delivery.routing_key);
            delivery.acker.ack();
        }),
        on_recovered: None,
    });
    tokio::select! {
        started = consumers.start() => started?,
        interrupted = tokio::signal::ctrl_c() => return Ok(interrupted?),
    }
    tokio::signal::ctrl_c().await?;
    consumers.stop().await;
    Ok(())
}
