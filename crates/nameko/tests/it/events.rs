//! Events: who handles them, what waits for whom, and what becomes of those that fail.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use nameko::{
    Container, Error, QueueConsumer, StandaloneDispatcher,
    amqp::{
        self, Channel, ConnectOptions, Connection, Observer, Properties, Publish, PublishError,
        Table, Value,
    },
    prelude::*,
    testing::{Recorder, entrypoint_hook, entrypoint_waiter},
};
use nameko_broker::Broker;
use serde_json::{Value as Json, json};

use crate::{
    services::{Heard, Hearing},
    support::{self, TestBroker},
};

#[derive(Dependencies)]
struct Shop {
    #[dependency(EventDispatcher::new())]
    events: Dispatcher,
    #[dependency(CurrentWorker)]
    worker: WorkerContext,
}

#[service("shop")]
impl Shop {
    #[rpc]
    async fn tell(&self, event_type: String, data: Json) -> Result<()> {
        self.worker.set("language", "fr");
        self.events.dispatch(event_type, &data).await
    }
}

#[derive(Dependencies)]
struct Mail {
    #[dependency(Hearing)]
    heard: Heard,
    #[dependency(CurrentWorker)]
    worker: WorkerContext,
}

#[service("mail")]
impl Mail {
    #[event_handler("shop", "paid")]
    async fn on_paid(&self, data: Json) -> Result<(Json, Option<String>, Vec<String>)> {
        self.heard.record(format!("paid {data}"));
        let language = self.worker.get("language");
        let language = language.and_then(|it| it.as_str().map(str::to_owned));
        Ok((data, language, self.worker.call_id_stack()))
    }

    #[event_handler("shop", "alone", handler_type = singleton)]
    async fn on_alone(&self, data: Json) -> Result<()> {
        self.heard.record(format!("alone {data}"));
        Ok(())
    }

    #[event_handler("shop", "all", handler_type = broadcast, reliable_delivery = false)]
    async fn on_all(&self, data: Json) -> Result<()> {
        self.heard.record(format!("all {data}"));
        Ok(())
    }
}

/// Another service that handles what `Mail` does.
#[derive(Dependencies)]
struct Accounts {
    #[dependency(Hearing)]
    heard: Heard,
}

#[service("accounts")]
impl Accounts {
    #[event_handler("shop", "paid")]
    async fn on_paid(&self, data: Json) -> Result<()> {
        self.heard.record(format!("paid {data}"));
        Ok(())
    }

    #[event_handler("shop", "alone", handler_type = singleton)]
    async fn on_alone(&self, data: Json) -> Result<()> {
        self.heard.record(format!("alone {data}"));
        Ok(())
    }
}

/// A running container of `S`, and what it hears.
async fn hearing<S: nameko::Service>(broker: &TestBroker) -> (Container, Heard) {
    let heard = Heard::new();
    let container = Container::builder::<S>(broker.config())
        .replace("heard", heard.clone())
        .build()
        .unwrap();
    container.start().await.unwrap();
    (container, heard)
}

async fn shop(broker: &TestBroker) -> Container {
    let shop = Container::new::<Shop>(broker.config()).unwrap();
    shop.start().await.unwrap();
    shop
}

async fn tell(shop: &Container, event_type: &str, data: Json) {
    let told: Result<()> = entrypoint_hook(shop, "tell").call((event_type, data)).await;
    told.unwrap();
}

async fn channel(broker: &TestBroker) -> Channel {
    let connection = Connection::open(&broker.options()).await.unwrap();
    connection.channel().await.unwrap()
}

/// What is ready in a queue, which must be there.
async fn ready(broker: &TestBroker, queue: &str) -> u32 {
    let passive = Queue {
        passive: true,
        ..Queue::new(queue)
    };
    let declared = channel(broker).await.queue_declare(&passive).await;
    declared.unwrap().messages
}

#[tokio::test]
async fn a_handler_gets_the_data_and_the_context_of_who_dispatched() {
    let broker = support::broker().await;
    let (mail, _) = hearing::<Mail>(&broker).await;
    let shop = shop(&broker).await;
    let mut paid = entrypoint_waiter(&mail, "on_paid");
    tell(&shop, "paid", json!({"order": 17, "name": "Zoë"})).await;
    let (data, language, stack): (Json, Option<String>, Vec<String>) = paid.result().await.unwrap();
    assert_eq!(data, json!({"order": 17, "name": "Zoë"}));
    assert_eq!(language.as_deref(), Some("fr"));
    assert_eq!(stack.len(), 2, "{stack:?}");
    assert!(stack[0].starts_with("shop.tell."), "{stack:?}");
    assert!(stack[1].starts_with("mail.on_paid."), "{stack:?}");

    // Nobody handles this one, and nobody minds.
    tell(&shop, "forgotten", json!(null)).await;
    shop.stop().await;
    mail.stop().await;
}

