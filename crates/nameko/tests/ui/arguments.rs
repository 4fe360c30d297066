//! Arguments must be owned and named.

#![allow(unused_variables)]

use std::{borrow::Cow, path::Path};

use nameko::prelude::*;

#[derive(Dependencies)]
struct Greeter;

#[service("greeter")]
impl Greeter {
    #[rpc]
    async fn text(&self, name: &str) -> Result<()> {
        Ok(())
    }

    #[rpc]
    async fn bytes(&self, r#type: &'static [u8], b: &mut Vec<u8>, c: &Path) -> Result<()> {
        Ok(())
    }

    #[rpc]
    async fn nested(&self, names: Option<Vec<(u8, &str)>>) -> Result<()> {
        Ok(())
    }

    #[rpc]
    async fn lifetime(&self, name: Cow<'_, str>) -> Result<()> {
        Ok(())
    }

    #[rpc]
    async fn nameless_type(&self, name: impl Into<String>) -> Result<()> {
        Ok(())
    }

    #[rpc]
    async fn tuple(&self, (a, b): (u8, u8)) -> Result<()> {
        Ok(())
    }

    #[rpc]
    async fn nameless(&self, _: u8) -> Result<()> {
        Ok(())
    }

    #[rpc]
    async fn by_reference(&self, ref name: String) -> Result<()> {
        Ok(())
    }
}

fn main() {
    let _ = services![Greeter];
}
