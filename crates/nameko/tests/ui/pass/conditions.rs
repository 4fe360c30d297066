//! `#[cfg]` on a service, a method, a parameter and a field is honoured.

use nameko::prelude::*;

#[derive(Dependencies)]
struct Conditional {
    #[dependency(CurrentWorker)]
    worker: WorkerContext,
    #[cfg(not(test))]
    #[dependency(this_provider_does_not_exist())]
    never: ThisTypeDoesNotExist,
}

#[service("conditional")]
#[cfg(test)]
impl Conditional {
    #[cfg(not(test))]
    #[rpc]
    async fn never(&self, a: ThisTypeDoesNotExist) -> Result<()> {
        Ok(())
    }

    #[rpc]
    #[cfg(test)]
    async fn either(&self) -> Result<String> {
        Ok(self.worker.to_string())
    }

    #[cfg(not(test))]
    #[rpc]
    async fn either(&self) -> Result<u8> {
        Ok(1)
    }

    #[rpc]
    async fn parameter(
        &self,
        #[cfg(not(test))] never: ThisTypeDoesNotExist,
        #[cfg(test)] always: u8,
    ) -> Result<u8> {
        Ok(always)
    }

    #[http(GET, "/{always}")]
    async fn path(
        &self,
        #[cfg(not(test))] never: ThisTypeDoesNotExist,
        #[cfg(test)] always: u8,
    ) -> Result<String> {
        Ok(always.to_string())
    }
}

#[service("never")]
#[cfg(not(test))]
impl ThisTypeDoesNotExist {
    #[rpc]
    async fn never(&self) -> Result<()> {
        Ok(())
    }
}

#[test]
fn a_conditional_service_is_a_service() {
    assert_eq!(Conditional::NAME, "conditional");
}
