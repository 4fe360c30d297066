//! Dependencies without a provider of one's own: values, shared values, nested structs, clusters.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use nameko::{
    Cluster, Config, Container, Provide, Runner, Shared,
    amqp::Value,
    prelude::*,
    services,
    testing::{Dummy, entrypoint_hook},
};

use crate::support;

#[derive(Dependencies)]
struct Tickets {
    #[dependency(Provide(Arc::new(AtomicUsize::new(1))))]
    next: Arc<AtomicUsize>,
}

#[service("tickets")]
impl Tickets {
    #[entrypoint(Dummy)]
    async fn draw(&self) -> Result<usize> {
        Ok(self.next.fetch_add(1, Ordering::Relaxed))
    }
}

#[tokio::test]
async fn a_provided_value_is_the_same_for_all_workers_of_a_container() {
    let container = Container::new::<Tickets>(Config::new()).unwrap();
    container.start().await.unwrap();
    let draw = entrypoint_hook(&container, "draw");
    assert_eq!(draw.call::<usize>(()).await.unwrap(), 1);
    assert_eq!(draw.call::<usize>(()).await.unwrap(), 2);
    container.stop().await;

    let other = Container::new::<Tickets>(Config::new()).unwrap();
    other.start().await.unwrap();
    let draw = entrypoint_hook(&other, "draw");
    assert_eq!(draw.call::<usize>(()).await.unwrap(), 1);
    other.stop().await;
}

/// A pool that writes into the log of its test.
#[derive(Clone)]
struct Pool {
    number: usize,
    log: Log,
}

type Log = Arc<Mutex<Vec<String>>>;

/// The log of each test, by the value of the config key `test`.
static LOGS: Mutex<Vec<(String, Log)>> = Mutex::new(Vec::new());

fn log(test: &str) -> Log {
    let mut logs = LOGS.lock().unwrap();
    if let Some((_, log)) = logs.iter().find(|(name, _)| name == test) {
        return log.clone();
    }
    let log = Log::default();
    logs.push((test.to_owned(), log.clone()));
    log
}

fn entries(log: &Log) -> Vec<String> {
    log.lock().unwrap().clone()
}

async fn connect(config: Config) -> Result<Pool> {
    // Other containers set up meanwhile.
    tokio::task::yield_now().await;
    let log = log(config.str("test")?.unwrap_or_default());
    if config.bool("unreachable")?.unwrap_or(false) {
        return Err("no database".into());
    }
    log.lock().unwrap().push("connect".to_owned());
    let number = entries(&log).len();
    Ok(Pool { number, log })
}

async fn close(pool: Pool) {
    pool.log.lock().unwrap().push("close".to_owned());
}

macro_rules! service_with_pool {
    ($name:ident, $text:literal) => {
        #[derive(Dependencies)]
        struct $name {
            #[dependency(Shared::new(connect).on_close(close))]
            pool: Pool,
        }

        #[service($text)]
        impl $name {
            #[entrypoint(Dummy)]
            async fn number(&self) -> Result<usize> {
                Ok(self.pool.number)
            }
        }
    };
}

service_with_pool!(Orders, "orders");
service_with_pool!(Stock, "stock");

#[tokio::test]
async fn services_of_a_runner_share_a_value_that_is_closed_after_the_last() {
    let config = Config::new().with("test", "runner");
    let runner = Runner::new::<&str>(&services![Orders, Stock], &[], &config).unwrap();
    runner.start().await.unwrap();
    assert_eq!(entries(&log("runner")), ["connect"]);
    runner.stop().await;
    assert_eq!(entries(&log("runner")), ["connect", "close"]);
}

#[tokio::test]
async fn the_value_lives_until_its_last_container_has_stopped() {
    let config = Config::new().with("test", "containers");
    let orders = Container::new::<Orders>(config.clone()).unwrap();
    let stock = Container::new::<Stock>(config.clone()).unwrap();
    orders.start().await.unwrap();
    stock.start().await.unwrap();
    orders.stop().await;
    assert_eq!(entries(&log("containers")), ["connect"]);
    let number = entrypoint_hook(&stock, "number");
    assert_eq!(number.call::<usize>(()).await.unwrap(), 1);
    stock.stop().await;
    assert_eq!(entries(&log("containers")), ["connect", "close"]);

    // The next container creates another value.
    let again = Container::new::<Stock>(config).unwrap();
    again.start().await.unwrap();
    again.stop().await;
    let expected = ["connect", "close", "connect", "close"];
    assert_eq!(entries(&log("containers")), expected);
}

