//! A service and a client without any feature of the crate, and the errors about disabled features.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use nameko::{
    Bindings, Cluster, Config, Container, Dependencies, Entrypoints, Error, EventDispatcher,
    EventHandler, Injector, Method, Param, Result, Rpc, RpcProxy, Service, ServiceProxy,
};
use nameko_broker::Broker;
use tokio::sync::mpsc;

const NAME: &[Param] = &[Param::required("name")];

/// A service against the public traits, without macros.
struct Greeter;

impl Greeter {
    async fn hello(&self, name: String) -> Result<String> {
        if name.is_empty() {
            return Err(Error::raise("ValueError", "no name"));
        }
        Ok(format!("Hello, {name}!"))
    }
}

impl Dependencies for Greeter {
    fn bind(_: &mut Bindings<'_>) -> Injector<Self> {
        Injector::new(|_ctx| async { Ok(Self) })
    }
}

impl Service for Greeter {
    const NAME: &'static str = "greeter";

    fn entrypoints(entrypoints: &mut Entrypoints<Self>) {
        let hello = Method::new("hello", NAME, |args| {
            let name = args.take::<String>()?;
            Ok(Method::call(move |service: &Self| {
                Box::pin(async move { Method::<Self>::reply(service.hello(name).await) })
            }))
        });
        entrypoints.add(Rpc::new(), hello);
    }
}

/// A service that calls the other one, and dispatches an event.
struct Host {
    greeter: ServiceProxy,
    events: nameko::Dispatcher,
}

impl Dependencies for Host {
    fn bind(bindings: &mut Bindings<'_>) -> Injector<Self> {
        let greeter = bindings.provide("greeter", RpcProxy::new("greeter"));
        let events = bindings.provide("events", EventDispatcher::new());
        Injector::new(move |ctx| {
            let (greeter, events) = (greeter.clone(), events.clone());
            async move {
                Ok(Self {
                    greeter: greeter.get(&ctx).await?,
                    events: events.get(&ctx).await?,
                })
            }
        })
    }
}

impl Service for Host {
    const NAME: &'static str = "host";

    fn entrypoints(entrypoints: &mut Entrypoints<Self>) {
        let welcome = Method::new("welcome", NAME, |args| {
            let name = args.take::<String>()?;
            Ok(Method::call(move |host: &Self| {
                Box::pin(async move { Method::<Self>::reply(host.welcome(name).await) })
            }))
        });
        entrypoints.add(Rpc::new(), welcome);
    }
}

impl Host {
    async fn welcome(&self, name: String) -> Result<String> {
        let text: String = self.greeter.call("hello", (&name,)).await?;
        self.events.dispatch("welcomed", &name).await?;
        Ok(text)
    }
}

/// A service with an event handler that forwards the data to the test.
struct Listener {
    welcomed: mpsc::UnboundedSender<String>,
}

static WELCOMED: std::sync::Mutex<Option<mpsc::UnboundedSender<String>>> =
    std::sync::Mutex::new(None);

impl Dependencies for Listener {
    fn bind(_: &mut Bindings<'_>) -> Injector<Self> {
        let welcomed = WELCOMED.lock().unwrap().clone().unwrap();
        Injector::new(move |_ctx| {
            let welcomed = welcomed.clone();
            async { Ok(Self { welcomed }) }
        })
    }
}

impl Service for Listener {
    const NAME: &'static str = "listener";

    fn entrypoints(entrypoints: &mut Entrypoints<Self>) {
        let on_welcomed = Method::new("on_welcomed", NAME, |args| {
            let name = args.take::<String>()?;
            Ok(Method::call(move |listener: &Self| {
                let _ = listener.welcomed.send(name);
                Box::pin(async { Method::<Self>::reply::<_, Error, _>(Ok(())) })
            }))
        });
        entrypoints.add(EventHandler::new("host", "welcomed"), on_welcomed);
    }
}

#[tokio::test]
async fn services_and_clients_need_no_feature() {
    let broker = Broker::start("127.0.0.1:0").await.unwrap();
    let config = Config::new().with("AMQP_URI", broker.uri());
    let (sender, mut welcomed) = mpsc::unbounded_channel();
    WELCOMED.lock().unwrap().replace(sender);
    let containers = [
        Container::new::<Greeter>(config.clone()).unwrap(),
        Container::new::<Listener>(config.clone()).unwrap(),
        Container::new::<Host>(config.clone()).unwrap(),
    ];
    for container in &containers {
        container.start().await.unwrap();
    }

    let cluster = Cluster::connect(&config).await.unwrap();
    let host = cluster.service("host");
    let text: String = host.call("welcome", ("Ada",)).await.unwrap();
    assert_eq!(text, "Hello, Ada!");
    assert_eq!(welcomed.recv().await.unwrap(), "Ada");
    let error = host.call::<String>("welcome", ("",)).await.unwrap_err();
    assert_eq!(error.to_string(), "RemoteError ValueError no name");

    cluster.stop().await;
    for container in &containers {
        container.stop().await;
    }
    broker.stop().await;
}

/// Returns the error of a service's start with a value of the configuration.
#[cfg(not(all(feature = "msgpack", feature = "tls")))]
async fn start_error(key: &str, value: &str) -> String {
    let config = Config::new().with(key, value);
    let container = Container::new::<Greeter>(config).unwrap();
    container.start().await.unwrap_err().to_string()
}

#[cfg(not(feature = "msgpack"))]
#[tokio::test]
async fn the_msgpack_serializer_names_its_feature() {
    assert_eq!(
        start_error("serializer", "msgpack").await,
        "serializer has the format `msgpack`, which needs the feature `msgpack` of the crate nameko"
    );
}

#[cfg(not(feature = "tls"))]
#[tokio::test]
async fn a_tls_uri_names_its_feature() {
    assert_eq!(
        start_error("AMQP_URI", "amqps://rabbit").await,
        "AMQP_URI asks for TLS, which needs the feature `tls` of the crate nameko"
    );
}

#[cfg(not(feature = "compression"))]
#[test]
fn a_compressed_body_names_the_feature() {
    use nameko::{
        amqp::{Properties, Table},
        serialization::{Codec, Compression},
    };

    let codec = Codec::named("json").unwrap();
    let error = codec.encode(&1).unwrap().compress(Compression::Gzip);
    let text = error.unwrap_err().to_string();
    let needs =
        "the compression application/x-gzip needs the feature `compression` of the crate nameko";
    assert!(text.ends_with(needs), "{text}");
    let properties = Properties {
        headers: Table::new().with("compression", "gzip"),
        content_type: Some("application/json".into()),
        ..Properties::default()
    };
    let text = codec
        .decode(&properties, &b"x"[..].into())
        .unwrap_err()
        .to_string();
    assert!(text.ends_with(needs), "{text}");
}
