//! Services for tests.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use nameko::{Fault, prelude::*};
use tokio::sync::Notify;

#[derive(Dependencies)]
pub(crate) struct ServiceY {
    #[dependency(CurrentWorker)]
    worker: WorkerContext,
}

#[service("service_y")]
impl ServiceY {
    #[rpc]
    async fn append_id(&self, value: String) -> Result<String> {
        Ok(format!("{value}-y"))
    }

    #[rpc]
    async fn context(&self) -> Result<(Vec<String>, Option<String>)> {
        let language = self.worker.get("language");
        Ok((
            self.worker.call_id_stack(),
            language.and_then(|language| language.as_str().map(str::to_owned)),
        ))
    }
}

#[derive(Dependencies)]
pub(crate) struct ServiceX {
    #[dependency(RpcProxy::new("service_y"))]
    y: ServiceProxy,
    #[dependency(RpcProxy::new("nobody"))]
    nobody: ServiceProxy,
    #[dependency(CurrentWorker)]
    worker: WorkerContext,
}

#[service("service_x")]
impl ServiceX {
    #[rpc]
    async fn remote_method(&self, value: String) -> Result<String> {
        self.y.call("append_id", (format!("{value}-x"),)).await
    }

    #[rpc]
    async fn context(&self, language: Option<String>) -> Result<(Vec<String>, Option<String>)> {
        if let Some(language) = language {
            self.worker.set("language", language);
        }
        self.y.call("context", ()).await
    }

    #[rpc]
    async fn call_nobody(&self) -> Result<String> {
        self.nobody.call("hello", ()).await
    }
}

#[derive(Debug)]
pub(crate) struct OutOfStock(u32);

impl std::fmt::Display for OutOfStock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} left", self.0)
    }
}

impl std::error::Error for OutOfStock {}

/// Notifications of started `Troubles::hang` calls, by the name of the test.
static HANGING: Mutex<BTreeMap<String, Arc<Notify>>> = Mutex::new(BTreeMap::new());

/// Returns the notification for `Troubles::hang` of `test`.
pub(crate) fn hanging(test: &str) -> Arc<Notify> {
    HANGING
        .lock()
        .unwrap()
        .entry(test.to_owned())
        .or_default()
        .clone()
}

#[derive(Dependencies)]
pub(crate) struct Troubles;

#[service("troubles")]
impl Troubles {
    #[rpc]
    async fn echo(&self, value: serde_json::Value) -> Result<serde_json::Value> {
        Ok(value)
    }

    #[rpc]
    async fn raise(&self) -> Result<(), OutOfStock> {
        Err(OutOfStock(3))
    }

    #[rpc]
    async fn raise_named(&self) -> Result<()> {
        Err(nameko::Error::raise("NotFound", "no order 17"))
    }

    #[rpc]
    async fn panic(&self) -> Result<()> {
        panic!("out of cheese")
    }

    #[rpc]
    async fn hang(&self, test: String) -> Result<()> {
        hanging(&test).notify_one();
        std::future::pending().await
    }

    #[rpc]
    async fn nap(&self, milliseconds: u64) -> Result<u64> {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        Ok(milliseconds)
    }

    #[rpc]
    async fn unserializable(&self) -> Result<std::collections::HashMap<(u8, u8), u8>> {
        Ok([((1, 2), 3)].into())
    }

    #[rpc]
    async fn fault(&self) -> Result<Option<Fault>> {
        Ok(None)
    }
}

/// Records received values; a test replaces the dependency with its own recorder.
pub(crate) type Received = nameko::testing::Recorder<String>;

/// Injects an unused recorder.
pub(crate) struct Hearing;

impl DependencyProvider for Hearing {
    type Dependency = Received;

    async fn get_dependency(&self, _: &WorkerContext) -> Result<Received> {
        Ok(Received::new())
    }
}
