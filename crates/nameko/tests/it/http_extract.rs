//! HTTP arguments that the worker extracts, with configuration, dependencies and context.

use std::sync::Arc;

use nameko::{
    Next, Outcome, Provide, StatefulProvider, WorkerCall, WorkerLayer,
    prelude::*,
    testing::{Recorder, entrypoint_hook},
    web::{self, AsyncFromRequest, BodyStream, Bytes, Json, ProblemDetails, Request, http},
};
use serde::Deserialize;

use crate::{
    http_client::{Answer, Client, serve},
    support::within,
};

/// The steps of the workers of one container.
type Journal = Recorder<String>;

/// A table of sessions: the users by token.
#[derive(Clone)]
struct Sessions(Arc<[(&'static str, &'static str)]>);

impl Sessions {
    fn of_ada_and_bob() -> Provide<Self> {
        Provide(Self([("t1", "ada"), ("t2", "bob")].into()))
    }

    async fn user(&self, token: &str) -> Result<String> {
        // As a query of a database does.
        tokio::task::yield_now().await;
        let user = self.0.iter().find(|(known, _)| *known == token);
        user.map(|(_, user)| (*user).to_owned())
            .ok_or_else(|| web::Error::unauthorized("Token", "log in first").into())
    }
}

#[derive(Dependencies)]
struct Shop {
    #[dependency(Sessions::of_ada_and_bob())]
    sessions: Sessions,
    #[dependency(Recording(Journal::new()))]
    journal: Journal,
    #[dependency(CurrentWorker)]
    worker: WorkerContext,
}

impl AsRef<Sessions> for Shop {
    fn as_ref(&self) -> &Sessions {
        &self.sessions
    }
}

/// Records the hooks of its workers.
struct Recording(Journal);

impl StatefulProvider for Recording {
    type Dependency = Journal;
    type State = ();

    async fn get_dependency(&self, _: &WorkerContext) -> Result<(Journal, ())> {
        Ok((self.0.clone(), ()))
    }

    async fn worker_setup(&self, _: &WorkerContext, (): &mut ()) -> Result<()> {
        self.0.record("worker_setup".to_owned());
        Ok(())
    }

    async fn before_reply(
        &self,
        _: &WorkerContext,
        (): &mut (),
        outcome: &mut Outcome,
    ) -> Result<()> {
        let outcome = outcome
            .as_ref()
            .map_or_else(ToString::to_string, |_| "ok".to_owned());
        self.0.record(format!("before_reply: {outcome}"));
        Ok(())
    }
}

/// A layer of the container that records its calls.
struct Around(Journal);

impl WorkerLayer for Around {
    async fn call(&self, _: WorkerCall<'_>, next: Next<'_>) -> Outcome {
        self.0.record("layer in".to_owned());
        let outcome = next.run().await;
        self.0.record("layer out".to_owned());
        outcome
    }
}

/// The user of a session, for any service with sessions. As a row of a table, it can be
/// deserialized too.
#[derive(Deserialize)]
struct User {
    name: String,
}

impl<S: AsRef<Sessions> + Sync> AsyncFromRequest<S> for User {
    const READS_PATH: bool = false;

    async fn from_request(
        request: &mut Request,
        _: &'static str,
        worker: &WorkerContext,
        service: &S,
    ) -> Result<Self> {
        let header = worker
            .config()
            .str("session_header")?
            .unwrap_or("x-session");
        let token = request.header(header).unwrap_or_default();
        let name = service.as_ref().user(token).await?;
        worker.set("user_id", name.as_str());
        Ok(Self { name })
    }
}

/// A user with all rights.
struct Admin(User);

impl AsyncFromRequest<Shop> for Admin {
    const READS_PATH: bool = false;

    async fn from_request(
        request: &mut Request,
        name: &'static str,
        worker: &WorkerContext,
        shop: &Shop,
    ) -> Result<Self> {
        let user = User::from_request(request, name, worker, shop).await?;
        match user.name.as_str() {
            "ada" => Ok(Self(user)),
            other => Err(web::Error::forbidden(format!("{other} cannot be the `{name}`")).into()),
        }
    }
}

/// A body with a signature, here its length.
struct Signed(Bytes);

impl AsyncFromRequest<Shop> for Signed {
    const READS_PATH: bool = false;

