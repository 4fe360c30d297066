//! The command `call`.

use std::net::TcpListener;

use nameko::{Container, prelude::*};

use crate::NAMEKO;
use crate::program::{Ended, command, run};
use crate::support::{TestBroker, broker};

#[derive(Dependencies)]
pub(crate) struct Greeter {
    #[dependency(CurrentWorker)]
    worker: nameko::WorkerContext,
    #[dependency(ContextData::new("tenant"))]
    tenant: Option<String>,
    #[dependency(UserId)]
    user: Option<String>,
}

#[service("cli_greeter")]
impl Greeter {
    #[rpc]
    async fn hello(&self, name: String) -> Result<String> {
        Ok(format!("Hello, {name}!"))
    }

    #[rpc]
    async fn echo(
        &self,
        value: Box<serde_json::value::RawValue>,
    ) -> Result<Box<serde_json::value::RawValue>> {
        Ok(value)
    }

    /// Returns the tenant, the user, and the first caller.
    #[rpc]
    async fn context(&self) -> Result<[Option<String>; 3]> {
        let origin = self.worker.origin_call_id().to_owned();
        Ok([self.tenant.clone(), self.user.clone(), Some(origin)])
    }

    #[rpc]
    async fn nothing(&self) -> Result<()> {
        Ok(())
    }

    #[rpc]
    async fn fail(&self) -> Result<()> {
        Err(nameko::Error::raise("ValueError", "bad"))
    }

    /// Fails like a call to a method that another service lacks.
    #[rpc]
    async fn ask_elsewhere(&self) -> Result<()> {
        Err(Error::MethodNotFound("gone".to_owned()))
    }

    #[rpc]
    async fn hang(&self) -> Result<()> {
        std::future::pending().await
    }
}

/// Starts a broker and the service.
pub(crate) async fn greeter() -> (TestBroker, Container) {
    let broker = broker().await;
    let config = Config::new()
        .with("AMQP_URI", broker.uri())
        .with("stop_timeout", 0);
    let container = Container::new::<Greeter>(config).unwrap();
    container.start().await.unwrap();
    (broker, container)
}

