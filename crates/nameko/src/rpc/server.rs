//! The entrypoint `#[rpc]`: requests in, replies out.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak},
};

use tokio::sync::OnceCell;

use super::settlement::Settlement;
use crate::{
    amqp::{
        Acker, Delivery, Exchange, Properties, Publish, PublishError, Publisher, Queue, Retry,
        Subscription, SubscriptionId, Table, Text,
    },
    arguments::Arguments,
    container::{Container, MethodHandle},
    error::{Error, Result},
    extension::{Entrypoint, SharedExtension},
    protocol::{self, Fault},
    queue_arguments,
    queue_consumer::QueueConsumer,
    reply::{self, Outcome},
    serialization::{Codec, Encoded, Format},
    worker,
};

/// Makes a method callable by other services.
#[derive(Debug, Default)]
pub struct Rpc {
    arguments: Table,
    consumer: OnceLock<Arc<RpcConsumer>>,
}

impl Rpc {
    /// The entrypoint of one method.
    pub fn new() -> Self {
        Self::default()
    }

    /// Arguments for the queue of the service's requests, besides those that the config key `queue_arguments` has under
    /// `rpc`; where both have one, this counts. All methods of a service share the queue: it is enough to write them at one,
    /// and an error when two differ.
    ///
    /// ```
    /// use nameko::prelude::*;
    ///
    /// #[derive(Dependencies)]
    /// struct Orders;
    ///
    /// #[service("orders")]
    /// impl Orders {
    ///     #[rpc(queue_arguments = [("x-queue-type", "quorum")])]
    ///     async fn pay(&self, order: u32) -> Result<u32> {
    ///         Ok(order)
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn queue_arguments(mut self, arguments: impl Into<Table>) -> Self {
        self.arguments.extend(arguments.into());
        self
    }
}

impl Entrypoint for Rpc {
    async fn setup(&self, container: &Container, method: MethodHandle) -> Result<()> {
        let consumer = container.shared(RpcConsumer::new)?;
        consumer.serve(method, &self.arguments)?;
        let _ = self.consumer.set(consumer);
        Ok(())
    }

    async fn start(&self) -> Result<()> {
        match self.consumer.get() {
            Some(consumer) => consumer.consume(),
            None => Ok(()),
        }
    }

    async fn stop(&self) {
        if let Some(consumer) = self.consumer.get() {
            consumer.cancel().await;
        }
    }

    fn describe(&self) -> String {
        "rpc".to_owned()
    }
}

/// The request queue of one service, shared by its `#[rpc]` methods.
struct RpcConsumer {
    server: Arc<Server>,
    queues: Arc<QueueConsumer>,
    prefetch: u16,
    request: Mutex<RequestQueue>,
    /// Set by the first entrypoint that starts.
    subscription: OnceLock<SubscriptionId>,
    /// Done once, however many entrypoints stop.
    cancelled: OnceCell<()>,
}

/// The queue as it is to be declared, when all methods have said what they want of it.
struct RequestQueue {
    queue: Queue,
    /// What methods asked for; counts before what is configured.
    arguments: Table,
}

impl RpcConsumer {
    fn new(container: &Container) -> Result<Self> {
        let config = container.config();
        let exchange = protocol::rpc_exchange(config)?;
        let queue = protocol::request_queue(&exchange, container.service_name())
            .arguments(queue_arguments::configured(config, "rpc")?);
        Ok(Self {
            server: Arc::new(Server {
                container: container.downgrade(),
                methods: RwLock::default(),
                publisher: Publisher::shared(&config.connect_options()?),
                exchange,
                codec: Codec::of(config)?,
            }),
            queues: QueueConsumer::of(container)?,
            prefetch: container.prefetch_count(),
            request: Mutex::new(RequestQueue {
                queue,
                arguments: Table::new(),
            }),
            subscription: OnceLock::new(),
            cancelled: OnceCell::new(),
        })
    }

    fn serve(&self, method: MethodHandle, arguments: &Table) -> Result<()> {
        let mut request = self.request();
        for (name, value) in arguments.iter() {
            match request.arguments.insert(name, value.clone()) {
                Some(other) if other != *value => {
                    return Err(Error::Declaration(format!(
                        "the methods of the service share the queue `{}`, and ask for `{name}` {other} and {value}",
                        request.queue.name
                    )));
                }
                _ => {}
            }
        }
        drop(request);
        self.server
            .methods
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(method.name(), method);
        Ok(())
    }

    /// Consumes the queue, once every method is set up.
    fn consume(&self) -> Result<()> {
        let request = self.request();
        if self.subscription.get().is_some() {
            return Ok(());
        }
        let sink = Arc::downgrade(&self.server);
        let subscription = self.queues.add(Subscription {
            queue: request.queue.clone().arguments(request.arguments.clone()),
            prefetch: Some(self.prefetch),
            sink: Arc::new(move |delivery| Server::accept(&sink, delivery)),
            on_recovered: None,
        })?;
        let _ = self.subscription.set(subscription);
        Ok(())
    }

    async fn cancel(&self) {
        if let Some(subscription) = self.subscription.get() {
            self.cancelled
                .get_or_init(|| self.queues.cancel(*subscription))
                .await;
        }
    }

    fn request(&self) -> MutexGuard<'_, RequestQueue> {
        self.request.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for RpcConsumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RpcConsumer")
            .field("subscription", &self.subscription)
            .finish_non_exhaustive()
    }
}

impl SharedExtension for RpcConsumer {}

