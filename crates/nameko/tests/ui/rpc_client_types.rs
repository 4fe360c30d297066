//! Client methods: serializable arguments and results, errors with `From<nameko::Error>`.

use nameko::prelude::*;

#[derive(Clone)]
struct Secret;

#[derive(serde::Serialize)]
struct Here(std::marker::PhantomData<*const u8>);

#[derive(Debug)]
struct OwnError;

type Wrong<T> = std::result::Result<T, OwnError>;

#[rpc_client("orders")]
trait Orders {
    async fn send(&self, secret: Secret) -> Result<()>;
    async fn receive(&self) -> Result<Secret>;
    async fn raise(&self) -> Wrong<String>;
    async fn plain(&self) -> String;
    async fn stay(&self, here: Here) -> Result<()>;
}

fn main() {}