#[tokio::test]
async fn containers_with_other_configurations_have_their_own_value() {
    let orders = Container::new::<Orders>(Config::new().with("test", "configurations")).unwrap();
    let stock = Container::new::<Stock>(Config::new().with("test", "configurations")).unwrap();
    orders.start().await.unwrap();
    stock.start().await.unwrap();
    assert_eq!(entries(&log("configurations")), ["connect", "connect"]);
    orders.stop().await;
    stock.stop().await;
}

#[tokio::test]
async fn a_value_that_cannot_be_created_fails_the_start() {
    let config = Config::new()
        .with("test", "fails")
        .with("unreachable", true);
    let container = Container::new::<Orders>(config).unwrap();
    let error = container.start().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "orders cannot start: dependency `pool`: no database"
    );
    assert_eq!(entries(&log("fails")), [""; 0]);
}

#[tokio::test]
async fn a_killed_container_closes_the_value_in_the_background() {
    let config = Config::new().with("test", "killed");
    let container = Container::new::<Orders>(config).unwrap();
    container.start().await.unwrap();
    container.kill("a test".into());
    let closed = async {
        while entries(&log("killed")) != ["connect", "close"] {
            tokio::task::yield_now().await;
        }
    };
    support::within("the end of the pool", closed).await;
}

/// Dependencies that several services have.
#[derive(Dependencies)]
struct Common {
    #[dependency(CurrentWorker)]
    worker: WorkerContext,
    #[dependency(ConfigValue::of("currency"))]
    currency: String,
}

#[derive(Dependencies)]
struct Prices {
    #[dependencies]
    common: Common,
    #[dependency(Provide(3))]
    price: u32,
}

#[service("prices")]
impl Prices {
    #[entrypoint(Dummy)]
    async fn price(&self) -> Result<String> {
        let method = self.common.worker.method_name();
        Ok(format!("{method}: {} {}", self.price, self.common.currency))
    }
}

#[tokio::test]
async fn a_struct_of_dependencies_is_a_dependency() {
    let config = Config::new().with("currency", "EUR");
    let container = Container::new::<Prices>(config).unwrap();
    container.start().await.unwrap();
    let price = entrypoint_hook(&container, "price");
    assert_eq!(price.call::<String>(()).await.unwrap(), "price: 3 EUR");
    container.stop().await;

    let error = Container::new::<Prices>(Config::new().with("currency", true));
    let error = error.unwrap().start().await.unwrap_err();
    assert!(error.to_string().contains("currency"), "{error}");
}

#[tokio::test]
async fn nested_dependencies_are_replaced_by_their_path_or_as_a_whole() {
    let container = Container::builder::<Prices>(Config::new())
        .replace("common.currency", "GBP".to_owned())
        .build()
        .unwrap();
    container.start().await.unwrap();
    let price = entrypoint_hook(&container, "price");
    assert_eq!(price.call::<String>(()).await.unwrap(), "price: 3 GBP");
    container.stop().await;

    /// Provides the whole struct.
    struct Fixed;

    impl DependencyProvider for Fixed {
        type Dependency = Common;

        async fn get_dependency(&self, ctx: &WorkerContext) -> Result<Common> {
            Ok(Common {
                worker: ctx.clone(),
                currency: "JPY".to_owned(),
            })
        }
    }

    let container = Container::builder::<Prices>(Config::new())
        .replace_provider("common", Fixed)
        .build()
        .unwrap();
    container.start().await.unwrap();
    let price = entrypoint_hook(&container, "price");
    assert_eq!(price.call::<String>(()).await.unwrap(), "price: 3 JPY");
    container.stop().await;

    let unknown = Container::builder::<Prices>(Config::new()).replace("common.price", 3);
    let error = unknown.build().unwrap_err().to_string();
    assert!(
        error.ends_with("there are: common.currency, common.worker, price"),
        "{error}"
    );
}

