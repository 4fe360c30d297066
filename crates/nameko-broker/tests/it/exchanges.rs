use lapin::{
    BasicProperties, ExchangeKind,
    options::*,
    types::{AMQPValue, FieldTable},
};

use crate::support::*;

#[tokio::test]
async fn each_kind_routes_its_way() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let [a, b] = [env.queue("a"), env.queue("b")];
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
            let exchange = env.exchange("x");
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
async fn a_binding_to_a_headers_exchange_says_how_it_matches() {
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
            // What starts with `x-` counts in two of the four modes only.
            (both.clone(), plain_a.clone(), true),
            (plain_x.clone(), FieldTable::default(), true),
            (table([mode("any"), x.clone()]), plain_x.clone(), false),
            (table([mode("all-with-x"), a.clone(), x.clone()]), plain_a.clone(), false),
            (table([mode("all-with-x"), a.clone(), x.clone()]), both.clone(), true),
            (table([mode("any-with-x"), a.clone(), x.clone()]), plain_x.clone(), true),
            (table([mode("any-with-x"), x.clone()]), plain_a.clone(), false),
            // Without a value the header has only to be there; numbers are compared whatever their size.
            (table([("a", AMQPValue::Void)]), plain_a.clone(), true),
            (table([("a", AMQPValue::Void)]), plain_x.clone(), false),
            (table([("n", int(3))]), table([("n", AMQPValue::LongLongInt(3))]), true),
            (table([("n", int(3))]), table([("n", AMQPValue::Double(3.0))]), true),
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
        for (value, told) in [
            (text("some"), "PRECONDITION_FAILED - Invalid x-match field value <<\"some\">>; expected all, any, all-with-x, or any-with-x"),
            (int(1), "PRECONDITION_FAILED - Invalid x-match field type signedint (value 1); expected longstr"),
        ] {
            let connection = env.connect().await;
            let channel = connection.create_channel().await.unwrap();
            let queue = env.queue("q");
            channel.declare(&queue).await;
            let bound = channel.queue_bind(queue.as_str().into(), exchange.as_str().into(), "".into(), QueueBindOptions::default(), table([("x-match", value)]));
            assert_eq!(refusal(&bound.await.unwrap_err()), (406, told.to_owned()));
        }
    })
    .await;
}

#[tokio::test]
async fn copies_go_to_more_keys() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let [to, cc, bcc, other] = ["to", "cc", "bcc", "other"].map(|name| env.queue(name));
        let (exchange, alternate) = (env.exchange("x"), env.exchange("alternate"));
        channel
            .declare_exchange(&alternate, ExchangeKind::Fanout)
            .await;
        let arguments = table([("alternate-exchange", text(&alternate))]);
        let declared = channel.exchange_declare(
            exchange.as_str().into(),
            ExchangeKind::Direct,
            ExchangeDeclareOptions::default(),
            arguments,
        );
        declared.await.unwrap();
        for queue in [&to, &cc, &bcc, &other] {
            channel.declare(queue).await;
        }
        for (queue, key) in [(&to, "to"), (&cc, "cc"), (&bcc, "bcc")] {
            channel.bind(queue, &exchange, key).await;
        }
        channel.bind(&other, &alternate, "").await;
        let list = |keys: &[&str]| {
            AMQPValue::FieldArray(keys.iter().map(|key| text(key)).collect::<Vec<_>>().into())
        };
        let with = |cc: &[&str], bcc: &[&str]| {
            BasicProperties::default().with_headers(table([("CC", list(cc)), ("BCC", list(bcc))]))
        };
        channel
            .send_with(&exchange, "to", "all", with(&["cc", "to"], &["bcc", "cc"]))
            .await;
        for queue in [&to, &cc, &bcc] {
            let message = channel.get(queue).await.unwrap();
            assert_eq!(
                (body(&message), message.routing_key.as_str()),
                ("all".to_owned(), "to")
            );
            let headers = message.properties.headers().clone().unwrap();
            assert_eq!(
                (headers.contains_key("CC"), headers.contains_key("BCC")),
                (true, false)
            );
        }
        // One key that matches is enough for the alternate exchange to get nothing.
        channel
            .send_with(&exchange, "nobody", "copy", with(&["cc"], &[]))
            .await;
        assert_eq!(channel.drain(&cc).await, ["copy"]);
        assert_eq!(channel.ready_count(&other).await, 0);
        channel
            .send_with(&exchange, "nobody", "lost", with(&["none"], &["neither"]))
            .await;
        assert_eq!(channel.drain(&other).await, ["lost"]);
    })
    .await;
}

