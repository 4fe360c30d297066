//! Every marker with all its options.

use std::collections::HashMap;

use nameko::{
    HandlerType,
    amqp::Table,
    prelude::*,
    web::{
        Body, Bytes, Form, Headers, Html, Json, Query, Request, Response, StatusCode,
        WebSocketConnect, WebSocketDisconnect,
    },
};

#[derive(Dependencies)]
struct Every;

fn table() -> Table {
    Table::new()
}

#[service("every")]
impl Every {
    #[rpc(
        queue_arguments = table(),
        expected_exceptions(ValueError, "NotFound", nameko::Error),
        sensitive_arguments("password", user)
    )]
    async fn rpc(&self, user: String, password: String) -> Result<String> {
        Ok(user + &password)
    }

    #[event_handler(
        "shop",
        "paid",
        handler_type = broadcast,
        reliable_delivery = false,
        requeue_on_error = false,
        reject_on_error = true,
        broadcast_identifier = "one",
        queue_arguments = table(),
        prefetch_count = 3,
        expected_exceptions(ValueError),
        sensitive_arguments("order.card")
    )]
    #[event_handler(source_service = "shop", event_type = "sold", handler_type = singleton, requeue_on_error)]
    #[event_handler("shop", "gone", handler_type = HandlerType::ServicePool, reliable_delivery, reject_on_error)]
    async fn event_handler(&self, order: HashMap<String, String>) -> Result<()> {
        let _ = order;
        Ok(())
    }

    #[consume(
        Queue::new("orders"),
        requeue_on_error,
        reject_on_error = false,
        prefetch_count = 3,
        expected_exceptions(ValueError),
        sensitive_arguments("body")
    )]
    #[consume(queue = Queue::new("more"))]
    async fn consume(&self, body: String) -> Result<()> {
        let _ = body;
        Ok(())
    }

    #[consume(Queue::new("failed"), reject_on_error)]
    #[event_handler("shop", "failed")]
    async fn raw(&self, message: RawMessage) -> Result<()> {
        drop(message);
        Ok(())
    }

    #[timer(interval = 0.5, eager, expected_exceptions(ValueError))]
    #[timer(5, eager = false)]
    async fn timer(&self) -> Result<()> {
        Ok(())
    }

    #[cron("0 3 * * *", tz = "Europe/London", once = "fleet", late = std::time::Duration::from_secs(60))]
    #[cron(expression = "*/5 * * * *", expected_exceptions(ValueError))]
    async fn cron(&self) -> Result<()> {
        Ok(())
    }

    #[http(
        GET,
        "PUT,DELETE",
        "/http/{id}/{*rest}",
        expected_exceptions(ValueError),
        sensitive_arguments("id")
    )]
    #[http("GET", "/http/{id}")]
    async fn http(
        &self,
        id: u64,
        rest: Option<String>,
        tag: Vec<String>,
        query: Query<HashMap<String, String>>,
        headers: Headers,
        request: Request,
    ) -> Result<(StatusCode, [(&'static str, String); 1], Bytes)> {
        let _ = (id, rest, tag, query, headers);
        Ok((
            StatusCode::CREATED,
            [("x", "y".to_owned())],
            request.body().clone(),
        ))
    }

    #[http(POST, "/json")]
    async fn json(&self, body: Json<u8>) -> Result<(u16, Json<u8>)> {
        Ok((200, body))
    }

    #[http(POST, "/form")]
    async fn form(&self, form: Form<HashMap<String, u8>>) -> Result<Html<&'static str>> {
        let _ = form;
        Ok(Html("<p>"))
    }

    #[http(POST, "/body")]
    async fn body(&self, body: Body) -> Result<Response> {
        Ok(Response::bytes(body.0))
    }

    #[websocket_rpc(expected_exceptions(ValueError), sensitive_arguments("text"))]
    async fn websocket_rpc(
        &self,
        socket_id: String,
        text: Option<String>,
    ) -> Result<Option<String>> {
        let _ = socket_id;
        Ok(text)
    }

    #[entrypoint(
        WebSocketConnect::new(),
        expected_exceptions(ValueError),
        sensitive_arguments("query.token")
    )]
    async fn entrypoint(&self, socket_id: String, query: HashMap<String, String>) -> Result<()> {
        let _ = (socket_id, query);
        Ok(())
    }

    #[entrypoint(WebSocketDisconnect::new())]
    #[rpc]
    async fn several(&self, socket_id: String) -> Result<()> {
        let _ = socket_id;
        Ok(())
    }
}

#[test]
fn every_marker_is_an_entrypoint() {
    let container = Container::new::<Every>(Config::default()).unwrap();
    let labels: Vec<_> = container.entrypoints().map(|(label, _)| label).collect();
    assert_eq!(labels.len(), 21, "{labels:?}");
}