#[tokio::test]
async fn an_event_goes_to_one_instance_of_each_service() {
    let broker = support::broker().await;
    let (one, heard_one) = hearing::<Mail>(&broker).await;
    let (two, heard_two) = hearing::<Mail>(&broker).await;
    let (accounts, heard_accounts) = hearing::<Accounts>(&broker).await;
    let shop = shop(&broker).await;
    for number in 0..20 {
        tell(&shop, "paid", number.into()).await;
    }
    let all: BTreeSet<String> = (0..20).map(|it| format!("paid {it}")).collect();
    let heard = heard_accounts.take_when(20).await.unwrap();
    assert_eq!(BTreeSet::from_iter(heard), all);
    stop_all([&one, &two, &accounts, &shop]).await;
    // Stopped containers have handled what they took; what they left waits in the queue.
    let heard: Vec<_> = [heard_one.items(), heard_two.items()].concat();
    let waiting = ready(&broker, "evt-shop-paid--mail.on_paid").await;
    assert_eq!(heard.len() + waiting as usize, 20, "{heard:?}");
}

#[tokio::test]
async fn a_singleton_event_goes_to_one_handler_of_all() {
    let broker = support::broker().await;
    let (mail, heard_mail) = hearing::<Mail>(&broker).await;
    let (accounts, heard_accounts) = hearing::<Accounts>(&broker).await;
    let shop = shop(&broker).await;
    for number in 0..20 {
        tell(&shop, "alone", number.into()).await;
    }
    stop_all([&mail, &accounts, &shop]).await;
    let heard = heard_mail.len() + heard_accounts.len();
    let waiting = ready(&broker, "evt-shop-alone").await;
    assert_eq!(heard + waiting as usize, 20);
}

#[tokio::test]
async fn a_broadcast_goes_to_every_instance() {
    let broker = support::broker().await;
    let (one, heard_one) = hearing::<Mail>(&broker).await;
    let (two, heard_two) = hearing::<Mail>(&broker).await;
    let shop = shop(&broker).await;
    tell(&shop, "all", "news".into()).await;
    for heard in [&heard_one, &heard_two] {
        assert_eq!(heard.take_when(1).await.unwrap(), ["all \"news\""]);
    }
    stop_all([&one, &two, &shop]).await;
}

async fn stop_all<const LEN: usize>(containers: [&Container; LEN]) {
    for container in containers {
        container.stop().await;
    }
}

#[tokio::test]
async fn events_wait_for_a_service_that_is_down() {
    let broker = support::broker().await;
    let (mail, _) = hearing::<Mail>(&broker).await;
    mail.stop().await;
    let shop = shop(&broker).await;
    tell(&shop, "paid", 1.into()).await;
    assert_eq!(ready(&broker, "evt-shop-paid--mail.on_paid").await, 1);
    let (mail, heard) = hearing::<Mail>(&broker).await;
    assert_eq!(heard.take_when(1).await.unwrap(), ["paid 1"]);
    stop_all([&mail, &shop]).await;
}

#[derive(Dependencies)]
struct Fickle {
    #[dependency(Hearing)]
    heard: Heard,
}

impl Fickle {
    /// Fails the first two times.
    fn third_time(&self, data: &str) -> Result<()> {
        self.heard.record(data.to_owned());
        if self.heard.len() < 3 {
            return Err(Error::raise("NotYet", data));
        }
        Ok(())
    }
}

#[service("fickle")]
impl Fickle {
    #[event_handler("shop", "again", requeue_on_error)]
    async fn on_again(&self, data: String) -> Result<()> {
        self.third_time(&data)
    }

    #[event_handler("shop", "once")]
    async fn on_once(&self, data: String) -> Result<()> {
        self.third_time(&data)
    }
}

#[tokio::test]
async fn an_event_that_fails_comes_again_where_it_is_asked_for() {
    let broker = support::broker().await;
    let (fickle, heard) = hearing::<Fickle>(&broker).await;
    let shop = shop(&broker).await;
    tell(&shop, "again", "a".into()).await;
    assert_eq!(heard.take_when(3).await.unwrap(), ["a", "a", "a"]);
    stop_all([&fickle, &shop]).await;
    assert_eq!(ready(&broker, "evt-shop-again--fickle.on_again").await, 0);
    assert!(heard.is_empty());
}

