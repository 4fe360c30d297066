//! Generated code passes strict lints.

#![deny(
    missing_docs,
    unused,
    unused_qualifications,
    unused_results,
    unreachable_pub,
    rust_2018_idioms,
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    clippy::allow_attributes_without_reason,
    clippy::absolute_paths,
    clippy::shadow_unrelated,
    clippy::unwrap_used,
    clippy::missing_docs_in_private_items,
    clippy::unreachable,
    clippy::wildcard_enum_match_arm
)]
#![allow(clippy::redundant_pub_crate, reason = "a module of a test is private")]
#![forbid(unsafe_code)]

use nameko::{
    CurrentWorker, Dependencies, Result, RpcProxy, ServiceProxy, WorkerContext, http, rpc, service,
    web::{AsyncFromRequest, Request},
};

/// A service.
#[derive(Dependencies)]
pub(crate) struct Strict {
    /// Another service.
    #[dependency(RpcProxy::new("other"))]
    other: ServiceProxy,
    /// Who is calling.
    #[dependency(CurrentWorker)]
    worker: WorkerContext,
}

#[service("strict")]
impl Strict {
    /// Calls another service.
    ///
    /// # Errors
    /// Those of the other service.
    #[rpc]
    pub(crate) async fn ask(&self, question: String, times: Option<u32>) -> Result<String> {
        self.worker.set("times", i64::from(times.unwrap_or(1)));
        self.other.call("ask", (question,)).await
    }

    /// Uses neither `self` nor what it is given, nor waits for anything.
    ///
    /// # Errors
    /// None.
    #[rpc]
    pub(crate) async fn ignore(&self, ignored: String) -> Result<usize> {
        Ok(ignored.len())
    }

    /// Has no arguments.
    #[rpc]
    async fn nothing(&self) -> Result<()> {
        Ok(())
    }

    /// Takes arguments of both kinds.
    #[http(GET, PATH)]
    async fn get(&self, id: u64, method: MethodName) -> Result<String> {
        Ok(format!("{} {id}", method.0))
    }
}

/// A path.
const PATH: &str = "/strict/{id}";

/// The name of the method, for any service.
struct MethodName(&'static str);

impl<S: Sync> AsyncFromRequest<S> for MethodName {
    const READS_PATH: bool = false;

    async fn from_request(
        _: &mut Request,
        _: &'static str,
        worker: &WorkerContext,
        _: &S,
    ) -> Result<Self> {
        Ok(Self(worker.method_name()))
    }
}

/// A service without dependencies and entrypoints.
#[derive(Dependencies)]
pub(crate) struct Empty {}

#[service("empty")]
impl Empty {}

#[test]
fn a_strict_service_is_a_service() {
    use nameko::Service as _;
    assert_eq!([Strict::NAME, Empty::NAME], ["strict", "empty"]);
}
