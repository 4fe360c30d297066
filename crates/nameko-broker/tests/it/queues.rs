use lapin::{BasicProperties, options::*, types::FieldTable};

use crate::support::*;

#[tokio::test]
async fn declare_get_purge_and_delete_report_message_counts() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let queue = env.queue("q");
        assert_eq!(channel.declare(&queue).await, 0);
        for body in ["a", "b", "c"] {
            channel.send("", &queue, body).await;
        }
        assert_eq!(channel.declare(&queue).await, 3);
        let message = channel.get(&queue).await.unwrap();
        assert_eq!((message.message_count, body(&message)), (2, "a".to_owned()));
        let purged = channel
            .queue_purge(queue.as_str().into(), QueuePurgeOptions::default())
            .await
            .unwrap();
        assert_eq!((purged, channel.ready_count(&queue).await), (2, 0));
        channel.send("", &queue, "d").await;
        let deleted = channel
            .queue_delete(queue.as_str().into(), QueueDeleteOptions::default())
            .await
            .unwrap();
        assert_eq!(deleted, 1);
        let again = channel
            .queue_delete(queue.as_str().into(), QueueDeleteOptions::default())
            .await
            .unwrap();
        assert_eq!(again, 0);
    })
    .await;
}

#[tokio::test]
async fn an_empty_name_declares_a_server_named_queue_and_refers_to_it() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let exclusive = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        let queue = channel
            .queue_declare("".into(), exclusive, FieldTable::default())
            .await
            .unwrap();
        let name = queue.name().to_string();
        assert!(name.starts_with("amq.gen-"), "{name}");
        channel.bind("", "amq.direct", "").await;
        channel.send("amq.direct", &name, "m").await;
        assert_eq!(channel.drain("").await, ["m"]);
    })
    .await;
}

#[tokio::test]
async fn exclusive_queues_belong_to_their_connection() {
    on_each_broker(|env| async move {
        let queue = env.queue("q");
        let owner = env.connect().await;
        let exclusive = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        let own = confirm_channel(&owner).await;
        own.queue_declare(queue.as_str().into(), exclusive, FieldTable::default())
            .await
            .unwrap();
        own.queue_declare(queue.as_str().into(), exclusive, FieldTable::default())
            .await
            .unwrap();
        let other = env.connect().await;
        let publisher = confirm_channel(&other).await;
        assert!(
            publisher
                .send("", &queue, "anyone may publish")
                .await
                .take_message()
                .is_none()
        );
        let stranger = other.create_channel().await.unwrap();
        let locked = stranger.basic_consume(
            queue.as_str().into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        assert_eq!(refusal(&locked.await.unwrap_err()).0, 405);
        owner.close(200, "".into()).await.unwrap();
        assert_eq!(publisher.declare(&queue).await, 0);
    })
    .await;
}

#[tokio::test]
async fn auto_delete_queues_are_deleted_with_their_last_consumer() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let queue = env.queue("q");
        let options = QueueDeclareOptions {
            auto_delete: true,
            ..QueueDeclareOptions::default()
        };
        channel
            .queue_declare(queue.as_str().into(), options, FieldTable::default())
            .await
            .unwrap();
        assert_eq!(channel.ready_count(&queue).await, 0);
        let _one = channel.consumer(&queue, "one").await;
        let _two = channel.consumer(&queue, "two").await;
        channel
            .basic_cancel("one".into(), BasicCancelOptions::default())
            .await
            .unwrap();
        assert_eq!(channel.ready_count(&queue).await, 0);
        channel
            .basic_cancel("two".into(), BasicCancelOptions::default())
            .await
            .unwrap();
        assert!(channel.send("", &queue, "m").await.take_message().is_some());
    })
    .await;
}

#[tokio::test]
async fn conditional_deletes_keep_queues_that_are_used_or_not_empty() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let queue = env.queue("q");
        channel.declare(&queue).await;
        channel.send("", &queue, "m").await;
        let if_empty = QueueDeleteOptions {
            if_empty: true,
            ..QueueDeleteOptions::default()
        };
        let if_unused = QueueDeleteOptions {
            if_unused: true,
            ..QueueDeleteOptions::default()
        };
        let refused = connection.create_channel().await.unwrap();
        let error = refused
            .queue_delete(queue.as_str().into(), if_empty)
            .await
            .unwrap_err();
        let text = env.without_prefix(&refusal(&error).1);
        assert_eq!(
            text,
            "PRECONDITION_FAILED - queue 'q' in vhost '/' not empty"
        );
        let _user = channel.consumer(&queue, "c").await;
        let refused = connection.create_channel().await.unwrap();
        let error = refused
            .queue_delete(queue.as_str().into(), if_unused)
            .await
            .unwrap_err();
        let text = env.without_prefix(&refusal(&error).1);
        assert_eq!(text, "PRECONDITION_FAILED - queue 'q' in vhost '/' in use");
        channel
            .basic_cancel("c".into(), BasicCancelOptions::default())
            .await
            .unwrap();
        assert_eq!(
            channel
                .queue_delete(queue.as_str().into(), if_unused)
                .await
                .unwrap(),
            0
        );
    })
    .await;
}

