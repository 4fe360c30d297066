use std::{net::SocketAddr, sync::Arc};

use futures_util::FutureExt;
use nameko::{
    prelude::*,
    web::{self, Bytes, Response},
};
use tokio::sync::{Notify, mpsc};

use crate::{
    http_client::{Client, serve},
    support::{broker, no_broker, within},
};

/// Synchronizes a test with a method of `Desk`.
#[derive(Default)]
struct Gate {
    begun: Notify,
    go_on: Notify,
    ended: Notify,
}

/// Injects the gate into workers.
struct Gates(Arc<Gate>);

impl DependencyProvider for Gates {
    type Dependency = Arc<Gate>;

    async fn get_dependency(&self, _: &WorkerContext) -> Result<Arc<Gate>> {
        Ok(self.0.clone())
    }
}

#[derive(Dependencies)]
struct Desk {
    #[dependency(Gates(Arc::default()))]
    gate: Arc<Gate>,
}

#[service("desk")]
impl Desk {
    #[http(GET, "/desk")]
    async fn desk(&self) -> Result<&'static str> {
        Ok("desk")
    }

    #[http(GET, "/slow")]
    async fn slow(&self) -> Result<&'static str> {
        self.gate.begun.notify_one();
        self.gate.go_on.notified().await;
        self.gate.ended.notify_one();
        Ok("slow")
    }

    #[http(GET, "/stream")]
    async fn stream(&self) -> Result<Response> {
        let gate = self.gate.clone();
        let (sender, mut receiver) = mpsc::channel::<Bytes>(1);
        tokio::spawn(async move {
            sender.send("one".into()).await.unwrap();
            gate.begun.notify_one();
            tokio::select! {
                () = gate.go_on.notified() => sender.send("two".into()).await.unwrap(),
                () = sender.closed() => gate.ended.notify_one(),
            }
        });
        let stream = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
        Ok(Response::stream(futures_util::StreamExt::map(
            stream,
            Ok::<_, nameko::Error>,
        )))
    }
}

#[derive(Dependencies)]
struct Lobby;

#[service("lobby")]
impl Lobby {
    #[http(GET, "/lobby")]
    async fn lobby(&self) -> Result<&'static str> {
        Ok("lobby")
    }

    #[http(POST, "/desk")]
    async fn desk(&self) -> Result<&'static str> {
        Ok("the lobby's desk")
    }
}

#[derive(Dependencies)]
struct Rival;

#[service("rival")]
impl Rival {
    #[http("POST,GET", "/desk")]
    async fn take(&self) -> Result<&'static str> {
        Ok("mine")
    }
}

#[derive(Dependencies)]
struct Muddle;

#[service("muddle")]
impl Muddle {
    #[http(GET, "/orders/{id}")]
    async fn order(&self, id: u64) -> Result<String> {
        Ok(id.to_string())
    }

    #[http(GET, "/orders/{name}")]
    async fn named(&self, name: String) -> Result<String> {
        Ok(name)
    }
}

#[derive(Dependencies)]
struct Lost;

#[service("lost")]
impl Lost {
    #[http(GET, "/a/<int:id>")]
    async fn find(&self) -> Result<()> {
        Ok(())
    }
}

/// Starts `Desk` and returns its gate.
async fn desk(config: Config) -> (Container, SocketAddr, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let config = config.with("WEB_SERVER_ADDRESS", "127.0.0.1:0");
    let container = Container::builder::<Desk>(config)
        .replace("gate", gate.clone())
        .build()
        .unwrap();
    container.start().await.unwrap();
    let address = web::address(&container).unwrap();
    (container, address, gate)
}

fn at(address: SocketAddr) -> Config {
    Config::default().with("WEB_SERVER_ADDRESS", address.to_string())
}

/// Returns `true` if the port is closed.
async fn is_closed(address: SocketAddr) -> bool {
    within("a connection", tokio::net::TcpStream::connect(address))
        .await
        .is_err()
}

