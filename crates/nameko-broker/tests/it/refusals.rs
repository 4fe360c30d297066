use std::sync::Arc;

use amq_protocol::protocol::{AMQPClass, basic};
use lapin::{
    BasicProperties, Channel, Connection, Error, ExchangeKind,
    options::*,
    types::{AMQPValue, FieldTable},
};

use crate::{peer::Peer, support::*};

/// What is refused, with which code and text.
struct Refusal {
    code: u16,
    text: &'static str,
}

const fn refused(code: u16, text: &'static str) -> Refusal {
    Refusal { code, text }
}

/// A channel of its own connection, to be closed by a refusal.
async fn fresh(env: &Arc<TestEnv>) -> (Connection, Channel) {
    let connection = env.connect().await;
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

/// Checks an error against what is expected, with this test's names made plain.
fn check(env: &TestEnv, error: Error, expected: &Refusal) {
    let (code, text) = refusal(&error);
    assert_eq!(
        (code, env.without_prefix(&text)),
        (expected.code, expected.text.to_owned())
    );
}

#[tokio::test]
async fn declarations_that_do_not_agree() {
    on_each_broker(|env| async move {
        let (queue, exchange) = (env.queue("q"), env.exchange("x"));
        let (_first, channel) = fresh(&env).await;
        let arguments = table([("x-expires", int(60_000))]);
        channel.queue_declare(queue.as_str().into(), QueueDeclareOptions::default(), arguments.clone()).await.unwrap();
        channel.declare_exchange(&exchange, ExchangeKind::Topic).await;
        let default = QueueDeclareOptions::default();
        let durable = QueueDeclareOptions { durable: true, ..default };
        let exclusive = QueueDeclareOptions { exclusive: true, ..default };
        let auto_delete = QueueDeclareOptions { auto_delete: true, ..default };
        for (options, arguments, expected) in [
            (
                durable,
                arguments.clone(),
                refused(406, "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '/': received 'true' but current is 'false'"),
            ),
            (
                auto_delete,
                arguments.clone(),
                refused(406, "PRECONDITION_FAILED - inequivalent arg 'auto_delete' for queue 'q' in vhost '/': received 'true' but current is 'false'"),
            ),
            (
                default,
                FieldTable::default(),
                refused(406, "PRECONDITION_FAILED - inequivalent arg 'x-expires' for queue 'q' in vhost '/': received none but current is the value '60000' of type 'signedint'"),
            ),
            (
                default,
                table([("x-expires", int(1))]),
                refused(406, "PRECONDITION_FAILED - inequivalent arg 'x-expires' for queue 'q' in vhost '/': received '1' but current is '60000'"),
            ),
        ] {
            let (_connection, channel) = fresh(&env).await;
            let error = channel.queue_declare(queue.as_str().into(), options, arguments).await.unwrap_err();
            check(&env, error, &expected);
        }
        let (_connection, channel) = fresh(&env).await;
        let (code, text) = refusal(&channel.queue_declare(queue.as_str().into(), exclusive, arguments).await.unwrap_err());
        assert_eq!(code, 405);
        // The full text does not fit in 255 bytes and is cut; where depends on the length of the name.
        let start = "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'q' in vhost '/'. It could be originally declared";
        assert!(env.without_prefix(&text).starts_with(start), "{text}");
        for (kind, options, text) in [
            (
                ExchangeKind::Direct,
                ExchangeDeclareOptions::default(),
                "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'x' in vhost '/': received 'direct' but current is 'topic'",
            ),
            (
                ExchangeKind::Topic,
                ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() },
                "PRECONDITION_FAILED - inequivalent arg 'durable' for exchange 'x' in vhost '/': received 'true' but current is 'false'",
            ),
            (
                ExchangeKind::Topic,
                ExchangeDeclareOptions { auto_delete: true, ..ExchangeDeclareOptions::default() },
                "PRECONDITION_FAILED - inequivalent arg 'auto_delete' for exchange 'x' in vhost '/': received 'true' but current is 'false'",
            ),
            (
                ExchangeKind::Topic,
                ExchangeDeclareOptions { internal: true, ..ExchangeDeclareOptions::default() },
                "PRECONDITION_FAILED - inequivalent arg 'internal' for exchange 'x' in vhost '/': received 'true' but current is 'false'",
            ),
        ] {
            let (_connection, channel) = fresh(&env).await;
            let error = channel.exchange_declare(exchange.as_str().into(), kind, options, FieldTable::default()).await.unwrap_err();
            check(&env, error, &refused(406, text));
        }
    })
    .await;
}

