use lapin::{
    ExchangeKind,
    options::*,
    types::{AMQPValue, FieldTable},
};

use super::{check, fresh, refused};
use crate::support::*;

#[tokio::test]
async fn redeclarations_must_agree() {
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
        // The text is truncated to 255 bytes, at a position that depends on the queue name.
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
async fn redeclared_queue_arguments_must_agree() {
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
        // Other integer widths and unknown arguments make no difference.
        let mut again = arguments.clone();
        again.insert("x-max-priority".into(), AMQPValue::ShortShortUInt(5));
        again.insert("x-queue-type".into(), text("classic"));
        again.insert("x-mine".into(), text("anything"));
        channel.declare_with(&full, again).await;
        for (queue, key, value, expected) in [
            (&plain, "x-max-priority", Some(int(5)), "'x-max-priority' for queue 'plain' in vhost '/': received the value '5' of type 'signedint' but current is none"),
            (&plain, "x-dead-letter-exchange", Some(text("dlx")), "'x-dead-letter-exchange' for queue 'plain' in vhost '/': received the value 'dlx' of type 'longstr' but current is none"),
            (&plain, "x-queue-type", Some(text("quorum")), env.since_4(
                "'x-queue-type' for queue 'plain' in vhost '/': received 'quorum' but current is 'classic'",
                "'x-queue-type' for queue 'plain' in vhost '/': received the value 'quorum' of type 'longstr' but current is none",
            )),
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
            let (code, text) = refusal(&with_timeout(declared).await.unwrap_err());
            assert_eq!((code, env.without_prefix(&text)), (406, format!("PRECONDITION_FAILED - inequivalent arg {expected}")));
        }
    })
    .await;
}

#[tokio::test]
async fn invalid_declarations_are_refused() {
    on_each_broker(|env| async move {
        let queue = env.queue("q");
        let mut invalid = vec![
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
            (&*queue, table([("x-queue-version", int(3))]), refused(406, "PRECONDITION_FAILED - invalid arg 'x-queue-version' for queue 'q' in vhost '/': \"unsupported queue version '3'\"")),
            (&*queue, table([("x-max-age", text("1D"))]), refused(406, "PRECONDITION_FAILED - invalid arg 'x-max-age' for queue 'q' in vhost '/' of queue type rabbit_classic_queue")),
        ];
        // RabbitMQ 4.3 ignores the argument.
        if !env.since((4, 3)) {
            invalid.push((&*queue, table([("x-queue-mode", text("eager"))]), refused(406, "PRECONDITION_FAILED - invalid arg 'x-queue-mode' for queue 'q' in vhost '/': \"unsupported queue mode 'eager'\"")));
            invalid.push((&*queue, table([("x-queue-mode", AMQPValue::Void)]), refused(406, "PRECONDITION_FAILED - invalid arg 'x-queue-mode' for queue 'q' in vhost '/': {unacceptable_type,void}")));
        }
        for (name, arguments, expected) in invalid {
            let (_connection, channel) = fresh(&env).await;
            let error = channel.queue_declare(name.into(), QueueDeclareOptions::default(), arguments).await.unwrap_err();
            check(&env, error, &expected);
        }
        let default = ExchangeDeclareOptions::default();
        let passive = ExchangeDeclareOptions { passive: true, ..default };
        for (name, kind, options, expected) in [
            ("amq.mine", ExchangeKind::Direct, default, refused(403, "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'")),
            ("", ExchangeKind::Direct, default, refused(403, "ACCESS_REFUSED - operation not permitted on the default exchange")),
            ("it-x", ExchangeKind::Custom("nope".into()), default, env.since_4(
                refused(406, "PRECONDITION_FAILED - unknown exchange type 'nope'"),
                refused(503, "COMMAND_INVALID - unknown exchange type 'nope'"),
            )),
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
async fn exclusive_queues_are_locked_for_other_connections() {
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