    async fn from_request(
        request: &mut Request,
        _: &'static str,
        _: &WorkerContext,
        shop: &Shop,
    ) -> Result<Self> {
        let body = request.body().clone();
        shop.journal.record(format!("{} bytes", body.len()));
        if request.header("signature") != Some(body.len().to_string().as_str()) {
            return Err(web::Error::forbidden("wrong signature").into());
        }
        Ok(Self(body))
    }
}

/// The size of an upload, which the argument receives.
struct Stored(usize);

impl AsyncFromRequest<Shop> for Stored {
    const STREAMS_BODY: bool = true;
    const READS_PATH: bool = false;

    async fn from_request(
        request: &mut Request,
        _: &'static str,
        worker: &WorkerContext,
        shop: &Shop,
    ) -> Result<Self> {
        let user = worker.get("user_id");
        shop.journal.record(format!("upload of {user:?}"));
        let mut body = request.take_body_stream().unwrap();
        let mut size = 0;
        while let Some(chunk) = body.next().await? {
            size += chunk.len();
        }
        Ok(Self(size))
    }
}

/// An argument whose extraction panics.
struct Broken;

impl<S: Sync> AsyncFromRequest<S> for Broken {
    const READS_PATH: bool = false;

    async fn from_request(
        _: &mut Request,
        name: &'static str,
        worker: &WorkerContext,
        _: &S,
    ) -> Result<Self> {
        panic!("no {name} for {worker}")
    }
}

#[service("shop")]
impl Shop {
    #[http(GET, "/me")]
    async fn me(&self, user: User) -> Result<String> {
        let id = self.worker.get("user_id");
        self.journal.record(format!(
            "method with {:?}",
            id.as_ref().and_then(|id| id.as_str())
        ));
        Ok(user.name)
    }

    #[http(POST, "/orders/{id}")]
    async fn order(&self, lines: Json<Vec<String>>, user: User, id: u8) -> Result<String> {
        Ok(format!("order {id} of {}: {:?}", user.name, lines.0))
    }

    #[http(PUT, "/orders/{id}")]
    async fn change(&self, id: u8, user: User) -> Result<String> {
        Ok(format!("order {id} of {}", user.name))
    }

    #[http(DELETE, "/orders/{id}")]
    async fn delete(&self, id: u8, admin: Admin) -> Result<String> {
        Ok(format!("{} deletes {id}", admin.0.name))
    }

    #[http(POST, "/webhook", max_body = 10)]
    async fn webhook(&self, body: Signed, user: Option<String>) -> Result<Bytes> {
        drop(user);
        Ok(body.0)
    }

    #[http(POST, "/upload")]
    async fn upload(&self, stored: Stored, user: User) -> Result<String> {
        Ok(format!("{} bytes of {}", stored.0, user.name))
    }

    #[http(POST, "/stream")]
    async fn stream(&self, user: User, mut body: BodyStream) -> Result<String> {
        let first = body.next().await?.unwrap_or_default();
        Ok(format!("{} begins with {} bytes", user.name, first.len()))
    }

    #[http(POST, "/both")]
    async fn both(&self, body: BodyStream, signed: Signed) -> Result<()> {
        drop((body, signed));
        Ok(())
    }

    #[http(GET, "/broken")]
    async fn broken(&self, broken: Broken) -> Result<()> {
        let Broken = broken;
        Ok(())
    }
}

async fn shop() -> (Container, std::net::SocketAddr, Journal) {
    let journal = Journal::new();
    let config = Config::new().with("WEB_SERVER_ADDRESS", "127.0.0.1:0");
    let container = Container::builder::<Shop>(config)
        .replace_provider("journal", Recording(journal.clone()))
        .layer(Around(journal.clone()))
        .build()
        .unwrap();
    container.start().await.unwrap();
    let address = web::address(&container).unwrap();
    (container, address, journal)
}

async fn ask(address: std::net::SocketAddr, line: &str, headers: &str, body: &str) -> Answer {
    Client::connect(address)
        .await
        .ask(line, headers, body)
        .await
}

const ADA: &str = "x-session: t1\r\n";
const BOB: &str = "x-session: t2\r\n";
const UNKNOWN: &str = "Error: Unauthorized: log in first\n";

