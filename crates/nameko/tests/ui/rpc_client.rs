//! A client trait has a name, and `async` methods with `&self`, owned arguments and owned results.

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
