use lapin::{
    BasicProperties, ExchangeKind,
    options::*,
    types::{AMQPValue, FieldTable},
};

use crate::{deaths::*, support::*};

#[tokio::test]
async fn a_rejected_message_goes_to_the_dead_letter_exchange_and_tells_its_story() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let (queue, dead) = with_dead_letters(&env, &channel, []).await;
        let properties = BasicProperties::default()
            .with_content_type("text/plain".into())
            .with_delivery_mode(2)
            .with_priority(3)
            .with_correlation_id("c".into())
            .with_headers(table([("mine", int(5))]));
        channel.send_with("", &queue, "m", properties.clone()).await;
        reject(&channel, &queue).await;
        let message = wait_for_message(&channel, &dead).await;
        assert_eq!(body(&message), "m");
        assert_eq!(
            (
                env.without_prefix(message.exchange.as_str()),
                env.without_prefix(message.routing_key.as_str())
            ),
            ("dlx".into(), "q".into())
        );
        assert!(!message.redelivered);
        assert_eq!(
            deaths(&env, &message),
            [death(1, "rejected", "q", "", &["q"])]
        );
        assert_eq!(first_death(&env, &message), ["rejected", "q", ""]);
        let headers = message.properties.headers().clone().unwrap();
        assert_eq!(headers.inner().get("mine"), Some(&int(5)));
        assert_eq!(
            message
                .properties
                .clone()
                .with_headers(FieldTable::default()),
            properties.with_headers(FieldTable::default())
        );
    })
    .await;
}

#[tokio::test]
async fn an_expired_message_lives_on_without_its_expiration() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let (queue, dead) =
            with_dead_letters(&env, &channel, [("x-message-ttl", int(30_000))]).await;
        let expiring = |text: &str| BasicProperties::default().with_expiration(text.into());
        for time in ["20", "0"] {
            channel.send_with("", &queue, "m", expiring(time)).await;
            let message = wait_for_message(&channel, &dead).await;
            assert_eq!(*message.properties.expiration(), None);
            let told = Death {
                expiration: Some(time.into()),
                ..death(1, "expired", "q", "", &["q"])
            };
            assert_eq!(deaths(&env, &message), [told]);
            assert_eq!(first_death(&env, &message), ["expired", "q", ""]);
        }
        // By the queue's time there is no expiration to tell of.
        let timed = env.queue("timed");
        let arguments = table([
            ("x-message-ttl", int(0)),
            ("x-dead-letter-exchange", text("")),
            ("x-dead-letter-routing-key", text(&dead)),
        ]);
        channel.declare_with(&timed, arguments).await;
        channel.send("", &timed, "m").await;
        let message = wait_for_message(&channel, &dead).await;
        assert_eq!(
            deaths(&env, &message),
            [death(1, "expired", "timed", "", &["timed"])]
        );
        assert_eq!(env.without_prefix(message.routing_key.as_str()), "dead");
    })
    .await;
}

#[tokio::test]
async fn messages_that_expire_together_die_in_their_order() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let (queue, dead) = with_dead_letters(&env, &channel, [("x-message-ttl", int(100))]).await;
        for body in ["a", "b", "c"] {
            channel.send("", &queue, body).await;
        }
        wait_until("all dead", || async {
            channel.ready_count(&dead).await == 3
        })
        .await;
        assert_eq!(channel.drain(&dead).await, ["a", "b", "c"]);
    })
    .await;
}

