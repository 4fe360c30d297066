//! User-defined extensions, written with the public API: entrypoints, providers, shared extensions,
//! managed tasks.

use std::sync::{Arc, Mutex, OnceLock};

use nameko::{
    Arguments, Entrypoint, MethodHandle, Outcome, QueueConsumer, SharedExtension, WeakContainer,
    amqp::{
        Delivery, Publish, Publisher, Queue, Retry, Subscription, SubscriptionId, Table, Value,
    },
    context_data,
    prelude::*,
    testing::{Dummy, Recorder, entrypoint_hook, entrypoint_waiter},
};
use tokio::sync::mpsc;

use crate::support::{broker, no_broker, within};

/// A service type declares its extensions once, so each test has a module with a static recorder.
macro_rules! recorder {
    () => {
        static HEARD: OnceLock<Recorder<String>> = OnceLock::new();

        fn received() -> &'static Recorder<String> {
            HEARD.get_or_init(Recorder::new)
        }
    };
}

/// The lifecycle calls of a container, in order.
mod life {
    use super::*;

    recorder!();

    /// The extension shared by the other two.
    struct Hub;

    impl SharedExtension for Hub {
        async fn start(&self) -> Result<()> {
            received().record("hub starts".to_owned());
            Ok(())
        }

        async fn stop(&self) {
            received().record("hub stops".to_owned());
        }
    }

    fn hub(container: &Container) -> Result<Arc<Hub>> {
        container.shared(|_| {
            received().record("hub is made".to_owned());
            Ok(Hub)
        })
    }

    struct Fires;

    impl Entrypoint for Fires {
        async fn setup(&self, container: &Container, method: MethodHandle) -> Result<()> {
            hub(container)?;
            received().record(format!("entrypoint of {} is set up", method.name()));
            Ok(())
        }

        async fn start(&self) -> Result<()> {
            received().record("entrypoint starts".to_owned());
            Ok(())
        }

        async fn stop(&self) {
            received().record("entrypoint stops".to_owned());
        }

        fn describe(&self) -> String {
            "fires".to_owned()
        }
    }

    struct Provides;

    impl DependencyProvider for Provides {
        type Dependency = u8;

        async fn setup(&self, container: &Container) -> Result<()> {
            hub(container)?;
            received().record("provider is set up".to_owned());
            Ok(())
        }

        async fn start(&self) -> Result<()> {
            received().record("provider starts".to_owned());
            Ok(())
        }

        async fn stop(&self) {
            received().record("provider stops".to_owned());
        }

        async fn get_dependency(&self, _: &WorkerContext) -> Result<u8> {
            Ok(7)
        }
    }

    #[derive(Dependencies)]
    struct Alive {
        #[dependency(Provides)]
        _seven: u8,
    }

    #[service("alive")]
    impl Alive {
        #[entrypoint(Fires)]
        async fn work(&self) -> Result<u8> {
            Ok(self._seven)
        }
    }

    #[tokio::test]
    async fn extensions_are_called_in_order_and_share_one_value() {
        let container = Container::new::<Alive>(no_broker()).unwrap();
        container.start().await.unwrap();
        assert_eq!(
            received().take(),
            [
                "hub is made",
                "provider is set up",
                "entrypoint of work is set up",
                "provider starts",
                "entrypoint starts",
                "hub starts"
            ]
        );
        let entrypoints: Vec<_> = container.entrypoints().collect();
        assert_eq!(entrypoints, [("fires".to_owned(), "work")]);
        let seven: u8 = entrypoint_hook(&container, "work").call(()).await.unwrap();
        assert_eq!(seven, 7);
        container.stop().await;
        assert_eq!(
            received().take(),
            ["entrypoint stops", "provider stops", "hub stops"]
        );
        container.wait().await.unwrap();
    }
}

/// Shared extensions.
mod shared {
    use super::*;

    struct Early;

    impl SharedExtension for Early {}

    struct Late;

    impl SharedExtension for Late {}

    #[derive(Dependencies)]
    struct Quiet;

