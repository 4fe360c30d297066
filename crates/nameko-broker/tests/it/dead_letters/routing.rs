use lapin::{
    BasicProperties, ExchangeKind,
    options::*,
    types::{AMQPValue, FieldTable},
};

use super::*;

#[tokio::test]
async fn automatic_dead_letter_cycles_are_dropped() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let [one, two, probe] = [env.queue("one"), env.queue("two"), env.queue("probe")];
        let to = |queue: &str| {
            table([
                ("x-message-ttl", int(1)),
                ("x-dead-letter-exchange", text("")),
                ("x-dead-letter-routing-key", text(queue)),
            ])
        };
        channel.declare_with(&one, to(&two)).await;
        channel.declare_with(&two, to(&one)).await;
        channel.declare_with(&probe, to(&probe)).await;
        for queue in [&one, &probe] {
            channel.send("", queue, "m").await;
            wait_until("the message is dropped", || async {
                channel.ready_count(&one).await
                    + channel.ready_count(&two).await
                    + channel.ready_count(&probe).await
                    == 0
            })
            .await;
        }
        // A rejected message may return to the same queue.
        let own = env.queue("own");
        channel
            .declare_with(
                &own,
                table([
                    ("x-dead-letter-exchange", text("")),
                    ("x-dead-letter-routing-key", text(&own)),
                ]),
            )
            .await;
        channel.send("", &own, "m").await;
        reject(&channel, &own).await;
        let message = wait_for_message(&channel, &own).await;
        assert_eq!(
            deaths(&env, &message),
            [death(1, "rejected", "own", "", &["own"])]
        );
        assert_eq!(message.redelivered, env.since((4, 3)));
    })
    .await;
}

#[tokio::test]
async fn cycle_detection_skips_only_visited_queues() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let (queue, dead) = with_dead_letters(&env, &channel, [("x-message-ttl", int(1))]).await;
        // The queue is bound to its own dead-letter exchange.
        let dlx = env.exchange("dlx");
        channel.bind(&queue, &dlx, "").await;
        channel.send("", &queue, "m").await;
        let first = wait_for_message(&channel, &dead).await;
        assert_eq!(deaths(&env, &first), [death(1, "expired", "q", "", &["q"])]);
        wait_until("the message is dropped", || async {
            channel.ready_count(&queue).await == 0
        })
        .await;
        assert_eq!(channel.ready_count(&dead).await, 0);
    })
    .await;
}

#[tokio::test]
async fn cc_keys_are_kept_unless_a_dead_letter_routing_key_is_set() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let (queue, dead) = with_dead_letters(&env, &channel, []).await;
        let copies = |keys: &[&str]| {
            AMQPValue::FieldArray(keys.iter().map(|key| text(key)).collect::<Vec<_>>().into())
        };
        let (blind, keyed) = (env.queue("blind"), env.queue("keyed"));
        channel.declare_with(&blind, FieldTable::default()).await;
        let arguments = table([
            ("x-dead-letter-exchange", text("")),
            ("x-dead-letter-routing-key", text(&dead)),
        ]);
        channel.declare_with(&keyed, arguments).await;
        let headers = table([
            ("CC", copies(&["other", &keyed])),
            ("BCC", copies(&[&blind])),
        ]);
        let properties = BasicProperties::default().with_headers(headers);
        channel.send_with("", &queue, "m", properties).await;
        // `BCC` keys are not revealed.
        let message = wait_for_message(&channel, &blind).await;
        let names: Vec<String> = message
            .properties
            .headers()
            .as_ref()
            .unwrap()
            .inner()
            .keys()
            .map(ToString::to_string)
            .collect();
        assert_eq!(names, ["CC"]);
        reject(&channel, &queue).await;
        let message = wait_for_message(&channel, &dead).await;
        assert_eq!(
            deaths(&env, &message),
            [death(1, "rejected", "q", "", &["q", "other", "keyed"])]
        );
        assert!(
            message
                .properties
                .headers()
                .as_ref()
                .unwrap()
                .contains_key("CC")
        );
        reject(&channel, &keyed).await;
        let message = wait_for_message(&channel, &dead).await;
        assert_eq!(
            deaths(&env, &message),
            [death(1, "rejected", "keyed", "", &["q", "other", "keyed"])]
        );
        // The header stays since RabbitMQ 4, but the message is not copied again.
        let kept = message
            .properties
            .headers()
            .as_ref()
            .unwrap()
            .contains_key("CC");
        assert_eq!(kept, env.since((4, 0)));
        assert_eq!(env.without_prefix(message.routing_key.as_str()), "dead");
        assert_eq!(channel.ready_count(&keyed).await, 0);
    })
    .await;
}

#[tokio::test]
async fn dead_letters_are_routed_by_all_their_keys() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let dlx = env.exchange("by-key");
        channel.declare_exchange(&dlx, ExchangeKind::Direct).await;
        let queue = env.queue("q");
        channel
            .declare_with(&queue, table([("x-dead-letter-exchange", text(&dlx))]))
            .await;
        let dead = ["main", "cc", "bcc"].map(|key| (key, env.queue(&format!("dead-{key}"))));
        for (key, dead) in &dead {
            channel.declare(dead).await;
            channel.bind(dead, &dlx, key).await;
        }
        let source = env.exchange("source");
        channel
            .declare_exchange(&source, ExchangeKind::Fanout)
            .await;
        channel.bind(&queue, &source, "").await;
        let list = |key: &str| AMQPValue::FieldArray(vec![text(key)].into());
        let headers = table([("CC", list("cc")), ("BCC", list("bcc"))]);
        channel
            .send_with(
                &source,
                "main",
                "m",
                BasicProperties::default().with_headers(headers),
            )
            .await;
        reject(&channel, &queue).await;
        for (_, dead) in &dead {
            let message = wait_for_message(&channel, dead).await;
            assert_eq!(message.routing_key.as_str(), "main");
            assert_eq!(
                deaths(&env, &message),
                [death(1, "rejected", "q", "source", &["main", "cc"])]
            );
        }
    })
    .await;
}

#[tokio::test]
async fn dead_letters_without_exchange_or_binding_are_dropped() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let (queue, dlx) = (env.queue("q"), env.exchange("later"));
        channel
            .declare_with(&queue, table([("x-dead-letter-exchange", text(&dlx))]))
            .await;
        channel.send("", &queue, "no exchange").await;
        reject(&channel, &queue).await;
        channel.declare_exchange(&dlx, ExchangeKind::Fanout).await;
        channel.send("", &queue, "no binding").await;
        reject(&channel, &queue).await;
        let dead = env.queue("dead");
        channel.declare(&dead).await;
        channel.bind(&dead, &dlx, "").await;
        channel.send("", &queue, "arrives").await;
        reject(&channel, &queue).await;
        wait_for_message(&channel, &dead)
            .await
            .ack(BasicAckOptions::default())
            .await
            .unwrap();
        assert_eq!(channel.ready_count(&dead).await, 0);
    })
    .await;
}
