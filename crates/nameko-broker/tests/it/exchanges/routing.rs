use lapin::{
    BasicProperties, ExchangeKind,
    options::*,
    types::{AMQPValue, FieldTable},
};

use crate::support::*;

#[tokio::test]
async fn exchange_types_route_as_specified() {
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
async fn cc_and_bcc_keys_are_routed_too() {
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
        // The alternate exchange is used only if no key matches.
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
async fn a_message_arrives_once_if_several_bindings_match() {
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
        // The duplicate binding was stored once, so one unbind removes it.
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
