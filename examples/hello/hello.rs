//! The hello service: `cargo run --bin hello -- run`, then `cargo run --bin hello -- shell`.

use nameko::prelude::*;

#[derive(Dependencies)]
struct HelloService;

#[service("hello_service")]
impl HelloService {
    #[rpc]
    async fn hello(&self, name: String) -> Result<String> {
        Ok(format!("Hello, {name}!"))
    }
}

fn main() -> ExitCode {
    nameko::main(services![HelloService])
}
