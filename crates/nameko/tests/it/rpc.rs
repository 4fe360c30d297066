//! RPC between services and from programs: results, errors, context.

use nameko::{Cluster, Error, services};
use serde_json::{Value, json};

use crate::{
    services::{ServiceX, ServiceY, Troubles},
    support,
};

#[tokio::test]
async fn a_service_calls_another() {
    let broker = support::broker().await;
    let runner = support::run(&services![ServiceX, ServiceY], &broker).await;
    let cluster = Cluster::connect(&broker.config()).await.unwrap();

    let value: String = cluster
        .service("service_x")
        .call("remote_method", ("hello",))
        .await
        .unwrap();
    assert_eq!(value, "hello-x-y");

    cluster.stop().await;
    runner.stop().await;
}

#[tokio::test]
async fn arguments_are_positional_or_named() {
    let broker = support::broker().await;
    let runner = support::run(&services![ServiceY], &broker).await;
    let cluster = Cluster::connect(&broker.config()).await.unwrap();
    let y = cluster.service("service_y");

    let named = std::collections::BTreeMap::from([("value", "a")]);
    assert_eq!(y.call::<String>("append_id", named).await.unwrap(), "a-y");
    assert_eq!(y.call::<String>("append_id", ["b"]).await.unwrap(), "b-y");
    assert_eq!(
        y.call::<String>("append_id", json!({"value": "c"}))
            .await
            .unwrap(),
        "c-y"
    );
    // A value that is neither a list nor a map is the only argument.
    assert_eq!(y.call::<String>("append_id", "d").await.unwrap(), "d-y");
    let error = y.call::<String>("append_id", ()).await.unwrap_err();
    assert!(error.to_string().contains("missing 1 required"), "{error}");

    runner.stop().await;
}

#[tokio::test]
async fn errors_of_a_method_reach_the_caller() {
    let broker = support::broker().await;
    let runner = support::run(&services![Troubles], &broker).await;
    let cluster = Cluster::connect(&broker.config()).await.unwrap();
    let troubles = cluster.service("troubles");

    let error = troubles.call::<()>("raise", ()).await.unwrap_err();
    let remote = error.as_remote().unwrap();
    assert_eq!(error.to_string(), "OutOfStock 3 left");
    assert_eq!(
        (remote.exc_type.as_str(), remote.value.as_str()),
        ("OutOfStock", "3 left")
    );
    assert_eq!(remote.exc_path, "it.services.OutOfStock");
    assert_eq!(remote.exc_args, [json!("3 left")]);

    let error = troubles.call::<()>("raise_named", ()).await.unwrap_err();
    assert_eq!(error.to_string(), "NotFound no order 17");

    let error = troubles.call::<()>("panic", ()).await.unwrap_err();
    assert_eq!(error.to_string(), "Panic out of cheese");

    let error = troubles
        .call::<Value>("unserializable", ())
        .await
        .unwrap_err();
    let remote = error.as_remote().unwrap();
    assert_eq!(
        remote.exc_path,
        "nameko.exceptions.UnserializableValueError"
    );
    assert!(remote.exc_args.is_empty());
    assert!(
        remote.value.starts_with("Unserializable value: `"),
        "{}",
        remote.value
    );

    // The service still works.
    assert_eq!(
        troubles.call::<Value>("echo", (1,)).await.unwrap(),
        json!(1)
    );
    runner.stop().await;
}