#[tokio::test]
async fn an_argument_is_extracted_between_the_hooks_and_inside_the_layers() {
    let (shop, address, journal) = shop().await;
    assert_eq!(ask(address, "GET /me", ADA, "").await.short(), (200, "ada"));
    assert_eq!(
        journal.take(),
        [
            "layer in",
            "worker_setup",
            r#"method with Some("ada")"#,
            "before_reply: ok",
            "layer out"
        ]
    );
    let refused = ask(address, "GET /me", "", "").await;
    assert_eq!(refused.short(), (401, UNKNOWN));
    assert_eq!(refused.header("www-authenticate"), "Token");
    assert_eq!(
        journal.take(),
        [
            "layer in",
            "worker_setup",
            "before_reply: log in first",
            "layer out"
        ]
    );
    shop.stop().await;
}

#[tokio::test]
async fn an_argument_reads_the_configuration_and_its_errors_have_the_format_of_the_service() {
    let config = Config::new()
        .with("WEB_SERVER_ADDRESS", "127.0.0.1:0")
        .with("session_header", "x-token");
    let container = Container::builder::<Shop>(config)
        .http_errors(ProblemDetails::new())
        .build()
        .unwrap();
    container.start().await.unwrap();
    let address = web::address(&container).unwrap();
    let known = ask(address, "GET /me", "x-token: t2\r\n", "").await;
    assert_eq!(known.short(), (200, "bob"));
    let refused = ask(address, "GET /me", BOB, "").await;
    assert_eq!(refused.status, 401);
    assert_eq!(refused.header("content-type"), "application/problem+json");
    assert!(
        refused.text().contains("log in first"),
        "{}",
        refused.text()
    );
    container.stop().await;
}

