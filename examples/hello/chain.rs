//! A service that calls another: `cargo run --bin chain -- run`.

use nameko::prelude::*;

#[derive(Dependencies)]
struct ServiceY;

#[service("service_y")]
impl ServiceY {
    #[rpc]
    async fn append_id(&self, value: String) -> Result<String> {
        Ok(format!("{value}-y"))
    }
}

#[derive(Dependencies)]
struct ServiceX {
    #[dependency(RpcProxy::new("service_y"))]
    y: ServiceProxy,
}

#[service("service_x")]
impl ServiceX {
    #[rpc]
    async fn remote_method(&self, value: String) -> Result<String> {
        self.y.call("append_id", (format!("{value}-x"),)).await
    }
}

fn main() -> ExitCode {
    nameko::main(services![ServiceX, ServiceY])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A unit test creates the struct, with a mock in place of the other service.
    #[tokio::test]
    async fn x_appends_its_id_and_asks_y() {
        let y = ServiceProxy::mock("service_y", |method, args, _kwargs| {
            assert_eq!(method, "append_id");
            Ok(format!("{}-mock", args[0].as_str().unwrap_or_default()).into())
        });
        let reply = ServiceX { y }.remote_method("hello".to_owned()).await;
        assert_eq!(reply.expect("a reply"), "hello-x-mock");
    }
}
