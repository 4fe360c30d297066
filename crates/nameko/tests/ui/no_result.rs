//! A return type other than `Result` is an error at the type.

use nameko::prelude::*;

#[derive(Dependencies)]
struct Greeter;

#[service("greeter")]
impl Greeter {
    #[rpc]
    async fn hello(&self, name: String) -> String {
        format!("Hello, {name}!")
    }

    #[rpc]
    async fn maybe(&self) -> Option<Vec<u8>> {
        None
    }
}

fn main() {}