/// Answers requests.
struct Server {
    container: crate::container::WeakContainer,
    methods: RwLock<HashMap<&'static str, MethodHandle>>,
    publisher: Publisher,
    exchange: Exchange,
    codec: Arc<Codec>,
}

impl Server {
    /// Takes one request off the I/O task. Whatever is in it, it ends in a reply where one can be sent, and in an ack.
    fn accept(server: &Weak<Self>, delivery: Delivery) {
        let Some((server, container)) = server
            .upgrade()
            .and_then(|it| it.container.upgrade().map(|c| (it, c)))
        else {
            return delivery.acker.reject(true);
        };
        let owner = container.clone();
        owner.spawn(async move { server.handle(&container, delivery).await });
    }

    async fn handle(&self, container: &Container, delivery: Delivery) {
        let Delivery {
            body,
            mut properties,
            routing_key,
            acker,
            ..
        } = delivery;
        let reply = Reply {
            server: self,
            reply_to: properties.reply_to.take(),
            correlation_id: properties.correlation_id.take(),
            acker,
            method: routing_key,
            format: self.codec.reply_format(&properties),
        };
        let request = self.method(&reply.method).and_then(|method| {
            let arguments = protocol::decode_request(&self.codec, &properties, &body)?;
            Ok((method, arguments))
        });
        drop(body);
        let (method, arguments): (MethodHandle, Arguments) = match request {
            Ok(request) => request,
            Err(fault) => return reply.refuse(&fault).await,
        };
        let sent = container
            .run_worker(
                &method,
                arguments,
                worker::context_data(properties.headers),
                |it| reply.send(it),
            )
            .await;
        match sent {
            Ok(()) => {}
            Err(error @ Error::ContainerStopping(_)) => {
                tracing::debug!("{error}; {} goes back to the queue", reply.method);
                reply.acker.reject(true);
            }
            Err(error) => reply.refuse(&Fault::of(&error)).await,
        }
    }

    fn method(&self, routing_key: &str) -> Result<MethodHandle, Fault> {
        let name = protocol::method_of(routing_key);
        let methods = self.methods.read().unwrap_or_else(PoisonError::into_inner);
        methods
            .get(name)
            .cloned()
            .ok_or_else(|| Fault::of(&Error::MethodNotFound(name.to_owned())))
    }
}

/// Where the reply to one request goes.
struct Reply<'a> {
    server: &'a Server,
    reply_to: Option<Text>,
    correlation_id: Option<Text>,
    acker: Acker,
    method: String,
    /// That of the request.
    format: Format,
}

impl Reply<'_> {
    /// Sends what the worker ended with, then acknowledges the request. Providers see what was sent.
    async fn send(&self, outcome: Outcome) -> Outcome {
        let encode =
            |value: Box<dyn reply::Reply>| match protocol::encode_result(&self.format, &*value) {
                Ok(body) => Ok((value, body)),
                Err(error) => {
                    tracing::error!("the result of {} cannot be sent: {error}", self.method);
                    Err(Fault::unserializable(&format!(
                        "{}: {error}",
                        value.describe()
                    )))
                }
            };
        // Types of the service write the result: their panic is the call's outcome, as one of the method is.
        let outcome = outcome.and_then(|value| {
            catch_unwind(AssertUnwindSafe(|| encode(value))).unwrap_or_else(|panic| {
                let fault = Fault::panic(panic.as_ref());
                tracing::error!("writing the result of {} panicked: {fault}", self.method);
                Err(fault)
            })
        });
        let (outcome, body) = match outcome {
            Ok((value, body)) => (Ok(value), body),
            Err(fault) => {
                let body = protocol::encode_fault(&self.format, &fault);
                (Err(fault), body)
            }
        };
        self.publish(body).await;
        outcome
    }

    /// Answers a request that no worker was made for.
    async fn refuse(&self, fault: &Fault) {
        tracing::warn!(
            "refused a request to {}: {}: {fault}",
            self.method,
            fault.exc_type
        );
        self.publish(protocol::encode_fault(&self.format, fault))
            .await;
    }

    async fn publish(&self, body: Encoded) {
        let published = self.try_publish(body).await;
        let settlement = Settlement::of(&published);
        if let Err(error) = published {
            match settlement {
                Settlement::Acknowledge => self.report_refusal(&error).await,
                Settlement::Requeue => tracing::error!(
                    "no reply to {} could be sent, the request goes back to the queue: {error}",
                    self.method
                ),
            }
        }
        settlement.apply(&self.acker).await;
    }

    /// Reports to the caller that the broker refused the reply itself.
    async fn report_refusal(&self, error: &PublishError) {
        tracing::error!("the broker refused the reply to {}: {error}", self.method);
        let fault = Fault::unserializable(&format!("the broker refused the reply: {error}"));
        let body = protocol::encode_fault(&self.format, &fault);
        if let Err(error) = self.try_publish(body).await {
            tracing::error!("no reply to {} could be sent: {error}", self.method);
        }
    }

    async fn try_publish(&self, body: Encoded) -> Result<(), PublishError> {
        let Some(reply_to) = &self.reply_to else {
            tracing::warn!(
                "a request to {} has no `reply_to`: its reply is dropped",
                self.method
            );
            return Ok(());
        };
        let (properties, body) = protocol::message(body, Table::new());
        let message = Publish {
            exchange: self.server.exchange.name.clone(),
            routing_key: reply_to.clone().into_owned(),
            mandatory: false,
            properties: Properties {
                correlation_id: self.correlation_id.clone(),
                ..properties
            },
            body,
        };
        self.server
            .publisher
            .publish(message, Some(Retry::default()))
            .await
    }
}
