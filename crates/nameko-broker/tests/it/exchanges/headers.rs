use lapin::{
    BasicProperties, ExchangeKind,
    options::*,
    types::{AMQPValue, FieldTable},
};

use crate::support::*;

#[tokio::test]
async fn headers_exchanges_match_any_header() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let queue = env.queue("q");
        channel.declare(&queue).await;
        let wanted = table([
            ("x-match", text("any")),
            ("colour", text("red")),
            ("size", int(3)),
        ]);
        let bound = channel.queue_bind(
            queue.as_str().into(),
            "amq.headers".into(),
            "".into(),
            QueueBindOptions::default(),
            wanted,
        );
        bound.await.unwrap();
        for (headers, expected) in [
            (table([("colour", text("red"))]), 1),
            (table([("colour", text("blue"))]), 0),
            (table([("colour", text("blue")), ("size", int(3))]), 1),
        ] {
            let properties = BasicProperties::default().with_headers(headers.clone());
            channel.send_with("amq.headers", "", "m", properties).await;
            assert_eq!(channel.drain(&queue).await.len(), expected, "{headers:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn x_match_selects_the_matching_mode() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let exchange = env.exchange("x");
        channel.declare_exchange(&exchange, ExchangeKind::Headers).await;
        let mode = |mode: &str| ("x-match", text(mode));
        let (a, x) = (("a", text("1")), ("x-a", text("1")));
        let [plain_a, plain_x] = [table([a.clone()]), table([x.clone()])];
        let both = table([a.clone(), x.clone()]);
        for (wanted, sent, expected) in [
            (FieldTable::default(), FieldTable::default(), true),
            (FieldTable::default(), plain_a.clone(), true),
            (plain_a.clone(), FieldTable::default(), false),
            (plain_a.clone(), both.clone(), true),
            (table([a.clone(), ("b", text("2"))]), plain_a.clone(), false),
            (table([mode("all"), a.clone(), ("b", text("2"))]), table([a.clone(), ("b", text("2"))]), true),
            (table([mode("any"), a.clone(), ("b", text("2"))]), plain_a.clone(), true),
            (table([mode("any")]), plain_a.clone(), false),
            // Arguments starting with `x-` are compared only in the two `-with-x` modes.
            (both.clone(), plain_a.clone(), true),
            (plain_x.clone(), FieldTable::default(), true),
            (table([mode("any"), x.clone()]), plain_x.clone(), false),
            (table([mode("all-with-x"), a.clone(), x.clone()]), plain_a.clone(), false),
            (table([mode("all-with-x"), a.clone(), x.clone()]), both.clone(), true),
            (table([mode("any-with-x"), a.clone(), x.clone()]), plain_x.clone(), true),
            (table([mode("any-with-x"), x.clone()]), plain_a.clone(), false),
            // A void argument matches any value. Numbers are compared by value; before RabbitMQ 4,
            // also integers with floats.
            (table([("a", AMQPValue::Void)]), plain_a.clone(), true),
            (table([("a", AMQPValue::Void)]), plain_x.clone(), false),
            (table([("n", int(3))]), table([("n", AMQPValue::LongLongInt(3))]), true),
            (table([("n", int(3))]), table([("n", AMQPValue::Double(3.0))]), !env.since((4, 0))),
            (table([("n", AMQPValue::Float(0.5))]), table([("n", AMQPValue::Double(0.5))]), true),
            (table([("n", int(3))]), table([("n", text("3"))]), false),
            (table([("n", AMQPValue::Boolean(true))]), table([("n", AMQPValue::Boolean(true))]), true),
        ] {
            let queue = env.queue("q");
            channel.declare(&queue).await;
            let bound = channel.queue_bind(queue.as_str().into(), exchange.as_str().into(), "".into(), QueueBindOptions::default(), wanted.clone());
            bound.await.unwrap();
            channel.send_with(&exchange, "whatever", "m", BasicProperties::default().with_headers(sent.clone())).await;
            assert_eq!(channel.ready_count(&queue).await == 1, expected, "{wanted:?} {sent:?}");
            channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
        }
        for (value, expected) in [
            (text("some"), "PRECONDITION_FAILED - Invalid x-match field value <<\"some\">>; expected all, any, all-with-x, or any-with-x"),
            (int(1), "PRECONDITION_FAILED - Invalid x-match field type signedint (value 1); expected longstr"),
        ] {
            let connection = env.connect().await;
            let channel = connection.create_channel().await.unwrap();
            let queue = env.queue("q");
            channel.declare(&queue).await;
            let bound = channel.queue_bind(queue.as_str().into(), exchange.as_str().into(), "".into(), QueueBindOptions::default(), table([("x-match", value)]));
            assert_eq!(refusal(&bound.await.unwrap_err()), (406, expected.to_owned()));
        }
    })
    .await;
}