#[derive(Dependencies)]
struct Echo {
    #[dependency(CurrentWorker)]
    worker: WorkerContext,
}

#[service("echo")]
impl Echo {
    #[rpc]
    async fn context(&self) -> Result<(Option<String>, Option<String>, Vec<String>)> {
        let text = |key: &str| match self.worker.get(key) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let stack = self.worker.call_id_stack();
        Ok((text("tenant"), text("language"), stack))
    }
}

#[rpc_client("echo")]
trait EchoService {
    async fn context(&self) -> Result<(Option<String>, Option<String>, Vec<String>)>;
}

#[derive(Dependencies)]
struct Gateway {
    #[dependency(ClusterRpc::new())]
    cluster: ClusterProxy,
    #[dependency(EchoServiceClient::provider())]
    echo: EchoServiceClient,
}

type Context = (Option<String>, Option<String>, Vec<String>);

#[service("gateway")]
impl Gateway {
    #[rpc]
    async fn forward(&self, service: String, method: String) -> Result<Context> {
        let other = self.cluster.with_context("tenant", "other");
        let _: Context = other.service("echo").call("context", ()).await?;
        self.cluster.service(service).call(&method, ()).await
    }

    #[rpc]
    async fn as_tenant(&self, tenant: String) -> Result<[Context; 3]> {
        let cluster = self.cluster.with_context("tenant", tenant.as_str());
        let typed = self.echo.with_context("tenant", tenant.as_str());
        let french = cluster.with_context("language", Value::Null);
        Ok([
            cluster.service("echo").call("context", ()).await?,
            typed.context().await?,
            french.client::<EchoServiceClient>().context().await?,
        ])
    }
}

#[tokio::test]
async fn a_service_calls_names_known_at_run_time_with_context_of_its_own() {
    let broker = support::broker().await;
    let runner = support::run(&services![Echo, Gateway], &broker).await;
    let cluster = Cluster::connect(&broker.config()).await.unwrap();
    let cluster_in_french = cluster.with_context("language", "fr");
    let gateway = cluster_in_french.service("gateway");
    let french = Some("fr".to_owned());

    let (tenant, language, stack): Context =
        gateway.call("forward", ("echo", "context")).await.unwrap();
    assert_eq!((tenant, language), (None, french.clone()));
    assert_eq!(stack.len(), 3, "{stack:?}");

    let contexts: [Context; 3] = gateway.call("as_tenant", ("mars",)).await.unwrap();
    let mars = Some("mars".to_owned());
    for (context, language) in contexts.iter().zip([&french, &french, &None]) {
        assert_eq!((&context.0, &context.1), (&mars, language));
    }

    let unknown = gateway.call::<Context>("forward", ("nobody", "at_home"));
    let error = unknown.await.unwrap_err();
    assert!(error.to_string().contains("nobody"), "{error}");
    cluster.stop().await;
    runner.stop().await;
}

#[tokio::test]
async fn a_gateway_passes_the_call_ids_of_its_request_on() {
    let broker = support::broker().await;
    let runner = support::run(&services![Echo], &broker).await;
    let cluster = Cluster::connect(&broker.config()).await.unwrap();
    let callers = Value::List(vec!["web.get.1".into()]);
    let request = cluster.with_context("call_id_stack", callers);
    let (_, _, stack): Context = request.service("echo").call("context", ()).await.unwrap();
    assert_eq!(stack.len(), 3, "{stack:?}");
    assert_eq!(stack[0], "web.get.1");
    assert!(
        stack[1].starts_with("standalone_rpc_proxy.call."),
        "{stack:?}"
    );
    assert!(stack[2].starts_with("echo.context."), "{stack:?}");
    cluster.stop().await;
    runner.stop().await;
}

#[tokio::test]
async fn a_mocked_cluster_replies_by_service_and_method() {
    let cluster = ClusterProxy::mock(|service, method, args, _| {
        Ok(format!("{service}.{method}{args}").into())
    });
    let reply: String = cluster.service("a").call("b", (1,)).await.unwrap();
    assert_eq!(reply, "a.b[1]");
}
