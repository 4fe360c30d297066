//! The hello service on Nameko, with a method that waits.

use std::time::Duration;

use nameko::prelude::*;

#[derive(Dependencies)]
struct HelloService;

#[service("bench_lifetime")]
impl HelloService {
    #[rpc]
    async fn hello(&self, name: String) -> Result<String> {
        Ok(format!("Hello, {name}!"))
    }

    /// Answers after a second.
    #[rpc]
    async fn wait(&self, name: String) -> Result<String> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(format!("Hello, {name}!"))
    }
}

fn main() -> ExitCode {
    nameko::main(services![HelloService])
}