#[tokio::test]
async fn alternate_exchanges_have_their_own_and_circles_end() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let [one, two] = [env.exchange("one"), env.exchange("two")];
        for (name, alternate) in [(&one, &two), (&two, &one)] {
            let arguments = table([("alternate-exchange", text(alternate))]);
            let declared = channel.exchange_declare(
                name.as_str().into(),
                ExchangeKind::Direct,
                ExchangeDeclareOptions::default(),
                arguments,
            );
            declared.await.unwrap();
        }
        assert!(
            channel
                .send(&one, "k", "nobody")
                .await
                .take_message()
                .is_some()
        );
        let queue = env.queue("q");
        channel.declare(&queue).await;
        channel.bind(&queue, &two, "k").await;
        assert!(channel.send(&one, "k", "m").await.take_message().is_none());
        assert_eq!(channel.drain(&queue).await, ["m"]);
        // An alternate exchange need not be there.
        let lonely = env.exchange("lonely");
        let arguments = table([("alternate-exchange", text("it-none"))]);
        let declared = channel.exchange_declare(
            lonely.as_str().into(),
            ExchangeKind::Fanout,
            ExchangeDeclareOptions::default(),
            arguments,
        );
        declared.await.unwrap();
        assert!(
            channel
                .send(&lonely, "k", "m")
                .await
                .take_message()
                .is_some()
        );
    })
    .await;
}

#[tokio::test]
async fn an_exchange_bound_to_another_chooses_by_its_own_kind() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let [topic, headers, queue] = [
            env.exchange("topic"),
            env.exchange("headers"),
            env.queue("q"),
        ];
        channel.declare_exchange(&topic, ExchangeKind::Topic).await;
        channel
            .declare_exchange(&headers, ExchangeKind::Headers)
            .await;
        channel.declare(&queue).await;
        let bound = channel.exchange_bind(
            headers.as_str().into(),
            topic.as_str().into(),
            "a.*".into(),
            ExchangeBindOptions::default(),
            FieldTable::default(),
        );
        bound.await.unwrap();
        let bound = channel.queue_bind(
            queue.as_str().into(),
            headers.as_str().into(),
            "".into(),
            QueueBindOptions::default(),
            table([("k", text("v"))]),
        );
        bound.await.unwrap();
        let right = BasicProperties::default().with_headers(table([("k", text("v"))]));
        for (key, properties, expected) in [
            ("a.b", right.clone(), 1),
            ("b.a", right.clone(), 0),
            ("a.b", BasicProperties::default(), 0),
        ] {
            channel.send_with(&topic, key, "m", properties).await;
            assert_eq!(channel.drain(&queue).await.len(), expected, "{key}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_message_comes_once_however_many_bindings_match() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let (queue, exchange) = (env.queue("q"), env.exchange("x"));
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
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let (queue, one, two) = (env.queue("q"), env.exchange("one"), env.exchange("two"));
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
        assert_eq!(channel.ready_count(&queue).await, 0);
    })
    .await;
}

#[tokio::test]
async fn an_alternate_exchange_gets_what_matches_nothing() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let (queue, other, exchange) = (env.queue("q"), env.exchange("other"), env.exchange("x"));
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
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = connection.create_channel().await.unwrap();
        let (queue, exchange) = (env.queue("q"), env.exchange("x"));
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
    on_each_broker(|env| async move {
        let connection = env.connect().await;
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
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let [queue, gone_queue] = [env.queue("q"), env.queue("gone")];
        let [exchange, gone_exchange] = [env.exchange("x"), env.exchange("gone")];
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
            with_timeout(unbound).await.unwrap();
        }
        for (destination, source) in [(&gone_exchange, &exchange), (&exchange, &gone_exchange)] {
            let unbound = channel.exchange_unbind(
                destination.as_str().into(),
                source.as_str().into(),
                "k".into(),
                ExchangeUnbindOptions::default(),
                FieldTable::default(),
            );
            with_timeout(unbound).await.unwrap();
        }
    })
    .await;
}