#[tokio::test]
async fn invalid_calls_have_descriptive_errors() {
    let broker = support::broker().await;
    let runner = support::run(&services![ServiceX, ServiceY], &broker).await;
    let cluster = Cluster::connect(&broker.config()).await.unwrap();
    let y = cluster.service("service_y");

    let error = y.call::<String>("no_such", ()).await.unwrap_err();
    assert!(
        matches!(&error, Error::MethodNotFound(name) if name == "no_such"),
        "{error:?}"
    );

    let error = y.call::<String>("append_id", ()).await.unwrap_err();
    assert!(matches!(error, Error::IncorrectSignature(_)));
    assert_eq!(
        error.to_string(),
        "append_id() missing 1 required positional argument: 'value'"
    );

    let error = y.call::<String>("append_id", (1,)).await.unwrap_err();
    assert!(matches!(error, Error::IncorrectSignature(_)));
    assert!(
        error
            .to_string()
            .starts_with("append_id() argument 'value': "),
        "{error}"
    );

    let error = cluster
        .service("nobody")
        .call::<String>("hello", ())
        .await
        .unwrap_err();
    assert!(error.is_unknown_service());
    assert_eq!(error.to_string(), "Unknown service `nobody`");

    // Propagated by a service it is a remote error, like any unregistered exception.
    let error = cluster
        .service("service_x")
        .call::<String>("call_nobody", ())
        .await
        .unwrap_err();
    assert_eq!(error.as_remote().unwrap().exc_type, "UnknownService");
    runner.stop().await;
}

#[tokio::test]
async fn a_call_times_out() {
    let broker = support::broker().await;
    let runner = support::run(&services![Troubles], &broker).await;
    let cluster = Cluster::connect(&broker.config()).await.unwrap();

    let troubles = cluster.service("troubles");
    // Opens the connection before the timed call.
    assert_eq!(troubles.call::<u8>("echo", (1,)).await.unwrap(), 1);
    let timeout = std::time::Duration::from_millis(50);
    let error = troubles
        .with_timeout(timeout)
        .call::<()>("hang", ("deadline",))
        .await
        .unwrap_err();
    assert!(error.is_timeout());
    assert_eq!(error.to_string(), "no reply to troubles.hang within 50ms");
    // The client still works.
    assert_eq!(
        troubles.call::<Value>("echo", ("x",)).await.unwrap(),
        json!("x")
    );
    runner.kill();
}

#[tokio::test]
async fn the_call_id_stack_and_context_data_travel_with_calls() {
    let broker = support::broker().await;
    let runner = support::run(&services![ServiceX, ServiceY], &broker).await;
    let data = [("language".to_owned(), nameko::amqp::Value::from("en"))];
    let cluster = Cluster::connect_with(&broker.config(), data.into_iter().collect())
        .await
        .unwrap();
    let x = cluster.service("service_x");

    let (stack, language): (Vec<String>, Option<String>) = x.call("context", ()).await.unwrap();
    assert_eq!(language.as_deref(), Some("en"));
    let callers: Vec<_> = stack
        .iter()
        .map(|id| id.rsplit_once('.').unwrap().0)
        .collect();
    assert_eq!(
        callers,
        [
            "standalone_rpc_proxy.call",
            "service_x.context",
            "service_y.context"
        ]
    );

    // Changes by the method are sent with its calls.
    let (_, language): (Vec<String>, Option<String>) = x.call("context", ("fr",)).await.unwrap();
    assert_eq!(language.as_deref(), Some("fr"));
    runner.stop().await;
}

#[tokio::test]
async fn one_client_serves_concurrent_tasks() {
    let broker = support::broker().await;
    let runner = support::run(&services![Troubles], &broker).await;
    let cluster = Cluster::connect(&broker.config()).await.unwrap();

    let calls = (0..200).map(|number| {
        let troubles = cluster.service("troubles");
        tokio::spawn(async move { troubles.call::<u64>("echo", (number,)).await.unwrap() })
    });
    for (number, call) in (0..).zip(calls.collect::<Vec<_>>()) {
        assert_eq!(call.await.unwrap(), number);
    }
    runner.stop().await;
}

#[tokio::test]
async fn large_arguments_and_results_are_delivered() {
    let broker = support::broker().await;
    let runner = support::run(&services![Troubles], &broker).await;
    let cluster = Cluster::connect(&broker.config()).await.unwrap();

    let text = "é".repeat(1 << 20);
    let echo: String = cluster
        .service("troubles")
        .call("echo", (&text,))
        .await
        .unwrap();
    assert!(echo == text);
    runner.stop().await;
}