#[tokio::test]
async fn queue_arguments_that_do_not_agree() {
    on_each_broker(|env| async move {
        let (plain, full) = (env.queue("plain"), env.queue("full"));
        let (_first, channel) = fresh(&env).await;
        let arguments = table([
            ("x-max-priority", int(5)),
            ("x-dead-letter-exchange", text("dlx")),
            ("x-overflow", text("reject-publish")),
            ("x-single-active-consumer", AMQPValue::Boolean(true)),
            ("x-queue-mode", text("lazy")),
        ]);
        channel.declare(&plain).await;
        channel.declare_with(&full, arguments.clone()).await;
        // The same numbers in another size, and what RabbitMQ does not know, are no difference.
        let mut again = arguments.clone();
        again.insert("x-max-priority".into(), AMQPValue::ShortShortUInt(5));
        again.insert("x-queue-type".into(), text("classic"));
        again.insert("x-mine".into(), text("anything"));
        channel.declare_with(&full, again).await;
        for (queue, key, value, expected) in [
            (&plain, "x-max-priority", Some(int(5)), "'x-max-priority' for queue 'plain' in vhost '/': received the value '5' of type 'signedint' but current is none"),
            (&plain, "x-dead-letter-exchange", Some(text("dlx")), "'x-dead-letter-exchange' for queue 'plain' in vhost '/': received the value 'dlx' of type 'longstr' but current is none"),
            (&plain, "x-queue-type", Some(text("quorum")), "'x-queue-type' for queue 'plain' in vhost '/': received the value 'quorum' of type 'longstr' but current is none"),
            (&full, "x-max-priority", Some(int(6)), "'x-max-priority' for queue 'full' in vhost '/': received '6' but current is '5'"),
            (&full, "x-max-priority", Some(text("5")), "'x-max-priority' for queue 'full' in vhost '/': received '5' but current is '5'"),
            (&full, "x-dead-letter-exchange", Some(text("other")), "'x-dead-letter-exchange' for queue 'full' in vhost '/': received 'other' but current is 'dlx'"),
            (&full, "x-dead-letter-exchange", None, "'x-dead-letter-exchange' for queue 'full' in vhost '/': received none but current is the value 'dlx' of type 'longstr'"),
            (&full, "x-dead-letter-routing-key", Some(text("k")), "'x-dead-letter-routing-key' for queue 'full' in vhost '/': received the value 'k' of type 'longstr' but current is none"),
            (&full, "x-single-active-consumer", Some(AMQPValue::Boolean(false)), "'x-single-active-consumer' for queue 'full' in vhost '/': received 'false' but current is 'true'"),
            (&full, "x-overflow", Some(text("drop-head")), "'x-overflow' for queue 'full' in vhost '/': received 'drop-head' but current is 'reject-publish'"),
            (&full, "x-queue-mode", Some(text("default")), "'x-queue-mode' for queue 'full' in vhost '/': received 'default' but current is 'lazy'"),
        ] {
            let mut entries = if queue == &full { arguments.inner().clone() } else { Default::default() };
            match value {
                Some(value) => entries.insert(key.into(), value),
                None => entries.remove(key),
            };
            let (_connection, channel) = fresh(&env).await;
            let declared = channel.queue_declare(queue.as_str().into(), QueueDeclareOptions::default(), entries.into());
            let (code, told) = refusal(&with_timeout(declared).await.unwrap_err());
            assert_eq!((code, env.without_prefix(&told)), (406, format!("PRECONDITION_FAILED - inequivalent arg {expected}")));
        }
    })
    .await;
}

