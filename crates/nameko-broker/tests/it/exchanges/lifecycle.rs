use lapin::{ExchangeKind, options::*, types::FieldTable};

use crate::support::*;

#[tokio::test]
async fn predefined_exchanges_exist() {
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
async fn auto_delete_exchanges_are_deleted_with_their_last_binding() {
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
