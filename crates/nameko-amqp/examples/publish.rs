//! Publishes a message and waits for the broker's confirm:
//!
//! ```shell
//! cargo run -p nameko-amqp --example publish -- amqp://guest:guest@localhost hello.world hi
//! ```
#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use nameko_amqp::{
    ConnectOptions, Declarations, Exchange, Properties, Publish, PublishOptions, Publisher,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let uri = arguments
        .next()
        .unwrap_or_else(|| "amqp://guest:guest@localhost".to_owned());
    let routing_key = arguments.next().unwrap_or_else(|| "hello.world".to_owned());
    let body = arguments
        .next()
        .unwrap_or_else(|| "good morning".to_owned());

    let publisher = Publisher::shared(&ConnectOptions::from_uri(&uri)?);
    let exchange = Declarations::new(vec![Exchange::topic("news")], Vec::new());
    let message = Publish {
        exchange: "news".into(),
        routing_key,
        properties: Properties {
            content_type: Some("text/plain".into()),
            delivery_mode: Some(2),
            ..Properties::default()
        },
        body: body.into(),
        ..Publish::default()
    };
    let options = PublishOptions {
        declarations: &[&exchange],
        ..PublishOptions::default()
    };
    publisher.publish_with(&message, options).await?;
    println!("the broker has confirmed the message");
    publisher.close().await;
    Ok(())
}
