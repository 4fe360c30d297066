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

/// Long enough for anything that should happen, on a busy machine too.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// Where a second broker to agree with is.
const URI: &str = "NAMEKO_TEST_AMQP_URI";

/// A broker to test, with names of its own and what was made under them.
pub(crate) struct TestEnv {
    pub(crate) uri: String,
    prefix: String,
    queues: Mutex<Vec<String>>,
    exchanges: Mutex<Vec<String>>,
}

/// Runs a test on the embedded broker, and on the one `NAMEKO_TEST_AMQP_URI` names.
pub(crate) async fn on_each_broker<F: Future<Output = ()>>(
    test: impl Fn(std::sync::Arc<TestEnv>) -> F,
) {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    println!("on the embedded broker");
    test(TestEnv::new(broker.uri()).into()).await;
    broker.stop().await;
    if let Ok(uri) = std::env::var(URI) {
        println!("on {uri}");
        // To lapin, a slash with nothing behind it names the vhost without a name.
        let env = std::sync::Arc::new(TestEnv::new(uri.trim_end_matches('/').to_owned()));
        test(env.clone()).await;
        env.clean_up().await;
    }
}

impl TestEnv {
    pub(crate) fn new(uri: String) -> Self {
        Self {
            uri,
            prefix: format!("it-{}-", Uuid::new_v4().simple()),
            queues: Mutex::default(),
            exchanges: Mutex::default(),
        }
    }

    pub(crate) async fn connect(&self) -> Connection {
        with_timeout(Connection::connect(
            &self.uri,
            ConnectionProperties::default(),
        ))
        .await
        .unwrap()
    }

    /// Where the broker listens, for a bare socket.
    pub(crate) fn addr(&self) -> &str {
        self.uri
            .rsplit('@')
            .next()
            .unwrap()
            .split('/')
            .next()
            .unwrap()
    }

    /// A queue's name, which is cleaned up after the test.
    pub(crate) fn queue(&self, name: &str) -> String {
        let name = format!("{}{name}", self.prefix);
        self.queues.lock().unwrap().push(name.clone());
        name
    }

    /// An exchange's name, which is cleaned up after the test.
    pub(crate) fn exchange(&self, name: &str) -> String {
        let name = format!("{}{name}", self.prefix);
        self.exchanges.lock().unwrap().push(name.clone());
        name
    }

    /// A text of the broker with this test's names made short again.
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

/// Waits for what has to happen, and fails when it does not.
pub(crate) async fn with_timeout<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(TIMEOUT, future)
        .await
        .expect("it did not happen in time")
}

/// Asks again and again until it is so, and fails when it never is.
pub(crate) async fn wait_until<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    while !ask().await {
        assert!(tokio::time::Instant::now() < deadline, "never so: {what}");
        tokio::task::yield_now().await;
    }
}

/// Arguments of a declaration.
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

/// ChannelExt ways to say what tests do all the time.
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
    /// Ready messages, by a passive declaration.
    async fn ready_count(&self, queue: &str) -> u32;
    /// Reads all there are, acknowledging them.
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

/// The next delivery.
pub(crate) async fn next(consumer: &mut Consumer) -> Delivery {
    with_timeout(consumer.next())
        .await
        .expect("the consumer ended")
        .unwrap()
}

/// That nothing more was delivered before the broker answered something else.
pub(crate) async fn assert_no_delivery(channel: &Channel, consumer: &mut Consumer) {
    with_timeout(channel.basic_qos(0, BasicQosOptions { global: true }))
        .await
        .unwrap();
    let left = futures_util::future::poll_immediate(consumer.next())
        .await
        .flatten();
    assert!(left.is_none(), "one more was delivered: {left:?}");
}

/// A message's body as text.
pub(crate) fn body(delivery: &Delivery) -> String {
    String::from_utf8(delivery.data.clone()).unwrap()
}

/// A channel with publisher confirms.
pub(crate) async fn confirm_channel(connection: &Connection) -> Channel {
    let channel = with_timeout(connection.create_channel()).await.unwrap();
    with_timeout(channel.confirm_select(ConfirmSelectOptions::default()))
        .await
        .unwrap();
    channel
}

/// The code and text a broker refused something with.
pub(crate) fn refusal(error: &lapin::Error) -> (u16, String) {
    match error.kind() {
        ErrorKind::ProtocolError(error) => (error.get_id(), error.get_message().to_string()),
        other => panic!("not a refusal by the broker: {other:?}"),
    }
}
