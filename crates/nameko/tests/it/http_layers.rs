//! `tower` layers around the web server, and the format of error responses.

use std::time::Duration;

use nameko::{
    Runner,
    prelude::*,
    services,
    web::{
        self, Body, ErrorFormat, Extension, Failure, FromRequest, Json, ProblemDetails, Request,
        RequestBody, Response, http,
    },
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tower::{ServiceBuilder, timeout::TimeoutLayer};
use tower_http::{
    compression::CompressionLayer,
    cors::CorsLayer,
    limit::RequestBodyLimitLayer,
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer},
    trace::TraceLayer,
    validate_request::ValidateRequestHeaderLayer,
};

use crate::http_client::{Answer, Client};

#[derive(Debug, Clone, PartialEq)]
struct User(&'static str);

/// An argument that needs the right token.
struct Token;

impl FromRequest for Token {
    const READS_PATH: bool = false;

    fn from_request(request: &mut Request, _: &'static str) -> Result<Self> {
        match request.header("authorization") {
            Some("Bearer right") => Ok(Self),
            _ => Err(web::Error::unauthorized("Bearer", "a token is required").into()),
        }
    }
}

#[derive(Dependencies)]
struct Gateway;

#[service("gateway")]
impl Gateway {
    #[http(GET, "/hello")]
    async fn hello(&self) -> Result<&'static str> {
        Ok("hello")
    }

    #[http(GET, "/long")]
    async fn long(&self) -> Result<String> {
        Ok("long ".repeat(10_000))
    }

    #[http(GET, "/stream")]
    async fn stream(&self) -> Result<Response> {
        let lines = (0..100).map(|line| Ok::<_, Error>(format!("line {line}\n")));
        Ok(Response::stream(futures_util::stream::iter(lines)))
    }

    #[http(POST, "/echo")]
    async fn echo(&self, body: Body) -> Result<Vec<u8>> {
        Ok(body.to_vec())
    }

    #[http(POST, "/orders")]
    async fn order(&self, order: Json<Value>, _token: Token) -> Result<Json<Value>> {
        Ok(order)
    }

    #[http(GET, "/me")]
    async fn me(&self, user: Extension<User>) -> Result<String> {
        Ok(user.0.0.to_owned())
    }

    #[http(GET, "/fail")]
    async fn fail(&self) -> Result<()> {
        Err(Error::raise("ValueError", "no"))
    }

    #[http(GET, "/own")]
    async fn own(&self) -> Result<()> {
        Err(web::Error::not_found("no")
            .body(Json(json!({"own": true})))?
            .into())
    }

    #[http(GET, "/hang", timeout = 0.01)]
    async fn hang(&self) -> Result<()> {
        std::future::pending().await
    }
}

#[derive(Dependencies)]
struct Annex;

#[service("annex")]
impl Annex {
    #[http(GET, "/annex")]
    async fn annex(&self) -> Result<&'static str> {
        Ok("annex")
    }
}

fn free_port() -> Config {
    Config::default().with("WEB_SERVER_ADDRESS", "127.0.0.1:0")
}

async fn start(container: Container) -> (Container, std::net::SocketAddr) {
    container.start().await.unwrap();
    let address = web::address(&container).unwrap();
    (container, address)
}

async fn get(address: std::net::SocketAddr, path: &str, headers: &str) -> Answer {
    Client::connect(address)
        .await
        .ask(&format!("GET {path}"), headers, "")
        .await
}

/// The layers that a gateway on the internet has.
#[tokio::test]
async fn layers_of_tower_http_wrap_all_responses() {
    let layers = ServiceBuilder::new()
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
        .layer(TraceLayer::new_for_http())
        .layer(PropagateRequestIdLayer::x_request_id());
    let container = Container::builder::<Gateway>(free_port())
        .http_layer(layers)
        .http_layer(CorsLayer::permissive())
        .http_layer(CompressionLayer::new())
        .http_layer(RequestBodyLimitLayer::new(1000))
        .build()
        .unwrap();
    let (container, address) = start(container).await;

    let headers = "Origin: https://shop.example\r\nAccept-Encoding: gzip\r\n";
    for (path, status) in [
        ("/hello", 200),
        ("/missing", 404),
        ("/echo", 405),
        ("/fail", 500),
        ("/hang", 503),
    ] {
        let answer = get(address, path, headers).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), "*", "{path}");
        assert_eq!(answer.header("x-request-id").len(), 36, "{path}");
    }

    // A preflight request is answered by the layer.
    let preflight = format!("{headers}Access-Control-Request-Method: DELETE\r\n");
    let mut client = Client::connect(address).await;
    let answer = client.ask("OPTIONS /hello", &preflight, "").await;
    assert_eq!((answer.status, answer.header("allow")), (200, ""));
    assert_eq!(answer.header("access-control-allow-methods"), "*");

    // On the same connection: the framing of compressed bodies is right.
    for path in ["/long", "/stream", "/long"] {
        let answer = client.ask(&format!("GET {path}"), headers, "").await;
        assert_eq!(answer.header("content-encoding"), "gzip", "{path}");
        assert!(answer.body.starts_with(&[0x1f, 0x8b]), "{path}");
    }
    let answer = client.ask("HEAD /hello", "", "").await;
    assert_eq!((answer.status, answer.header("content-length")), (200, "5"));
    container.stop().await;
}

