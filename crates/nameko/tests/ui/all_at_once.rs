//! One compilation shows everything that is wrong, and nothing that follows from it.

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