#[tokio::test]
async fn an_argument_authenticates_in_the_worker_before_the_body_is_read() {
    let (shop, address, journal) = shop().await;
    // No body arrives, so that an answer proves that none was read.
    for headers in [
        "Content-Length: 5\r\nExpect: 100-continue\r\nContent-Type: text/plain\r\n",
        "Content-Length: 100000000\r\n",
        "Content-Length: 5\r\nx-session: t9\r\n",
    ] {
        for path in ["/orders/7", "/orders/x", "/upload", "/stream"] {
            let mut client = Client::connect(address).await;
            let head = format!("POST {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n");
            client.send(head).await;
            let answer = client.answer().await;
            assert_eq!(answer.short(), (401, UNKNOWN), "{path} {headers}");
        }
    }
    assert!(!journal.take().iter().any(|step| step.starts_with("upload")));
    // The client sends its body once the server asks for it.
    let mut client = Client::connect(address).await;
    client
        .send(format!(
            "POST /orders/7 HTTP/1.1\r\nHost: test\r\n{BOB}Content-Length: 7\r\nExpect: 100-continue\r\n\r\n"
        ))
        .await;
    assert_eq!(client.head().await.status, 100);
    client.send(r#"["tea"]"#).await;
    assert_eq!(
        client.answer().await.short(),
        (200, r#"order 7 of bob: ["tea"]"#)
    );
    // On the same connection: the body was read whole.
    let order = client.ask("POST /orders/8", ADA, "[]").await;
    assert_eq!(order.short(), (200, "order 8 of ada: []"));
    shop.stop().await;
}

#[tokio::test]
async fn arguments_are_extracted_in_order_and_the_body_last() {
    let (shop, address, journal) = shop().await;
    let path =
        "Error: BadRequest: path parameter `id` must be a whole number from 0 to 255, not `x`\n";
    for (line, headers, body, expected) in [
        // Before the first that needs the worker: no worker begins.
        ("PUT /orders/x", "", "", (400, path)),
        ("PUT /orders/x", "", "body", (400, path)),
    ] {
        let answer = ask(address, line, headers, body).await;
        assert_eq!(answer.short(), expected, "{line}");
        assert!(journal.take().is_empty());
    }
    for (line, headers, body, expected) in [
        ("PUT /orders/1", "", "", (401, UNKNOWN)),
        ("PUT /orders/1", ADA, "ignored", (200, "order 1 of ada")),
        ("POST /orders/1", "", "", (401, UNKNOWN)),
        ("POST /orders/x", "", "no JSON", (401, UNKNOWN)),
        ("POST /orders/x", ADA, "no JSON", (400, path)),
        (
            "POST /orders/1",
            ADA,
            "no JSON",
            (
                400,
                "Error: BadRequest: `lines` is invalid: the body is not JSON: expected ident at line 1 column 2\n",
            ),
        ),
        (
            "POST /orders/1",
            ADA,
            "",
            (
                400,
                "Error: BadRequest: `lines` is missing: the body must be JSON but is empty\n",
            ),
        ),
        ("DELETE /orders/1", "", "", (401, UNKNOWN)),
        ("DELETE /orders/1", ADA, "", (200, "ada deletes 1")),
        (
            "DELETE /orders/1",
            BOB,
            "",
            (403, "Error: Forbidden: bob cannot be the `admin`\n"),
        ),
        (
            "GET /broken",
            "",
            "",
            (500, "Error: Panic: no broken for shop.broken\n"),
        ),
    ] {
        let answer = ask(address, line, headers, body).await;
        assert_eq!(answer.short(), expected, "{line} {headers}");
        assert!(journal.take().len() >= 4, "{line} {headers}");
    }
    shop.stop().await;
}

#[tokio::test]
async fn an_argument_with_the_body_is_extracted_again_with_it() {
    let (shop, address, journal) = shop().await;
    let signed = ask(address, "POST /webhook", "signature: 4\r\n", "data").await;
    assert_eq!(signed.short(), (200, "data"));
    let steps = journal.take();
    assert_eq!(steps[2..4], ["0 bytes", "4 bytes"], "{steps:?}");
    let forged = ask(address, "POST /webhook", "signature: 4\r\n", "date!").await;
    assert_eq!(forged.short(), (403, "Error: Forbidden: wrong signature\n"));
    let large = ask(address, "POST /webhook", "signature: 11\r\n", "01234567890").await;
    assert_eq!(
        large.short(),
        (
            413,
            "Error: ContentTooLarge: the body is larger than 10 bytes\n"
        )
    );
    // A signature is not checked before the whole body is there.
    let mut client = Client::connect(address).await;
    let head =
        "POST /webhook HTTP/1.1\r\nHost: test\r\nsignature: 0\r\nContent-Length: 4\r\n\r\nda";
    client.send(head).await;
    client.finish().await;
    assert_eq!(client.answer().await.status, 400);
    shop.stop().await;
}

#[tokio::test]
async fn an_argument_streams_the_body_after_the_others() {
    let (shop, address, journal) = shop().await;
    let stored = ask(address, "POST /upload", ADA, "12345").await;
    assert_eq!(stored.short(), (200, "5 bytes of ada"));
    let steps = journal.take();
    assert_eq!(steps[2], r#"upload of Some(String("ada"))"#);
    let begun = ask(address, "POST /stream", BOB, "123").await;
    assert_eq!(begun.short(), (200, "bob begins with 3 bytes"));
    let both = ask(address, "POST /both", "signature: 3\r\n", "123").await;
    assert_eq!(both.status, 500);
    let text = "the parameter `signed` needs the whole body, which another parameter streams";
    assert!(both.text().contains(text), "{}", both.text());
    shop.stop().await;
}

/// Another service with the same argument.
#[derive(Dependencies)]
struct Stock {
    #[dependency(Sessions::of_ada_and_bob())]
    sessions: Sessions,
}

impl AsRef<Sessions> for Stock {
    fn as_ref(&self) -> &Sessions {
        &self.sessions
    }
}

#[service("stock")]
impl Stock {
    #[http(GET, "/count")]
    async fn count(&self, user: User) -> Result<String> {
        Ok(format!("7 for {}", user.name))
    }
}

#[tokio::test]
async fn services_share_an_argument_type() {
    let (stock, address) = serve::<Stock>(Config::new()).await;
    assert_eq!(
        ask(address, "GET /count", ADA, "").await.short(),
        (200, "7 for ada")
    );
    stock.stop().await;
}

#[tokio::test]
async fn a_test_passes_a_request_to_a_method_with_such_arguments() {
    let (shop, _, _) = shop().await;
    let request = |token: &str| {
        let request = http::Request::post("/orders/7").header("x-session", token);
        request.body(Bytes::from(r#"["tea"]"#)).unwrap()
    };
    let hook = entrypoint_hook(&shop, "order");
    let response = within("the response", hook.request(request("t1")))
        .await
        .unwrap();
    assert_eq!(response.body(), Some(&br#"order 7 of ada: ["tea"]"#[..]));
    let response = hook.request(request("t9")).await.unwrap();
    assert_eq!(response.status_code(), 401);
    let error = hook.call::<()>((1, 2, 3)).await.unwrap_err().to_string();
    assert!(
        error.contains("requires an HTTP request; in a test"),
        "{error}"
    );
    shop.stop().await;
}
