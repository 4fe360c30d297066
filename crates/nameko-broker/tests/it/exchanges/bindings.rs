use lapin::{BasicProperties, ExchangeKind, options::*, types::FieldTable};

use crate::support::*;

#[tokio::test]
async fn bound_exchanges_route_by_their_own_type() {
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
async fn exchange_bindings_may_form_cycles() {
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
async fn unbinding_a_missing_binding_succeeds() {
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
