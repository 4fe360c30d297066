use lapin::{BasicProperties, options::*};

use crate::support::*;

#[tokio::test]
async fn unroutable_mandatory_messages_are_returned_before_their_confirm() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let properties = BasicProperties::default().with_correlation_id("c".into());
        let confirmation = channel
            .send_with("amq.topic", "nobody", "unheard", properties.clone())
            .await;
        assert!(confirmation.is_ack());
        let returned = confirmation.take_message().unwrap();
        assert_eq!(
            (returned.reply_code, returned.reply_text.to_string()),
            (312, "NO_ROUTE".to_owned())
        );
        assert_eq!(body(&returned), "unheard");
        assert_eq!(returned.properties, properties);
        assert_eq!(
            (returned.exchange.as_str(), returned.routing_key.as_str()),
            ("amq.topic", "nobody")
        );
        let options = BasicPublishOptions::default();
        let silent = channel.basic_publish(
            "amq.topic".into(),
            "nobody".into(),
            options,
            b"m",
            properties,
        );
        assert!(
            silent
                .await
                .unwrap()
                .await
                .unwrap()
                .take_message()
                .is_none()
        );
    })
    .await;
}

#[tokio::test]
async fn all_messages_of_a_burst_are_confirmed_and_unroutable_ones_returned() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let queue = env.queue("q");
        channel.declare(&queue).await;
        let mandatory = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let mut confirms = Vec::new();
        for n in 0..200 {
            let key = if n % 7 == 0 { "nobody" } else { &queue };
            let sent = channel.basic_publish(
                "".into(),
                key.into(),
                mandatory,
                b"m",
                BasicProperties::default(),
            );
            confirms.push(sent.await.unwrap());
        }
        let mut returned = 0;
        for confirm in confirms {
            let confirmation = with_timeout(confirm).await.unwrap();
            assert!(confirmation.is_ack());
            returned += usize::from(confirmation.take_message().is_some());
        }
        assert_eq!(returned, 29);
        assert_eq!(channel.ready_count(&queue).await, 200 - 29);
    })
    .await;
}

#[tokio::test]
async fn bodies_of_any_size_arrive_unchanged() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let queue = env.queue("q");
        channel.declare(&queue).await;
        let mut consumer = channel.consumer(&queue, "c").await;
        for size in [
            0,
            1,
            4088,
            8192,
            131_063,
            131_064,
            131_065,
            131_072,
            1 << 20,
            // The default limit of RabbitMQ 4.
            16 << 20,
        ] {
            let body: Vec<u8> = (0..size).map(|n| (n * 31 % 251) as u8).collect();
            let options = BasicPublishOptions::default();
            let sent = channel.basic_publish(
                "".into(),
                queue.as_str().into(),
                options,
                &body,
                BasicProperties::default(),
            );
            assert!(
                with_timeout(async { sent.await.unwrap().await.unwrap() })
                    .await
                    .is_ack()
            );
            let delivery = next(&mut consumer).await;
            assert!(delivery.data == body, "a body of {size} bytes was changed");
        }
    })
    .await;
}

#[tokio::test]
async fn bodies_above_the_default_limit_are_refused_with_both_sizes() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let limit = env.since_4(16 << 20, 128 << 20);
        let body = vec![0; limit + 1];
        let sent = channel.basic_publish(
            "".into(),
            "nowhere".into(),
            BasicPublishOptions::default(),
            &body,
            BasicProperties::default(),
        );
        let confirmed = with_timeout(async { sent.await?.await }).await;
        let text = format!(
            "PRECONDITION_FAILED - message size {} is larger than configured max size {limit}",
            limit + 1
        );
        assert_eq!(refusal(&confirmed.unwrap_err()), (406, text));
    })
    .await;
}
