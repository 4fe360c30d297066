use std::{future::Future, sync::Mutex, time::Duration};

use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, ErrorKind,
    message::{BasicGetMessage, Delivery},
    options::*,
    types::{AMQPValue, FieldTable},
};
use nameko_broker::Broker;
use uuid::Uuid;

use crate::peer::Peer;

/// Time limit of every single step, generous enough for a busy machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// Variable with the URI of a RabbitMQ to compare with.
const URI: &str = "NAMEKO_TEST_AMQP_URI";

/// A release series of RabbitMQ: major and minor version.
pub(crate) type Version = (u16, u16);

/// The series that the embedded broker follows.
const EMBEDDED: Version = (4, 0);

/// The broker under test, with unique names that are cleaned up afterwards.
pub(crate) struct TestEnv {
    pub(crate) uri: String,
    /// The version of RabbitMQ that the broker is or follows.
    version: Version,
    prefix: String,
    queues: Mutex<Vec<String>>,
    exchanges: Mutex<Vec<String>>,
}

/// Runs a test on the embedded broker and, if `NAMEKO_TEST_AMQP_URI` is set, on that RabbitMQ.
pub(crate) async fn on_each_broker<F: Future<Output = ()>>(
    test: impl Fn(std::sync::Arc<TestEnv>) -> F,
) {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    println!("on the embedded broker");
    test(TestEnv::new(broker.uri()).into()).await;
    broker.stop().await;
    if let Ok(uri) = std::env::var(URI) {
        println!("on {uri}");
        let version = server_version(&uri).await;
        // A trailing slash would name the virtual host "".
        let env = TestEnv::new(uri.trim_end_matches('/').to_owned()).with_version(version);
        let env = std::sync::Arc::new(env);
        test(env.clone()).await;
        env.clean_up().await;
    }
}

impl TestEnv {
    pub(crate) fn new(uri: String) -> Self {
        Self {
            uri,
            version: EMBEDDED,
            prefix: format!("it-{}-", Uuid::new_v4().simple()),
            queues: Mutex::default(),
            exchanges: Mutex::default(),
        }
    }

    /// Sets the version of a RabbitMQ.
    pub(crate) fn with_version(self, version: Version) -> Self {
        Self { version, ..self }
    }

    pub(crate) async fn connect(&self) -> Connection {
        with_timeout(Connection::connect(
            &self.uri,
            ConnectionProperties::default(),
        ))
        .await
        .unwrap()
    }

    /// Returns the AMQP address, for raw sockets.
    pub(crate) fn addr(&self) -> &str {
        addr_of(&self.uri)
    }

    /// Returns whether the broker is or follows this version of RabbitMQ or a later one.
    pub(crate) fn since(&self, version: Version) -> bool {
        self.version >= version
    }

    /// Returns the answer of RabbitMQ 4.0 and newer, or that of earlier versions.
    pub(crate) fn since_4<T>(&self, answer: T, before: T) -> T {
        if self.since((4, 0)) { answer } else { before }
    }

    /// Returns a unique queue name, deleted after the test.
    pub(crate) fn queue(&self, name: &str) -> String {
        let name = format!("{}{name}", self.prefix);
        self.queues.lock().unwrap().push(name.clone());
        name
    }

    /// Returns a unique exchange name, deleted after the test.
    pub(crate) fn exchange(&self, name: &str) -> String {
        let name = format!("{}{name}", self.prefix);
        self.exchanges.lock().unwrap().push(name.clone());
        name
    }

    /// Removes this test's unique prefix from a text.
    pub(crate) fn without_prefix(&self, text: &str) -> String {
        text.replace(&self.prefix, "")
    }

    async fn clean_up(&self) {
        let connection = self.connect().await;
        let channel = connection.create_channel().await.unwrap();
        let queues = self.queues.lock().unwrap().clone();
        for queue in queues {
            channel
                .queue_delete(queue.as_str().into(), QueueDeleteOptions::default())
                .await
                .unwrap();
        }
        let exchanges = self.exchanges.lock().unwrap().clone();
        for exchange in exchanges {
            channel
                .exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default())
                .await
                .unwrap();
        }
        connection.close(200, "".into()).await.unwrap();
    }
}

/// Returns the address in an AMQP URI.
fn addr_of(uri: &str) -> &str {
    let authority = uri.rsplit('@').next().unwrap();
    authority.split('/').next().unwrap()
}

/// Reads the version of a RabbitMQ from its first frame.
pub(crate) async fn server_version(uri: &str) -> Version {
    let properties = Peer::server_properties(addr_of(uri)).await;
    let Some(AMQPValue::LongString(version)) = properties.inner().get("version") else {
        panic!("no version in {properties:?}");
    };
    let version = version.to_string();
    let mut numbers = version.split('.').map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Awaits a future, failing after the time limit.
pub(crate) async fn with_timeout<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(TIMEOUT, future)
        .await
        .expect("timed out")
}

/// Polls a condition until it holds, failing after the time limit.
pub(crate) async fn wait_until<F: Future<Output = bool>>(
    condition: &str,
    mut holds: impl FnMut() -> F,
) {
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    while !holds().await {
        assert!(
            tokio::time::Instant::now() < deadline,
            "timed out waiting until {condition}"
        );
        tokio::task::yield_now().await;
    }
}

