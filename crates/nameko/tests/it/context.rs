//! Context data and configuration as dependencies.

use nameko::{
    Cluster, Container, Error, StandaloneDispatcher,
    amqp::{Table, Value},
    prelude::*,
    services,
    testing::entrypoint_waiter,
};
use serde::{Deserialize, Serialize};

use crate::support;

#[derive(Clone, Deserialize, Serialize, Debug, PartialEq)]
struct Tenant {
    id: u64,
    name: String,
}

#[derive(Clone, Deserialize, Serialize)]
struct Limits {
    lines: u32,
    #[serde(default)]
    note: String,
}

#[derive(Dependencies)]
struct Visited {
    #[dependency(Language)]
    language: Option<String>,
    #[dependency(UserId)]
    user_id: Option<String>,
    #[dependency(UserAgent)]
    user_agent: Option<String>,
    #[dependency(AuthToken)]
    auth_token: Option<String>,
    #[dependency(ContextData::new("tenant"))]
    tenant: Option<Tenant>,
    #[dependency(CurrentConfig)]
    config: Config,
    #[dependency(ConfigValue::of("limits"))]
    limits: Limits,
    #[dependency(ConfigValue::of("absent"))]
    absent: Option<Limits>,
}

#[service("visited")]
impl Visited {
    #[rpc]
    async fn who(&self) -> Result<[Option<String>; 4]> {
        Ok([
            self.language.clone(),
            self.user_id.clone(),
            self.user_agent.clone(),
            self.auth_token.clone(),
        ])
    }

    #[rpc]
    async fn tenant(&self) -> Result<Option<Tenant>> {
        Ok(self.tenant.clone())
    }

    #[rpc]
    async fn limits(&self) -> Result<(u32, String, bool, Option<i64>)> {
        let Limits { lines, note } = self.limits.clone();
        Ok((lines, note, self.absent.is_none(), self.config.int("size")?))
    }
}

fn with_limits(config: Config) -> Config {
    let more = Config::from_yaml("{limits: {lines: 3, note: few}, size: 7}", "test.yaml").unwrap();
    let mut config = config;
    config.merge(&more);
    config
}

async fn connect(config: &Config, data: Table) -> Cluster {
    Cluster::connect_with(config, data).await.unwrap()
}

#[tokio::test]
async fn context_data_of_the_call_is_injected() {
    let broker = support::broker().await;
    let config = with_limits(broker.config());
    let container = Container::new::<Visited>(config.clone()).unwrap();
    container.start().await.unwrap();

    let mut data = Table::from([("language", "de"), ("user_agent", "shop/1.2")]);
    data.insert("user_id", 17);
    data.insert("auth_token", "s3cret");
    let mut tenant = Table::from([("name", "acme")]);
    tenant.insert("id", 1);
    data.insert("tenant", tenant);
    let cluster = connect(&config, data).await;
    let visited = cluster.service("visited");
    let who: [Option<String>; 4] = visited.call("who", ()).await.unwrap();
    let expected = ["de", "17", "shop/1.2", "s3cret"];
    assert_eq!(
        who.each_ref().map(|value| value.as_deref().unwrap()),
        expected
    );
    let tenant: Option<Tenant> = visited.call("tenant", ()).await.unwrap();
    let name = "acme".to_owned();
    assert_eq!(tenant, Some(Tenant { id: 1, name }));
    cluster.stop().await;

    let cluster = connect(&config, Table::new()).await;
    let visited = cluster.service("visited");
    let who: [Option<String>; 4] = visited.call("who", ()).await.unwrap();
    assert_eq!(who, [const { None }; 4]);
    cluster.stop().await;

    let cluster = connect(&config, Table::from([("tenant", "acme")])).await;
    let visited = cluster.service("visited");
    let error = visited.call::<()>("who", ()).await.unwrap_err();
    assert!(matches!(error, Error::MalformedRequest(_)), "{error:?}");
    assert!(error.to_string().starts_with("context data `tenant`: "));
    cluster.stop().await;
    container.stop().await;
}

#[tokio::test]
async fn the_configuration_and_its_sections_are_injected() {
    let broker = support::broker().await;
    let config = with_limits(broker.config());
    let container = Container::new::<Visited>(config.clone()).unwrap();
    container.start().await.unwrap();
    let cluster = connect(&config, Table::new()).await;
    let limits: (u32, String, bool, Option<i64>) =
        cluster.service("visited").call("limits", ()).await.unwrap();
    assert_eq!(limits, (3, "few".to_owned(), true, Some(7)));
    cluster.stop().await;
    container.stop().await;
}