#[tokio::test]
async fn an_event_that_fails_is_gone_elsewhere() {
    let broker = support::broker().await;
    let (fickle, heard) = hearing::<Fickle>(&broker).await;
    let shop = shop(&broker).await;
    for data in ["a", "b", "c"] {
        tell(&shop, "once", data.into()).await;
    }
    let heard = BTreeSet::from_iter(heard.take_when(3).await.unwrap());
    assert_eq!(heard, ["a", "b", "c"].map(str::to_owned).into());
    stop_all([&fickle, &shop]).await;
    assert_eq!(ready(&broker, "evt-shop-once--fickle.on_once").await, 0);
}

#[derive(Dependencies)]
struct Patterns {
    #[dependency(Hearing)]
    heard: Heard,
}

#[service("patterns")]
impl Patterns {
    #[event_handler("shop", "order.*")]
    async fn on_word(&self, data: String) -> Result<()> {
        self.heard.record(format!("* {data}"));
        Ok(())
    }

    #[event_handler("shop", "order.#")]
    async fn on_words(&self, data: String) -> Result<()> {
        self.heard.record(format!("# {data}"));
        Ok(())
    }
}

#[tokio::test]
async fn an_event_type_can_be_a_pattern() {
    let broker = support::broker().await;
    let (patterns, heard) = hearing::<Patterns>(&broker).await;
    let shop = shop(&broker).await;
    for event_type in ["order.paid", "order.paid.late", "other"] {
        tell(&shop, event_type, event_type.into()).await;
    }
    let heard = BTreeSet::from_iter(heard.take_when(3).await.unwrap());
    let expected = ["# order.paid", "# order.paid.late", "* order.paid"];
    assert_eq!(heard, expected.map(str::to_owned).into());
    stop_all([&patterns, &shop]).await;
}

#[derive(Dependencies)]
struct Careless;

#[service("careless")]
impl Careless {
    #[event_handler("shop", "all", handler_type = broadcast)]
    async fn on_all(&self, _data: Json) -> Result<()> {
        Ok(())
    }
}

#[derive(Dependencies)]
struct Careful {
    #[dependency(Hearing)]
    heard: Heard,
}

#[service("careful")]
impl Careful {
    #[event_handler(
        "shop",
        "all",
        handler_type = broadcast,
        broadcast_identifier = nameko::BroadcastIdentifier::config("IDENTIFIER")
    )]
    async fn on_all(&self, data: String) -> Result<()> {
        self.heard.record(data);
        Ok(())
    }
}

#[tokio::test]
async fn a_reliable_broadcast_needs_an_identifier_that_stays() {
    let error = Container::new::<Careless>(Config::default()).unwrap_err();
    let text = error.to_string();
    for told in [
        "careless",
        "on_all",
        "broadcast_identifier",
        "reliable_delivery = false",
    ] {
        assert!(text.contains(told), "{text}");
    }

    let broker = support::broker().await;
    let config = broker.config().with("IDENTIFIER", "host-1");
    let heard = Heard::new();
    let careful = || {
        let container = Container::builder::<Careful>(config.clone());
        container.replace("heard", heard.clone()).build().unwrap()
    };
    let first = careful();
    first.start().await.unwrap();
    first.stop().await;
    // It waits for the instance of that name.
    let shop = shop(&broker).await;
    tell(&shop, "all", "news".into()).await;
    assert_eq!(
        ready(&broker, "evt-shop-all--careful.on_all-host-1").await,
        1
    );
    let second = careful();
    second.start().await.unwrap();
    assert_eq!(heard.take_when(1).await.unwrap(), ["news"]);
    stop_all([&second, &shop]).await;
}

#[tokio::test]
async fn a_queue_of_unreliable_delivery_goes_with_its_handler() {
    let broker = support::broker().await;
    let (mail, _) = hearing::<Mail>(&broker).await;
    mail.stop().await;
    let shop = shop(&broker).await;
    // The broadcast of an instance that is gone is for nobody; what is mandatory is refused.
    let events = StandaloneDispatcher::new(&broker.config()).unwrap();
    let told = events.dispatch("shop", "all", "news").mandatory(true).await;
    let Err(Error::Publish(error @ PublishError::Unroutable { .. })) = told else {
        panic!("{told:?}");
    };
    let text = error.to_string();
    assert!(
        text.contains("`shop.events`") && text.contains("`all`"),
        "{text}"
    );
    shop.stop().await;
}

