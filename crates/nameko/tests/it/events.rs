//! Events: handler types, delivery, and the wire format.

use std::{collections::BTreeSet, time::Duration};

use nameko::{
    Container, Error, StandaloneDispatcher,
    amqp::{Channel, Connection, PublishError, Table, Value},
    prelude::*,
    testing::{Recorder, entrypoint_hook, entrypoint_waiter},
};
use serde_json::{Value as Json, json};

use crate::{
    services::{Hearing, Received},
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
    async fn dispatch(&self, event_type: String, data: Json) -> Result<()> {
        self.worker.set("language", "fr");
        self.events.dispatch(event_type, &data).await
    }
}

#[derive(Dependencies)]
struct Mail {
    #[dependency(Hearing)]
    received: Received,
    #[dependency(CurrentWorker)]
    worker: WorkerContext,
}

#[service("mail")]
impl Mail {
    #[event_handler("shop", "paid")]
    async fn on_paid(&self, data: Json) -> Result<(Json, Option<String>, Vec<String>)> {
        self.received.record(format!("paid {data}"));
        let language = self.worker.get("language");
        let language = language.and_then(|language| language.as_str().map(str::to_owned));
        Ok((data, language, self.worker.call_id_stack()))
    }

    #[event_handler("shop", "alone", handler_type = singleton)]
    async fn on_alone(&self, data: Json) -> Result<()> {
        self.received.record(format!("alone {data}"));
        Ok(())
    }

    #[event_handler("shop", "all", handler_type = broadcast, reliable_delivery = false)]
    async fn on_all(&self, data: Json) -> Result<()> {
        self.received.record(format!("all {data}"));
        Ok(())
    }
}

/// A second service that handles the events of `Mail`.
#[derive(Dependencies)]
struct Accounts {
    #[dependency(Hearing)]
    received: Received,
}

#[service("accounts")]
impl Accounts {
    #[event_handler("shop", "paid")]
    async fn on_paid(&self, data: Json) -> Result<()> {
        self.received.record(format!("paid {data}"));
        Ok(())
    }

    #[event_handler("shop", "alone", handler_type = singleton)]
    async fn on_alone(&self, data: Json) -> Result<()> {
        self.received.record(format!("alone {data}"));
        Ok(())
    }
}

/// A running container of `S`, and the events it receives.
pub(crate) async fn hearing<S: nameko::Service>(broker: &TestBroker) -> (Container, Received) {
    let received = Received::new();
    let container = Container::builder::<S>(broker.config())
        .replace("received", received.clone())
        .build()
        .unwrap();
    container.start().await.unwrap();
    (container, received)
}

pub(crate) async fn shop(broker: &TestBroker) -> Container {
    let shop = Container::new::<Shop>(broker.config()).unwrap();
    shop.start().await.unwrap();
    shop
}

pub(crate) async fn dispatch(shop: &Container, event_type: &str, data: Json) {
    let dispatched: Result<()> = entrypoint_hook(shop, "dispatch")
        .call((event_type, data))
        .await;
    dispatched.unwrap();
}

pub(crate) async fn channel(broker: &TestBroker) -> Channel {
    let connection = Connection::open(&broker.options()).await.unwrap();
    connection.channel().await.unwrap()
}

/// Returns the number of ready messages in an existing queue.
pub(crate) async fn ready(broker: &TestBroker, queue: &str) -> u32 {
    let passive = Queue {
        passive: true,
        ..Queue::new(queue)
    };
    let declared = channel(broker).await.queue_declare(&passive).await;
    declared.unwrap().messages
}

#[tokio::test]
async fn a_handler_receives_the_data_and_the_context_of_the_dispatcher() {
    let broker = support::broker().await;
    let (mail, _) = hearing::<Mail>(&broker).await;
    let shop = shop(&broker).await;
    let mut paid = entrypoint_waiter(&mail, "on_paid");
    dispatch(&shop, "paid", json!({"order": 17, "name": "Zoë"})).await;
    let (data, language, stack): (Json, Option<String>, Vec<String>) = paid.result().await.unwrap();
    assert_eq!(data, json!({"order": 17, "name": "Zoë"}));
    assert_eq!(language.as_deref(), Some("fr"));
    assert_eq!(stack.len(), 2, "{stack:?}");
    assert!(stack[0].starts_with("shop.dispatch."), "{stack:?}");
    assert!(stack[1].starts_with("mail.on_paid."), "{stack:?}");

    // An event without a handler is dropped.
    dispatch(&shop, "forgotten", json!(null)).await;
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
        dispatch(&shop, "paid", number.into()).await;
    }
    let all: BTreeSet<String> = (0..20).map(|number| format!("paid {number}")).collect();
    let received = heard_accounts.take_when(20).await.unwrap();
    assert_eq!(BTreeSet::from_iter(received), all);
    stop_all([&one, &two, &accounts, &shop]).await;
    // Stopped containers have handled their events; the rest waits in the queue.
    let received: Vec<_> = [heard_one.items(), heard_two.items()].concat();
    let waiting = ready(&broker, "evt-shop-paid--mail.on_paid").await;
    assert_eq!(received.len() + waiting as usize, 20, "{received:?}");
}

