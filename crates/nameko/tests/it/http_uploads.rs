//! Bodies that are streamed to the method, `multipart/form-data` included, and clients that break
//! them off.

use std::{net::SocketAddr, sync::Arc};

use nameko::{
    prelude::*,
    testing::entrypoint_hook,
    web::{self, Body, BodyStream, Bytes, Multipart, Request, http},
};
use tokio::sync::Notify;

use crate::{
    http_client::{Answer, Client, serve},
    support::within,
};

#[derive(Dependencies)]
struct Files {
    #[dependency(Events(Arc::default()))]
    events: Arc<Notify>,
}

/// Injects a notification for the test.
struct Events(Arc<Notify>);

impl DependencyProvider for Events {
    type Dependency = Arc<Notify>;

    async fn get_dependency(&self, _: &WorkerContext) -> Result<Arc<Notify>> {
        Ok(self.0.clone())
    }
}

#[service("files")]
impl Files {
    #[http(PUT, "/files/{name}", max_body = 1 << 20)]
    async fn put(&self, name: String, mut body: BodyStream) -> Result<String, web::Error> {
        let (mut size, mut chunks) = (0, 0);
        while let Some(chunk) = body.next().await? {
            size += chunk.len();
            chunks += 1;
            self.events.notify_one();
        }
        Ok(format!("{name}: {size} bytes, many chunks: {}", chunks > 1))
    }

    #[http(PUT, "/first")]
    async fn first(&self, request: Request, mut body: BodyStream) -> Result<String, web::Error> {
        let first = body.next().await?.unwrap_or_default();
        let length = request.header("content-length").unwrap_or("?");
        Ok(format!("{} of {length} bytes are enough", first.len()))
    }

    #[http(POST, "/form")]
    async fn form(&self, mut form: Multipart) -> Result<String, web::Error> {
        let mut parts = Vec::new();
        while let Some(part) = form.next_part().await? {
            let name = part.name().unwrap_or("?").to_owned();
            let file = part.file_name().map(str::to_owned);
            let kind = part.content_type().map(str::to_owned);
            parts.push(format!("{name} {file:?} {kind:?} {}", part.text().await?));
        }
        Ok(parts.join("\n"))
    }

    #[http(POST, "/count")]
    async fn count(&self, mut form: Multipart) -> Result<String, web::Error> {
        let mut count = 0;
        while form.next_part().await?.is_some() {
            count += 1;
        }
        Ok(count.to_string())
    }

    #[http(POST, "/both")]
    async fn both(&self, _stream: BodyStream, body: Body) -> Result<Bytes> {
        Ok(body.0)
    }
}

async fn files(settings: &[(&str, u64)]) -> (Container, SocketAddr) {
    let config = settings
        .iter()
        .fold(Config::default(), |config, (key, value)| {
            config.with(*key, *value)
        });
    serve::<Files>(config).await
}

const BOUNDARY: &str = "Content-Type: multipart/form-data; boundary=X\r\n";

fn part(name: &str, content: &str) -> String {
    format!("--X\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{content}\r\n")
}

async fn post(address: SocketAddr, path: &str, headers: &str, body: &str) -> Answer {
    let mut client = Client::connect(address).await;
    let length = body.len();
    client
        .send(format!(
            "POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n{headers}\r\n"
        ))
        .await;
    // The server may refuse the body before it is sent.
    let _ = client.try_send(body).await;
    client.answer().await
}

#[tokio::test]
async fn a_method_runs_while_its_body_arrives() {
    let events = Arc::new(Notify::new());
    let container =
        Container::builder::<Files>(Config::default().with("WEB_SERVER_ADDRESS", "127.0.0.1:0"))
            .replace("events", events.clone())
            .build()
            .unwrap();
    container.start().await.unwrap();
    let address = web::address(&container).unwrap();
    let mut client = Client::connect(address).await;
    client
        .send("PUT /files/a HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n12345")
        .await;
    within("the first chunk", events.notified()).await;
    client.send("67890").await;
    let answer = client.answer().await;
    assert_eq!(answer.short(), (200, "a: 10 bytes, many chunks: true"));
    // The connection is kept.
    let answer = client.ask("PUT /files/b", "", "").await;
    assert_eq!(answer.short(), (200, "b: 0 bytes, many chunks: false"));
    container.stop().await;
}

