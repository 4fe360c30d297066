use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use nameko::{
    prelude::*,
    web::{Body, Response},
};
use proptest::prelude::*;
use tokio::sync::Notify;

use crate::{
    http_client::{Client, serve},
    support::within,
};

/// The number of chunks sent by `Depot::endless`, and the notification of its end.
static MADE: AtomicUsize = AtomicUsize::new(0);
static DROPPED: Notify = Notify::const_new();

struct Ended;

impl Drop for Ended {
    fn drop(&mut self) {
        DROPPED.notify_one();
    }
}

#[derive(Dependencies)]
struct Depot;

#[service("depot")]
impl Depot {
    #[http(POST, "/echo")]
    async fn echo(&self, body: Body) -> Result<Vec<u8>> {
        Ok(body.to_vec())
    }

    #[http(GET, "/items/{id}")]
    async fn item(&self, id: String, q: Option<String>) -> Result<String> {
        Ok(format!("{id} {}", q.unwrap_or_default()))
    }

    #[http(GET, "/hang")]
    async fn hang(&self) -> Result<()> {
        std::future::pending().await
    }

    #[http(GET, "/endless")]
    async fn endless(&self) -> Result<Response> {
        let ended = Ended;
        Ok(Response::stream(futures_util::stream::repeat_with(
            move || {
                let _ = &ended;
                MADE.fetch_add(1, Ordering::SeqCst);
                Ok::<_, nameko::Error>(vec![0; 64 << 10])
            },
        )))
    }

    #[http(GET, "/broken")]
    async fn broken(&self) -> Result<Response> {
        let items = [Ok("some"), Err(nameko::Error::raise("Broken", "no more"))];
        Ok(Response::stream(futures_util::stream::iter(items)))
    }
}

/// Returns a request to `/echo` with headers and a body.
fn post(rest: &str) -> String {
    format!("POST /echo HTTP/1.1\r\nHost: test\r\n{rest}")
}

async fn depot(settings: &[(&str, serde_json::Value)]) -> (Container, std::net::SocketAddr) {
    let config = settings.iter().fold(Config::default(), |it, (key, value)| {
        it.with(*key, value.clone())
    });
    serve::<Depot>(config).await
}

