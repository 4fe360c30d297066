//! Connecting: unreachable brokers, wrong credentials, several brokers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use nameko_amqp::{ConnectOptions, Connection, Consumers, Error, PublishError, Publisher, Retry};
use tokio::net::TcpListener;

use crate::{
    proxy::Proxy,
    support::{
        Event, Recorder, auto_delete_queue, broker, connect_options, fast_retries, in_time,
        message, subscription,
    },
};

#[tokio::test]
async fn an_invalid_uri_is_an_error() {
    let error = ConnectOptions::from_uri("http://localhost").unwrap_err();
    assert!(matches!(error, Error::BadUri { .. }));
}

#[tokio::test]
async fn a_refused_connection_names_the_address_but_not_the_password() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let options = ConnectOptions::from_uri(&format!("amqp://me:secret@{addr}/place")).unwrap();
    let error = in_time(Connection::open(&options)).await.unwrap_err();
    assert!(
        matches!(error, Error::Io { .. }) && error.is_recoverable(),
        "{error:?}"
    );
    let text = error.to_string();
    assert!(
        text.contains(&addr.to_string()) && text.contains("`place`") && text.contains("`me`"),
        "{text}"
    );
    assert!(text.contains("refused"), "{text}");
    assert!(!text.contains("secret") && !format!("{error:?} {options:?}").contains("secret"));

    let publisher = Publisher::shared(&options);
    let error = in_time(publisher.publish(message("", "k", ""), None))
        .await
        .unwrap_err();
    assert!(
        matches!(error, PublishError::Lost(Error::Io { .. })),
        "{error:?}"
    );
    let begun = Instant::now();
    let twice = Retry {
        max_retries: Some(2),
        interval_start: Duration::from_millis(50),
        interval_step: Duration::from_millis(50),
        interval_max: Duration::from_secs(1),
    };
    in_time(publisher.publish(message("", "k", ""), Some(twice)))
        .await
        .unwrap_err();
    assert!(
        begun.elapsed() >= Duration::from_millis(150),
        "the delays are 50 and 100 ms"
    );
}

#[tokio::test]
async fn connects_to_the_next_broker_of_the_list() {
    let broker = broker().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    let uri = format!("amqp://{closed};{}", broker.uri());
    let connection = in_time(Connection::open(&ConnectOptions::from_uri(&uri).unwrap()))
        .await
        .unwrap();
    in_time(connection.close()).await;
}

#[tokio::test]
async fn a_wrong_password_and_a_wrong_vhost_are_different_errors() {
    let broker = broker().await;
    let mut options = connect_options(&broker);
    options.uris[0].password = "wrong".into();
    let error = in_time(Connection::open(&options)).await.unwrap_err();
    assert!(
        matches!(error, Error::AccessRefused { .. }) && !error.is_recoverable(),
        "{error:?}"
    );
    assert!(error.to_string().contains("`guest`"), "{error}");
    let publisher = Publisher::shared(&options);
    let error = in_time(publisher.publish(message("", "k", ""), fast_retries()))
        .await
        .unwrap_err();
    assert_eq!(error.reply_code(), Some(403), "without a retry: {error}");

    let mut options = connect_options(&broker);
    options.uris[0].vhost = "no such place".into();
    let error = in_time(Connection::open(&options)).await.unwrap_err();
    assert!(
        matches!(error, Error::NotAllowed { .. }) && !error.is_recoverable(),
        "{error:?}"
    );
    assert!(error.to_string().contains("no such place"), "{error}");

    // Consumers retry: an operator may create the vhost.
    let (recorder, mut events) = Recorder::new();
    let consumers = Consumers::new(options, recorder);
    let starting = tokio::spawn({
        let consumers = consumers.clone();
        async move { consumers.start().await }
    });
    for _ in 0..2 {
        match in_time(events.recv()).await.unwrap() {
            Event::Failed(Error::NotAllowed { .. }, wait) => assert!(wait > Duration::ZERO),
            other => panic!("{other:?}"),
        }
    }
    in_time(consumers.stop()).await;
    assert!(matches!(
        in_time(starting).await.unwrap(),
        Err(Error::Stopped)
    ));
}

#[tokio::test]
async fn consumers_start_once_the_broker_is_reachable() {
    let broker = broker().await;
    let mut proxy = Proxy::start(broker.addr()).await;
    proxy.refuse().await;
    let (recorder, mut events) = Recorder::new();
    let consumers = Consumers::new(proxy.options(&connect_options(&broker)), recorder);
    let (subscription, _deliveries) = subscription(auto_delete_queue("queue"));
    consumers.add(subscription);
    let starting = tokio::spawn({
        let consumers = consumers.clone();
        async move { consumers.start().await }
    });
    assert!(matches!(
        in_time(events.recv()).await,
        Some(Event::Failed(Error::Io { .. }, _))
    ));
    proxy.resume().await;
    in_time(starting).await.unwrap().unwrap();
    assert!(consumers.is_connected());
}

#[tokio::test]
async fn stop_cancels_a_start_that_hangs_in_the_handshake() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("amqp://{}", listener.local_addr().unwrap());
    let consumers = Consumers::new(ConnectOptions::from_uri(&uri).unwrap(), Arc::new(()));
    let starting = tokio::spawn({
        let consumers = consumers.clone();
        async move { consumers.start().await }
    });
    let _silent = in_time(listener.accept()).await.unwrap();
    let begun = Instant::now();
    in_time(consumers.stop()).await;
    assert!(matches!(
        in_time(starting).await.unwrap(),
        Err(Error::Stopped)
    ));
    assert!(begun.elapsed() < Duration::from_secs(3));
    // Stopped consumers cannot be started again.
    assert!(matches!(
        in_time(consumers.start()).await,
        Err(Error::Stopped)
    ));
}