#[tokio::test]
async fn a_program_that_is_no_service_dispatches_but_declares_nothing() {
    let broker = support::broker().await;
    let events = StandaloneDispatcher::new(&broker.config()).unwrap();
    for _ in 0..2 {
        let told = support::within(
            "a refusal",
            events.dispatch("shop", "paid", &1).into_future(),
        );
        let error = told.await.unwrap_err();
        let Error::Publish(PublishError::Refused(refused)) = &error else {
            panic!("{error:?}");
        };
        assert!(refused.is_not_found(), "{error}");
        assert!(error.to_string().contains("shop.events"), "{error}");
    }
    // Without confirms nobody hears of it.
    let unheard = StandaloneDispatcher::new(&broker.config()).unwrap();
    let unheard = unheard.use_confirms(false);
    unheard.dispatch("shop", "paid", &1).await.unwrap();

    let (mail, heard) = hearing::<Mail>(&broker).await;
    events.dispatch("shop", "paid", &2).await.unwrap();
    assert_eq!(heard.take_when(1).await.unwrap(), ["paid 2"]);
    mail.stop().await;
}

#[tokio::test]
async fn exchanges_are_declared_as_the_configuration_says() {
    let broker = support::broker().await;
    let config = broker.config().with("AUTO_DELETE_EVENT_EXCHANGES", true);
    let shop = Container::new::<Shop>(config).unwrap();
    shop.start().await.unwrap();
    let events = Exchange::topic("shop.events");
    let other = channel(&broker).await.exchange_declare(&events).await;
    assert!(other.unwrap_err().is_precondition_failed());
    let same = channel(&broker)
        .await
        .exchange_declare(&events.auto_delete(true))
        .await;
    same.unwrap();
    shop.stop().await;

    let broker = support::broker().await;
    let config = broker.config().with("DECLARE_EVENT_EXCHANGES", false);
    let shop = Container::new::<Shop>(config).unwrap();
    shop.start().await.unwrap();
    let events = Exchange {
        passive: true,
        ..Exchange::topic("shop.events")
    };
    let none = channel(&broker).await.exchange_declare(&events).await;
    assert!(none.unwrap_err().is_not_found());
    let told: Result<()> = entrypoint_hook(&shop, "tell").call(("paid", 1)).await;
    assert!(told.unwrap_err().to_string().contains("shop.events"));
    shop.stop().await;
}

/// Publishes an event as it stands, to a handler that must be there.
pub(crate) async fn send(
    channel: &Channel,
    event_type: &str,
    content_type: Option<&'static str>,
    body: &'static [u8],
) {
    channel.confirm_select().await.unwrap();
    let message = Publish {
        exchange: "shop.events".to_owned(),
        routing_key: event_type.to_owned(),
        properties: Properties {
            content_type: content_type.map(Into::into),
            ..Properties::default()
        },
        body: body.into(),
        mandatory: true,
    };
    channel.publish(&message).await.unwrap().await.unwrap();
}

/// What no handler of texts can read.
pub(crate) fn unreadable() -> Vec<(Option<&'static str>, &'static [u8])> {
    let json = Some("application/json");
    vec![
        (Some("application/x-unheard-of"), b"1"),
        (json, b"{\"cut\": "),
        (json, b""),
        (json, b"\xff"),
        (json, b"{\"not\": \"a text\"}"),
        (None, b"\xff"),
    ]
}

#[tokio::test]
async fn events_that_cannot_be_read_do_no_harm_and_are_not_put_back() {
    let broker = support::broker().await;
    let (fickle, heard) = hearing::<Fickle>(&broker).await;
    let channel = channel(&broker).await;
    for (content_type, body) in unreadable() {
        // Not even where failures are put back.
        send(&channel, "again", content_type, body).await;
    }
    for _ in 0..3 {
        send(&channel, "once", Some("application/json"), b"\"good\"").await;
    }
    assert_eq!(heard.take_when(3).await.unwrap(), ["good"; 3]);
    fickle.stop().await;
    assert_eq!(ready(&broker, "evt-shop-again--fickle.on_again").await, 0);
}

#[derive(Dependencies)]
struct Slow {
    #[dependency(Hearing)]
    heard: Heard,
}

