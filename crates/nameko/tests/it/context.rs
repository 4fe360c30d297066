//! Context data and configuration as dependencies.

use nameko::{Cluster, Container, Error, amqp::Table, prelude::*, services};
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
