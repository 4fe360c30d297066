use lapin::{ExchangeKind, options::*};

use crate::support::*;

#[tokio::test]
async fn unroutable_messages_go_to_the_alternate_exchange() {
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
async fn alternate_exchanges_may_form_cycles() {
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
        // The alternate exchange need not exist.
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