#[service("slow")]
impl Slow {
    #[event_handler("shop", "long")]
    async fn on_long(&self, data: String) -> Result<()> {
        self.heard.record(data);
        std::future::pending().await
    }
}

#[tokio::test]
async fn events_of_a_container_that_is_killed_go_to_another() {
    let broker = support::broker().await;
    let (one, heard_one) = hearing::<Slow>(&broker).await;
    let shop = shop(&broker).await;
    tell(&shop, "long", "a".into()).await;
    heard_one.take_when(1).await.unwrap();
    one.kill(Error::raise("Test", "killed"));
    let (two, heard_two) = hearing::<Slow>(&broker).await;
    assert_eq!(heard_two.take_when(1).await.unwrap(), ["a"]);
    two.kill(Error::raise("Test", "killed"));
    shop.stop().await;
}

#[derive(Dependencies)]
struct Durable;

#[service("durable")]
impl Durable {
    #[rpc(queue_arguments = [("x-expires", 600_000)])]
    async fn one(&self) -> Result<()> {
        Ok(())
    }

    #[rpc(queue_arguments = [("x-max-length", 100)])]
    async fn two(&self) -> Result<()> {
        Ok(())
    }

    #[event_handler("shop", "paid", queue_arguments = [("x-max-length", 7)])]
    async fn on_paid(&self, _data: Json) -> Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn queues_have_the_arguments_of_their_entrypoints_and_of_the_configuration() {
    let broker = support::broker().await;
    let config = broker.config().with(
        "queue_arguments",
        json!({"rpc": {"x-max-length": 50, "x-message-ttl": 60_000}, "events": {"x-max-length": 9, "x-expires": 600_000}}),
    );
    let durable = Container::new::<Durable>(config).unwrap();
    durable.start().await.unwrap();
    let channel = channel(&broker).await;
    for (queue, arguments) in [
        (
            "rpc-durable",
            Table::new()
                .with("x-expires", 600_000)
                .with("x-max-length", 100)
                .with("x-message-ttl", 60_000),
        ),
        (
            "evt-shop-paid--durable.on_paid",
            Table::new()
                .with("x-max-length", 7)
                .with("x-expires", 600_000),
        ),
    ] {
        // The broker takes it for the same queue.
        let same = Queue::new(queue).arguments(arguments);
        channel.queue_declare(&same).await.unwrap();
    }
    durable.stop().await;
}

#[tokio::test]
async fn a_queue_that_is_declared_otherwise_is_an_error_that_names_both_values() {
    let broker = support::broker().await;
    let queue = Queue::new("evt-shop-paid--durable.on_paid").max_length(8);
    channel(&broker).await.queue_declare(&queue).await.unwrap();
    let durable = Container::new::<Durable>(broker.config()).unwrap();
    let started = support::within("an error", durable.start()).await;
    let text = started.unwrap_err().to_string();
    for told in [
        "evt-shop-paid--durable.on_paid",
        "x-max-length",
        "'7'",
        "'8'",
        "delete the queue",
    ] {
        assert!(text.contains(told), "{told}: {text}");
    }
}

/// Keeps how a container's connection fares.
struct Told(Recorder<String>);

impl Observer for Told {
    fn connection_error(&self, error: &amqp::Error, _: Duration) {
        self.0.record(error.to_string());
    }

    fn connected(&self, _: bool) {
        self.0.record("connected".to_owned());
    }
}

#[tokio::test]
async fn a_queue_that_is_declared_otherwise_at_a_reconnect_is_told_until_it_is_put_right() {
    let first = Broker::start("127.0.0.1:0").await.unwrap();
    let second = Broker::start("127.0.0.1:0").await.unwrap();
    let options = ConnectOptions::from_uri(&second.uri()).unwrap();
    let channel = Connection::open(&options).await.unwrap().channel().await;
    let channel = channel.unwrap();
    let queue = Queue::new("evt-shop-paid--durable.on_paid").max_length(8);
    channel.queue_declare(&queue).await.unwrap();

    let uris = format!("{};{}", first.uri(), second.uri());
    let durable = Container::new::<Durable>(Config::new().with("AMQP_URI", uris)).unwrap();
    durable.start().await.unwrap();
    let consumer = QueueConsumer::of(&durable).unwrap();
    let told = Recorder::new();
    consumer.watch(Arc::new(Told(told.clone())));
    first.stop().await;
    let mut fared = told.take_when(1).await.unwrap();
    while !fared.iter().any(|it| it.contains("406")) {
        fared.extend(told.take_when(1).await.unwrap());
    }
    let error = fared.concat();
    for part in ["evt-shop-paid--durable.on_paid", "'7'", "'8'"] {
        assert!(error.contains(part), "{error}");
    }

    let mut paid = entrypoint_waiter(&durable, "on_paid");
    channel.queue_delete(&queue.name).await.unwrap();
    // The service makes the queue as it wants it, and works on.
    while !fared.contains(&"connected".to_owned()) {
        fared.extend(told.take_when(1).await.unwrap());
    }
    send(&channel, "paid", Some("application/json"), b"1").await;
    paid.next().await.unwrap();
    durable.stop().await;
    second.stop().await;
}

#[derive(Dependencies)]
struct Torn;

#[service("torn")]
impl Torn {
    #[rpc(queue_arguments = [("x-max-priority", 5)])]
    async fn one(&self) -> Result<()> {
        Ok(())
    }