#[tokio::test]
async fn a_full_queue_sends_its_oldest_or_the_newest_to_the_dead_letters() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let (queue, dead) = with_dead_letters(&env, &channel, [("x-max-length", int(1))]).await;
        for body in ["a", "b", "c"] {
            assert!(channel.send("", &queue, body).await.is_ack());
        }
        wait_until("two dead", || async {
            channel.ready_count(&dead).await == 2
        })
        .await;
        let message = channel.get(&dead).await.unwrap();
        assert_eq!(body(&message), "a");
        assert_eq!(
            deaths(&env, &message),
            [death(1, "maxlen", "q", "", &["q"])]
        );
        assert_eq!(channel.drain(&dead).await, ["b"]);
        assert_eq!(channel.drain(&queue).await, ["c"]);
        let refusing = env.queue("refusing");
        let arguments = table([
            ("x-max-length", int(1)),
            ("x-overflow", text("reject-publish-dlx")),
            ("x-dead-letter-exchange", text("")),
            ("x-dead-letter-routing-key", text(&dead)),
        ]);
        channel.declare_with(&refusing, arguments).await;
        assert!(channel.send("", &refusing, "a").await.is_ack());
        assert!(channel.send("", &refusing, "b").await.is_nack());
        let message = wait_for_message(&channel, &dead).await;
        assert_eq!(body(&message), "b");
        assert_eq!(
            deaths(&env, &message),
            [death(1, "maxlen", "refusing", "", &["refusing"])]
        );
        assert_eq!(channel.drain(&refusing).await, ["a"]);
        // Without dead letters the newest is refused and gone.
        let plain = env.queue("plain");
        channel
            .declare_with(
                &plain,
                table([
                    ("x-max-length", int(1)),
                    ("x-overflow", text("reject-publish-dlx")),
                ]),
            )
            .await;
        assert!(channel.send("", &plain, "a").await.is_ack());
        assert!(channel.send("", &plain, "b").await.is_nack());
        assert_eq!(channel.drain(&plain).await, ["a"]);
    })
    .await;
}

#[tokio::test]
async fn deaths_of_one_kind_in_one_queue_are_counted_together() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let [work, wait] = [env.queue("work"), env.queue("wait")];
        // Rejected work waits and is tried again: a circle, but one that somebody's rejecting keeps going.
        let back = |queue: &str| {
            table([
                ("x-dead-letter-exchange", text("")),
                ("x-dead-letter-routing-key", text(queue)),
            ])
        };
        channel.declare_with(&work, back(&wait)).await;
        let mut arguments = back(&work);
        arguments.insert("x-message-ttl".into(), int(1));
        channel.declare_with(&wait, arguments).await;
        channel.send("", &work, "m").await;
        for round in 1..=3 {
            reject(&channel, &work).await;
            let message = wait_for_message(&channel, &work).await;
            assert_eq!(
                deaths(&env, &message),
                [
                    death(round, "expired", "wait", "", &["wait"]),
                    death(round, "rejected", "work", "", &["work"])
                ],
            );
            assert_eq!(first_death(&env, &message), ["rejected", "work", ""]);
            message
                .nack(BasicNackOptions {
                    multiple: false,
                    requeue: true,
                })
                .await
                .unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn three_queues_in_a_row_are_told_latest_first() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let queues = ["a", "b", "c", "d"].map(|name| env.queue(name));
        for pair in queues.windows(2) {
            let arguments = table([
                ("x-message-ttl", int(1)),
                ("x-dead-letter-exchange", text("")),
                ("x-dead-letter-routing-key", text(&pair[1])),
            ]);
            channel.declare_with(&pair[0], arguments).await;
        }
        channel.declare(&queues[3]).await;
        channel.send("", &queues[0], "m").await;
        let message = wait_for_message(&channel, &queues[3]).await;
        let told: Vec<String> = deaths(&env, &message)
            .into_iter()
            .map(|death| death.queue)
            .collect();
        // RabbitMQ turns the older ones round at each death.
        assert_eq!(told, ["c", "a", "b"]);
    })
    .await;
}

#[tokio::test]
async fn a_message_that_would_go_round_by_itself_is_dropped() {
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
            wait_until("dropped", || async {
                channel.ready_count(&one).await
                    + channel.ready_count(&two).await
                    + channel.ready_count(&probe).await
                    == 0
            })
            .await;
        }
        // Rejecting sends it to the same queue again.
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
        assert!(!message.redelivered);
    })
    .await;
}

