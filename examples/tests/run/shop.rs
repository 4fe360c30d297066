//! The shop in Rust, by HTTP, RPC and WebSocket.

use std::{net::SocketAddr, time::Duration};

use futures_util::{SinkExt, StreamExt, future::join_all};
use nameko::{Cluster, Config, ServiceProxy};
use nameko_broker::Broker;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite};
use uuid::Uuid;

use crate::{
    postgresql::create_database,
    program::{Program, command},
    web_address,
};

const SHOP: &str = env!("CARGO_BIN_EXE_shop");
const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/shop/config.yaml");
/// Timeout of each wait for the shop.
const DEADLINE: Duration = Duration::from_secs(60);

/// The broker and the database of a shop.
struct Shop {
    broker: Broker,
    url: String,
    pool: PgPool,
    cluster: Cluster,
}

impl Shop {
    async fn open() -> Self {
        let url = create_database().await;
        let pool = PgPool::connect(&url).await.unwrap();
        let tables = sqlx::raw_sql(include_str!("../../shop/schema.sql"));
        tables.execute(&pool).await.unwrap();
        let broker = Broker::start("127.0.0.1:0").await.unwrap();
        let config = Config::new().with("AMQP_URI", broker.uri());
        let cluster = Cluster::connect(&config).await.unwrap();
        Self {
            broker,
            url,
            pool,
            cluster,
        }
    }

    /// Starts services in one process.
    fn start(&self, services: &[&str]) -> Program {
        let uri = self.broker.uri();
        let options = ["--config", CONFIG, "--broker", &uri];
        let arguments = [
            &["run"],
            services,
            &options,
            &["-d", "WEB_SERVER_ADDRESS=127.0.0.1:0"],
        ];
        let mut command = command(SHOP, arguments.concat());
        command
            .env("DATABASE_URL", &self.url)
            .env("GATEWAY_ADDRESS", "127.0.0.1:8000")
            .env("FEED_ADDRESS", "shop.example");
        Program::start(command)
    }

    /// Starts the services except the feed, and returns the address of the gateway.
    fn start_all(&self) -> (Program, SocketAddr) {
        self.start_web(&["orders", "stock", "notifications", "reports", "gateway"])
    }

    /// Starts services, one of them with HTTP, and returns its address.
    fn start_web(&self, services: &[&str]) -> (Program, SocketAddr) {
        let mut program = self.start(services);
        let address = web_address(&mut program).parse().unwrap();
        (program, address)
    }

    /// Starts services without HTTP.
    fn start_ready(&self, services: &[&str]) -> Program {
        let mut program = self.start(services);
        program.wait_for("ready at");
        program
    }

    fn service(&self, name: &str) -> ServiceProxy {
        self.cluster.service(name)
    }

    /// Returns the number that a query selects.
    async fn number(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// Waits until a query selects `expected`.
    async fn wait_for(&self, query: &'static str, expected: i64) {
        let reached = async { while self.number(query).await != expected {} };
        let reached = timeout(DEADLINE, reached).await;
        reached.unwrap_or_else(|_| panic!("not {expected}: {query}"));
    }

    /// Waits until an order is notified, or its notification has failed. Returns the status.
    async fn notification(&self, order: &Value) -> String {
        let notifications = self.service("notifications");
        let known = async {
            loop {
                let status = notifications.call("status", (&order["id"],)).await;
                if let Some(status) = status.unwrap() {
                    return status;
                }
            }
        };
        timeout(DEADLINE, known).await.expect("no notification")
    }
}

/// A response of the gateway.
#[derive(Debug)]
struct Response {
    status: u16,
    head: String,
    body: Value,
}

impl Response {
    fn has(&self, header: &str) -> bool {
        self.head
            .lines()
            .any(|line| line.eq_ignore_ascii_case(header))
    }

