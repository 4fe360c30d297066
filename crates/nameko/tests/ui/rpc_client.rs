//! What a client's trait is: a name, and methods that are `async`, take `&self` and own what they take and return.

use nameko::prelude::*;

#[rpc_client]
trait NoName {
    async fn f(&self) -> Result<()>;
}

#[rpc_client("a.b", timeout = 5)]
trait WrongArguments {
    async fn f(&self) -> Result<()>;
}

#[rpc_client("orders")]
trait WrongMethods {
    const LIMIT: u8;
    fn find(&self, id: u64) -> Result<String>;
    async fn add(self, name: &str, (a, b): (u8, u8));
    async fn all<T>(&self) -> Result<&str>;
    async fn count(&self) -> Result<u64> {
        Ok(1)
    }
    async fn with_timeout(&self) -> Result<()>;
}

#[rpc_client("orders")]
struct Orders;

fn main() {
    let _ = WrongMethodsClient::provider();
}