#[tokio::test]
async fn only_the_queues_a_message_has_been_in_are_left_out() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let (queue, dead) = with_dead_letters(&env, &channel, [("x-message-ttl", int(1))]).await;
        // The queue is bound to its own dead letter exchange, beside another.
        let dlx = env.exchange("dlx");
        channel.bind(&queue, &dlx, "").await;
        channel.send("", &queue, "m").await;
        let first = wait_for_message(&channel, &dead).await;
        assert_eq!(deaths(&env, &first), [death(1, "expired", "q", "", &["q"])]);
        wait_until("dropped", || async {
            channel.ready_count(&queue).await == 0
        })
        .await;
        assert_eq!(channel.ready_count(&dead).await, 0);
    })
    .await;
}

#[tokio::test]
async fn more_keys_are_dead_lettered_too_unless_the_queue_has_one_of_its_own() {
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
        // A blind copy is not told of.
        let message = wait_for_message(&channel, &blind).await;
        let told: Vec<String> = message
            .properties
            .headers()
            .as_ref()
            .unwrap()
            .inner()
            .keys()
            .map(ToString::to_string)
            .collect();
        assert_eq!(told, ["CC"]);
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
        assert!(
            !message
                .properties
                .headers()
                .as_ref()
                .unwrap()
                .contains_key("CC")
        );
        assert_eq!(env.without_prefix(message.routing_key.as_str()), "dead");
    })
    .await;
}

#[tokio::test]
async fn every_key_of_a_message_is_routed_again() {
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
async fn what_leaves_a_queue_otherwise_is_no_dead_letter() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let (queue, dead) = with_dead_letters(&env, &channel, []).await;
        for body in ["acked", "requeued", "purged"] {
            channel.send("", &queue, body).await;
        }
        channel
            .get(&queue)
            .await
            .unwrap()
            .ack(BasicAckOptions::default())
            .await
            .unwrap();
        let again = BasicNackOptions {
            multiple: false,
            requeue: true,
        };
        channel
            .get(&queue)
            .await
            .unwrap()
            .nack(again)
            .await
            .unwrap();
        channel
            .queue_purge(queue.as_str().into(), QueuePurgeOptions::default())
            .await
            .unwrap();
        channel.send("", &queue, "deleted").await;
        channel
            .queue_delete(queue.as_str().into(), QueueDeleteOptions::default())
            .await
            .unwrap();
        assert_eq!(channel.ready_count(&dead).await, 0);
    })
    .await;
}

#[tokio::test]
async fn without_the_exchange_or_a_binding_dead_letters_are_gone() {
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

#[tokio::test]
async fn an_x_death_that_is_none_is_written_anew() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let (queue, dead) = with_dead_letters(&env, &channel, []).await;
        let headers = table([("x-death", text("mine"))]);
        channel
            .send_with(
                "",
                &queue,
                "m",
                BasicProperties::default().with_headers(headers),
            )
            .await;
        reject(&channel, &queue).await;
        let message = wait_for_message(&channel, &dead).await;
        assert_eq!(
            deaths(&env, &message),
            [death(1, "rejected", "q", "", &["q"])]
        );
        assert!(
            !message
                .properties
                .headers()
                .as_ref()
                .unwrap()
                .contains_key("x-first-death-reason")
        );
    })
    .await;
}

#[tokio::test]
async fn rejecting_many_at_once_keeps_their_order() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let (queue, dead) = with_dead_letters(&env, &channel, []).await;
        let mut consumer = channel.consumer(&queue, "c").await;
        let mut last = None;
        for body in ["a", "b", "c"] {
            channel.send("", &queue, body).await;
            last = Some(next(&mut consumer).await);
        }
        last.unwrap()
            .nack(BasicNackOptions {
                multiple: true,
                requeue: false,
            })
            .await
            .unwrap();
        wait_until("all dead", || async {
            channel.ready_count(&dead).await == 3
        })
        .await;
        assert_eq!(channel.drain(&dead).await, ["a", "b", "c"]);
    })
    .await;
}