    #[service("quiet")]
    impl Quiet {
        #[entrypoint(Dummy)]
        async fn nothing(&self) -> Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_shared_extension_must_be_requested_before_the_start() {
        let container = Container::new::<Quiet>(no_broker()).unwrap();
        let early = container.shared(|_| Ok(Early)).unwrap();
        container.start().await.unwrap();
        let error = container.shared(|_| Ok(Late)).map(drop).unwrap_err();
        assert!(error.to_string().contains("in `setup`"), "{error}");
        // An existing one is still available.
        let again = container.shared(|_| Ok(Early)).unwrap();
        assert!(Arc::ptr_eq(&early, &again));
        container.stop().await;
        let error = container.shared(|_| Ok(Late)).map(drop).unwrap_err();
        assert!(matches!(error, Error::ContainerStopping(_)), "{error:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn concurrent_requests_return_the_same_value() {
        let container = Container::new::<Quiet>(no_broker()).unwrap();
        let barrier = Arc::new(std::sync::Barrier::new(4));
        let asking: Vec<_> = (0..4)
            .map(|_| {
                let (container, barrier) = (container.clone(), barrier.clone());
                tokio::task::spawn_blocking(move || {
                    barrier.wait();
                    container.shared(|_| Ok(Late)).unwrap()
                })
            })
            .collect();
        let mut made = Vec::new();
        for it in asking {
            made.push(within("the value", it).await.unwrap());
        }
        assert!(made.iter().all(|shared| Arc::ptr_eq(shared, &made[0])));
    }
}

/// An entrypoint that receives arguments from a channel in a managed task.
mod channel {
    use super::*;

    type Inbox = mpsc::UnboundedReceiver<u32>;

    struct FromChannel(Mutex<Option<Inbox>>);

    impl Entrypoint for FromChannel {
        async fn setup(&self, container: &Container, method: MethodHandle) -> Result<()> {
            let inbox = self.0.lock().unwrap().take();
            let mut inbox = inbox.ok_or_else(|| Error::raise("Empty", "no inbox"))?;
            let weak = container.downgrade();
            container.spawn_managed("inbox", async move {
                while let Some(number) = inbox.recv().await {
                    let Some(container) = weak.upgrade() else {
                        return Ok(());
                    };
                    if number == 13 {
                        return Err(Error::raise("Unlucky", "thirteen"));
                    }
                    assert_ne!(number, 666, "the beast");
                    let data = Table::from_iter([("language".to_owned(), Value::from("fr"))]);
                    container.spawn_worker(
                        &method,
                        Arguments::new().arg(number)?,
                        data,
                        |outcome| async { outcome },
                    );
                }
                Ok(())
            });
            Ok(())
        }

        fn describe(&self) -> String {
            "channel".to_owned()
        }
    }

    static INBOX: Mutex<Option<Inbox>> = Mutex::new(None);
    /// Serializes the tests of this module, which share a static.
    static ONE_BY_ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    #[derive(Dependencies)]
    struct Doubler {
        #[dependency(CurrentWorker)]
        worker: WorkerContext,
    }

    #[service("doubler")]
    impl Doubler {
        #[entrypoint(FromChannel(Mutex::new(INBOX.lock().unwrap().take())))]
        async fn double(&self, number: u8) -> Result<(u32, String)> {
            let language = self.worker.get("language").unwrap();
            Ok((u32::from(number) * 2, language.as_str().unwrap().to_owned()))
        }
    }

    async fn started() -> (Container, mpsc::UnboundedSender<u32>) {
        let (sender, inbox) = mpsc::unbounded_channel();
        *INBOX.lock().unwrap() = Some(inbox);
        let container = Container::new::<Doubler>(no_broker()).unwrap();
        container.start().await.unwrap();
        (container, sender)
    }

    #[tokio::test]
    async fn a_custom_entrypoint_needs_no_broker() {
        let _turn = ONE_BY_ONE.lock().await;
        let (container, sender) = started().await;
        let mut double = entrypoint_waiter(&container, "double");
        sender.send(4).unwrap();
        let result: (u32, String) = double.result().await.unwrap();
        assert_eq!(result, (8, "fr".to_owned()));
        container.stop().await;
        container.wait().await.unwrap();
        assert!(sender.is_closed(), "the managed task has ended");
    }

    #[tokio::test]
    async fn mismatched_arguments_start_no_worker() {
        let _turn = ONE_BY_ONE.lock().await;
        let (container, sender) = started().await;
        let mut double = entrypoint_waiter(&container, "double");
        sender.send(1000).unwrap();
        sender.send(5).unwrap();
        assert_eq!(double.result::<(u32, String)>().await.unwrap().0, 10);
        container.stop().await;
    }