#[tokio::test]
async fn services_share_a_port() {
    let (desk, address, _gate) = desk(Config::default()).await;
    let lobby = Container::new::<Lobby>(at(address)).unwrap();
    lobby.start().await.unwrap();
    assert_eq!(web::address(&lobby), Some(address));
    let mut client = Client::connect(address).await;
    assert_eq!(client.get("/desk").await.short(), (200, "desk"));
    assert_eq!(client.get("/lobby").await.short(), (200, "lobby"));
    assert_eq!(
        client.ask("POST /desk", "", "").await.text(),
        "the lobby's desk"
    );

    // The container that opened the port may stop first.
    within("the stop", desk.stop()).await;
    assert_eq!(client.ask("GET /desk", "", "").await.status, 405);
    assert_eq!(client.get("/slow").await.status, 404);
    assert_eq!(client.get("/lobby").await.short(), (200, "lobby"));
    within("the stop", lobby.stop()).await;
    assert!(is_closed(address).await);
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn conflicting_routes_fail_the_start_and_name_both() {
    let (desk, address, _gate) = desk(Config::default()).await;
    let rival = Container::new::<Rival>(at(address)).unwrap();
    let error = rival.start().await.unwrap_err().to_string();
    assert!(
        error.contains("two methods want GET /desk: desk.desk (`/desk`) and rival.take (`/desk`)"),
        "{error}"
    );
    // The first service keeps serving.
    let mut client = Client::connect(address).await;
    assert_eq!(client.get("/desk").await.short(), (200, "desk"));
    desk.stop().await;

    let muddle = Container::new::<Muddle>(at(address)).unwrap();
    let error = muddle.start().await.unwrap_err().to_string();
    assert!(
        error.contains("muddle.order (`/orders/{id}`) and muddle.named (`/orders/{name}`)"),
        "{error}"
    );
    assert!(is_closed(address).await);
}

#[tokio::test]
async fn an_invalid_path_is_an_error_before_the_start() {
    let error = Container::new::<Lost>(Config::default()).unwrap_err();
    let expected =
        "the route of lost.find: the path `/a/<int:id>` has a `<`; a parameter is written `{name}`";
    assert!(error.to_string().contains(expected), "{error}");
}

#[tokio::test]
async fn a_port_in_use_fails_the_start() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let lobby = Container::new::<Lobby>(at(address)).unwrap();
    let error = lobby.start().await.unwrap_err().to_string();
    let expected = format!("WEB_SERVER_ADDRESS is {address}, where another program listens (");
    assert!(error.starts_with(&expected), "{error}");
    assert!(
        error.ends_with("): stop it or choose another port (0 for a free one)"),
        "{error}"
    );

    let (desk, address, _gate) = desk(Config::default()).await;
    let everywhere = format!("0.0.0.0:{}", address.port());
    let config = Config::default().with("WEB_SERVER_ADDRESS", everywhere.as_str());
    let lobby = Container::new::<Lobby>(config).unwrap();
    assert_eq!(
        lobby.start().await.unwrap_err().to_string(),
        format!(
            "WEB_SERVER_ADDRESS is {everywhere}, but another service of this process listens on {address}: configure the same address for both"
        )
    );
    desk.stop().await;
}

#[tokio::test]
async fn an_invalid_address_fails_the_start() {
    for (value, expected) in [
        ("foo", "must be `[host:]port`"),
        (
            "nobody.invalid:80",
            "has the host `nobody.invalid`, which cannot be resolved",
        ),
        (
            "192.0.2.1:0",
            "is 192.0.2.1:0, which is not an address of this machine",
        ),
    ] {
        let config = Config::default().with("WEB_SERVER_ADDRESS", value);
        let lobby = Container::new::<Lobby>(config).unwrap();
        let error = lobby.start().await.unwrap_err();
        assert!(matches!(error, Error::Config(_)), "{error:?}");
        let error = error.to_string();
        assert!(
            error.starts_with(&format!("WEB_SERVER_ADDRESS {expected}")),
            "{error}"
        );
    }
}