/// Waits until messages with this `expiration` (in milliseconds) that were published before have
/// exceeded it, by observing the expiry of a later one.
pub(crate) async fn wait_for_expiration(env: &TestEnv, channel: &Channel, expiration: &str) {
    let queue = env.queue("clock");
    channel.declare(&queue).await;
    let properties = BasicProperties::default().with_expiration(expiration.into());
    channel.send_with("", &queue, "tick", properties).await;
    wait_until("the later message expires", || async {
        channel.ready_count(&queue).await == 0
    })
    .await;
}

/// Builds the arguments of a declaration.
pub(crate) fn table<const N: usize>(entries: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (key, value) in entries {
        table.insert(key.into(), value);
    }
    table
}

pub(crate) fn int(n: i32) -> AMQPValue {
    AMQPValue::LongInt(n)
}

pub(crate) fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

/// Shorthands for common operations.
pub(crate) trait ChannelExt {
    async fn declare(&self, queue: &str) -> u32;
    async fn declare_with(&self, queue: &str, arguments: FieldTable) -> u32;
    async fn declare_exchange(&self, name: &str, kind: lapin::ExchangeKind);
    async fn bind(&self, queue: &str, exchange: &str, key: &str);
    async fn send(&self, exchange: &str, key: &str, body: &str) -> Confirmation;
    async fn send_with(
        &self,
        exchange: &str,
        key: &str,
        body: &str,
        properties: BasicProperties,
    ) -> Confirmation;
    async fn consumer(&self, queue: &str, tag: &str) -> Consumer;
    async fn get(&self, queue: &str) -> Option<BasicGetMessage>;
    /// Returns the number of ready messages, by a passive declaration.
    async fn ready_count(&self, queue: &str) -> u32;
    /// Reads and acknowledges all ready messages.
    async fn drain(&self, queue: &str) -> Vec<String>;
}

impl ChannelExt for Channel {
    async fn declare(&self, queue: &str) -> u32 {
        self.declare_with(queue, FieldTable::default()).await
    }

    async fn declare_with(&self, queue: &str, arguments: FieldTable) -> u32 {
        let declared = self.queue_declare(queue.into(), QueueDeclareOptions::default(), arguments);
        with_timeout(declared).await.unwrap().message_count()
    }

    async fn declare_exchange(&self, name: &str, kind: lapin::ExchangeKind) {
        let declared = self.exchange_declare(
            name.into(),
            kind,
            ExchangeDeclareOptions::default(),
            FieldTable::default(),
        );
        with_timeout(declared).await.unwrap();
    }

    async fn bind(&self, queue: &str, exchange: &str, key: &str) {
        let bound = self.queue_bind(
            queue.into(),
            exchange.into(),
            key.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        with_timeout(bound).await.unwrap();
    }

    async fn send(&self, exchange: &str, key: &str, body: &str) -> Confirmation {
        self.send_with(exchange, key, body, BasicProperties::default())
            .await
    }

    async fn send_with(
        &self,
        exchange: &str,
        key: &str,
        body: &str,
        properties: BasicProperties,
    ) -> Confirmation {
        let sent = self.basic_publish(
            exchange.into(),
            key.into(),
            BasicPublishOptions {
                mandatory: true,
                ..BasicPublishOptions::default()
            },
            body.as_bytes(),
            properties,
        );
        with_timeout(async { sent.await.unwrap().await.unwrap() }).await
    }

    async fn consumer(&self, queue: &str, tag: &str) -> Consumer {
        let consumer = self.basic_consume(
            queue.into(),
            tag.into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        with_timeout(consumer).await.unwrap()
    }

    async fn get(&self, queue: &str) -> Option<BasicGetMessage> {
        with_timeout(self.basic_get(queue.into(), BasicGetOptions::default()))
            .await
            .unwrap()
    }

    async fn ready_count(&self, queue: &str) -> u32 {
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        with_timeout(self.queue_declare(queue.into(), passive, FieldTable::default()))
            .await
            .unwrap()
            .message_count()
    }

    async fn drain(&self, queue: &str) -> Vec<String> {
        let mut bodies = Vec::new();
        while let Some(message) = self.get(queue).await {
            message.ack(BasicAckOptions::default()).await.unwrap();
            bodies.push(body(&message));
        }
        bodies
    }
}

/// Returns the next delivery.
pub(crate) async fn next(consumer: &mut Consumer) -> Delivery {
    with_timeout(consumer.next())
        .await
        .expect("the consumer ended")
        .unwrap()
}

/// Asserts that nothing was delivered before the reply to a later method.
pub(crate) async fn assert_no_delivery(channel: &Channel, consumer: &mut Consumer) {
    with_timeout(channel.basic_qos(0, BasicQosOptions { global: true }))
        .await
        .unwrap();
    let left = futures_util::future::poll_immediate(consumer.next())
        .await
        .flatten();
    assert!(left.is_none(), "unexpected delivery: {left:?}");
}

/// Returns the body as text.
pub(crate) fn body(delivery: &Delivery) -> String {
    String::from_utf8(delivery.data.clone()).unwrap()
}

/// Opens a channel with publisher confirms.
pub(crate) async fn confirm_channel(connection: &Connection) -> Channel {
    let channel = with_timeout(connection.create_channel()).await.unwrap();
    with_timeout(channel.confirm_select(ConfirmSelectOptions::default()))
        .await
        .unwrap();
    channel
}

/// Returns the code and text of an error sent by the broker.
pub(crate) fn refusal(error: &lapin::Error) -> (u16, String) {
    match error.kind() {
        ErrorKind::ProtocolError(error) => (error.get_id(), error.get_message().to_string()),
        other => panic!("not an error sent by the broker: {other:?}"),
    }
}
