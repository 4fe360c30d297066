use lapin::{BasicProperties, options::*};

use super::*;

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
