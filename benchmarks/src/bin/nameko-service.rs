//! The hello service on Nameko, over RPC.

use nameko::prelude::*;

#[derive(Dependencies)]
struct HelloService;

#[service("bench_nameko")]
impl HelloService {
    #[rpc]
    async fn hello(&self, name: String) -> Result<String> {
        Ok(format!("Hello, {name}!"))
    }
}

fn main() -> ExitCode {
    nameko::main(services![HelloService])
}
