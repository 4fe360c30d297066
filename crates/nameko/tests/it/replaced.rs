//! Containers with replaced dependencies and restricted entrypoints.

use nameko::{
    prelude::*,
    testing::{Dummy, entrypoint_hook},
};

use crate::support::{no_broker, within};

#[derive(Dependencies)]
struct ServiceX {
    #[dependency(RpcProxy::new("service_y"))]
    y: ServiceProxy,
    #[dependency(CurrentWorker)]
    worker: WorkerContext,
}

#[service("service_x")]
impl ServiceX {
    #[entrypoint(Dummy)]
    async fn remote_method(&self, value: String) -> Result<String> {
        self.y.call("append_id", (format!("{value}-x"),)).await
    }

    #[rpc]
    async fn who(&self) -> Result<String> {
        Ok(self.worker.to_string())
    }
}

fn mock() -> ServiceProxy {
    ServiceProxy::mock("service_y", |_, args, _| Ok(args[0].clone()))
}

#[tokio::test]
async fn replacing_all_amqp_dependencies_removes_the_need_for_a_broker() {
    let container = Container::builder::<ServiceX>(no_broker())
        .replace("y", mock())
        .only(["remote_method"])
        .build()
        .unwrap();
    within("the start", container.start()).await.unwrap();
    let text: String = entrypoint_hook(&container, "remote_method")
        .call(("a",))
        .await
        .unwrap();
    assert_eq!(text, "a-x");
    let names: Vec<_> = container
        .entrypoints()
        .map(|entrypoint| entrypoint.1)
        .collect();
    assert_eq!(names, ["remote_method"]);
    container.stop().await;
}

#[tokio::test]
async fn unknown_names_are_errors_that_list_the_known_ones() {
    let built = |builder: nameko::ContainerBuilder<ServiceX>| builder.build().unwrap_err();
    let builder = || Container::builder::<ServiceX>(no_broker());
    let error = built(builder().replace("z", mock()));
    assert!(matches!(error, Error::ExtensionNotFound(_)), "{error:?}");
    assert_eq!(
        error.to_string(),
        "service_x has no dependency `z`; there are: worker, y"
    );
    let error = built(builder().only(["who", "how"]));
    assert_eq!(
        error.to_string(),
        "service_x has no entrypoint `how`; there are: remote_method, who"
    );
    let error = built(builder().replace("y", 7_u8)).to_string();
    assert!(
        error.contains("dependency `y`: the field is a `nameko::")
            && error.ends_with("ServiceProxy`, but its replacement is a `u8`"),
        "{error}"
    );
}