#[tokio::test]
async fn declarations_that_may_not_be() {
    on_each_broker(|env| async move {
        let queue = env.queue("q");
        for (name, arguments, expected) in [
            ("amq.mine", FieldTable::default(), refused(403, "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'")),
            (&*queue, table([("x-expires", int(0))]), refused(406, "PRECONDITION_FAILED - invalid arg 'x-expires' for queue 'q' in vhost '/': {value_zero,0}")),
            (&*queue, table([("x-expires", text("1"))]), refused(406, "PRECONDITION_FAILED - invalid arg 'x-expires' for queue 'q' in vhost '/': \"expected integer, got longstr\"")),
            (&*queue, table([("x-message-ttl", int(-1))]), refused(406, "PRECONDITION_FAILED - invalid arg 'x-message-ttl' for queue 'q' in vhost '/': {value_negative,-1}")),
            (&*queue, table([("x-max-length", int(-1))]), refused(406, "PRECONDITION_FAILED - invalid arg 'x-max-length' for queue 'q' in vhost '/': {value_negative,-1}")),
            (&*queue, table([("x-overflow", text("no"))]), refused(406, "PRECONDITION_FAILED - invalid arg 'x-overflow' for queue 'q' in vhost '/': invalid_overflow")),
            (&*queue, table([("x-overflow", int(1))]), refused(406, "PRECONDITION_FAILED - invalid arg 'x-overflow' for queue 'q' in vhost '/': {unacceptable_type,signedint}")),
            (&*queue, table([("x-message-ttl", text("5"))]), refused(406, "PRECONDITION_FAILED - invalid arg 'x-message-ttl' for queue 'q' in vhost '/': \"expected integer, got longstr\"")),
            (&*queue, table([("x-message-ttl", AMQPValue::Double(5.0))]), refused(406, "PRECONDITION_FAILED - invalid arg 'x-message-ttl' for queue 'q' in vhost '/': \"expected integer, got double\"")),
            (&*queue, table([("x-message-ttl", AMQPValue::LongLongInt(315_360_000_001))]), refused(406, "PRECONDITION_FAILED - invalid arg 'x-message-ttl' for queue 'q' in vhost '/': {value_too_large,315360000001}")),
            (&*queue, table([("x-max-length-bytes", AMQPValue::Boolean(true))]), refused(406, "PRECONDITION_FAILED - invalid arg 'x-max-length-bytes' for queue 'q' in vhost '/': \"expected integer, got bool\"")),
            (&*queue, table([("x-max-priority", int(256))]), refused(406, "PRECONDITION_FAILED - invalid arg 'x-max-priority' for queue 'q' in vhost '/': {max_value_exceeded,256}")),
            (&*queue, table([("x-max-priority", int(-1))]), refused(406, "PRECONDITION_FAILED - invalid arg 'x-max-priority' for queue 'q' in vhost '/': {value_negative,-1}")),
            (&*queue, table([("x-max-priority", text("5"))]), refused(406, "PRECONDITION_FAILED - invalid arg 'x-max-priority' for queue 'q' in vhost '/': \"expected integer, got longstr\"")),
            (&*queue, table([("x-single-active-consumer", text("true"))]), refused(406, "PRECONDITION_FAILED - invalid arg 'x-single-active-consumer' for queue 'q' in vhost '/': {unacceptable_type,longstr}")),
            (&*queue, table([("x-dead-letter-exchange", int(1))]), refused(406, "PRECONDITION_FAILED - invalid type 'signedint' for arg 'x-dead-letter-exchange' in queue 'q' in vhost '/'")),
            (&*queue, table([("x-dead-letter-routing-key", text("k"))]), refused(406, "PRECONDITION_FAILED - invalid arg 'x-dead-letter-routing-key' for queue 'q' in vhost '/': routing_key_but_no_dlx_defined")),
            (&*queue, table([("x-dead-letter-routing-key", int(1))]), refused(406, "PRECONDITION_FAILED - invalid arg 'x-dead-letter-routing-key' for queue 'q' in vhost '/': {unacceptable_type,signedint}")),
            (&*queue, table([("x-queue-type", text("odd"))]), refused(406, "PRECONDITION_FAILED - invalid arg 'x-queue-type' for queue 'q' in vhost '/': \"unsupported queue type 'odd'\"")),
            (&*queue, table([("x-queue-type", int(1))]), refused(406, "PRECONDITION_FAILED - invalid arg 'x-queue-type' for queue 'q' in vhost '/': {unacceptable_type,signedint}")),
            (&*queue, table([("x-queue-mode", text("eager"))]), refused(406, "PRECONDITION_FAILED - invalid arg 'x-queue-mode' for queue 'q' in vhost '/': \"unsupported queue mode 'eager'\"")),
            (&*queue, table([("x-queue-mode", AMQPValue::Void)]), refused(406, "PRECONDITION_FAILED - invalid arg 'x-queue-mode' for queue 'q' in vhost '/': {unacceptable_type,void}")),
            (&*queue, table([("x-queue-version", int(3))]), refused(406, "PRECONDITION_FAILED - invalid arg 'x-queue-version' for queue 'q' in vhost '/': \"unsupported queue version '3'\"")),
            (&*queue, table([("x-max-age", text("1D"))]), refused(406, "PRECONDITION_FAILED - invalid arg 'x-max-age' for queue 'q' in vhost '/' of queue type rabbit_classic_queue")),
        ] {
            let (_connection, channel) = fresh(&env).await;
            let error = channel.queue_declare(name.into(), QueueDeclareOptions::default(), arguments).await.unwrap_err();
            check(&env, error, &expected);
        }
        let default = ExchangeDeclareOptions::default();
        let passive = ExchangeDeclareOptions { passive: true, ..default };
        for (name, kind, options, expected) in [
            ("amq.mine", ExchangeKind::Direct, default, refused(403, "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'")),
            ("", ExchangeKind::Direct, default, refused(403, "ACCESS_REFUSED - operation not permitted on the default exchange")),
            ("it-x", ExchangeKind::Custom("nope".into()), default, refused(503, "COMMAND_INVALID - unknown exchange type 'nope'")),
            ("it-x", ExchangeKind::Direct, passive, refused(404, "NOT_FOUND - no exchange 'it-x' in vhost '/'")),
        ] {
            let (_connection, channel) = fresh(&env).await;
            let error = channel.exchange_declare(name.into(), kind, options, FieldTable::default()).await.unwrap_err();
            check(&env, error, &expected);
        }
        let (_connection, channel) = fresh(&env).await;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let error = channel.queue_declare(queue.as_str().into(), passive, FieldTable::default()).await.unwrap_err();
        check(&env, error, &refused(404, "NOT_FOUND - no queue 'q' in vhost '/'"));
    })
    .await;
}

