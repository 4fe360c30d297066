//! The hello service of `make bench-check`, see `check.py`.

use std::os::unix::process::parent_id;

use nameko::prelude::*;

#[derive(Dependencies)]
struct HelloService;

#[service("instructions")]
impl HelloService {
    #[rpc]
    async fn hello(&self, name: String) -> Result<String> {
        Ok(format!("Hello, {name}!"))
    }

    /// Ends a segment: callgrind dumps and resets its counters before each `getppid`.
    #[rpc]
    async fn mark(&self, name: String) -> Result<String> {
        Ok(format!("Hello, {name} of process {}!", parent_id()))
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let uri = std::env::args().nth(1).unwrap_or_default();
    let container = Container::new::<HelloService>(Config::new().with("AMQP_URI", uri))?;
    container.start().await?;
    container.wait().await
}
