//! The futures of methods must be `Send`.

use std::rc::Rc;

use nameko::prelude::*;

#[derive(Dependencies)]
struct Greeter;

#[service("greeter")]
impl Greeter {
    #[rpc]
    async fn hello(&self) -> Result<String> {
        let name = Rc::new(String::new());
        std::future::ready(()).await;
        Ok(name.to_string())
    }
}

fn main() {}