    #[rpc(queue_arguments = [("x-max-priority", 6)])]
    async fn two(&self) -> Result<()> {
        Ok(())
    }
}

#[derive(Dependencies)]
struct TornEvents;

#[service("torn_events")]
impl TornEvents {
    #[event_handler("shop", "alone", handler_type = singleton)]
    async fn one(&self, _data: Json) -> Result<()> {
        Ok(())
    }

    #[event_handler("shop", "alone", handler_type = singleton, queue_arguments = [("x-max-length", 6)])]
    async fn two(&self, _data: Json) -> Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn methods_that_want_one_queue_to_be_two_things_are_told_at_the_start() {
    let broker = support::broker().await;
    let torn = Container::new::<Torn>(broker.config()).unwrap();
    let text = torn.start().await.unwrap_err().to_string();
    for told in ["`rpc-torn`", "`x-max-priority` 5 and 6", "method `two`"] {
        assert!(text.contains(told), "{text}");
    }
    let torn = Container::new::<TornEvents>(broker.config()).unwrap();
    let text = torn.start().await.unwrap_err().to_string();
    for told in [
        "`evt-shop-alone`",
        "`x-max-length` none and 6",
        "method `two`",
    ] {
        assert!(text.contains(told), "{text}");
    }
}

#[tokio::test]
async fn an_event_is_what_nameko_sends() {
    let broker = support::broker().await;
    let shop = shop(&broker).await;
    let channel = channel(&broker).await;
    let queue = Queue::new("listener");
    channel.queue_declare(&queue).await.unwrap();
    channel
        .queue_bind("listener", "shop.events", "paid", &Table::new())
        .await
        .unwrap();
    let mut listener = support::consume(&channel, "listener").await;
    tell(&shop, "paid", json!({"name": "é"})).await;
    let event = listener.next().await;
    assert_eq!(&event.body[..], br#"{"name": "\u00e9"}"#);
    assert_eq!(
        (&*event.exchange, &*event.routing_key),
        ("shop.events", "paid")
    );
    let properties = &event.properties;
    assert_eq!(properties.content_type.as_deref(), Some("application/json"));
    assert_eq!(properties.content_encoding.as_deref(), Some("utf-8"));
    assert_eq!(
        (properties.delivery_mode, properties.priority),
        (Some(2), Some(0))
    );
    assert_eq!(properties.expiration, None);
    let names: Vec<_> = properties.headers.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["nameko.language", "nameko.call_id_stack"]);

    // From a program that is no service: no headers.
    let events = StandaloneDispatcher::new(&broker.config()).unwrap();
    events.dispatch("shop", "paid", &1).await.unwrap();
    assert!(listener.next().await.properties.headers.is_empty());
    let events = events
        .header("origin", "script")
        .expiration(Duration::from_secs(10));
    events.dispatch("shop", "paid", &1).await.unwrap();
    let event = listener.next().await.properties;
    assert_eq!(event.headers.get("origin"), Some(&Value::from("script")));
    assert_eq!(event.expiration.as_deref(), Some("10000"));
    shop.stop().await;
}

#[tokio::test]
async fn a_test_hears_events_without_a_broker() {
    let events = Recorder::new();
    let recorder = events.clone();
    let shop = Shop {
        events: Dispatcher::fake(move |event_type, data| {
            recorder.record((event_type.to_owned(), data));
            Ok(())
        }),
        worker: WorkerContext::fake("shop", "tell"),
    };
    shop.tell("paid".to_owned(), json!({"order": 1}))
        .await
        .unwrap();
    assert_eq!(events.items(), [("paid".to_owned(), json!({"order": 1}))]);
}