    /// Checks that the response is an error with problem details.
    #[track_caller]
    fn is_problem(&self, status: u16, title: &str, exc_type: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert!(
            self.has("content-type: application/problem+json"),
            "{self:?}"
        );
        for (key, value) in [
            ("status", json!(status)),
            ("title", json!(title)),
            ("exc_type", json!(exc_type)),
        ] {
            assert_eq!(self.body[key], value, "{self:?}");
        }
        assert!(self.body["detail"].is_string(), "{self:?}");
    }
}

/// Sends a request to the gateway, with headers that end in `\r\n`.
async fn ask(gateway: SocketAddr, line: &str, headers: &str, body: &str) -> Response {
    let asked = async {
        let mut stream = TcpStream::connect(gateway).await.unwrap();
        let length = body.len();
        let request = format!(
            "{line} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    };
    let response = timeout(DEADLINE, asked).await.expect("a response");
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Response {
        status,
        head: head.to_owned(),
        body: serde_json::from_str(body).unwrap_or(Value::Null),
    }
}

fn token(customer: &str) -> String {
    format!("Authorization: Bearer {customer}-secret\r\n")
}

async fn place(gateway: SocketAddr, customer: &str, product: &str, count: i32) -> Response {
    let body = json!({"product": product, "count": count}).to_string();
    ask(gateway, "POST /orders", &token(customer), &body).await
}

/// Returns the number of available items.
async fn available(gateway: SocketAddr, product: &str) -> Value {
    let line = format!("GET /products/{product}");
    let response = ask(gateway, &line, &token("ada"), "").await;
    response.body["available"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn customers_place_and_read_their_orders() {
    let shop = Shop::open().await;
    let (_program, gateway) = shop.start_all();

    let placed = place(gateway, "ada", "nut", 3).await;
    assert_eq!(placed.status, 201, "{placed:?}");
    let id = placed.body["id"].as_str().unwrap();
    let order = json!({"id": id, "customer": "ada", "product": "nut", "count": 3});
    assert_eq!(placed.body, order);
    assert!(placed.has(&format!("Location: /orders/{id}")), "{placed:?}");
    assert_eq!(available(gateway, "nut").await, 97);

    let line = format!("GET /orders/{id}");
    let read = ask(gateway, &line, &token("ada"), "").await;
    assert_eq!((read.status, read.body), (200, order));
    let read = ask(gateway, &line, &token("bob"), "").await;
    read.is_problem(404, "Not Found", "NotFound");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_requests_have_problem_details_and_no_effect() {
    let shop = Shop::open().await;
    let (_program, gateway) = shop.start_all();

    for headers in [
        "",
        "Authorization: Bearer wrong\r\n",
        "Authorization: ada-secret\r\n",
    ] {
        let refused = ask(gateway, "POST /orders", headers, "[").await;
        refused.is_problem(401, "Unauthorized", "Unauthorized");
        assert!(refused.has("WWW-Authenticate: Bearer"), "{refused:?}");
    }
    for body in [
        "[",
        "[]",
        r#"{"product": "nut"}"#,
        r#"{"product": 1, "count": 1}"#,
        r#"{"product": "", "count": 1}"#,
        r#"{"product": "nut", "count": 0}"#,
        r#"{"product": "nut", "count": 1.5}"#,
        r#"{"product": "nut", "count": 2147483648}"#,
    ] {
        let refused = ask(gateway, "POST /orders", &token("ada"), body).await;
        refused.is_problem(400, "Bad Request", "BadRequest");
    }
    let refused = place(gateway, "ada", "screw", 1).await;
    refused.is_problem(404, "Not Found", "NotFound");
    let refused = place(gateway, "ada", "nut", 101).await;
    refused.is_problem(409, "Conflict", "OutOfStock");
    assert_eq!(refused.body["detail"], "100 of nut available");
    let refused = ask(gateway, "GET /products/screw", &token("ada"), "").await;
    refused.is_problem(404, "Not Found", "NotFound");
    let refused = ask(gateway, "GET /nowhere", &token("ada"), "").await;
    refused.is_problem(404, "Not Found", "NotFound");

    assert_eq!(available(gateway, "nut").await, 100);
    assert_eq!(shop.number("SELECT count(*) FROM orders").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_the_shop_may_call_the_gateway() {
    let shop = Shop::open().await;
    let (_program, gateway) = shop.start_all();
    let origin = "Origin: http://shop.example\r\n";
    let allowed = "Access-Control-Allow-Origin: http://shop.example";

    // Browsers send no token in a preflight request.
    let preflight = "Access-Control-Request-Method: POST\r\n\
        Access-Control-Request-Headers: authorization,content-type\r\n";
    let headers = format!("{origin}{preflight}");
    let response = ask(gateway, "OPTIONS /orders", &headers, "").await;
    assert!((200..=204).contains(&response.status), "{response:?}");
    assert!(response.has(allowed), "{response:?}");
    let head = response.head.to_lowercase();
    for line in [
        "access-control-allow-methods: get,post",
        "access-control-allow-headers: authorization,content-type",
    ] {
        assert!(head.contains(line), "{response:?}");
    }
    // A page may read errors, too.
    let refused = ask(gateway, "GET /products/nut", origin, "").await;
    refused.is_problem(401, "Unauthorized", "Unauthorized");
    assert!(refused.has(allowed), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_customers_get_the_last_items_once() {
    let shop = Shop::open().await;
    let (_program, gateway) = shop.start_all();
    // Of 20 bolts.
    let orders = (0..20).map(|_| place(gateway, "ada", "bolt", 3));
    let mut statuses: Vec<_> = join_all(orders)
        .await
        .iter()
        .map(|order| order.status)
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [[201; 6].as_slice(), &[409; 14]].concat());
    assert_eq!(available(gateway, "bolt").await, 2);
    assert_eq!(shop.number("SELECT sum(count) FROM orders").await, 18);
    assert_eq!(shop.number("SELECT sum(count) FROM reservations").await, 18);
}

#[tokio::test(flavor = "multi_thread")]
async fn customers_are_notified_and_failures_become_dead_letters() {
    let shop = Shop::open().await;
    let (mut program, gateway) = shop.start_all();
    let sent = place(gateway, "ada", "nut", 2).await.body;
    assert_eq!(shop.notification(&sent).await, "sent");
    program.wait_for("mail to ada: You ordered 2 of nut.");
    let bounced = place(gateway, "void", "nut", 1).await.body;
    assert_eq!(shop.notification(&bounced).await, "failed");
    let id = bounced["id"].as_str().unwrap();
    program.wait_for(&format!("void was not notified of order {id}"));
    let unknown = (Uuid::new_v4(),);
    let status: Option<String> = shop
        .service("notifications")
        .call("status", unknown)
        .await
        .unwrap();
    assert_eq!(status, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_make_one_report() {
    let shop = Shop::open().await;
    let _others = shop.start_ready(&["orders", "stock"]);
    let _instances = [
        shop.start_ready(&["reports"]),
        shop.start_ready(&["reports"]),
    ];
    let orders = shop.service("orders").with_context("user_id", "ada");
    for count in [2, 3] {
        let order: Value = orders
            .call("place", (Uuid::new_v4(), "nut", count))
            .await
            .unwrap();
        assert_eq!(order["count"], count);
    }
    let yesterday = "UPDATE orders SET placed_at = '2026-03-01T23:59:59Z'";
    sqlx::query(yesterday).execute(&shop.pool).await.unwrap();

    let reports = shop.service("reports");
    assert_eq!(
        reports.call::<Value>("get", ("2026-03-01",)).await.unwrap(),
        Value::Null
    );
    let made = join_all((0..8).map(|_| reports.call::<Value>("make", ("2026-03-01",)))).await;
    for report in made {
        assert_eq!(
            report.unwrap(),
            json!({"day": "2026-03-01", "orders": 2, "items": 5})
        );
    }
    // A made report stays.
    let _: Value = orders
        .call("place", (Uuid::new_v4(), "nut", 1))
        .await
        .unwrap();
    sqlx::query(yesterday).execute(&shop.pool).await.unwrap();
    let report: Value = reports.call("make", ("2026-03-01",)).await.unwrap();
    assert_eq!(report["orders"], 2);
    assert_eq!(shop.number("SELECT count(*) FROM reports").await, 1);

    let empty: Value = reports.call("make", ("2026-03-02",)).await.unwrap();
    assert_eq!(empty, json!({"day": "2026-03-02", "orders": 0, "items": 0}));
    let refused = reports
        .call::<Value>("make", ("yesterday",))
        .await
        .unwrap_err();
    let refused = refused.as_remote().unwrap();
    assert_eq!(refused.exc_type, "ValueError");
}

/// Returns the socket of a page, subscribed.
async fn open_page(feed: SocketAddr, token: &str) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(feed).await.unwrap();
    let (mut page, _) = client_async(format!("ws://{feed}/ws?token={token}"), stream)
        .await
        .unwrap();
    let connected = next_event(&mut page).await;
    assert_eq!(connected["event"], "connected");
    // The connect method runs before any request: once this is answered, the page is subscribed.
    let request = json!({"method": "ping", "data": {}}).to_string();
    page.send(request.into()).await.unwrap();
    assert_eq!(next_event(&mut page).await["success"], false);
    page
}

async fn next_event(page: &mut WebSocketStream<TcpStream>) -> Value {
    let event = timeout(DEADLINE, page.next()).await.expect("an event");
    serde_json::from_str(event.unwrap().unwrap().to_text().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_pushes_orders_to_their_customer_only() {
    let shop = Shop::open().await;
    let (_program, gateway) = shop.start_all();
    let (_feed, feed) = shop.start_web(&["feed"]);
    for query in ["", "?token=wrong"] {
        let stream = TcpStream::connect(feed).await.unwrap();
        match client_async(format!("ws://{feed}/ws{query}"), stream).await {
            Err(tungstenite::Error::Http(response)) => assert_eq!(response.status(), 401),
            other => panic!("{other:?}"),
        }
    }
    let mut ada = open_page(feed, "ada-secret").await;
    let mut bob = open_page(feed, "bob-secret").await;
    let mut orders = Vec::new();
    for (customer, count) in [("bob", 1), ("ada", 2), ("bob", 3)] {
        orders.push(place(gateway, customer, "nut", count).await.body);
    }
    let event = |order| json!({"type": "event", "event": "order_placed", "data": order});
    assert_eq!(next_event(&mut ada).await, event(&orders[1]));
    assert_eq!(next_event(&mut bob).await, event(&orders[0]));
    assert_eq!(next_event(&mut bob).await, event(&orders[2]));

    let page = ask(feed, "GET /", "", "").await;
    assert!(
        page.has("content-type: text/html; charset=utf-8"),
        "{page:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_no_order_and_leaves_none_half_done() {
    let shop = Shop::open().await;
    let (_others, gateway) = shop.start_web(&["stock", "notifications", "gateway"]);
    let mut orders = shop.start_ready(&["orders"]);

    // Stops the orders between their insert and the reservation.
    let mut lock = shop.pool.begin().await.unwrap();
    let product = sqlx::query("SELECT 1 FROM products WHERE name = 'nut' FOR UPDATE");
    product.execute(&mut *lock).await.unwrap();
    let placed = tokio::spawn(join_all(
        (0..5).map(move |_| place(gateway, "ada", "nut", 1)),
    ));
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    shop.wait_for(waiting, 5).await;
    orders.signal("KILL");
    assert_eq!(orders.wait(), None);
    lock.commit().await.unwrap();
    shop.wait_for("SELECT count(*) FROM reservations", 5).await;
    assert_eq!(shop.number("SELECT count(*) FROM orders").await, 0);

    // The broker delivers the requests again.
    let _orders = shop.start_ready(&["orders"]);
    for order in placed.await.unwrap() {
        assert_eq!(order.status, 201, "{order:?}");
        assert_eq!(shop.notification(&order.body).await, "sent");
    }
    shop.wait_for("SELECT count(*) FROM outbox", 0).await;
    for table in [
        "SELECT count(*) FROM orders",
        "SELECT count(*) FROM orders JOIN reservations ON id = order_id",
        "SELECT count(*) FROM orders JOIN notifications ON id = order_id",
    ] {
        assert_eq!(shop.number(table).await, 5, "{table}");
    }
    assert_eq!(available(gateway, "nut").await, 95);
}