    #[tokio::test]
    async fn a_failed_managed_task_kills_the_container() {
        let _turn = ONE_BY_ONE.lock().await;
        for (number, reason) in [(13, "thirteen"), (666, "the beast")] {
            let (container, sender) = started().await;
            sender.send(number).unwrap();
            let error = within("the end", container.wait()).await.unwrap_err();
            assert!(matches!(error, Error::Killed { .. }), "{error:?}");
            let text = error.to_string();
            assert!(
                text.starts_with("doubler was killed: task `inbox` failed: "),
                "{text}"
            );
            assert!(text.contains(reason), "{text}");
            // All tasks have ended.
            container.stop().await;
            assert!(sender.is_closed());
        }
    }

    #[tokio::test]
    async fn a_failed_setup_names_its_extension() {
        let _turn = ONE_BY_ONE.lock().await;
        *INBOX.lock().unwrap() = None;
        let container = Container::new::<Doubler>(no_broker()).unwrap();
        let error = container.start().await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "doubler cannot start: entrypoint `channel` of the method `double`: no inbox"
        );
    }
}

/// An entrypoint that consumes a queue with the public AMQP client.
mod queue {
    use super::*;

    struct FromQueue {
        queue: &'static str,
        subscribed: OnceLock<(Arc<QueueConsumer>, SubscriptionId)>,
    }

    impl FromQueue {
        fn new(queue: &'static str) -> Self {
            Self {
                queue,
                subscribed: OnceLock::new(),
            }
        }

        /// Called on the I/O task, so it spawns a worker.
        fn accept(container: &WeakContainer, method: &MethodHandle, delivery: Delivery) {
            let Some(container) = container.upgrade() else {
                return delivery.acker.reject(true);
            };
            let text = String::from_utf8_lossy(&delivery.body).into_owned();
            let Ok(arguments) = Arguments::new().arg(text) else {
                return delivery.acker.reject(false);
            };
            let data = context_data(delivery.properties.headers.clone());
            container.spawn_worker(method, arguments, data, |outcome: Outcome| async move {
                match &outcome {
                    Ok(_) => delivery.acker.ack(),
                    Err(_) => delivery.acker.reject(false),
                }
                outcome
            });
        }
    }

    impl Entrypoint for FromQueue {
        async fn setup(&self, container: &Container, method: MethodHandle) -> Result<()> {
            let consumer = QueueConsumer::of(container)?;
            let weak = container.downgrade();
            let id = consumer.add(Subscription {
                queue: Queue::new(self.queue),
                prefetch: Some(container.prefetch_count()),
                sink: Arc::new(move |delivery| Self::accept(&weak, &method, delivery)),
                on_recovered: None,
            })?;
            let _ = self.subscribed.set((consumer, id));
            Ok(())
        }

        async fn stop(&self) {
            if let Some((consumer, id)) = self.subscribed.get() {
                consumer.cancel(*id).await;
            }
        }

        fn describe(&self) -> String {
            format!("queue {}", self.queue)
        }
    }

    #[derive(Dependencies)]
    struct Letters {
        #[dependency(CurrentWorker)]
        worker: WorkerContext,
    }

    #[service("letters")]
    impl Letters {
        #[entrypoint(FromQueue::new("letters"))]
        async fn read(&self, letter: String) -> Result<String> {
            if letter == "bill" {
                return Err(Error::raise("Unpayable", "no money"));
            }
            let from = self.worker.immediate_parent_call_id().unwrap_or("nobody");
            Ok(format!("{letter} from {from}"))
        }
    }

    #[tokio::test]
    async fn messages_are_handled_and_acknowledged() {
        let broker = broker().await;
        let container = Container::new::<Letters>(broker.config()).unwrap();
        container.start().await.unwrap();
        let mut read = entrypoint_waiter(&container, "read");

        // Sent by another worker, whose headers travel with the message.
        let sender = WorkerContext::mock("post", "deliver");
        let publisher = Publisher::shared(&broker.options());
        for letter in ["hello", "bill"] {
            let mut message = Publish {
                routing_key: "letters".to_owned(),
                body: letter.into(),
                ..Publish::default()
            };
            message.properties.headers = sender.headers();
            let sent = publisher.publish(message, Some(Retry::default()));
            within("the confirm", sent).await.unwrap();
        }
        let handled: String = read.result().await.unwrap();
        assert_eq!(handled, format!("hello from {}", sender.call_id()));
        let error = read.result::<String>().await.unwrap_err();
        assert_eq!(error.to_string(), "no money");
        container.stop().await;

        let channel = nameko::amqp::Connection::open(&broker.options())
            .await
            .unwrap()
            .channel()
            .await
            .unwrap();
        let left = channel.queue_declare(&Queue::new("letters")).await.unwrap();
        assert_eq!((left.messages, left.consumers), (0, 0));
    }
}