#[tokio::test]
async fn a_limit_of_a_layer_applies_to_chunked_bodies() {
    let container = Container::builder::<Gateway>(free_port())
        .http_layer(RequestBodyLimitLayer::new(10))
        .build()
        .unwrap();
    let (container, address) = start(container).await;
    let mut client = Client::connect(address).await;
    assert_eq!(
        client.ask("POST /echo", "", "short").await.short(),
        (200, "short")
    );
    let chunked = "POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
    client
        .send(format!("{chunked}14\r\n{}\r\n0\r\n\r\n", "x".repeat(20)))
        .await;
    let answer = client.answer().await;
    assert_eq!(
        answer.short(),
        (
            413,
            "Error: ContentTooLarge: the body is larger than a layer permits\n"
        )
    );
    container.stop().await;
}

#[tokio::test]
async fn the_first_layer_is_the_outermost_and_an_error_of_a_layer_is_a_response() {
    let (seen, mut log) = mpsc::unbounded_channel();
    let mark = move |name: &'static str| {
        let seen = seen.clone();
        tower::util::MapRequestLayer::new(move |request: http::Request<RequestBody>| {
            seen.send(name).unwrap();
            request
        })
    };
    let container = Container::builder::<Gateway>(free_port())
        .http_layer(mark("first"))
        .http_layer(CorsLayer::permissive())
        .http_layer(TimeoutLayer::new(Duration::from_millis(1)))
        .http_layer(mark("last"))
        .http_layer(tower::layer::layer_fn(|_: web::HttpService| Sleepy))
        .build()
        .unwrap();
    let (container, address) = start(container).await;
    let answer = get(address, "/hello", "Origin: https://shop.example\r\n").await;
    assert_eq!(
        answer.short(),
        (500, "Error: InternalServerError: request timed out\n")
    );
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert_eq!(
        (log.recv().await, log.recv().await),
        (Some("first"), Some("last"))
    );
    container.stop().await;
}

#[tokio::test]
async fn a_layer_is_created_from_the_configuration_and_its_error_fails_the_start() {
    let cors = |config: Config| {
        let origin: String = config.read("ALLOWED_ORIGIN")?;
        let origin = origin.parse::<http::HeaderValue>();
        let origin = origin.map_err(|_| config.invalid("ALLOWED_ORIGIN", "must be an origin"))?;
        Ok(CorsLayer::new().allow_origin(origin))
    };
    let build = |origin: &str| {
        let config = free_port().with("ALLOWED_ORIGIN", origin);
        let container = Container::builder::<Gateway>(config).http_layer_with(cors);
        container.build().unwrap()
    };
    let (container, address) = start(build("https://shop.example")).await;
    let answer = get(address, "/hello", "Origin: https://shop.example\r\n").await;
    let allowed = answer.header("access-control-allow-origin");
    assert_eq!((answer.status, allowed), (200, "https://shop.example"));
    container.stop().await;

    let error = build("\n").start().await.unwrap_err().to_string();
    assert!(
        error.contains("ALLOWED_ORIGIN must be an origin"),
        "{error}"
    );
}

/// A service that never answers.
#[derive(Clone)]
struct Sleepy;

impl tower::Service<http::Request<RequestBody>> for Sleepy {
    type Response = http::Response<web::ResponseBody>;
    type Error = std::convert::Infallible;
    type Future = std::future::Pending<Result<Self::Response, Self::Error>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<RequestBody>) -> Self::Future {
        std::future::pending()
    }
}