#[tokio::test]
async fn an_invalid_section_fails_the_start() {
    let broker = support::broker().await;
    for (text, expected) in [
        (
            "size: 7\nlimits: {lines: many}",
            "test.yaml:2:9: limits is wrong: invalid type: string \"many\", expected u32",
        ),
        ("size: 7", "limits is required but not set"),
    ] {
        let mut config = broker.config();
        config.merge(&Config::from_yaml(text, "test.yaml").unwrap());
        let container = Container::new::<Visited>(config).unwrap();
        let error = container.start().await.unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn the_whole_configuration_deserializes_into_a_type() {
    #[derive(Clone, Deserialize)]
    struct Settings {
        size: u8,
        limits: Limits,
    }

    let config = with_limits(Config::new());
    let settings: Settings = config.read_all().unwrap();
    assert_eq!((settings.size, settings.limits.lines), (7, 3));
    let error = Config::new().read_all::<Settings>().err().unwrap();
    assert_eq!(
        error.to_string(),
        "the configuration is wrong: missing field `size`"
    );
}

#[derive(Dependencies)]
struct Grumpy;

#[service("grumpy")]
impl Grumpy {
    #[rpc]
    async fn text(&self) -> Result<()> {
        Err("no order 17".into())
    }

    #[rpc]
    async fn formatted(&self, id: u64) -> Result<()> {
        Err(format!("no order {id}").into())
    }
}

#[tokio::test]
async fn a_string_converts_into_an_error() {
    let broker = support::broker().await;
    let runner = support::run(&services![Grumpy], &broker).await;
    let cluster = connect(&broker.config(), Table::new()).await;
    let grumpy = cluster.service("grumpy");
    let error = grumpy.call::<()>("text", ()).await.unwrap_err();
    assert_eq!(error.to_string(), "Error no order 17");
    let error = grumpy.call::<()>("formatted", (18,)).await.unwrap_err();
    assert_eq!(error.to_string(), "Error no order 18");
    cluster.stop().await;
    runner.stop().await;
}

/// Reports the context of its calls and events.
#[derive(Dependencies)]
struct Audit {
    #[dependency(CurrentWorker)]
    worker: WorkerContext,
    #[dependency(ContextData::new("tenant"))]
    tenant: Option<String>,
    #[dependency(Language)]
    language: Option<String>,
}

/// Tenant, language, and the call ids of the callers without their random part.
type Seen = (Option<String>, Option<String>, Vec<String>);

#[service("audit")]
impl Audit {
    #[rpc]
    async fn seen(&self) -> Result<Seen> {
        let mut ids = self.worker.call_id_stack();
        ids.pop();
        let methods = ids.iter().map(|id| match id.rsplit_once('.') {
            Some((method, _)) => method.to_owned(),
            None => id.clone(),
        });
        Ok((
            self.tenant.clone(),
            self.language.clone(),
            methods.collect(),
        ))
    }

    #[event_handler("front", "visited")]
    async fn visited(&self, _data: ()) -> Result<Seen> {
        self.seen().await
    }
}

#[rpc_client("audit")]
trait AuditApi {
    async fn seen(&self) -> Result<Seen>;
}

#[derive(Dependencies)]
struct Front {
    #[dependency(RpcProxy::new("audit"))]
    proxy: ServiceProxy,
    #[dependency(AuditApiClient::provider())]
    client: AuditApiClient,
    #[dependency(EventDispatcher::new())]
    events: Dispatcher,
}

#[service("front")]
impl Front {
    /// Calls for another tenant, and then unchanged.
    #[rpc]
    async fn ask(&self) -> Result<[Seen; 3]> {
        let proxy = self.proxy.with_context("tenant", "other");
        let client = self.client.with_context("tenant", "other");
        Ok([
            proxy.call("seen", ()).await?,
            client.seen().await?,
            self.proxy.call("seen", ()).await?,
        ])
    }

    #[rpc]
    async fn announce(&self) -> Result<()> {
        let events = self.events.with_context("tenant", "other");
        events.dispatch("visited", &()).await
    }

    #[rpc]
    async fn ask_wrongly(&self) -> Result<Seen> {
        let proxy = self.proxy.with_context("rate", f64::INFINITY);
        proxy.call("seen", ()).await
    }
}

#[tokio::test]
async fn context_data_is_set_for_single_calls() {
    let broker = support::broker().await;
    let runner = support::run(&services![Audit, Front], &broker).await;
    let seen = |tenant: Option<&str>, language: Option<&str>, callers: &[&str]| {
        let owned = |text: &str| text.to_owned();
        let callers = callers.iter().map(|caller| owned(caller)).collect();
        (tenant.map(owned), language.map(owned), callers)
    };

    // Of proxies and typed clients of a service; the data of the worker is unchanged.
    let data = Table::from([("tenant", "acme"), ("language", "fr")]);
    let cluster = connect(&broker.config(), data).await;
    let front = cluster.service("front");
    let [by_proxy, by_client, unchanged]: [Seen; 3] = front.call("ask", ()).await.unwrap();
    let callers = ["standalone_rpc_proxy.call", "front.ask"];
    let other = seen(Some("other"), Some("fr"), &callers);
    assert_eq!((by_proxy, by_client), (other.clone(), other));
    assert_eq!(unchanged, seen(Some("acme"), Some("fr"), &callers));

    // Of a gateway that is no service: per request, with the trace of the request.
    let request = cluster
        .with_context("language", Value::Null)
        .with_context("call_id_stack", vec!["gateway.request.1"]);
    let asked: Seen = request.service("audit").call("seen", ()).await.unwrap();
    let callers = ["gateway.request", "standalone_rpc_proxy.call"];
    assert_eq!(asked, seen(Some("acme"), None, &callers));
    let further = request.with_context("tenant", "other");
    let asked = further.client::<AuditApiClient>().seen().await.unwrap();
    assert_eq!(asked, seen(Some("other"), None, &callers));
    let asked: Seen = cluster.service("audit").call("seen", ()).await.unwrap();
    assert_eq!(asked, seen(Some("acme"), Some("fr"), &callers[1..]));

    // Of events, by services and by programs.
    let audit = &runner.containers()[0];
    let mut handled = entrypoint_waiter(audit, "visited");
    let _: () = front.call("announce", ()).await.unwrap();
    let callers = ["standalone_rpc_proxy.call", "front.announce"];
    assert_eq!(
        handled.result::<Seen>().await.unwrap(),
        seen(Some("other"), Some("fr"), &callers)
    );
    let mut handled = entrypoint_waiter(audit, "visited");
    let events = StandaloneDispatcher::new(&broker.config()).unwrap();
    let events = events
        .with_context("tenant", "acme")
        .with_context("call_id_stack", vec!["a.b.1"]);
    events.dispatch("front", "visited", &()).await.unwrap();
    assert_eq!(
        handled.result::<Seen>().await.unwrap(),
        seen(Some("acme"), None, &["a.b"])
    );
    cluster.stop().await;
    runner.stop().await;
}

#[tokio::test]
async fn a_context_value_that_cannot_be_a_header_is_named() {
    let broker = support::broker().await;
    let runner = support::run(&services![Audit, Front], &broker).await;
    let cannot = "the context value `rate` cannot be sent: a header cannot hold the number ";

    let connected =
        Cluster::connect_with(&broker.config(), Table::from([("rate", f64::NAN)])).await;
    assert_eq!(connected.unwrap_err().to_string(), format!("{cannot}NaN"));
    let cluster = connect(&broker.config(), Table::new()).await;
    let audit = cluster.with_context("rate", f64::NAN).service("audit");
    let error = audit.call::<Seen>("seen", ()).await.unwrap_err();
    assert!(matches!(error, Error::InvalidContext { .. }), "{error:?}");
    assert_eq!(error.to_string(), format!("{cannot}NaN"));
    let front = cluster.service("front");
    let error = front.call::<Seen>("ask_wrongly", ()).await.unwrap_err();
    assert_eq!(error.to_string(), format!("ValueError {cannot}inf"));
    let events = StandaloneDispatcher::new(&broker.config()).unwrap();
    let sent = events
        .with_context("rate", f64::NAN)
        .dispatch("front", "visited", &());
    assert_eq!(sent.await.unwrap_err().to_string(), format!("{cannot}NaN"));
    cluster.stop().await;
    runner.stop().await;
}