#[tokio::test]
async fn consumers_whose_arguments_are_wrong() {
    on_each_broker(|env| async move {
        let queue = env.queue("q");
        let (_first, channel) = fresh(&env).await;
        channel.declare(&queue).await;
        for (key, value, expected) in [
            ("x-priority", text("5"), refused(406, "PRECONDITION_FAILED - invalid arg 'x-priority' for queue 'q' in vhost '/': \"expected integer, got longstr\"")),
            ("x-cancel-on-ha-failover", int(1), refused(406, "PRECONDITION_FAILED - invalid arg 'x-cancel-on-ha-failover' for queue 'q' in vhost '/': {unacceptable_type,signedint}")),
            ("x-stream-offset", text("first"), refused(406, "PRECONDITION_FAILED - invalid arg 'x-stream-offset' for queue 'q' in vhost '/' of queue type rabbit_classic_queue")),
        ] {
            let (_connection, channel) = fresh(&env).await;
            let consumed = channel.basic_consume(queue.as_str().into(), "c".into(), BasicConsumeOptions::default(), table([(key, value)]));
            check(&env, with_timeout(consumed).await.unwrap_err(), &expected);
        }
        // An exclusive one wants nobody beside it, before or after.
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
async fn what_is_not_there() {
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
async fn messages_that_may_not_be_published() {
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
            ("", plain().with_delivery_mode(3), false, refused(406, "PRECONDITION_FAILED - invalid message: {delivery_mode_unknown,3}")),
        ] {
            let connection = env.connect().await;
            let channel = confirm_channel(&connection).await;
            let options = BasicPublishOptions { immediate, ..BasicPublishOptions::default() };
            let sent = channel.basic_publish(exchange.into(), "it-key".into(), options, b"m", properties).await.unwrap();
            check(&env, with_timeout(sent).await.unwrap_err(), &expected);
        }
    })
    .await;
}

#[tokio::test]
async fn acknowledgements_and_consumers_that_may_not_be() {
    on_each_broker(|env| async move {
        // A real client hides which of its calls such a close belongs to, so these are said by hand.
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
async fn deletions_that_may_not_be() {
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

#[tokio::test]
async fn another_connections_exclusive_queue() {
    on_each_broker(|env| async move {
        let queue = env.queue("q");
        let (_owner, channel) = fresh(&env).await;
        let exclusive = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        channel
            .queue_declare(queue.as_str().into(), exclusive, FieldTable::default())
            .await
            .unwrap();
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let name = || queue.as_str().into();
        let (_connection, channel) = fresh(&env).await;
        let mut errors = vec![
            channel
                .queue_declare(
                    name(),
                    QueueDeclareOptions::default(),
                    FieldTable::default(),
                )
                .await
                .unwrap_err(),
        ];
        let (_connection, channel) = fresh(&env).await;
        errors.push(
            channel
                .queue_declare(name(), passive, FieldTable::default())
                .await
                .unwrap_err(),
        );
        let (_connection, channel) = fresh(&env).await;
        errors.push(
            channel
                .queue_delete(name(), QueueDeleteOptions::default())
                .await
                .unwrap_err(),
        );
        let (_connection, channel) = fresh(&env).await;
        errors.push(
            channel
                .queue_purge(name(), QueuePurgeOptions::default())
                .await
                .unwrap_err(),
        );
        let (_connection, channel) = fresh(&env).await;
        errors.push(
            channel
                .basic_get(name(), BasicGetOptions::default())
                .await
                .unwrap_err(),
        );
        let (_connection, channel) = fresh(&env).await;
        errors.push(
            channel
                .queue_bind(
                    name(),
                    "amq.topic".into(),
                    "k".into(),
                    QueueBindOptions::default(),
                    FieldTable::default(),
                )
                .await
                .unwrap_err(),
        );
        for error in errors {
            assert_eq!(refusal(&error).0, 405);
        }
    })
    .await;
}
