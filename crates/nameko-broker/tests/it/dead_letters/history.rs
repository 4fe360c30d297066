use lapin::{BasicProperties, options::*};

use super::*;

#[tokio::test]
async fn repeated_deaths_are_counted_in_one_entry() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let [work, wait] = [env.queue("work"), env.queue("wait")];
        // A retry loop: a cycle, but not an automatic one, since a consumer rejects the message
        // each time.
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
async fn x_death_lists_the_latest_queue_first() {
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
        let queues_of_deaths: Vec<String> = deaths(&env, &message)
            .into_iter()
            .map(|death| death.queue)
            .collect();
        // RabbitMQ 3 reverses the older entries at each death.
        let expected = env.since_4(["c", "b", "a"], ["c", "a", "b"]);
        assert_eq!(queues_of_deaths, expected);
        if env.since((4, 0)) {
            assert_eq!(first_death(&env, &message), ["expired", "a", ""]);
            assert_eq!(last_death(&env, &message), ["expired", "c", ""]);
        }
    })
    .await;
}

#[tokio::test]
async fn a_malformed_x_death_header_is_replaced() {
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
                || env.since((4, 0))
        );
    })
    .await;
}

#[tokio::test]
async fn a_republished_message_has_a_new_history() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let (queue, dead) = with_dead_letters(&env, &channel, []).await;
        channel.send("", &queue, "m").await;
        for round in 1..=2 {
            reject(&channel, &queue).await;
            let message = wait_for_message(&channel, &dead).await;
            // RabbitMQ 3 continues the history that a client sends, for example to count retries.
            let count = env.since_4(1, round);
            assert_eq!(
                deaths(&env, &message),
                [death(count, "rejected", "q", "", &["q"])]
            );
            let properties = message.properties.clone();
            channel.send_with("", &queue, "m", properties).await;
        }
    })
    .await;
}
