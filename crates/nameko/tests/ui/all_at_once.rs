//! One compilation reports all mistakes and no follow-up errors.

use nameko::prelude::*;

#[derive(Dependencies)]
struct Greeter {
    worker: WorkerContext,
    #[dependency]
    other: ServiceProxy,
}

#[service("the greeter")]
impl Greeter {
    #[rpc]
    fn hello(self, name: &str, _: u8) {}

    #[rpc(name = "bye")]
    async fn goodbye(&self) -> Result<()> {
        self.helper();
        Ok(())
    }

    fn helper(&self) {
        let _ = (&self.worker, &self.other);
    }
}

fn main() -> ExitCode {
    nameko::main(services![Greeter])
}
