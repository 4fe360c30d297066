//! Attributes and documentation of methods stay, in any order with the marker.

use nameko::prelude::*;

/// The state of a service.
#[derive(Dependencies)]
struct Documented {
    /// Who is calling.
    #[dependency(CurrentWorker)]
    worker: WorkerContext,
}

/// The methods of a service.
#[service("documented")]
impl Documented {
    /// Before the marker.
    #[rpc]
    /// After the marker.
    #[must_use = "it is polite to answer"]
    #[inline]
    async fn hello(&self, #[allow(unused_variables)] name: String) -> Result<String> {
        Ok(self.worker.to_string())
    }

    #[deprecated = "call `hello`"]
    #[rpc]
    async fn hi(&self) -> Result<String> {
        self.hello(String::new()).await
    }

    #[tracing::instrument(skip(self))]
    #[rpc]
    async fn traced(&self, name: String) -> Result<String> {
        tracing::debug!("in the method's span");
        Ok(name)
    }

    #[nameko::rpc]
    async fn by_path(&self) -> Result<()> {
        Self::helper();
        Ok(())
    }

    const LIMIT: u8 = 1;

    fn helper() -> u8 {
        Self::LIMIT
    }
}

#[test]
fn a_documented_service_is_a_service() {
    assert_eq!(Documented::NAME, "documented");
}