#[tokio::test]
#[expect(clippy::result_large_err, reason = "the type of tower-http's callback")]
async fn a_layer_authenticates_before_the_body_is_read() {
    let bearer =
        ValidateRequestHeaderLayer::custom(
            |request: &mut http::Request<RequestBody>| match request.headers().get("authorization")
            {
                Some(token) if token == "Bearer right" => {
                    request.extensions_mut().insert(User("ada"));
                    Ok(())
                }
                _ => {
                    let mut refusal = http::Response::new(web::ResponseBody::from("no token"));
                    *refusal.status_mut() = http::StatusCode::UNAUTHORIZED;
                    Err(refusal)
                }
            },
        );
    let container = Container::builder::<Gateway>(free_port())
        .http_layer(bearer)
        .build()
        .unwrap();
    let (container, address) = start(container).await;
    // The client waits for permission to send its body, and never gets it.
    let mut client = Client::connect(address).await;
    client
        .send(
            "POST /orders HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\
             Content-Type: text/plain\r\n\r\n",
        )
        .await;
    let answer = client.answer().await;
    assert_eq!(answer.short(), (401, "no token"));
    assert_eq!(answer.header("connection"), "close");
    let answer = get(address, "/me", "Authorization: Bearer right\r\n").await;
    assert_eq!(answer.short(), (200, "ada"));
    container.stop().await;
}

#[tokio::test]
async fn an_argument_authenticates_before_the_body_is_read() {
    let (container, address) = start(Container::new::<Gateway>(free_port()).unwrap()).await;
    let refused = "Error: Unauthorized: a token is required\n";
    // The parameter with the token comes after that with the body.
    for headers in [
        "Content-Length: 5\r\nExpect: 100-continue\r\nContent-Type: text/plain\r\n",
        "Content-Length: 100000000\r\n",
        "Content-Type: text/plain\r\nContent-Length: 0\r\n",
    ] {
        let mut client = Client::connect(address).await;
        client
            .send(format!(
                "POST /orders HTTP/1.1\r\nHost: test\r\n{headers}\r\n"
            ))
            .await;
        let answer = client.answer().await;
        assert_eq!(answer.short(), (401, refused), "{headers}");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    let mut client = Client::connect(address).await;
    let right = "Authorization: Bearer right\r\n";
    let answer = client.ask("POST /orders", right, "[1]").await;
    assert_eq!(answer.short(), (200, "[1]"));
    let wrong_type = format!("{right}Content-Type: text/plain\r\n");
    assert_eq!(
        client.ask("POST /orders", &wrong_type, "[1]").await.status,
        415
    );
    container.stop().await;
}

#[tokio::test]
async fn a_value_that_no_layer_has_added_is_a_500() {
    let (container, address) = start(Container::new::<Gateway>(free_port()).unwrap()).await;
    let answer = get(address, "/me", "").await;
    assert_eq!(answer.status, 500);
    assert!(
        answer.text().contains("no layer has added"),
        "{}",
        answer.text()
    );
    container.stop().await;
}

#[tokio::test]
async fn a_layer_refuses_with_the_response_of_a_web_error_in_the_format_of_the_service() {
    fn refusal() -> Error {
        let error = web::Error::new(web::StatusCode::TOO_MANY_REQUESTS, "slow down");
        error.headers([("Retry-After", "7")]).unwrap().into()
    }
    let limit = tower::layer::layer_fn(|_: web::HttpService| {
        tower::service_fn(|_: http::Request<RequestBody>| async {
            Err::<http::Response<web::ResponseBody>, _>(refusal())
        })
    });
    let container = Container::builder::<Gateway>(free_port())
        .http_layer(limit)
        .http_errors(ProblemDetails::new())
        .build()
        .unwrap();
    let (container, address) = start(container).await;
    let answer = get(address, "/hello", "").await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, "7"));
    assert_eq!(answer.header("content-type"), "application/problem+json");
    container.stop().await;
}

#[tokio::test]
async fn services_of_an_address_share_its_layers() {
    let config = free_port();
    let list = services![Gateway, Annex].http_layer(CorsLayer::permissive());
    let first = Runner::new::<&str>(&list, &["gateway"], &config).unwrap();
    first.start().await.unwrap();
    let address = web::address(&first.containers()[0]).unwrap();
    let at = Config::default().with("WEB_SERVER_ADDRESS", address.to_string());
    let origin = "Origin: https://shop.example\r\n";

    // The same layers, and none.
    let second = Runner::new(&list, &["annex"], &at).unwrap();
    second.start().await.unwrap();
    assert_eq!(
        get(address, "/annex", origin)
            .await
            .header("access-control-allow-origin"),
        "*"
    );
    second.stop().await;
    let plain = Container::new::<Annex>(at.clone()).unwrap();
    plain.start().await.unwrap();
    assert_eq!(
        get(address, "/annex", origin)
            .await
            .header("access-control-allow-origin"),
        "*"
    );
    plain.stop().await;

    let rival = Container::builder::<Annex>(at)
        .http_layer(CorsLayer::permissive())
        .build()
        .unwrap();
    let error = rival.start().await.unwrap_err().to_string();
    assert!(
        error.contains("gateway and annex set different HTTP layers for the same address"),
        "{error}"
    );
    first.stop().await;
}