#[tokio::test]
async fn a_method_may_return_before_the_end_of_its_body() {
    let (container, address) = files(&[]).await;
    let mut client = Client::connect(address).await;
    client
        .send("PUT /first HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n12345")
        .await;
    let answer = client.answer().await;
    assert_eq!(answer.short(), (200, "5 of 1000 bytes are enough"));
    assert_eq!(answer.header("connection"), "close");
    container.stop().await;
}

#[tokio::test]
async fn streams_have_limits() {
    let (container, address) = files(&[("WEB_SERVER_MAX_BODY", 10)]).await;
    let put = |path: &'static str, size: usize| async move {
        let mut client = Client::connect(address).await;
        client
            .send(format!(
                "PUT {path} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n{size:x}\r\n"
            ))
            .await;
        let _ = client.try_send("x".repeat(size) + "\r\n0\r\n\r\n").await;
        client.answer().await
    };
    assert_eq!(put("/first", 20).await.status, 413);
    // `max_body` of the method.
    assert_eq!(put("/files/a", 1000).await.status, 200);
    let answer = put("/files/a", (1 << 20) + 1).await;
    assert_eq!(
        answer.short(),
        (
            413,
            "Error: ContentTooLarge: the body is larger than 1048576 bytes\n"
        )
    );
    container.stop().await;
}

#[tokio::test]
async fn a_stream_that_breaks_off_or_stalls_is_an_error_of_the_method() {
    let config = Config::default().with("WEB_SERVER_BODY_TIMEOUT", 0.05);
    let (container, address) = serve::<Files>(config).await;
    let begin = "PUT /files/a HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n12345";
    let mut client = Client::connect(address).await;
    client.send(begin).await;
    client.finish().await;
    assert_eq!(client.answer().await.status, 400);

    let mut client = Client::connect(address).await;
    client.send(begin).await;
    let answer = client.answer().await;
    assert_eq!(
        answer.short(),
        (
            408,
            "Error: RequestTimeout: the body was not received within 50ms\n"
        )
    );
    container.stop().await;
}

#[tokio::test]
async fn the_parts_of_a_form_are_read_one_by_one() {
    let (container, address) = files(&[]).await;
    let file = "--X\r\nContent-Disposition: form-data; name=\"photo\"; filename=\"a.txt\"\r\n\
                Content-Type: text/plain\r\n\r\nline\r\n--Y\r\n";
    let body = format!(
        "{}{file}{}--X--\r\n",
        part("title", "Boats"),
        part("empty", "")
    );
    let answer = post(address, "/form", BOUNDARY, &body).await;
    assert_eq!(
        answer.short(),
        (
            200,
            "title None None Boats\nphoto Some(\"a.txt\") Some(\"text/plain\") line\r\n--Y\nempty None None "
        )
    );
    assert_eq!(
        post(address, "/count", BOUNDARY, &body).await.short(),
        (200, "3")
    );
    container.stop().await;
}