#[tokio::test]
async fn ipv6_works() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return; // No IPv6 here.
    }
    let config = Config::default().with("WEB_SERVER_ADDRESS", "[::1]:0");
    let lobby = Container::new::<Lobby>(config).unwrap();
    lobby.start().await.unwrap();
    let mut client = Client::connect(web::address(&lobby).unwrap()).await;
    assert_eq!(client.get("/lobby").await.text(), "lobby");
    lobby.stop().await;
}

#[tokio::test]
async fn processes_may_share_a_port() {
    let shared = Config::default().with("WEB_SERVER_REUSE_PORT", true);
    let (lobby, address) = serve::<Lobby>(shared).await;
    // Simulates another process.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    assert!(socket.bind(address).is_err());
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(1).unwrap();
    lobby.stop().await;
}

#[tokio::test]
async fn stop_closes_the_port_serves_open_connections_once_more_and_closes_them() {
    let (container, address, gate) = desk(Config::default()).await;
    let mut idle = Client::connect(address).await;
    assert_eq!(idle.get("/desk").await.status, 200);
    let mut fresh = Client::connect(address).await;
    let mut silent = Client::connect(address).await;
    assert_eq!(silent.get("/desk").await.status, 200);
    let mut busy = Client::connect(address).await;
    busy.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n").await;
    within("the worker", gate.begun.notified()).await;

    let stopping = tokio::spawn({
        let container = container.clone();
        async move { container.stop().await }
    });
    within("the closed port", async {
        while !is_closed(address).await {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // Connections from before the stop are served once more.
    for client in [&mut idle, &mut fresh] {
        let answer = client.get("/desk").await;
        assert_eq!(answer.short(), (200, "desk"));
        assert_eq!(answer.header("connection"), "close");
        assert_eq!(client.rest().await, b"");
    }
    assert!(!stopping.is_finished());
    gate.go_on.notify_one();
    let answer = busy.answer().await;
    assert_eq!(answer.short(), (200, "slow"));
    assert_eq!(answer.header("connection"), "close");
    assert_eq!(busy.rest().await, b"");
    // One that sends nothing does not delay the stop.
    within("the stop", stopping).await.unwrap();
    assert_eq!(silent.rest().await, b"");

    // The port is free immediately.
    let lobby = Container::new::<Lobby>(at(address)).unwrap();
    lobby.start().await.unwrap();
    lobby.stop().await;
}

/// A service that is being stopped serves connections from before the stop, also on a shared port.
#[tokio::test]
async fn a_draining_service_refuses_new_connections_on_a_shared_port() {
    let (desk, address, gate) = desk(Config::default()).await;
    let lobby = Container::new::<Lobby>(at(address)).unwrap();
    lobby.start().await.unwrap();
    let mut probe = Client::connect(address).await;
    assert_eq!(probe.get("/desk").await.status, 200);
    let mut busy = Client::connect(address).await;
    busy.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n").await;
    within("the worker", gate.begun.notified()).await;
    let stopping = desk.stop();
    tokio::pin!(stopping);
    assert!(stopping.as_mut().now_or_never().is_none());
    within("the drain", async {
        while Client::connect(address).await.get("/desk").await.status != 503 {}
    })
    .await;
    let answer = Client::connect(address).await.get("/desk").await;
    assert_eq!(
        answer.short(),
        (503, "Error: ServiceUnavailable: the service is stopping\n")
    );
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(probe.get("/desk").await.short(), (200, "desk"));
    assert_eq!(probe.get("/lobby").await.short(), (200, "lobby"));
    gate.go_on.notify_one();
    within("the stop", stopping).await;
    assert_eq!(probe.get("/desk").await.status, 405);
    lobby.stop().await;
}

#[derive(Dependencies)]
struct Waiting {
    #[dependency(Reached(Arc::default()))]
    _reached: (),
    #[dependency(RpcProxy::new("stock"))]
    _stock: ServiceProxy,
}

#[service("waiting")]
impl Waiting {
    #[http(GET, "/stock")]
    async fn stock(&self) -> Result<&'static str> {
        Ok("stock")
    }
}

/// Reports the start of the providers.
struct Reached(Arc<Notify>);

impl DependencyProvider for Reached {
    type Dependency = ();

    async fn start(&self) -> Result<()> {
        self.0.notify_one();
        Ok(())
    }

    async fn get_dependency(&self, _: &WorkerContext) -> Result<()> {
        Ok(())
    }
}

/// Starts a service that waits for its broker, in a task.
async fn waiting(config: Config) -> Container {
    let reached = Arc::new(Notify::new());
    let container = Container::builder::<Waiting>(config)
        .replace_provider("_reached", Reached(reached.clone()))
        .build()
        .unwrap();
    tokio::spawn({
        let container = container.clone();
        async move { container.start().await }
    });
    within("the start of its providers", reached.notified()).await;
    container
}

#[tokio::test]
async fn a_service_that_waits_for_its_broker_answers_503_on_a_shared_port() {
    let (desk, address, _) = desk(Config::default()).await;
    let config = no_broker().with("WEB_SERVER_ADDRESS", address.to_string());
    let first = waiting(config.clone()).await;
    let answer = Client::connect(address).await.get("/stock").await;
    assert_eq!(
        answer.short(),
        (503, "Error: ServiceUnavailable: the service is starting\n")
    );
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(
        Client::connect(address).await.get("/desk").await.status,
        200
    );

    // The port closes with its last started service, and opens with the next one.
    desk.stop().await;
    assert!(is_closed(address).await);
    let lobby = Container::new::<Lobby>(at(address)).unwrap();
    lobby.start().await.unwrap();
    let mut client = Client::connect(address).await;
    assert_eq!(client.get("/stock").await.status, 503);
    assert_eq!(client.get("/lobby").await.status, 200);

    first.stop().await;
    assert_eq!(client.get("/stock").await.status, 404);
    lobby.stop().await;
    assert!(is_closed(address).await);
}

#[tokio::test]
async fn a_starting_service_serves_its_routes_once_its_broker_is_there() {
    let (desk, address, _) = desk(Config::default()).await;
    let broker = broker().await;
    let config = broker
        .config()
        .with("WEB_SERVER_ADDRESS", address.to_string());
    let container = waiting(config).await;
    within("the start", async {
        while Client::connect(address).await.get("/stock").await.status != 200 {}
    })
    .await;
    container.stop().await;
    desk.stop().await;
}

#[tokio::test]
async fn a_worker_is_dropped_with_its_client_if_the_method_says_so() {
    let gate = Arc::new(Gate::default());
    let dropped = Arc::new(Notify::new());
    let config = Config::default().with("WEB_SERVER_ADDRESS", "127.0.0.1:0");
    let container = Container::builder::<Fickle>(config)
        .replace("gate", gate.clone())
        .replace("dropped", dropped.clone())
        .build()
        .unwrap();
    container.start().await.unwrap();
    let address = web::address(&container).unwrap();
    let mut client = Client::connect(address).await;
    client
        .send("GET /fickle HTTP/1.1\r\nHost: test\r\n\r\n")
        .await;
    within("the worker", gate.begun.notified()).await;
    drop(client);
    within("the drop of the worker", dropped.notified()).await;

    // A client that stays gets its response, on a connection that is kept.
    let mut client = Client::connect(address).await;
    for _ in 0..2 {
        gate.go_on.notify_one();
        assert_eq!(client.get("/fickle").await.short(), (200, "done"));
        within("the worker's end", dropped.notified()).await;
    }
    container.stop().await;
}

#[derive(Dependencies)]
struct Fickle {
    #[dependency(Gates(Arc::default()))]
    gate: Arc<Gate>,
    #[dependency(Dropped)]
    dropped: Arc<Notify>,
}

/// A provider that is replaced.
struct Dropped;

impl DependencyProvider for Dropped {
    type Dependency = Arc<Notify>;

    async fn get_dependency(&self, _: &WorkerContext) -> Result<Arc<Notify>> {
        Ok(Arc::default())
    }
}

/// Notifies when it is dropped.
struct NotifyOnDrop(Arc<Notify>);

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[service("fickle")]
impl Fickle {
    #[http(GET, "/fickle", cancel_on_disconnect)]
    async fn fickle(&self) -> Result<&'static str> {
        let _guard = NotifyOnDrop(self.dropped.clone());
        self.gate.begun.notify_one();
        self.gate.go_on.notified().await;
        Ok("done")
    }
}

#[tokio::test]
async fn stop_is_bounded_and_a_dropped_worker_is_a_503() {
    let (container, address, gate) = desk(Config::default().with("stop_timeout", 0.05)).await;
    let mut busy = Client::connect(address).await;
    busy.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n").await;
    within("the worker", gate.begun.notified()).await;
    within("the stop", container.stop()).await;
    let answer = busy.answer().await;
    assert_eq!(
        answer.short(),
        (503, "Error: ServiceUnavailable: the service is stopping\n")
    );
    assert_eq!(busy.rest().await, b"");
}

#[tokio::test]
async fn a_kill_aborts_connections_and_frees_the_port() {
    let (container, address, gate) = desk(Config::default()).await;
    let mut busy = Client::connect(address).await;
    busy.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n").await;
    within("the worker", gate.begun.notified()).await;
    container.kill(Error::raise("Killed", "enough"));
    busy.rest().await;
    let lobby = Container::new::<Lobby>(at(address)).unwrap();
    within("the start", lobby.start()).await.unwrap();
    lobby.stop().await;
}

#[tokio::test]
async fn a_worker_completes_after_its_client_disconnects() {
    let (container, address, gate) = desk(Config::default()).await;
    let mut client = Client::connect(address).await;
    client
        .send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n")
        .await;
    within("the worker", gate.begun.notified()).await;
    drop(client);
    gate.go_on.notify_one();
    within("the worker's end", gate.ended.notified()).await;
    container.stop().await;
}

#[tokio::test]
async fn streams_are_sent_incrementally_and_a_stop_waits_for_them() {
    let (container, address, gate) = desk(Config::default()).await;
    let mut client = Client::connect(address).await;
    client
        .send("GET /stream HTTP/1.1\r\nHost: test\r\n\r\n")
        .await;
    let head = client.head().await;
    assert_eq!(
        (head.status, head.header("transfer-encoding")),
        (200, "chunked")
    );
    assert_eq!(client.chunk().await.unwrap(), b"one");
    let stopping = container.stop();
    tokio::pin!(stopping);
    assert!(stopping.as_mut().now_or_never().is_none());
    gate.go_on.notify_one();
    assert_eq!(client.chunk().await.unwrap(), b"two");
    assert_eq!(client.chunk().await, None);
    within("the stop", stopping).await;
}

#[tokio::test]
async fn a_stream_ends_with_its_client_and_with_its_container() {
    let (container, address, gate) = desk(Config::default().with("stop_timeout", 0.05)).await;
    let mut client = Client::connect(address).await;
    client
        .send("GET /stream HTTP/1.1\r\nHost: test\r\n\r\n")
        .await;
    client.head().await;
    assert_eq!(client.chunk().await.unwrap(), b"one");
    drop(client);
    within("the stream's end", gate.ended.notified()).await;

    let mut client = Client::connect(address).await;
    client
        .send("GET /stream HTTP/1.1\r\nHost: test\r\n\r\n")
        .await;
    client.head().await;
    assert_eq!(client.chunk().await.unwrap(), b"one");
    within("the stop", container.stop()).await;
    within("the stream's end", gate.ended.notified()).await;
    // Aborted, not ended: a client must not take the body as complete.
    assert_eq!(client.rest().await, b"");
}