#[tokio::test]
async fn errors_have_the_format_of_the_service() {
    let config = free_port().with("WEB_SERVER_MAX_BODY", 100);
    let container = Container::builder::<Gateway>(config)
        .http_errors(ProblemDetails::new().types("https://shop.example/errors/"))
        .build()
        .unwrap();
    let (container, address) = start(container).await;
    for (line, headers, body, status, exc_type, detail) in [
        ("GET /x", "", "", 404, "NotFound", "no route for /x"),
        (
            "PUT /hello",
            "",
            "",
            405,
            "MethodNotAllowed",
            "/hello is for GET, HEAD, OPTIONS, not for PUT",
        ),
        // The text of an unexpected error is internal.
        ("GET /fail", "", "", 500, "ValueError", ""),
        (
            "GET /hang",
            "",
            "",
            503,
            "ServiceUnavailable",
            "no response within 10ms",
        ),
        (
            "POST /echo",
            "",
            &*"x".repeat(200),
            413,
            "ContentTooLarge",
            "the body is larger than 100 bytes",
        ),
        (
            "POST /orders",
            "Authorization: Bearer right\r\n",
            "[",
            400,
            "BadRequest",
            "`order` is invalid: the body is not JSON: EOF while parsing a list at line 1 column 1",
        ),
        (
            "POST /orders",
            "",
            "[",
            401,
            "Unauthorized",
            "a token is required",
        ),
    ] {
        let answer = Client::connect(address)
            .await
            .ask(line, headers, body)
            .await;
        assert_eq!(
            answer.header("content-type"),
            "application/problem+json",
            "{line}"
        );
        let path = line.split(' ').nth(1).unwrap();
        let title = http::StatusCode::from_u16(status).unwrap();
        let mut problem = json!({
            "type": format!("https://shop.example/errors/{exc_type}"),
            "title": title.canonical_reason(),
            "status": status,
            "instance": path,
            "exc_type": exc_type,
        });
        if !detail.is_empty() {
            problem["detail"] = detail.into();
        }
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body, problem, "{line}");
        assert_eq!(answer.status, status, "{line}");
        match status {
            401 => assert_eq!(answer.header("www-authenticate"), "Bearer"),
            405 => assert_eq!(answer.header("allow"), "GET, HEAD, OPTIONS"),
            _ => {}
        }
    }
    // A body of the method's own stays.
    assert_eq!(
        get(address, "/own", "").await.short(),
        (404, "{\"own\":true}")
    );
    container.stop().await;
}

/// A format that cannot format all errors.
struct Picky;

impl ErrorFormat for Picky {
    fn format(&self, failure: &Failure<'_>) -> Result<Response> {
        match failure.exc_type() {
            "NotFound" => Err(Error::raise("ValueError", "cannot format")),
            _ => Response::new(format!("{} {}", failure.method(), failure.message()))
                .header("X-Class", failure.exc_path()),
        }
    }
}

#[tokio::test]
async fn a_format_may_add_headers_and_may_fail() {
    let container = Container::builder::<Gateway>(free_port())
        .http_errors(Picky)
        .build()
        .unwrap();
    let (container, address) = start(container).await;
    let answer = get(address, "/fail", "").await;
    assert_eq!(answer.short(), (500, "GET no"));
    assert_eq!(answer.header("x-class"), "ValueError");
    let answer = get(address, "/x", "").await;
    assert_eq!(answer.short(), (404, "Error: NotFound: no route for /x\n"));
    container.stop().await;
}

#[tokio::test]
async fn a_closure_is_a_format() {
    let container = Container::builder::<Gateway>(free_port())
        .http_errors(|failure: &Failure<'_>| Json(failure.message().to_owned()))
        .build()
        .unwrap();
    let (container, address) = start(container).await;
    let answer = get(address, "/fail", "").await;
    assert_eq!(answer.short(), (500, "\"no\""));
    container.stop().await;
}
