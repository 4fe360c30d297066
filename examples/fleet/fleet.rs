//! A service of a mixed fleet. `fleet.py` implements it in Python, also for Nameko 2.
//!
//! The three services call each other by name, so a call can pass through all of them.
//! `shared_fleet` is one service with instances of all three kinds.

#[path = "fleet_errors.rs"]
mod errors;

use std::{collections::BTreeMap, fmt};

use nameko::{amqp::Value, exceptions, prelude::*};
use serde_json::value::RawValue;

use crate::errors::NotFound;

#[derive(Dependencies)]
struct Fleet {
    #[dependency(CurrentWorker)]
    worker: WorkerContext,
    #[dependency(RpcProxy::new("rust_fleet"))]
    rust: ServiceProxy,
    #[dependency(RpcProxy::new("python_fleet"))]
    python: ServiceProxy,
    #[dependency(RpcProxy::new("upstream_fleet"))]
    upstream: ServiceProxy,
}

#[service("rust_fleet")]
impl Fleet {
    /// Returns its argument, of any type.
    #[rpc]
    async fn echo(&self, value: Box<RawValue>) -> Result<Box<RawValue>> {
        Ok(value)
    }

    #[rpc]
    async fn greet(&self, name: String, greeting: Option<String>) -> Result<String> {
        let greeting = greeting.unwrap_or_else(|| "Hello".to_owned());
        Ok(format!("{greeting}, {name}!"))
    }

    #[rpc]
    async fn fail(&self) -> Result<()> {
        Err(Error::raise("ValueError", "bad"))
    }

    #[rpc]
    async fn fail_with_own_error(&self, item: String) -> Result<(), OutOfStock> {
        Err(OutOfStock(item))
    }

    #[rpc]
    async fn fail_with_known_error(&self) -> Result<(), NotFound> {
        Err(NotFound(17))
    }

    /// Returns a value that JSON cannot represent.
    #[rpc]
    async fn unserialisable(&self) -> Result<BTreeMap<(u8, u8), u8>> {
        Ok(BTreeMap::from([((1, 2), 3)]))
    }

    /// Returns a value of the context data.
    #[rpc]
    async fn context(&self, key: String) -> Result<Option<String>> {
        Ok(match self.worker.get(&key) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        })
    }

    /// Calls the first service of the path with the rest of the path. The last service returns its
    /// call id stack.
    #[rpc]
    async fn chain(&self, path: Vec<String>) -> Result<Vec<String>> {
        match path.split_first() {
            Some((next, rest)) => self.proxy(next)?.call("chain", (rest,)).await,
            None => Ok(self.worker.call_id_stack()),
        }
    }

    /// Sets a value of the context data and returns it as another service sees it.
    #[rpc]
    async fn pass_on(&self, next: String, key: String, value: String) -> Result<Option<String>> {
        self.worker.set(key.as_str(), value);
        self.proxy(&next)?.call("context", (key,)).await
    }

    /// Calls a method of another service and passes its error on.
    #[rpc]
    async fn fail_in(&self, next: String, method: String) -> Result<()> {
        self.proxy(&next)?.call(&method, ()).await
    }
}

impl Fleet {
    fn proxy(&self, name: &str) -> Result<&ServiceProxy> {
        match name {
            "rust" => Ok(&self.rust),
            "python" => Ok(&self.python),
            "upstream" => Ok(&self.upstream),
            _ => Err(Error::raise("KeyError", name)),
        }
    }
}

#[derive(Debug)]
struct OutOfStock(String);

impl fmt::Display for OutOfStock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no {} left", self.0)
    }
}

impl std::error::Error for OutOfStock {}

#[derive(Dependencies)]
struct Shared;

#[service("shared_fleet")]
impl Shared {
    #[rpc]
    async fn who(&self) -> Result<&'static str> {
        Ok("rust")
    }
}

fn main() -> ExitCode {
    exceptions::register::<NotFound>();
    nameko::main(services![Fleet, Shared])
}
