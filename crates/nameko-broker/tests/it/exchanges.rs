use lapin::{BasicProperties, ExchangeKind, options::*, types::FieldTable};

use crate::support::*;

#[tokio::test]
async fn each_kind_routes_its_way() {
    on_each(|bed| async move {
        let connection = bed.connect().await;
        let channel = confirming(&connection).await;
        let [a, b] = [bed.queue("a"), bed.queue("b")];
        channel.declare(&a).await;
        channel.declare(&b).await;
        for (kind, key_a, key_b, sent, expected) in [
            (ExchangeKind::Direct, "x", "y", "x", (true, false)),
            (ExchangeKind::Direct, "x", "x", "x", (true, true)),
            (ExchangeKind::Direct, "x.*", "x.#", "x.y", (false, false)),
            (ExchangeKind::Fanout, "x", "y", "whatever", (true, true)),
            (
                ExchangeKind::Topic,
                "svc.*",
                "other.*",
                "svc.method",
                (true, false),
            ),
            (ExchangeKind::Topic, "svc.*", "svc.#", "svc", (false, true)),
            (ExchangeKind::Topic, "#", "*", "a.b", (true, false)),
            (ExchangeKind::Topic, "*", "#", "", (false, true)),
            (ExchangeKind::Topic, "#.b.#", "a.#.b", "a.b", (true, true)),
        ] {
            let exchange = bed.exchange("x");
            channel.declare_exchange(&exchange, kind.clone()).await;
            channel.bind(&a, &exchange, key_a).await;
            channel.bind(&b, &exchange, key_b).await;
            let returned = channel
                .send(&exchange, sent, "m")
                .await
                .take_message()
                .is_some();
            let got = (
                !channel.drain(&a).await.is_empty(),
                !channel.drain(&b).await.is_empty(),
            );
            assert_eq!(got, expected, "{kind:?} {key_a} {key_b} {sent}");
            assert_eq!(
                returned,
                expected == (false, false),
                "{kind:?} {key_a} {key_b} {sent}"
            );
            channel
                .exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default())
                .await
                .unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_headers_exchange_looks_at_headers() {
    on_each(|bed| async move {
        let connection = bed.connect().await;
        let channel = confirming(&connection).await;
        let queue = bed.queue("q");
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
async fn a_message_comes_once_however_many_bindings_match() {
    on_each(|bed| async move {
        let connection = bed.connect().await;
        let channel = confirming(&connection).await;
        let (queue, exchange) = (bed.queue("q"), bed.exchange("x"));
        channel.declare(&queue).await;
        channel
            .declare_exchange(&exchange, ExchangeKind::Topic)
            .await;
        for key in ["a.*", "a.*", "#", "a.b"] {
            channel.bind(&queue, &exchange, key).await;
        }
        channel.send(&exchange, "a.b", "once").await;
        assert_eq!(channel.drain(&queue).await, ["once"]);
        // The binding made twice was one, so unbinding it once is enough.
        for key in ["a.*", "#", "a.b", "never bound"] {
            let unbound = channel.queue_unbind(
                queue.as_str().into(),
                exchange.as_str().into(),
                key.into(),
                FieldTable::default(),
            );
            unbound.await.unwrap();
        }
        assert!(
            channel
                .send(&exchange, "a.b", "m")
                .await
                .take_message()
                .is_some()
        );
    })
    .await;
}

#[tokio::test]
async fn exchanges_bind_to_exchanges_in_circles_too() {
    on_each(|bed| async move {
        let connection = bed.connect().await;
        let channel = confirming(&connection).await;
        let (queue, one, two) = (bed.queue("q"), bed.exchange("one"), bed.exchange("two"));
        channel.declare(&queue).await;
        channel.declare_exchange(&one, ExchangeKind::Topic).await;
        channel.declare_exchange(&two, ExchangeKind::Fanout).await;
        for (from, to) in [(&one, &two), (&two, &one)] {
            let bound = channel.exchange_bind(
                to.as_str().into(),
                from.as_str().into(),
                "#".into(),
                ExchangeBindOptions::default(),
                FieldTable::default(),
            );
            bound.await.unwrap();
        }
        channel.bind(&queue, &two, "").await;
        channel.send(&one, "k", "m").await;
        assert_eq!(channel.drain(&queue).await, ["m"]);
        let unbound = channel.exchange_unbind(
            two.as_str().into(),
            one.as_str().into(),
            "#".into(),
            ExchangeUnbindOptions::default(),
            FieldTable::default(),
        );
        unbound.await.unwrap();
        channel.send(&one, "k", "m").await;
        assert_eq!(channel.ready(&queue).await, 0);
    })
    .await;
}

#[tokio::test]
async fn an_alternate_exchange_gets_what_matches_nothing() {
    on_each(|bed| async move {
        let connection = bed.connect().await;
        let channel = confirming(&connection).await;
        let (queue, other, exchange) = (bed.queue("q"), bed.exchange("other"), bed.exchange("x"));
        channel.declare(&queue).await;
        channel.declare_exchange(&other, ExchangeKind::Fanout).await;
        channel.bind(&queue, &other, "").await;
        let arguments = table([("alternate-exchange", text(&other))]);
        let declared = channel.exchange_declare(
            exchange.as_str().into(),
            ExchangeKind::Direct,
            ExchangeDeclareOptions::default(),
            arguments,
        );
        declared.await.unwrap();
        channel.send(&exchange, "nobody", "m").await;
        assert_eq!(channel.drain(&queue).await, ["m"]);
    })
    .await;
}

#[tokio::test]
async fn an_auto_delete_exchange_goes_with_its_last_binding() {
    on_each(|bed| async move {
        let connection = bed.connect().await;
        let channel = connection.create_channel().await.unwrap();
        let (queue, exchange) = (bed.queue("q"), bed.exchange("x"));
        let options = ExchangeDeclareOptions {
            auto_delete: true,
            ..ExchangeDeclareOptions::default()
        };
        let declared = channel.exchange_declare(
            exchange.as_str().into(),
            ExchangeKind::Topic,
            options,
            FieldTable::default(),
        );
        declared.await.unwrap();
        channel.declare(&queue).await;
        channel.bind(&queue, &exchange, "a").await;
        channel.bind(&queue, &exchange, "b").await;
        channel
            .queue_delete(queue.as_str().into(), QueueDeleteOptions::default())
            .await
            .unwrap();
        let passive = ExchangeDeclareOptions {
            passive: true,
            ..ExchangeDeclareOptions::default()
        };
        let gone = channel.exchange_declare(
            exchange.as_str().into(),
            ExchangeKind::Topic,
            passive,
            FieldTable::default(),
        );
        assert_eq!(refusal(&gone.await.unwrap_err()).0, 404);
    })
    .await;
}

#[tokio::test]
async fn the_exchanges_every_broker_has_are_there() {
    on_each(|bed| async move {
        let connection = bed.connect().await;
        let channel = connection.create_channel().await.unwrap();
        for (name, kind) in [
            ("amq.direct", ExchangeKind::Direct),
            ("amq.fanout", ExchangeKind::Fanout),
            ("amq.topic", ExchangeKind::Topic),
            ("amq.headers", ExchangeKind::Headers),
            ("amq.match", ExchangeKind::Headers),
        ] {
            let options = ExchangeDeclareOptions {
                durable: true,
                ..ExchangeDeclareOptions::default()
            };
            let declared =
                channel.exchange_declare(name.into(), kind, options, FieldTable::default());
            declared.await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn unbinding_what_is_not_there_is_no_error() {
    on_each(|bed| async move {
        let connection = bed.connect().await;
        let channel = confirming(&connection).await;
        let [queue, gone_queue] = [bed.queue("q"), bed.queue("gone")];
        let [exchange, gone_exchange] = [bed.exchange("x"), bed.exchange("gone")];
        channel.declare(&queue).await;
        channel
            .declare_exchange(&exchange, ExchangeKind::Fanout)
            .await;
        for (queue, exchange) in [
            (&queue, &exchange),
            (&gone_queue, &exchange),
            (&queue, &gone_exchange),
            (&gone_queue, &gone_exchange),
        ] {
            let (queue, exchange) = (queue.as_str(), exchange.as_str());
            let unbound = channel.queue_unbind(
                queue.into(),
                exchange.into(),
                "k".into(),
                FieldTable::default(),
            );
            soon(unbound).await.unwrap();
        }
        for (destination, source) in [(&gone_exchange, &exchange), (&exchange, &gone_exchange)] {
            let unbound = channel.exchange_unbind(
                destination.as_str().into(),
                source.as_str().into(),
                "k".into(),
                ExchangeUnbindOptions::default(),
                FieldTable::default(),
            );
            soon(unbound).await.unwrap();
        }
    })
    .await;
}
