use std::collections::BTreeMap;

use nameko::{
    prelude::*,
    testing::entrypoint_hook,
    web::{self, Body, Bytes, Form, Headers, Html, Json, Query, Request, Response, StatusCode},
};
use serde::{Deserialize, Serialize};

use crate::http_client::{Client, serve};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Item {
    name: String,
    count: u8,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Size {
    Small,
    Large,
}

#[derive(Deserialize)]
struct Search {
    q: String,
    limit: Option<u8>,
    #[serde(default)]
    tag: Vec<String>,
}

impl std::fmt::Display for Search {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} {:?}", self.q, self.limit, self.tag)
    }
}

#[derive(Debug)]
struct SoldOut;

impl std::fmt::Display for SoldOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("none left")
    }
}

impl std::error::Error for SoldOut {}

#[derive(Dependencies)]
pub(crate) struct Shop {
    #[dependency(CurrentWorker)]
    worker: WorkerContext,
}

#[service("shop")]
impl Shop {
    #[http(GET, "/hello")]
    async fn hello(&self) -> Result<&'static str> {
        Ok("hello")
    }

    #[http(GET, "/items/{id}")]
    async fn item(&self, id: u64, size: Option<Size>) -> Result<String> {
        Ok(format!("{id} {size:?}"))
    }

    #[http(PUT, DELETE, "/items/new")]
    async fn renew(&self) -> Result<()> {
        Ok(())
    }

    #[http(GET, "/names/{name}/{*rest}")]
    async fn name(&self, rest: String, name: String) -> Result<String> {
        Ok(format!("{name}|{rest}"))
    }

    #[http(POST, "/items")]
    async fn add(
        &self,
        item: Json<Item>,
    ) -> Result<(StatusCode, [(&'static str, String); 1], Json<Item>)> {
        let place = format!("/items/{}", item.0.count);
        Ok((StatusCode::CREATED, [("Location", place)], item))
    }

    #[http(POST, "/maybe")]
    async fn maybe(&self, item: Json<Option<Item>>) -> Result<String> {
        Ok(format!("{:?}", item.0.map(|item| item.name)))
    }

    #[http(GET, "/search")]
    async fn search(&self, query: Query<Search>) -> Result<String> {
        Ok(query.0.to_string())
    }

    #[http(GET, "/map")]
    async fn map(&self, query: Query<BTreeMap<String, String>>) -> Result<String> {
        Ok(format!("{:?}", query.0))
    }

    #[http(POST, "/form")]
    async fn form(&self, form: Form<Search>) -> Result<String> {
        Ok(form.0.to_string())
    }

    #[http(POST, "/echo")]
    async fn echo(&self, body: Body) -> Result<Bytes> {
        Ok(body.0)
    }

    #[http("GET,POST", "/request")]
    async fn request(&self, request: Request, headers: Headers) -> Result<String> {
        Ok(format!(
            "{} {} {:?} {} {}",
            request.method(),
            request.uri(),
            request.header("x-tag"),
            headers.len(),
            request.text()?
        ))
    }

    #[http(GET, "/page")]
    async fn page(&self) -> Result<Html<&'static str>> {
        Ok(Html("<p>hi</p>"))
    }

    #[http(GET, "/teapot")]
    async fn teapot(&self) -> Result<(u16, &'static str)> {
        Ok((418, "short and stout"))
    }

    #[http(GET, "/status/{status}")]
    async fn status(&self, status: u16) -> Result<(u16, &'static str)> {
        Ok((status, "as you like"))
    }

    #[http(GET, "/header/{value}")]
    async fn header(&self, value: String) -> Result<Response> {
        Response::new("").header("x-tag", value)
    }

    /// Returns a response with a header received from another server.
    #[http(GET, "/passed/{name}/{value}")]
    async fn passed(&self, name: String, value: String) -> Result<Response> {
        Response::new("passed on").header(name, value)
    }

    #[http(GET, "/away")]
    async fn away(&self) -> Result<Response> {
        Response::redirect("/hello")
    }

    #[http(GET, "/raise/{what}", expected_exceptions(SoldOut))]
    async fn raise(&self, what: String) -> Result<String> {
        match what.as_str() {
            "own" => Err(nameko::Error::from_error(SoldOut)),
            "missing" => Err(web::Error::not_found("no order 17").into()),
            "named" => Err(web::Error::new(StatusCode::CONFLICT, "taken")
                .exc_type("NameTaken")
                .headers([("retry-after", "1")])?
                .into()),
            "json" => Err(web::Error::new(StatusCode::GONE, "gone")
                .body(Json(Item {
                    name: "x".into(),
                    count: 0,
                }))?
                .into()),
            "bad" => Err(nameko::Error::MalformedRequest("not so".into())),
            "panic" => panic!("out of cheese"),
            _ => Err(nameko::Error::raise("ValueError", "oops")),
        }
    }

    #[http(GET, "/typed")]
    async fn typed(&self) -> Result<String, web::Error> {
        let _: u8 = "x"
            .parse()
            .map_err(|_| web::Error::bad_request("x is no number"))?;
        Ok(String::new())
    }

    #[http(GET, "/context")]
    async fn context(&self) -> Result<String> {
        Ok(format!(
            "{} {}",
            self.worker.context_data().into_iter().count(),
            self.worker.call_id_stack().len()
        ))
    }

    #[http(GET, "/unserializable")]
    async fn unserializable(&self) -> Result<Json<BTreeMap<(u8, u8), u8>>> {
        Ok(Json([((1, 2), 3)].into()))
    }

    #[http(GET, "/twice")]
    #[http(GET, "/again")]
    async fn twice(&self) -> Result<&'static str> {
        Ok("twice")
    }
}