#[tokio::test(flavor = "multi_thread")]
async fn prints_the_result_as_pythons_repr() {
    let (broker, container) = greeter().await;
    let table: &[(&[&str], &str)] = &[
        (&["cli_greeter.hello", "name='zq'"], "'Hello, zq!'\n"),
        (&["cli_greeter.hello", "name=zq"], "'Hello, zq!'\n"),
        (&["cli_greeter.hello", "\"it's\""], "\"Hello, it's!\"\n"),
        (&["n.rpc.cli_greeter.hello", "zq"], "'Hello, zq!'\n"),
        (&["cli_greeter.hello(name='zq')"], "'Hello, zq!'\n"),
        (&["cli_greeter.nothing"], ""),
        (
            &[
                "cli_greeter.echo",
                "{'b': [1, 2.0, None, True], \"a\": null}",
            ],
            "{'b': [1, 2.0, None, True], 'a': None}\n",
        ),
        (
            &["cli_greeter.echo", "1180591620717411303424"],
            "1180591620717411303424\n",
        ),
        (&["cli_greeter.echo", "[NaN, -Infinity]"], "[nan, -inf]\n"),
        (&["cli_greeter.echo", "-1"], "-1\n"),
        (&["cli_greeter.echo", "'é😀\\n'"], "'é😀\\n'\n"),
    ];
    for (arguments, expected) in table {
        let mut command = command(NAMEKO, ["call", "--broker", broker.uri()]);
        command.args(*arguments);
        let ended = run(command, "");
        assert_eq!(
            (ended.code, ended.stdout.as_str(), ended.stderr.as_str()),
            (Some(0), *expected, ""),
            "{arguments:?}"
        );
    }
    container.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_missing_in_another_service_has_no_hint_about_this_one() {
    let (broker, container) = greeter().await;
    let mut command = command(NAMEKO, ["call", "--broker", broker.uri()]);
    command.arg("cli_greeter.ask_elsewhere");
    assert_eq!(run(command, "").stderr, "MethodNotFound: gone\n");
    container.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prints_errors_on_standard_error() {
    let (broker, container) = greeter().await;
    let table: &[(&[&str], &str)] = &[
        (&["cli_greeter.fail"], "RemoteError: ValueError bad\n"),
        (
            &["cli_greeter.hello"],
            "IncorrectSignature: hello() missing 1 required positional argument: 'name'\n",
        ),
        (
            &["cli_greeter.hello", "nme=1"],
            "IncorrectSignature: hello() got an unexpected keyword argument 'nme'\n",
        ),
        (
            &["cli_greeter.hello", "1"],
            "IncorrectSignature: hello() argument 'name': invalid type: integer `1`, expected a string\n",
        ),
        (
            &["cli_greeter.helo", "zq"],
            "MethodNotFound: helo\n  cli_greeter has no RPC method with this name\n",
        ),
        (
            &["cli_nobody.hello"],
            "UnknownService: Unknown service `cli_nobody`\n  no service with this name has ever run on amqp://guest:********@",
        ),
        (
            &["cli_greeter.hang", "--timeout", "0.2"],
            "RpcTimeout: no reply to cli_greeter.hang within 200ms\n",
        ),
        (
            &["cli_greeter.hello", "[1"],
            "  [1\n    ^\nSyntaxError: expected `,` or `]`\n",
        ),
        (
            &["cli_greeter.hello(name=zq)"],
            "  cli_greeter.hello(name=zq)\n                         ^\nSyntaxError: `zq` is not a value",
        ),
        (
            &["cli_greeter"],
            "Error: `cli_greeter` is not a method name; expected service.method",
        ),
    ];
    for (arguments, expected) in table {
        let mut command = command(NAMEKO, ["call", "--broker", broker.uri()]);
        command.args(*arguments);
        let Ended {
            code,
            stdout,
            stderr,
        } = run(command, "");
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{arguments:?}");
        assert!(stderr.starts_with(expected), "{arguments:?}: {stderr}");
    }
    container.stop().await;
}

#[test]
fn reports_an_unreachable_broker_within_seconds() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let ended = run(
        command(
            NAMEKO,
            [
                "call",
                "x.y",
                "--broker",
                &format!("amqp://me:secret@{address}"),
            ],
        ),
        "",
    );
    assert_eq!(ended.code, Some(1));
    assert!(
        ended
            .stderr
            .starts_with(&format!("ConnectionError: cannot connect to {address}")),
        "{ended:?}"
    );
    assert!(!ended.stderr.contains("secret"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sends_context_data() {
    let (broker, container) = greeter().await;
    let context = |options: &[&str]| {
        let mut command = command(NAMEKO, ["call", "--broker", broker.uri()]);
        command.arg("cli_greeter.context").args(options);
        run(command, "")
    };
    let values = [
        "--context",
        "tenant=acme",
        "--context",
        "user_id=17",
        "--context",
        "call_id_stack=['web.get.0']",
    ];
    assert_eq!(context(&values).stdout, "['acme', '17', 'web.get.0']\n");
    for (value, expected) in [
        (
            "tenant",
            "Error: `tenant` is not context data; write KEY=VALUE",
        ),
        (
            "tenant=[1",
            "  [1\n    ^\nSyntaxError: expected `,` or `]`\n",
        ),
        (
            "tenant=99999999999999999999",
            "ContextError: the context value `tenant` cannot be sent: a header cannot hold the \
             integer 99999999999999999999, which does not fit in 64 bits\n",
        ),
        (
            "tenant=NaN",
            "ContextError: the context value `tenant` cannot be sent: a header cannot hold the \
             number NaN\n",
        ),
        (
            "call_id_stack=web.get.0",
            "ContextError: the context value `call_id_stack` cannot be sent: it must be a list",
        ),
    ] {
        let ended = context(&["--context", value]);
        assert_eq!(ended.code, Some(1), "{value}");
        assert!(ended.stderr.starts_with(expected), "{value}: {ended:?}");
    }
    container.stop().await;
}