#[tokio::test]
async fn a_singleton_event_goes_to_one_handler() {
    let broker = support::broker().await;
    let (mail, heard_mail) = hearing::<Mail>(&broker).await;
    let (accounts, heard_accounts) = hearing::<Accounts>(&broker).await;
    let shop = shop(&broker).await;
    for number in 0..20 {
        dispatch(&shop, "alone", number.into()).await;
    }
    stop_all([&mail, &accounts, &shop]).await;
    let received = heard_mail.len() + heard_accounts.len();
    let waiting = ready(&broker, "evt-shop-alone").await;
    assert_eq!(received + waiting as usize, 20);
}

#[tokio::test]
async fn a_broadcast_goes_to_every_instance() {
    let broker = support::broker().await;
    let (one, heard_one) = hearing::<Mail>(&broker).await;
    let (two, heard_two) = hearing::<Mail>(&broker).await;
    let shop = shop(&broker).await;
    dispatch(&shop, "all", "news".into()).await;
    for received in [&heard_one, &heard_two] {
        assert_eq!(received.take_when(1).await.unwrap(), ["all \"news\""]);
    }
    stop_all([&one, &two, &shop]).await;
}

pub(crate) async fn stop_all<const LEN: usize>(containers: [&Container; LEN]) {
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
    dispatch(&shop, "paid", 1.into()).await;
    assert_eq!(ready(&broker, "evt-shop-paid--mail.on_paid").await, 1);
    let (mail, received) = hearing::<Mail>(&broker).await;
    assert_eq!(received.take_when(1).await.unwrap(), ["paid 1"]);
    stop_all([&mail, &shop]).await;
}

#[derive(Dependencies)]
struct Patterns {
    #[dependency(Hearing)]
    received: Received,
}

#[service("patterns")]
impl Patterns {
    #[event_handler("shop", "order.*")]
    async fn on_word(&self, data: String) -> Result<()> {
        self.received.record(format!("* {data}"));
        Ok(())
    }

    #[event_handler("shop", "order.#")]
    async fn on_words(&self, data: String) -> Result<()> {
        self.received.record(format!("# {data}"));
        Ok(())
    }
}

#[tokio::test]
async fn an_event_type_can_be_a_pattern() {
    let broker = support::broker().await;
    let (patterns, received) = hearing::<Patterns>(&broker).await;
    let shop = shop(&broker).await;
    for event_type in ["order.paid", "order.paid.late", "other"] {
        dispatch(&shop, event_type, event_type.into()).await;
    }
    let received = BTreeSet::from_iter(received.take_when(3).await.unwrap());
    let expected = ["# order.paid", "# order.paid.late", "* order.paid"];
    assert_eq!(received, expected.map(str::to_owned).into());
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
    received: Received,
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
        self.received.record(data);
        Ok(())
    }
}

#[tokio::test]
async fn a_reliable_broadcast_requires_a_stable_identifier() {
    let error = Container::new::<Careless>(Config::default()).unwrap_err();
    let text = error.to_string();
    for dispatched in [
        "careless",
        "on_all",
        "broadcast_identifier",
        "reliable_delivery = false",
    ] {
        assert!(text.contains(dispatched), "{text}");
    }

    let broker = support::broker().await;
    let config = broker.config().with("IDENTIFIER", "host-1");
    let received = Received::new();
    let careful = || {
        let container = Container::builder::<Careful>(config.clone());
        container
            .replace("received", received.clone())
            .build()
            .unwrap()
    };
    let first = careful();
    first.start().await.unwrap();
    first.stop().await;
    // It waits for the instance with this identifier.
    let shop = shop(&broker).await;
    dispatch(&shop, "all", "news".into()).await;
    assert_eq!(
        ready(&broker, "evt-shop-all--careful.on_all-host-1").await,
        1
    );
    let second = careful();
    second.start().await.unwrap();
    assert_eq!(received.take_when(1).await.unwrap(), ["news"]);
    stop_all([&second, &shop]).await;
}