#[tokio::test]
async fn malformed_forms_get_the_right_status() {
    let (container, address) = files(&[
        ("WEB_SERVER_MAX_PARTS", 100),
        ("WEB_SERVER_MAX_PART_SIZE", 1000),
        ("WEB_SERVER_MAX_BODY", 1_000_000),
    ])
    .await;
    let many: String = (0..10_000)
        .map(|index| part(&index.to_string(), ""))
        .collect();
    let head = format!(
        "--X\r\nContent-Disposition: form-data; name=\"{}\"\r\n",
        "n".repeat(200_000)
    );
    for (case, headers, body, status, text) in [
        (
            "another type",
            "Content-Type: text/plain\r\n",
            String::new(),
            415,
            "multipart/form-data",
        ),
        (
            "no boundary",
            "Content-Type: multipart/form-data\r\n",
            part("a", ""),
            400,
            "boundary",
        ),
        (
            "no end",
            BOUNDARY,
            part("a", "b"),
            400,
            "not valid multipart",
        ),
        (
            "half a part",
            BOUNDARY,
            "--X\r\nContent-Dis".to_owned(),
            400,
            "not valid multipart",
        ),
        (
            "another boundary",
            BOUNDARY,
            part("a", "b").replace("--X", "--Z"),
            400,
            "",
        ),
        (
            "10,000 parts",
            BOUNDARY,
            format!("{many}--X--\r\n"),
            413,
            "more than 100 parts",
        ),
        (
            "a large part",
            BOUNDARY,
            format!("{}--X--\r\n", part("a", &"b".repeat(1001))),
            413,
            "the part `a` is larger than 1000 bytes",
        ),
        (
            "a large body",
            BOUNDARY,
            format!("{}--X--\r\n", part("a", &"b".repeat(900)).repeat(2000)),
            413,
            "the body is larger than 1000000 bytes",
        ),
        (
            "large headers",
            BOUNDARY,
            head,
            400,
            "the headers of a part exceed 65536 bytes",
        ),
    ] {
        for path in ["/form", "/count"] {
            let answer = post(address, path, headers, &body).await;
            assert_eq!(answer.status, status, "{case}: {}", answer.text());
            assert!(answer.text().contains(text), "{case}: {}", answer.text());
        }
    }
    // The server still works.
    let whole = format!("{}--X--\r\n", part("a", "b"));
    assert_eq!(
        post(address, "/count", BOUNDARY, &whole).await.short(),
        (200, "1")
    );
    container.stop().await;
}

#[tokio::test]
async fn an_upload_that_stops_half_way_or_lies_about_its_length_is_a_400() {
    let (container, address) = files(&[]).await;
    let body = format!("{}--X--\r\n", part("a", "b"));
    let send = |length: usize| {
        format!("POST /form HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n{BOUNDARY}\r\n")
    };
    let mut client = Client::connect(address).await;
    client.send(send(body.len())).await;
    client.send(&body[..body.len() / 2]).await;
    client.finish().await;
    assert_eq!(client.answer().await.status, 400);

    // Longer than announced: the rest is no request.
    let mut client = Client::connect(address).await;
    client.send(send(body.len() - 10)).await;
    client.send(&body).await;
    assert_eq!(client.answer().await.status, 400);

    // Shorter than announced, on a connection that stays open: complete for the parser.
    let mut client = Client::connect(address).await;
    client.send(send(body.len() + 10)).await;
    client.send(&body).await;
    let answer = client.answer().await;
    assert_eq!(answer.short(), (200, "a None None b"));
    assert_eq!(answer.header("connection"), "close");
    container.stop().await;
}

#[tokio::test]
async fn a_second_parameter_with_the_body_is_an_error() {
    #[derive(Dependencies)]
    struct Twice;

    #[service("twice")]
    impl Twice {
        #[http(POST, "/twice")]
        async fn twice(&self, _one: BodyStream, _other: Multipart) -> Result<()> {
            Ok(())
        }
    }

    let error = Container::new::<Twice>(Config::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`_one` and `_other` both stream the body"),
        "{error}"
    );
    let (container, address) = files(&[]).await;
    let answer = post(address, "/both", "", "12345").await;
    assert_eq!(answer.status, 500);
    assert!(
        answer
            .text()
            .contains("the parameter `body` needs the whole body"),
        "{}",
        answer.text()
    );
    container.stop().await;
}

#[tokio::test]
async fn a_test_passes_a_whole_body_to_a_streaming_method() {
    let (container, _) = files(&[]).await;
    let request = http::Request::put("/files/a").body(Bytes::from("12345"));
    let hook = entrypoint_hook(&container, "put");
    let response = hook.request(request.unwrap()).await.unwrap();
    assert_eq!(
        response.body(),
        Some(&b"a: 5 bytes, many chunks: false"[..])
    );
    container.stop().await;
}
