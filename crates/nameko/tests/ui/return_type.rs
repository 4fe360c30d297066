//! Entrypoints return an owned `Result`.

use std::borrow::Cow;

use nameko::prelude::*;

#[derive(Dependencies)]
struct Greeter;

#[service("greeter")]
impl Greeter {
    #[rpc]
    async fn nothing(&self) {}

    #[rpc]
    async fn borrowed(&self) -> Result<&str> {
        Ok("hello")
    }

    #[rpc]
    async fn lifetime(&self) -> Result<Cow<'_, str>> {
        Ok("hello".into())
    }

    #[rpc]
    async fn nameless(&self) -> Result<impl Into<String>> {
        Ok("hello")
    }
}

fn main() {
    let _ = services![Greeter];
}