#[tokio::test]
async fn the_queue_of_an_unreliable_handler_is_deleted_with_it() {
    let broker = support::broker().await;
    let (mail, _) = hearing::<Mail>(&broker).await;
    mail.stop().await;
    let shop = shop(&broker).await;
    // Nobody receives the broadcast of a stopped instance; a mandatory one is returned.
    let events = StandaloneDispatcher::new(&broker.config()).unwrap();
    let dispatched = events.dispatch("shop", "all", "news").mandatory(true).await;
    let Err(Error::Publish(error @ PublishError::Unroutable { .. })) = dispatched else {
        panic!("{dispatched:?}");
    };
    let text = error.to_string();
    assert!(
        text.contains("`shop.events`") && text.contains("`all`"),
        "{text}"
    );
    shop.stop().await;
}

#[tokio::test]
async fn a_standalone_dispatcher_declares_nothing() {
    let broker = support::broker().await;
    let events = StandaloneDispatcher::new(&broker.config()).unwrap();
    for _ in 0..2 {
        let dispatched = support::within(
            "a refusal",
            events.dispatch("shop", "paid", &1).into_future(),
        );
        let error = dispatched.await.unwrap_err();
        let Error::Publish(PublishError::Refused(refused)) = &error else {
            panic!("{error:?}");
        };
        assert!(refused.is_not_found(), "{error}");
        assert!(error.to_string().contains("shop.events"), "{error}");
    }
    // Without confirms the error is not reported.
    let unheard = StandaloneDispatcher::new(&broker.config()).unwrap();
    let unheard = unheard.use_confirms(false);
    unheard.dispatch("shop", "paid", &1).await.unwrap();

    let (mail, received) = hearing::<Mail>(&broker).await;
    events.dispatch("shop", "paid", &2).await.unwrap();
    assert_eq!(received.take_when(1).await.unwrap(), ["paid 2"]);
    mail.stop().await;
}

#[tokio::test]
async fn exchanges_are_declared_as_configured() {
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
    let dispatched: Result<()> = entrypoint_hook(&shop, "dispatch").call(("paid", 1)).await;
    assert!(dispatched.unwrap_err().to_string().contains("shop.events"));
    shop.stop().await;
}

#[derive(Dependencies)]
struct Fleeting {
    #[dependency(Hearing)]
    received: Received,
}

#[service("fleeting")]
impl Fleeting {
    #[event_handler("shop", "paid", reliable_delivery = false)]
    async fn on_paid(&self, data: Json) -> Result<()> {
        self.received.record(data.to_string());
        Ok(())
    }
}

#[tokio::test]
async fn an_exchange_deleted_with_its_last_handler_is_redeclared() {
    let broker = support::broker().await;
    let config = broker.config().with("AUTO_DELETE_EVENT_EXCHANGES", true);
    let shop = Container::new::<Shop>(config.clone()).unwrap();
    shop.start().await.unwrap();
    let fleeting = |received: &Received| {
        let container = Container::builder::<Fleeting>(config.clone());
        container
            .replace("received", received.clone())
            .build()
            .unwrap()
    };
    let received = Received::new();
    let first = fleeting(&received);
    first.start().await.unwrap();
    dispatch(&shop, "paid", 1.into()).await;
    assert_eq!(received.take_when(1).await.unwrap(), ["1"]);
    first.stop().await;
    let exchange = Exchange {
        passive: true,
        ..Exchange::topic("shop.events")
    };
    let gone = channel(&broker).await.exchange_declare(&exchange).await;
    assert!(gone.unwrap_err().is_not_found());

    dispatch(&shop, "paid", 2.into()).await;
    let second = fleeting(&received);
    second.start().await.unwrap();
    dispatch(&shop, "paid", 3.into()).await;
    assert_eq!(received.take_when(1).await.unwrap(), ["3"]);
    stop_all([&second, &shop]).await;
}

#[tokio::test]
async fn an_event_has_namekos_bytes() {
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
    dispatch(&shop, "paid", json!({"name": "é"})).await;
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
    // RabbitMQ 4 sorts the headers.
    let names: BTreeSet<_> = properties.headers.iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        BTreeSet::from(["nameko.call_id_stack", "nameko.language"])
    );

    // A standalone dispatcher sends no headers.
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
async fn a_test_observes_events_without_a_broker() {
    let events = Recorder::new();
    let recorder = events.clone();
    let shop = Shop {
        events: Dispatcher::mock(move |event_type, data| {
            recorder.record((event_type.to_owned(), data));
            Ok(())
        }),
        worker: WorkerContext::mock("shop", "dispatch"),
    };
    shop.dispatch("paid".to_owned(), json!({"order": 1}))
        .await
        .unwrap();
    assert_eq!(events.items(), [("paid".to_owned(), json!({"order": 1}))]);

    // In any format.
    #[cfg(all(feature = "compression", feature = "msgpack"))]
    {
        use nameko::serialization::Compression;

        let packed = shop.events.dispatch("packed", &1).serializer("msgpack");
        packed.compression(Compression::Bzip2).await.unwrap();
        assert_eq!(events.items()[1], ("packed".to_owned(), 1.into()));
    }
}