const JSON: &str = "Content-Type: application/json\r\n";

#[tokio::test]
async fn path_and_query_parameters_become_arguments() {
    let (container, address) = serve::<Shop>(Config::default()).await;
    let mut client = Client::connect(address).await;
    for (path, expected) in [
        ("/hello", "hello"),
        ("/items/7", "7 None"),
        ("/items/7?size=large&other=1", "7 Some(Large)"),
        ("/items/%37", "7 None"),
        ("/%69tems/7", "7 None"),
        ("/names/a%2Fb%20c/d/e+f", "a/b c|d/e+f"),
        ("/names/%C3%A9/%e2%82%ac", "\u{e9}|\u{20ac}"),
        ("/search?q=a+b&tag=x&tag=y", r#"a b None ["x", "y"]"#),
        ("/map?b=1&a=%26&a=2", r#"{"a": "&", "b": "1"}"#),
        ("/twice", "twice"),
        ("/again", "twice"),
    ] {
        assert_eq!(client.get(path).await.short(), (200, expected), "{path}");
    }
    container.stop().await;
}

#[tokio::test]
async fn a_bad_request_names_the_mismatched_argument() {
    let (container, address) = serve::<Shop>(Config::default()).await;
    let mut client = Client::connect(address).await;
    for (path, expected) in [
        (
            "/items/x",
            "path parameter `id` must be a whole number from 0 to 18446744073709551615, not `x`",
        ),
        (
            "/items/-1",
            "path parameter `id` must be a whole number from 0 to 18446744073709551615, not `-1`",
        ),
        (
            "/items/7?size=big",
            "query parameter `size` is wrong: unknown variant `big`, expected `small` or `large`",
        ),
        ("/search?limit=1", "query parameter `q` is missing"),
        (
            "/search?q=1&limit=x",
            "query parameter `limit` must be a whole number from 0 to 255, not `x`",
        ),
        ("/names/%FF/x", "the path, once decoded, is not UTF-8"),
    ] {
        let answer = client.get(path).await;
        assert_eq!(
            answer.short(),
            (400, &*format!("Error: BadRequest: {expected}\n")),
            "{path}"
        );
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    }
    container.stop().await;
}

#[tokio::test]
async fn bodies_become_arguments() {
    let (container, address) = serve::<Shop>(Config::default()).await;
    let mut client = Client::connect(address).await;
    let made = client
        .ask("POST /items", JSON, r#"{"name": "nut", "count": 3}"#)
        .await;
    assert_eq!(made.short(), (201, r#"{"name":"nut","count":3}"#));
    assert_eq!(made.header("location"), "/items/3");
    assert_eq!(made.header("content-type"), "application/json");
    for (line, headers, body, expected) in [
        ("POST /maybe", JSON, "", "None"),
        (
            "POST /maybe",
            "",
            r#"{"name": "nut", "count": 3}"#,
            "Some(\"nut\")",
        ),
        (
            "POST /form",
            "Content-Type: application/x-www-form-urlencoded; charset=utf-8\r\n",
            "q=a%26b&limit=3",
            "a&b Some(3) []",
        ),
        ("POST /echo", "", "\u{0}\u{e9}", "\u{0}\u{e9}"),
        (
            "POST /request?a=1",
            "X-Tag: x\r\n",
            "text",
            "POST /request?a=1 Some(\"x\") 3 text",
        ),
        ("GET /request", "", "", "GET /request None 2 "),
    ] {
        let answer = client.ask(line, headers, body).await;
        assert_eq!(answer.short(), (200, expected), "{line}");
    }
    for (line, headers, body, status, expected) in [
        (
            "POST /items",
            JSON,
            r#"{"name": "nut", "count": 300}"#,
            400,
            "BadRequest: `item` is wrong: invalid value: integer `300`, expected u8 at line 1 column 28",
        ),
        (
            "POST /items",
            JSON,
            r#"{"name": "#,
            400,
            "BadRequest: `item` is invalid: the body is not JSON: EOF while parsing a value at line 1 column 9",
        ),
        (
            "POST /items",
            JSON,
            "",
            400,
            "BadRequest: `item` is missing: the body must be JSON but is empty",
        ),
        (
            "POST /items",
            "Content-Type: text/xml\r\n",
            "<item/>",
            415,
            "UnsupportedMediaType: `item` is the body: expected the content type `application/json`, not `text/xml`",
        ),
        (
            "POST /form",
            "",
            "limit=1",
            400,
            "BadRequest: form parameter `q` is missing",
        ),
    ] {
        let answer = client.ask(line, headers, body).await;
        assert_eq!(
            answer.short(),
            (status, &*format!("Error: {expected}\n")),
            "{line}"
        );
    }
    container.stop().await;
}

#[tokio::test]
async fn results_become_responses() {
    let (container, address) = serve::<Shop>(Config::default()).await;
    let mut client = Client::connect(address).await;
    for (path, status, body, content_type) in [
        ("/hello", 200, "hello", "text/plain; charset=utf-8"),
        ("/items/1", 200, "1 None", "text/plain; charset=utf-8"),
        ("/page", 200, "<p>hi</p>", "text/html; charset=utf-8"),
        (
            "/teapot",
            418,
            "short and stout",
            "text/plain; charset=utf-8",
        ),
        (
            "/status/299",
            299,
            "as you like",
            "text/plain; charset=utf-8",
        ),
        ("/away", 303, "", ""),
    ] {
        let answer = client.get(path).await;
        assert_eq!(answer.short(), (status, body), "{path}");
        assert_eq!(answer.header("content-type"), content_type, "{path}");
        assert!(answer.header("date").ends_with(" GMT"), "{path}");
    }
    assert_eq!(client.get("/header/yes").await.header("x-tag"), "yes");
    let nothing = client.ask("PUT /items/new", "", "").await;
    assert_eq!(
        (nothing.status, nothing.header("content-length")),
        (204, "")
    );
    let bytes = client.ask("POST /echo", "", "x").await;
    assert_eq!(bytes.header("content-type"), "application/octet-stream");
    for (path, expected) in [
        (
            "/status/101",
            "ValueError: 101 is not a response status: it must be from 200 to 999",
        ),
        (
            "/status/1000",
            "ValueError: 1000 is not a response status: it must be from 200 to 999",
        ),
        (
            "/header/a%0D%0Ab",
            "ValueError: invalid header value: failed to parse header value",
        ),
        (
            "/unserializable",
            "UnserializableValueError: Unserializable value: `alloc::collections::btree::map::BTreeMap<(u8, u8), u8>: key must be a string`",
        ),
    ] {
        let answer = client.get(path).await;
        assert_eq!(
            answer.short(),
            (500, &*format!("Error: {expected}\n")),
            "{path}"
        );
    }
    container.stop().await;
}

#[tokio::test]
async fn content_length_is_always_that_of_the_body() {
    let (container, address) = serve::<Shop>(Config::default()).await;
    let mut client = Client::connect(address).await;
    for header in [
        "content-length/3",
        "content-length/300",
        "transfer-encoding/chunked",
        "transfer-encoding/gzip",
    ] {
        let path = format!("/passed/{header}");
        let answer = client.get(&path).await;
        assert_eq!(answer.short(), (200, "passed on"), "{header}");
        assert_eq!(answer.header("transfer-encoding"), "", "{header}");
        let head = client.ask(&format!("HEAD {path}"), "", "").await;
        assert_eq!(head.header("content-length"), "9", "{header}");
    }
    container.stop().await;
}

#[tokio::test]
async fn errors_have_namekos_bodies_and_a_status() {
    let (container, address) = serve::<Shop>(Config::default()).await;
    let mut client = Client::connect(address).await;
    for (path, status, expected) in [
        ("/raise/any", 500, "ValueError: oops"),
        ("/raise/own", 400, "SoldOut: none left"),
        ("/raise/bad", 400, "MalformedRequest: not so"),
        ("/raise/missing", 404, "NotFound: no order 17"),
        ("/raise/named", 409, "NameTaken: taken"),
        ("/raise/panic", 500, "Panic: out of cheese"),
        ("/typed", 400, "BadRequest: x is no number"),
    ] {
        let answer = client.get(path).await;
        assert_eq!(
            answer.short(),
            (status, &*format!("Error: {expected}\n")),
            "{path}"
        );
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    }
    assert_eq!(client.get("/raise/named").await.header("retry-after"), "1");
    let json = client.get("/raise/json").await;
    assert_eq!(json.short(), (410, r#"{"name":"x","count":0}"#));
    assert_eq!(json.header("content-type"), "application/json");
    container.stop().await;
}

#[tokio::test]
async fn http_methods_are_routed_separately() {
    let (container, address) = serve::<Shop>(Config::default()).await;
    let mut client = Client::connect(address).await;
    // A literal path of another HTTP method does not shadow a parameter.
    let answer = client.get("/items/new").await;
    assert_eq!(answer.status, 400);
    assert_eq!(client.ask("DELETE /items/new", "", "").await.status, 204);

    let wrong = client.ask("DELETE /hello", "", "").await;
    assert_eq!(
        wrong.short(),
        (
            405,
            "Error: MethodNotAllowed: /hello is for GET, HEAD, OPTIONS, not for DELETE\n"
        )
    );
    assert_eq!(wrong.header("allow"), "GET, HEAD, OPTIONS");
    let odd = client.ask("BREW /items/new", "", "").await;
    assert_eq!(
        (odd.status, odd.header("allow")),
        (405, "DELETE, GET, HEAD, OPTIONS, PUT")
    );
    assert_eq!(
        client.get("/nowhere?x=1").await.short(),
        (404, "Error: NotFound: no route for /nowhere\n")
    );
    assert_eq!(client.get("/hello/").await.status, 404);

    let options = client.ask("OPTIONS /items", "", "").await;
    assert_eq!(
        (options.status, options.header("allow")),
        (204, "OPTIONS, POST")
    );
    assert_eq!(client.ask("OPTIONS *", "", "").await.status, 204);

    let head = client.ask("HEAD /hello", "", "").await;
    assert_eq!((head.status, head.header("content-length")), (200, "5"));
    // HEAD has no body: the next response follows directly.
    assert_eq!(client.get("/hello").await.short(), (200, "hello"));
    container.stop().await;
}

#[tokio::test]
async fn a_request_runs_in_a_worker_like_any_entrypoint() {
    let (container, address) = serve::<Shop>(Config::default()).await;
    let mut client = Client::connect(address).await;
    // External headers do not become context data.
    let answer = client
        .ask(
            "GET /context",
            "nameko.user_id: 7\r\nnameko.call_id_stack: a\r\n",
            "",
        )
        .await;
    assert_eq!(answer.short(), (200, "0 1"));
    let labels: Vec<_> = container.entrypoints().collect();
    assert!(
        labels.contains(&("http GET /items/{id}".to_owned(), "item")),
        "{labels:?}"
    );
    assert!(
        labels.contains(&("http GET,POST /request".to_owned(), "request")),
        "{labels:?}"
    );
    container.stop().await;
}

#[tokio::test]
async fn a_hook_passes_a_request_to_a_method() {
    let (container, _) = serve::<Shop>(Config::default()).await;
    let get = |path: &str| web::http::Request::get(path).body(Bytes::new()).unwrap();
    let text = |response: &Response| {
        let body = response.body().unwrap();
        (
            response.status_code().as_u16(),
            String::from_utf8(body.to_vec()).unwrap(),
        )
    };
    let name = entrypoint_hook(&container, "name");
    let response = name.request(get("/names/a%2Fb/c%20d/e?x=1")).await.unwrap();
    assert_eq!(text(&response), (200, "a/b|c d/e".to_owned()));
    let request = web::http::Request::post("/request").header("x-tag", "t");
    let request = request.body("hello".into()).unwrap();
    let response = entrypoint_hook(&container, "request")
        .request(request)
        .await;
    assert_eq!(
        text(&response.unwrap()).1,
        "POST /request Some(\"t\") 1 hello"
    );
    // Every path of the method, and the responses to bad requests.
    let twice = entrypoint_hook(&container, "twice");
    for path in ["/twice", "/again"] {
        assert_eq!(text(&twice.request(get(path)).await.unwrap()).1, "twice");
    }
    let item = entrypoint_hook(&container, "item");
    let response = item.request(get("/items/many")).await.unwrap();
    assert_eq!(response.status_code(), 400);
    let raise = entrypoint_hook(&container, "raise");
    for (what, status) in [("missing", 404), ("own", 400), ("panic", 500)] {
        let response = raise.request(get(&format!("/raise/{what}"))).await.unwrap();
        assert_eq!(response.status_code(), status, "{what}");
    }
    let context = entrypoint_hook(&container, "context").context("language", "fr");
    assert_eq!(
        text(&context.request(get("/context")).await.unwrap()).1,
        "1 1"
    );

    let error = item.request(get("/orders/1")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "item() does not handle GET /orders/1; it handles http GET /items/{id}"
    );
    let error = entrypoint_hook(&container, "nothing")
        .request(get("/"))
        .await;
    assert!(
        matches!(error, Err(Error::ExtensionNotFound(_))),
        "{error:?}"
    );
    let error = item.call::<String>((1,)).await.unwrap_err().to_string();
    assert!(
        error.contains("pass one to the hook with `request`"),
        "{error}"
    );
    container.stop().await;
    let error = item.request(get("/items/1")).await.unwrap_err();
    assert!(matches!(error, Error::ContainerStopping(_)), "{error}");
}

#[tokio::test]
async fn methods_can_be_tested_without_a_server() {
    let container = Container::new::<Shop>(Config::default()).unwrap();
    assert_eq!(web::address(&container), None);
    let request = web::http::Request::get("/request?a=1")
        .body(Bytes::new())
        .unwrap();
    let request = Request::from(request);
    assert_eq!(request.query_pairs(), [("a".to_owned(), "1".to_owned())]);
    let response = Response::json(&[1, 2]).unwrap();
    assert_eq!(response.body(), Some(&b"[1,2]"[..]));
}