#[tokio::test]
async fn full_queues_drop_the_oldest_or_reject_the_newest() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let queue = env.queue("drop");
        let options = QueueDeclareOptions::default();
        let arguments = table([("x-max-length", int(2))]);
        channel
            .queue_declare(queue.as_str().into(), options, arguments)
            .await
            .unwrap();
        for body in ["a", "b", "c"] {
            assert!(channel.send("", &queue, body).await.is_ack());
        }
        assert_eq!(channel.drain(&queue).await, ["b", "c"]);
        let queue = env.queue("refuse");
        let arguments = table([
            ("x-max-length", int(1)),
            ("x-overflow", text("reject-publish")),
        ]);
        channel
            .queue_declare(queue.as_str().into(), options, arguments)
            .await
            .unwrap();
        assert!(channel.send("", &queue, "a").await.is_ack());
        assert!(channel.send("", &queue, "b").await.is_nack());
        assert_eq!(channel.drain(&queue).await, ["a"]);
        let queue = env.queue("bytes");
        let arguments = table([("x-max-length-bytes", int(10))]);
        channel
            .queue_declare(queue.as_str().into(), options, arguments)
            .await
            .unwrap();
        for body in ["aaaaaa", "bbbb", "ccc"] {
            channel.send("", &queue, body).await;
        }
        assert_eq!(channel.drain(&queue).await, ["bbbb", "ccc"]);
    })
    .await;
}

#[tokio::test]
async fn properties_arrive_unchanged() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let queue = env.queue("q");
        channel.declare(&queue).await;
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_content_encoding("utf-8".into())
            .with_headers(table([(
                "nameko.stack",
                lapin::types::AMQPValue::FieldArray(vec![text("a.b.c")].into()),
            )]))
            .with_delivery_mode(2)
            .with_priority(0)
            .with_correlation_id("c".into())
            .with_reply_to("r".into())
            .with_expiration("60000".into())
            .with_message_id("m".into())
            .with_timestamp(1)
            .with_type("t".into())
            .with_user_id("guest".into())
            .with_app_id("a".into());
        channel.send_with("", &queue, "m", properties.clone()).await;
        let message = channel.get(&queue).await.unwrap();
        assert_eq!(message.properties, properties);
        assert_eq!(
            (
                message.exchange.to_string(),
                message.routing_key.to_string()
            ),
            (String::new(), queue.clone())
        );
    })
    .await;
}

#[tokio::test]
async fn a_message_requeued_to_a_full_queue_is_dropped_as_the_oldest() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let queue = env.queue("q");
        channel
            .queue_declare(
                queue.as_str().into(),
                QueueDeclareOptions::default(),
                table([("x-max-length", int(1))]),
            )
            .await
            .unwrap();
        channel
            .basic_qos(1, BasicQosOptions::default())
            .await
            .unwrap();
        let mut consumer = channel.consumer(&queue, "c").await;
        channel.send("", &queue, "first").await;
        let first = next(&mut consumer).await;
        channel.send("", &queue, "second").await;
        let requeue = BasicRejectOptions { requeue: true };
        first.reject(requeue).await.unwrap();
        let second = next(&mut consumer).await;
        assert_eq!(body(&second), "second");
        second.ack(BasicAckOptions::default()).await.unwrap();
        assert_no_delivery(&channel, &mut consumer).await;
    })
    .await;
}

#[tokio::test]
async fn full_rejecting_queues_accept_requeued_messages() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let queue = env.queue("q");
        let arguments = table([
            ("x-max-length", int(1)),
            ("x-overflow", text("reject-publish")),
        ]);
        channel.declare_with(&queue, arguments).await;
        assert!(channel.send("", &queue, "a").await.is_ack());
        let held = channel.get(&queue).await.unwrap();
        assert!(channel.send("", &queue, "b").await.is_ack());
        held.nack(BasicNackOptions {
            multiple: false,
            requeue: true,
        })
        .await
        .unwrap();
        wait_until("the messages are requeued", || async {
            channel.ready_count(&queue).await == 2
        })
        .await;
        assert!(channel.send("", &queue, "c").await.is_nack());
        assert_eq!(channel.drain(&queue).await, ["a", "b"]);
    })
    .await;
}

#[tokio::test]
async fn one_rejecting_queue_causes_a_nack_while_others_keep_the_message() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = confirm_channel(&connection).await;
        let [full, free, exchange] = [env.queue("full"), env.queue("free"), env.exchange("x")];
        let arguments = table([
            ("x-max-length", int(0)),
            ("x-overflow", text("reject-publish")),
        ]);
        channel.declare_with(&full, arguments).await;
        channel.declare(&free).await;
        channel
            .declare_exchange(&exchange, lapin::ExchangeKind::Fanout)
            .await;
        channel.bind(&full, &exchange, "").await;
        channel.bind(&free, &exchange, "").await;
        assert!(channel.send(&exchange, "", "m").await.is_nack());
        assert_eq!(channel.drain(&free).await, ["m"]);
        assert_eq!(channel.ready_count(&full).await, 0);
    })
    .await;
}
