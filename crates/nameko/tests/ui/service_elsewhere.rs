//! `#[service]` belongs on the struct's own impl.

use nameko::prelude::*;

#[service("on_struct")]
struct OnStruct;

#[service("on_enum")]
enum OnEnum {}

#[service("on_fn")]
fn on_fn() {}

#[service("on_trait")]
trait OnTrait {
    fn method(&self);
}

#[service("on_mod")]
mod on_mod {}

#[service("on_const")]
const ON_CONST: u8 = 1;

#[service("on_trait_impl")]
impl OnTrait for OnStruct {
    #[rpc]
    fn method(&self) {}
}

struct Generic<T>(T);

#[service("generic")]
impl<T> Generic<T> {
    #[rpc]
    async fn hello(&self) -> Result<()> {
        Ok(())
    }
}

fn main() {}
