//! The entrypoint `#[rpc]`.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak},
};

use tokio::sync::OnceCell;

use super::settlement::{Settlement, publish_reply};
use crate::{
    amqp::{
        Acker, Delivery, Exchange, Properties, Publish, Publisher, Queue, Subscription,
        SubscriptionId, Table, Text,
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
    sync::lock,
    worker,
};

/// Makes a method callable by other services.
#[derive(Debug, Default)]
pub struct Rpc {
    arguments: Table,
    consumer: OnceLock<Arc<RpcConsumer>>,
}

impl Rpc {
    /// Creates the entrypoint of a method.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds arguments for the request queue of the service. They override those under `rpc` in the
    /// config key `queue_arguments`.
    ///
    /// All methods of a service share the queue: set them on one method. Different values are an
    /// error.
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
    /// Set by the first entrypoint that stops.
    cancelled: OnceCell<()>,
}

/// The declaration of the queue, collected from all methods.
struct RequestQueue {
    queue: Queue,
    /// Arguments of methods; override configured ones.
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
                        "the methods of the service share the queue `{}` but require `{name}` {other} and {value}",
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

    /// Consumes the queue after the setup of all methods.
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
        lock(&self.request)
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

/// Handles requests.
struct Server {
    container: crate::container::WeakContainer,
    methods: RwLock<HashMap<&'static str, MethodHandle>>,
    publisher: Publisher,
    exchange: Exchange,
    codec: Arc<Codec>,
}

impl Server {
    /// Accepts a request from the I/O task. Every request, valid or not, is answered if possible
    /// and acknowledged.
    fn accept(server: &Weak<Self>, delivery: Delivery) {
        let Some((server, container)) = server
            .upgrade()
            .and_then(|server| server.container.upgrade().map(|c| (server, c)))
        else {
            return delivery.acker.reject(true);
        };
        let owner = container.clone();
        let method = server.method(&delivery.routing_key);
        // Boxed, since the future of the task keeps the place of what it has taken over.
        let delivery = Box::new(delivery);
        match method {
            Ok(method) => owner.spawn_message(&method, {
                let method = method.clone();
                async move { server.handle(&container, Ok(method), delivery).await }
            }),
            Err(fault) => {
                owner.spawn(async move { server.handle(&container, Err(fault), delivery).await });
            }
        }
    }

    async fn handle(
        &self,
        container: &Container,
        method: Result<MethodHandle, Fault>,
        delivery: Box<Delivery>,
    ) {
        let (reply, request) = self.decode(delivery, method);
        // Refusals are boxed, as they are rare and larger than the rest of the future.
        let Request {
            method,
            arguments,
            context_data,
        } = match request {
            Ok(request) => request,
            Err(fault) => return Box::pin(reply.refuse(&fault)).await,
        };
        let sent = container
            .run_worker(&method, arguments, context_data, |outcome| {
                reply.send(outcome)
            })
            .await;
        match sent {
            Ok(()) => {}
            Err(error @ Error::ContainerStopping(_)) => {
                tracing::debug!("{error}; requeueing the request to {}", reply.method);
                reply.acker.reject(true);
            }
            Err(error) => Box::pin(reply.refuse(&Fault::of(&error))).await,
        }
    }

    /// Returns the addressee of the reply and the request.
    fn decode(
        &self,
        delivery: Box<Delivery>,
        method: Result<MethodHandle, Fault>,
    ) -> (Reply<'_>, Result<Request, Fault>) {
        let Delivery {
            body,
            mut properties,
            routing_key,
            acker,
            ..
        } = *delivery;
        let reply = Reply {
            server: self,
            reply_to: properties.reply_to.take(),
            correlation_id: properties.correlation_id.take(),
            acker,
            method: routing_key,
            format: self.codec.reply_format(&properties),
        };
        let request = method.and_then(|method| {
            let arguments = protocol::decode_request(&self.codec, &properties, &body)?;
            Ok(Request {
                method,
                arguments,
                context_data: worker::context_data(properties.headers),
            })
        });
        (reply, request)
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

/// A decoded request.
struct Request {
    method: MethodHandle,
    arguments: Arguments,
    context_data: Table,
}

/// The reply to a request.
struct Reply<'a> {
    server: &'a Server,
    reply_to: Option<Text>,
    correlation_id: Option<Text>,
    acker: Acker,
    method: String,
    /// Format of the request.
    format: Format,
}

impl Reply<'_> {
    /// Sends the outcome of the worker, then acknowledges the request. Returns the outcome sent,
    /// for providers.
    async fn send(&self, outcome: Outcome) -> Outcome {
        let encode =
            |value: Box<dyn reply::Reply>| match protocol::encode_result(&self.format, &*value) {
                Ok(body) => Ok((value, body)),
                Err(error) => {
                    tracing::error!("cannot send the result of {}: {error}", self.method);
                    Err(Fault::unserializable(&format!(
                        "{}: {error}",
                        value.describe()
                    )))
                }
            };
        // A panic while serializing the result is the outcome of the call, like a panic of the
        // method.
        let outcome = outcome.and_then(|value| {
            catch_unwind(AssertUnwindSafe(|| encode(value))).unwrap_or_else(|panic| {
                let fault = Fault::panic(panic.as_ref());
                tracing::error!(
                    "serializing the result of {} panicked: {fault}",
                    self.method
                );
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

    /// Replies to a request without a worker.
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
        let message = self.message(body);
        let published = match &message {
            Some(message) => {
                let publisher = &self.server.publisher;
                publish_reply(publisher, &self.method, message, Some(&self.acker)).await
            }
            None => {
                tracing::warn!(
                    "a request to {} has no `reply_to`: dropping its reply",
                    self.method
                );
                Ok(())
            }
        };
        let settlement = Settlement::of(&published);
        if let Err(error) = published {
            let consequence = match settlement {
                Settlement::Acknowledge => "",
                Settlement::Requeue => ", requeueing the request",
            };
            tracing::error!(
                "cannot send the reply to {}{consequence}: {error}",
                self.method
            );
        }
        settlement.apply(&self.acker).await;
    }

    /// Returns the message. `None` if the request has no address for it.
    fn message(&self, body: Encoded) -> Option<Publish> {
        let reply_to = self.reply_to.clone()?;
        let (properties, body) = protocol::message(body, Table::new());
        Some(Publish {
            exchange: self.server.exchange.name.clone(),
            routing_key: reply_to.into_owned(),
            mandatory: false,
            properties: Properties {
                correlation_id: self.correlation_id.clone(),
                ..properties
            },
            body,
        })
    }
}
