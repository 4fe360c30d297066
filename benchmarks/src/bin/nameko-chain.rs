//! A chain of three services on Nameko: the first calls the second, which calls the third.

use nameko::prelude::*;

#[derive(Dependencies)]
struct First {
    #[dependency(RpcProxy::new("bench_chain_second"))]
    second: ServiceProxy,
}

#[service("bench_chain_first")]
impl First {
    #[rpc]
    async fn hello(&self, name: String) -> Result<String> {
        self.second.call("hello", (name,)).await
    }
}

#[derive(Dependencies)]
struct Second {
    #[dependency(RpcProxy::new("bench_chain_third"))]
    third: ServiceProxy,
}

#[service("bench_chain_second")]
impl Second {
    #[rpc]
    async fn hello(&self, name: String) -> Result<String> {
        self.third.call("hello", (name,)).await
    }
}

#[derive(Dependencies)]
struct Third;

#[service("bench_chain_third")]
impl Third {
    #[rpc]
    async fn hello(&self, name: String) -> Result<String> {
        Ok(format!("Hello, {name}!"))
    }
}

fn main() -> ExitCode {
    nameko::main(services![Third, Second, First])
}