#[tokio::test]
async fn malformed_requests_are_refused_and_the_connection_is_closed() {
    let (container, address) = depot(&[]).await;
    let long = "x".repeat(200_000);
    let many: String = (0..101).map(|number| format!("h{number}: x\r\n")).collect();
    for (request, status) in [
        ("\u{16}\u{3}\u{1}\u{2}\0\u{1}".to_owned(), 400), // TLS
        ("GET\r\n\r\n".to_owned(), 400),
        ("GET /items/1 HTTP/9.9\r\n\r\n".to_owned(), 400),
        ("GET /items/a b HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 400),
        ("GET /items/1 HTTP/1.1\r\nno header\r\n\r\n".to_owned(), 400),
        ("GET /items/1 HTTP/1.1\r\n\r\n".to_owned(), 400),
        (
            "GET /items/1 HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n".to_owned(),
            400,
        ),
        (
            format!("GET /items/1 HTTP/1.1\r\nlong: {long}\r\n\r\n"),
            431,
        ),
        (format!("GET /items/1 HTTP/1.1\r\n{many}\r\n"), 431),
        (post("Content-Length: x\r\n\r\n"), 400),
        (post("Content-Length: -1\r\n\r\n"), 400),
        (
            post("Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx"),
            400,
        ),
        (post("Transfer-Encoding: gzip\r\n\r\n"), 400),
        (post("Transfer-Encoding: chunked\r\n\r\nxyz\r\n"), 400),
        (
            post("Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n"),
            400,
        ),
    ] {
        let mut client = Client::connect(address).await;
        // The server may refuse it before receiving all of it.
        let _ = client.try_send(&request).await;
        let short: String = request.chars().take(60).collect();
        assert_eq!(client.head().await.status, status, "{short}");
        client.rest().await;
    }
    let mut client = Client::connect(address).await;
    let _ = client
        .try_send(format!("GET /items/{long} HTTP/1.1\r\nHost: x\r\n\r\n"))
        .await;
    // HTTP/2 is not supported.
    let mut h2 = Client::connect(address).await;
    h2.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(h2.rest().await, b"");
    // The result depends on the number of bytes received at once.
    assert!([414, 431].contains(&client.head().await.status));
    container.stop().await;
}

#[tokio::test]
async fn chunked_split_and_expect_continue_bodies_are_read() {
    let (container, address) = depot(&[]).await;
    let mut client = Client::connect(address).await;
    client
        .send(post("Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"))
        .await;
    client.send("3;x=y\r\ncde\r\n").await;
    client.send("0\r\nTrailer: x\r\n\r\n").await;
    assert_eq!(client.answer().await.short(), (200, "abcde"));

    client
        .send(post("Content-Length: 4\r\nExpect: 100-continue\r\n\r\n"))
        .await;
    assert_eq!(client.head().await.status, 100);
    client.send("body").await;
    assert_eq!(client.answer().await.short(), (200, "body"));
    container.stop().await;
}

#[tokio::test]
async fn an_oversized_body_is_refused_unread() {
    let (container, address) = depot(&[("WEB_SERVER_MAX_BODY", 10.into())]).await;
    let expected = (
        413,
        "Error: ContentTooLarge: the body is larger than 10 bytes\n",
    );
    let mut client = Client::connect(address).await;
    assert_eq!(client.ask("POST /echo", "", "0123456789").await.status, 200);
    client
        .send(post("Content-Length: 11\r\nExpect: 100-continue\r\n\r\n"))
        .await;
    let answer = client.answer().await;
    assert_eq!(answer.short(), expected);
    assert_eq!(answer.header("connection"), "close");

    // The response arrives although the client is still sending.
    let mut client = Client::connect(address).await;
    client.send(post("Content-Length: 4000000\r\n\r\n")).await;
    let _ = client.try_send(vec![b'x'; 4_000_000]).await;
    assert_eq!(client.answer().await.short(), expected);
    client.rest().await;

    let mut client = Client::connect(address).await;
    client
        .send(post(
            "Transfer-Encoding: chunked\r\n\r\nb\r\n0123456789a\r\n",
        ))
        .await;
    assert_eq!(client.answer().await.short(), expected);
    client.rest().await;
    container.stop().await;
}

#[tokio::test]
async fn a_wrong_content_length_is_detected() {
    let (container, address) = depot(&[]).await;
    // Longer than the body, which then ends.
    let mut client = Client::connect(address).await;
    client.send(post("Content-Length: 10\r\n\r\nabc")).await;
    client.finish().await;
    let rest = client.rest().await;
    assert!(
        rest.is_empty() || rest.starts_with(b"HTTP/1.1 400"),
        "{rest:?}"
    );
    // Shorter than the body: the remainder is not a request.
    let mut client = Client::connect(address).await;
    client
        .send(post("Content-Length: 3\r\n\r\nabc what?\r\n\r\n"))
        .await;
    assert_eq!(client.answer().await.short(), (200, "abc"));
    assert_eq!(client.answer().await.status, 400);
    client.rest().await;
    // Conflicting lengths (request smuggling) are refused.
    let mut client = Client::connect(address).await;
    client
        .send(post(
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ))
        .await;
    let answer = client.answer().await;
    assert!(
        answer.status == 400 || answer.short() == (200, ""),
        "{answer:?}"
    );
    container.stop().await;
}

#[tokio::test]
async fn a_slow_client_gets_408_and_is_disconnected() {
    let (container, address) = depot(&[
        ("WEB_SERVER_HEADER_TIMEOUT", 0.05.into()),
        ("WEB_SERVER_BODY_TIMEOUT", 0.05.into()),
        ("WEB_SERVER_KEEP_ALIVE", 0.05.into()),
    ])
    .await;
    // Sends nothing.
    let mut client = Client::connect(address).await;
    assert_eq!(client.rest().await, b"");
    // Sends part of a head.
    let mut client = Client::connect(address).await;
    client.send("GET /items/1 HT").await;
    assert_eq!(client.answer().await.status, 408);
    client.rest().await;
    // Sends part of a body.
    let mut client = Client::connect(address).await;
    client.send(post("Content-Length: 3\r\n\r\nab")).await;
    let answer = client.answer().await;
    assert_eq!(
        answer.short(),
        (
            408,
            "Error: RequestTimeout: the body was not received within 50ms\n"
        )
    );
    assert_eq!(answer.header("connection"), "close");
    client.rest().await;
    // Stays idle after a response.
    let mut client = Client::connect(address).await;
    assert_eq!(client.get("/items/1").await.status, 200);
    assert_eq!(client.rest().await, b"");
    container.stop().await;
}

#[tokio::test]
async fn connections_are_kept_alive_unless_one_side_declines() {
    let (container, address) = depot(&[]).await;
    let mut client = Client::connect(address).await;
    for _ in 0..3 {
        assert_eq!(client.get("/items/1").await.status, 200);
    }
    let last = client
        .ask("GET /items/1", "Connection: close\r\n", "")
        .await;
    assert_eq!(last.header("connection"), "close");
    assert_eq!(client.rest().await, b"");
    let mut old = Client::connect(address).await;
    old.send("GET /items/1 HTTP/1.0\r\n\r\n").await;
    assert_eq!(old.answer().await.status, 200);
    assert_eq!(old.rest().await, b"");
    container.stop().await;

    let (container, address) = depot(&[("WEB_SERVER_KEEP_ALIVE", 0.into())]).await;
    let mut client = Client::connect(address).await;
    assert_eq!(client.get("/items/1").await.header("connection"), "close");
    assert_eq!(client.rest().await, b"");
    container.stop().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (container, address) = depot(&[]).await;
    let mut client = Client::connect(address).await;
    let requests: String = (0..50)
        .map(|number| format!("GET /items/{number} HTTP/1.1\r\nHost: test\r\n\r\n"))
        .collect();
    client.send(requests).await;
    for it in 0..50 {
        assert_eq!(client.answer().await.text(), format!("{it} "));
    }
    container.stop().await;
}

#[tokio::test]
async fn a_client_that_shut_down_its_sending_side_gets_its_response() {
    let (container, address) = depot(&[]).await;
    let mut client = Client::connect(address).await;
    client
        .send("GET /items/1 HTTP/1.1\r\nHost: test\r\n\r\n")
        .await;
    client.finish().await;
    assert_eq!(client.answer().await.short(), (200, "1 "));
    assert_eq!(client.rest().await, b"");
    container.stop().await;
}

#[tokio::test]
async fn a_worker_that_exceeds_the_timeout_is_dropped() {
    let (container, address) = depot(&[
        ("WEB_SERVER_TIMEOUT", 0.05.into()),
        ("max_workers", 1.into()),
    ])
    .await;
    let mut client = Client::connect(address).await;
    for _ in 0..2 {
        // The second gets the only slot, released by the first.
        assert_eq!(
            client.get("/hang").await.short(),
            (503, "Error: ServiceUnavailable: no response within 50ms\n")
        );
    }
    assert_eq!(client.get("/items/1").await.status, 200);
    container.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_blocks_the_stream_and_is_disconnected() {
    let (container, address) = depot(&[("WEB_SERVER_SEND_TIMEOUT", 0.2.into())]).await;
    let mut client = Client::connect(address).await;
    client
        .send("GET /endless HTTP/1.1\r\nHost: test\r\n\r\n")
        .await;
    within("the stream's end", DROPPED.notified()).await;
    // Only as much as the socket buffers hold.
    let made = MADE.load(Ordering::SeqCst);
    assert!((1..1000).contains(&made), "{made} chunks");
    container.stop().await;
}

#[tokio::test]
async fn a_failed_stream_aborts_the_connection() {
    let (container, address) = depot(&[]).await;
    let mut client = Client::connect(address).await;
    client
        .send("GET /broken HTTP/1.1\r\nHost: test\r\n\r\n")
        .await;
    let rest = client.rest().await;
    // All that came before the error is sent.
    assert!(rest.ends_with(b"\r\n\r\n4\r\nsome\r\n"), "{rest:?}");
    container.stop().await;
}

#[tokio::test]
async fn connections_above_the_limit_wait() {
    let (container, address) = depot(&[("WEB_SERVER_MAX_CONNECTIONS", 1.into())]).await;
    let mut first = Client::connect(address).await;
    assert_eq!(first.get("/items/1").await.status, 200);
    let mut second = Client::connect(address).await;
    second
        .send("GET /items/2 HTTP/1.1\r\nHost: test\r\n\r\n")
        .await;
    assert_eq!(first.get("/items/1").await.status, 200);
    drop(first);
    assert_eq!(second.answer().await.short(), (200, "2 "));
    container.stop().await;
}

/// Almost valid requests, and arbitrary bytes.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let word = "[ -~]{0,12}";
    let almost = (
        prop::sample::select(vec!["GET", "POST", "HEAD", "OPTIONS", "X"]),
        "/?(items|echo|[ -~]{0,9})/?[ -~]{0,20}(%[0-9a-fA-F]{0,3}|\\?[ -~]{0,9}){0,3}",
        prop::collection::vec(
            (
                prop::sample::select(vec!["Content-Length", "Transfer-Encoding", "Expect", "x"]),
                word,
            ),
            0..4,
        ),
        prop::collection::vec(any::<u8>(), 0..30),
    )
        .prop_map(|(method, path, headers, body)| {
            let headers: String = headers
                .iter()
                .map(|(name, value)| format!("{name}: {value}\r\n"))
                .collect();
            let mut bytes = format!("{method} {path} HTTP/1.1\r\n{headers}\r\n").into_bytes();
            bytes.extend(body);
            bytes
        });
    prop_oneof![3 => almost, 1 => prop::collection::vec(any::<u8>(), 0..200)]
}

#[test]
fn arbitrary_bytes_do_not_break_the_server() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (container, address) = runtime.block_on(depot(&[]));
    let runtime = Arc::new(runtime);
    proptest!(ProptestConfig::with_cases(200), |(bytes in bytes())| {
        runtime.block_on(async {
            let mut client = Client::connect(address).await;
            let _ = client.try_send(&bytes).await;
            client.finish().await;
            // The connection ends, and the service still works.
            let rest = client.rest().await;
            let broken = rest.windows(13).any(|bytes| bytes.starts_with(b"HTTP/1.1 500"));
            assert!(!broken, "{:?}", String::from_utf8_lossy(&rest));
        });
    });
    runtime.block_on(async {
        let mut client = Client::connect(address).await;
        assert_eq!(client.get("/items/1").await.status, 200);
        container.stop().await;
    });
}
