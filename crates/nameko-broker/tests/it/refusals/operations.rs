use amq_protocol::protocol::{AMQPClass, basic};
use lapin::{BasicProperties, ExchangeKind, options::*, types::FieldTable};

use super::{check, fresh, refused};
use crate::{peer::Peer, support::*};

#[tokio::test]
async fn invalid_consumers_are_refused() {
    on_each_broker(|env| async move {
        let queue = env.queue("q");
        let (_first, channel) = fresh(&env).await;
        channel.declare(&queue).await;
        let mut invalid = vec![
            ("x-priority", text("5"), refused(406, "PRECONDITION_FAILED - invalid arg 'x-priority' for queue 'q' in vhost '/': \"expected integer, got longstr\"")),
            ("x-stream-offset", text("first"), refused(406, "PRECONDITION_FAILED - invalid arg 'x-stream-offset' for queue 'q' in vhost '/' of queue type rabbit_classic_queue")),
        ];
        invalid.push(env.since_4(
            ("x-stream-filter", text("a"), refused(406, "PRECONDITION_FAILED - invalid arg 'x-stream-filter' for queue 'q' in vhost '/' of queue type rabbit_classic_queue")),
            ("x-cancel-on-ha-failover", int(1), refused(406, "PRECONDITION_FAILED - invalid arg 'x-cancel-on-ha-failover' for queue 'q' in vhost '/': {unacceptable_type,signedint}")),
        ));
        for (key, value, expected) in invalid {
            let (_connection, channel) = fresh(&env).await;
            let consumed = channel.basic_consume(queue.as_str().into(), "c".into(), BasicConsumeOptions::default(), table([(key, value)]));
            check(&env, with_timeout(consumed).await.unwrap_err(), &expected);
        }
        // An exclusive consumer excludes earlier and later ones.
        let exclusive = BasicConsumeOptions { exclusive: true, ..BasicConsumeOptions::default() };
        let plain = BasicConsumeOptions::default();
        let in_use = refused(403, "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use");
        for (first, second) in [(exclusive, plain), (exclusive, exclusive), (plain, exclusive)] {
            let (_connection, holder) = fresh(&env).await;
            let held = holder.basic_consume(queue.as_str().into(), "one".into(), first, FieldTable::default());
            let _held = with_timeout(held).await.unwrap();
            let (_other, channel) = fresh(&env).await;
            let consumed = channel.basic_consume(queue.as_str().into(), "two".into(), second, FieldTable::default());
            check(&env, with_timeout(consumed).await.unwrap_err(), &in_use);
            with_timeout(holder.basic_cancel("one".into(), BasicCancelOptions::default())).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn missing_queues_and_exchanges_are_reported() {
    on_each_broker(|env| async move {
        let queue = env.queue("q");
        let no_queue = refused(404, "NOT_FOUND - no queue 'q' in vhost '/'");
        let (_connection, channel) = fresh(&env).await;
        let error = channel
            .basic_consume(
                queue.as_str().into(),
                "".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await
            .unwrap_err();
        check(&env, error, &no_queue);
        let (_connection, channel) = fresh(&env).await;
        check(
            &env,
            channel
                .basic_get(queue.as_str().into(), BasicGetOptions::default())
                .await
                .unwrap_err(),
            &no_queue,
        );
        let (_connection, channel) = fresh(&env).await;
        check(
            &env,
            channel
                .queue_purge(queue.as_str().into(), QueuePurgeOptions::default())
                .await
                .unwrap_err(),
            &no_queue,
        );
        for (queue, exchange, expected) in [
            (queue.as_str(), "amq.topic", &no_queue),
            (
                queue.as_str(),
                "",
                &refused(
                    403,
                    "ACCESS_REFUSED - operation not permitted on the default exchange",
                ),
            ),
            (
                "",
                "amq.topic",
                &refused(404, "NOT_FOUND - no previously declared queue"),
            ),
        ] {
            let (_connection, channel) = fresh(&env).await;
            let error = channel
                .queue_bind(
                    queue.into(),
                    exchange.into(),
                    "k".into(),
                    QueueBindOptions::default(),
                    FieldTable::default(),
                )
                .await
                .unwrap_err();
            check(&env, error, expected);
        }
        let (_connection, channel) = fresh(&env).await;
        channel.declare(&queue).await;
        let error = channel
            .queue_bind(
                queue.as_str().into(),
                "it-none".into(),
                "k".into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .unwrap_err();
        check(
            &env,
            error,
            &refused(404, "NOT_FOUND - no exchange 'it-none' in vhost '/'"),
        );
        let (_connection, channel) = fresh(&env).await;
        let error = channel
            .exchange_bind(
                "it-none".into(),
                "it-nil".into(),
                "k".into(),
                ExchangeBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .unwrap_err();
        check(
            &env,
            error,
            &refused(404, "NOT_FOUND - no exchange 'it-nil' in vhost '/'"),
        );
    })
    .await;
}

#[tokio::test]
async fn invalid_messages_are_refused() {
    on_each_broker(|env| async move {
        let internal = env.exchange("internal");
        let (_first, channel) = fresh(&env).await;
        let options = ExchangeDeclareOptions { internal: true, ..ExchangeDeclareOptions::default() };
        channel.exchange_declare(internal.as_str().into(), ExchangeKind::Topic, options, FieldTable::default()).await.unwrap();
        let plain = BasicProperties::default;
        for (exchange, properties, immediate, expected) in [
            ("it-none", plain(), false, refused(404, "NOT_FOUND - no exchange 'it-none' in vhost '/'")),
            (&*internal, plain(), false, refused(403, "ACCESS_REFUSED - cannot publish to internal exchange 'internal' in vhost '/'")),
            ("", plain().with_user_id("bob".into()), false, refused(406, "PRECONDITION_FAILED - user_id property set to 'bob' but authenticated user was 'guest'")),
            ("", plain().with_expiration("abc".into()), false, refused(406, "PRECONDITION_FAILED - invalid expiration 'abc': no_integer")),
            ("", plain().with_expiration("-5".into()), false, refused(406, "PRECONDITION_FAILED - invalid expiration '-5': {value_negative,-5}")),
            ("", plain().with_expiration("5s".into()), false, refused(406, "PRECONDITION_FAILED - invalid expiration '5s': {leftover_string,\"s\"}")),
            ("", plain().with_expiration("315360000001".into()), false, refused(406, "PRECONDITION_FAILED - invalid expiration '315360000001': {value_too_large,315360000001}")),
            ("", plain(), true, refused(540, "NOT_IMPLEMENTED - immediate=true")),
            ("", plain().with_headers(table([("CC", text("q"))])), false, refused(406, "PRECONDITION_FAILED - invalid message: {unacceptable_type_in_header,\"CC\",longstr}")),
            ("", plain().with_headers(table([("BCC", int(1))])), false, refused(406, "PRECONDITION_FAILED - invalid message: {unacceptable_type_in_header,\"BCC\",signedint}")),
        ] {
            let connection = env.connect().await;
            let channel = confirm_channel(&connection).await;
            let options = BasicPublishOptions { immediate, ..BasicPublishOptions::default() };
            let sent = channel.basic_publish(exchange.into(), "it-key".into(), options, b"m", properties).await.unwrap();
            check(&env, with_timeout(sent).await.unwrap_err(), &expected);
        }
        // RabbitMQ 3 refuses unknown delivery modes.
        if env.since((4, 0)) {
            let connection = env.connect().await;
            let channel = confirm_channel(&connection).await;
            let sent = channel.send_with("", "it-key", "m", plain().with_delivery_mode(3)).await;
            assert!(sent.is_ack());
        }
    })
    .await;
}

#[tokio::test]
async fn invalid_channel_operations_are_refused() {
    on_each_broker(|env| async move {
        // With a raw client, since lapin does not report which call caused the close.
        let unknown = (
            406,
            "PRECONDITION_FAILED - unknown delivery tag 7".to_owned(),
        );
        for method in [
            basic::AMQPMethod::Ack(basic::Ack {
                delivery_tag: 7,
                multiple: false,
            }),
            basic::AMQPMethod::Ack(basic::Ack {
                delivery_tag: 7,
                multiple: true,
            }),
            basic::AMQPMethod::Reject(basic::Reject {
                delivery_tag: 7,
                requeue: true,
            }),
            basic::AMQPMethod::Nack(basic::Nack {
                delivery_tag: 7,
                multiple: true,
                requeue: false,
            }),
        ] {
            let mut peer = Peer::with_channel(env.addr()).await;
            peer.method(1, AMQPClass::Basic(method)).await;
            assert_eq!(peer.closed_with().await, Some(unknown.clone()));
        }
        let queue = env.queue("q");
        let (_connection, channel) = fresh(&env).await;
        channel.declare(&queue).await;
        let _consumer = channel.consumer(&queue, "tag").await;
        let again = channel.basic_consume(
            queue.as_str().into(),
            "tag".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        check(
            &env,
            again.await.unwrap_err(),
            &refused(530, "NOT_ALLOWED - attempt to reuse consumer tag 'tag'"),
        );
        let (_connection, channel) = fresh(&env).await;
        let error = channel
            .basic_recover(BasicRecoverOptions { requeue: false })
            .await
            .unwrap_err();
        check(
            &env,
            error,
            &refused(540, "NOT_IMPLEMENTED - requeue=false"),
        );
        let (_connection, channel) = fresh(&env).await;
        let error = channel
            .channel_flow(ChannelFlowOptions { active: false })
            .await
            .unwrap_err();
        check(&env, error, &refused(540, "NOT_IMPLEMENTED - active=false"));
    })
    .await;
}

#[tokio::test]
async fn invalid_deletions_are_refused() {
    on_each_broker(|env| async move {
        for (name, expected) in [
            ("amq.topic", refused(403, "ACCESS_REFUSED - deletion of system exchange 'amq.topic' in vhost '/' not allowed")),
            ("", refused(403, "ACCESS_REFUSED - operation not permitted on the default exchange")),
        ] {
            let (_connection, channel) = fresh(&env).await;
            check(&env, channel.exchange_delete(name.into(), ExchangeDeleteOptions::default()).await.unwrap_err(), &expected);
        }
        let (exchange, queue) = (env.exchange("x"), env.queue("q"));
        let (_connection, channel) = fresh(&env).await;
        channel.declare_exchange(&exchange, ExchangeKind::Topic).await;
        channel.declare(&queue).await;
        channel.bind(&queue, &exchange, "k").await;
        let if_unused = ExchangeDeleteOptions { if_unused: true, ..ExchangeDeleteOptions::default() };
        let error = channel.exchange_delete(exchange.as_str().into(), if_unused).await.unwrap_err();
        check(&env, error, &refused(406, "PRECONDITION_FAILED - exchange 'x' in vhost '/' in use"));
    })
    .await;
}
