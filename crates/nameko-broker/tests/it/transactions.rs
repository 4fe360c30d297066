use amq_protocol::{
    frame::AMQPFrame,
    protocol::{
        AMQPClass,
        basic::{self, AMQPMethod::Return},
        tx,
    },
};
use lapin::{
    BasicProperties, Channel, Connection, ExchangeKind, message::BasicGetMessage, options::*,
    types::FieldTable,
};

use crate::{
    peer::{Peer, encoded, raw},
    support::*,
};

const REQUEUE: BasicNackOptions = BasicNackOptions {
    multiple: false,
    requeue: true,
};

async fn tx_channel(connection: &Connection) -> Channel {
    let channel = with_timeout(connection.create_channel()).await.unwrap();
    with_timeout(channel.tx_select()).await.unwrap();
    channel
}

async fn commit(channel: &Channel) {
    with_timeout(channel.tx_commit()).await.unwrap();
}

async fn rollback(channel: &Channel) {
    with_timeout(channel.tx_rollback()).await.unwrap();
}

async fn ack(message: &BasicGetMessage) {
    message.ack(BasicAckOptions::default()).await.unwrap();
}

/// Declares a queue with messages in it.
async fn queue_with(env: &TestEnv, connection: &Connection, bodies: &[&str]) -> String {
    let channel = confirm_channel(connection).await;
    let queue = env.queue("q");
    channel.declare(&queue).await;
    for body in bodies {
        channel.send("", &queue, body).await;
    }
    queue
}

/// Asserts that the broker closes the channel or the connection of `result`.
fn assert_refused<T: std::fmt::Debug>(result: lapin::Result<T>, code: u16, text: &str) {
    assert_eq!(refusal(&result.unwrap_err()), (code, text.to_owned()));
}

#[tokio::test]
async fn publishes_take_effect_at_the_commit() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let queue = queue_with(&env, &connection, &[]).await;
        let channel = tx_channel(&connection).await;
        let other = connection.create_channel().await.unwrap();
        for expected in [["1", "2"], ["3", "4"]] {
            for body in expected {
                channel.send("", &queue, body).await;
            }
            // Its reply also shows that the publishes were processed.
            assert_eq!(channel.ready_count(&queue).await, 0);
            commit(&channel).await;
            assert_eq!(other.drain(&queue).await, expected);
        }
        commit(&channel).await;
        assert_eq!(channel.ready_count(&queue).await, 0);
    })
    .await;
}

#[tokio::test]
async fn rollback_drops_publishes() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let queue = queue_with(&env, &connection, &[]).await;
        let channel = tx_channel(&connection).await;
        channel.send("", &queue, "dropped").await;
        rollback(&channel).await;
        channel.send("", &queue, "kept").await;
        commit(&channel).await;
        assert_eq!(channel.drain(&queue).await, ["kept"]);
    })
    .await;
}

#[tokio::test]
async fn selecting_twice_keeps_the_transaction() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let queue = queue_with(&env, &connection, &[]).await;
        let channel = tx_channel(&connection).await;
        channel.send("", &queue, "m").await;
        with_timeout(channel.tx_select()).await.unwrap();
        commit(&channel).await;
        assert_eq!(channel.drain(&queue).await, ["m"]);
    })
    .await;
}

#[tokio::test]
async fn a_consumer_receives_messages_committed_on_its_own_channel() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let queue = queue_with(&env, &connection, &[]).await;
        let channel = tx_channel(&connection).await;
        let mut consumer = channel.consumer(&queue, "c").await;
        channel.send("", &queue, "m").await;
        assert_no_delivery(&channel, &mut consumer).await;
        commit(&channel).await;
        assert_eq!(body(&next(&mut consumer).await), "m");
    })
    .await;
}

#[tokio::test]
async fn acks_take_effect_at_the_commit() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let queue = queue_with(&env, &connection, &["kept", "acked", "later"]).await;
        let channel = tx_channel(&connection).await;
        let kept = channel.get(&queue).await.unwrap();
        ack(&channel.get(&queue).await.unwrap()).await;
        commit(&channel).await;
        ack(&kept).await;
        // Closing the channel rolls back what is not committed.
        channel.close(200, "".into()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        wait_until("the message is requeued", || async {
            channel.ready_count(&queue).await == 2
        })
        .await;
        let first = channel.get(&queue).await.unwrap();
        assert_eq!((&*body(&first), first.redelivered), ("kept", true));
        let second = channel.get(&queue).await.unwrap();
        assert_eq!((&*body(&second), second.redelivered), ("later", false));
    })
    .await;
}

#[tokio::test]
async fn rolled_back_acks_leave_messages_unacknowledged() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let queue = queue_with(&env, &connection, &["1", "2", "3"]).await;
        let channel = tx_channel(&connection).await;
        let mut messages = Vec::new();
        for _ in 0..3 {
            messages.push(channel.get(&queue).await.unwrap());
        }
        messages[1].nack(REQUEUE).await.unwrap();
        ack(&messages[0]).await;
        messages[2]
            .reject(BasicRejectOptions::default())
            .await
            .unwrap();
        rollback(&channel).await;
        assert_eq!(channel.ready_count(&queue).await, 0);
        // Still known to the channel: they can be settled again, in delivery order.
        let up_to = BasicAckOptions { multiple: true };
        channel.basic_ack(2, up_to).await.unwrap();
        channel.basic_nack(3, REQUEUE).await.unwrap();
        commit(&channel).await;
        wait_until("the message is requeued", || async {
            channel.ready_count(&queue).await == 1
        })
        .await;
        assert_eq!(channel.drain(&queue).await, ["3"]);
    })
    .await;
}

#[tokio::test]
async fn a_delivery_is_settled_once_in_a_transaction() {
    on_each_broker(|env| async move {
        // With a raw client, since lapin sends no second settlement.
        for requeue in [None, Some(true), Some(false)] {
            let connection = env.connect().await;
            let queue = queue_with(&env, &connection, &["m"]).await;
            let mut peer = tx_peer(&env).await;
            let get = basic::Get {
                queue: queue.as_str().into(),
                no_ack: false,
            };
            let ack = basic::AMQPMethod::Ack(basic::Ack {
                delivery_tag: 1,
                multiple: false,
            });
            let first = match requeue {
                None => ack.clone(),
                Some(requeue) => basic::AMQPMethod::Reject(basic::Reject {
                    delivery_tag: 1,
                    requeue,
                }),
            };
            for method in [basic::AMQPMethod::Get(get), first, ack] {
                peer.method(1, AMQPClass::Basic(method)).await;
            }
            let unknown = "PRECONDITION_FAILED - unknown delivery tag 1".to_owned();
            assert_eq!(peer.closed_with().await, Some((406, unknown)));
        }
    })
    .await;
}

#[tokio::test]
async fn nacks_take_effect_at_the_commit() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let setup = confirm_channel(&connection).await;
        let (queue, dead) = (env.queue("dlx-q"), env.queue("dead"));
        setup.declare(&dead).await;
        let arguments = table([
            ("x-dead-letter-exchange", text("")),
            ("x-dead-letter-routing-key", text(&dead)),
        ]);
        setup.declare_with(&queue, arguments).await;
        for body in ["rejected", "requeued"] {
            setup.send("", &queue, body).await;
        }
        let channel = tx_channel(&connection).await;
        let rejected = channel.get(&queue).await.unwrap();
        rejected
            .reject(BasicRejectOptions::default())
            .await
            .unwrap();
        let requeued = channel.get(&queue).await.unwrap();
        requeued.nack(REQUEUE).await.unwrap();
        assert_eq!(channel.ready_count(&queue).await, 0);
        assert_eq!(setup.ready_count(&dead).await, 0);
        commit(&channel).await;
        wait_until("both arrive", || async {
            setup.ready_count(&queue).await == 1 && setup.ready_count(&dead).await == 1
        })
        .await;
        assert_eq!(setup.drain(&queue).await, ["requeued"]);
        assert_eq!(setup.drain(&dead).await, ["rejected"]);
    })
    .await;
}

#[tokio::test]
async fn settled_deliveries_count_towards_the_prefetch_limit_until_the_commit() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let queue = queue_with(&env, &connection, &["1", "2", "3"]).await;
        let channel = tx_channel(&connection).await;
        let one = BasicQosOptions::default();
        with_timeout(channel.basic_qos(1, one)).await.unwrap();
        let mut consumer = channel.consumer(&queue, "c").await;
        let tag = next(&mut consumer).await.delivery_tag;
        let only = BasicAckOptions::default();
        channel.basic_ack(tag, only).await.unwrap();
        assert_eq!(channel.ready_count(&queue).await, 2);
        rollback(&channel).await;
        assert_eq!(channel.ready_count(&queue).await, 2);
        channel.basic_ack(tag, only).await.unwrap();
        commit(&channel).await;
        assert_eq!(body(&next(&mut consumer).await), "2");
    })
    .await;
}

#[tokio::test]
async fn recover_requeues_only_deliveries_that_are_not_settled() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let queue = queue_with(&env, &connection, &["settled", "other"]).await;
        let channel = tx_channel(&connection).await;
        ack(&channel.get(&queue).await.unwrap()).await;
        channel.get(&queue).await.unwrap();
        let requeue = BasicRecoverOptions { requeue: true };
        with_timeout(channel.basic_recover(requeue)).await.unwrap();
        let again = channel.get(&queue).await.unwrap();
        assert_eq!((&*body(&again), again.redelivered), ("other", true));
        rollback(&channel).await;
        channel.close(200, "".into()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        wait_until("both are requeued", || async {
            channel.ready_count(&queue).await == 2
        })
        .await;
        assert_eq!(channel.drain(&queue).await, ["settled", "other"]);
    })
    .await;
}

#[tokio::test]
async fn the_end_of_a_channel_or_connection_rolls_back() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let check = connection.create_channel().await.unwrap();
        for closes_connection in [false, true] {
            let queue = queue_with(&env, &connection, &["1", "2", "3"]).await;
            let other = env.connect().await;
            let channel = tx_channel(&other).await;
            channel.get(&queue).await.unwrap();
            ack(&channel.get(&queue).await.unwrap()).await;
            ack(&channel.get(&queue).await.unwrap()).await;
            channel.send("", &queue, "dropped").await;
            if closes_connection {
                other.close(200, "".into()).await.unwrap();
            } else {
                channel.close(200, "".into()).await.unwrap();
            }
            wait_until("the messages are requeued", || async {
                check.ready_count(&queue).await == 3
            })
            .await;
            let mut bodies = Vec::new();
            while let Some(message) = check.get(&queue).await {
                assert!(message.redelivered);
                ack(&message).await;
                bodies.push(body(&message));
            }
            assert_eq!(bodies, ["1", "2", "3"]);
        }
    })
    .await;
}

#[tokio::test]
async fn confirms_and_transactions_exclude_each_other() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let confirming = confirm_channel(&connection).await;
        assert_refused(
            with_timeout(confirming.tx_select()).await,
            406,
            "PRECONDITION_FAILED - cannot switch from confirm to tx mode",
        );
        let channel = tx_channel(&connection).await;
        let select = channel.confirm_select(ConfirmSelectOptions::default());
        assert_refused(
            with_timeout(select).await,
            406,
            "PRECONDITION_FAILED - cannot switch from tx to confirm mode",
        );
    })
    .await;
}

#[tokio::test]
async fn commit_and_rollback_need_a_transactional_channel() {
    on_each_broker(|env| async move {
        let text = "PRECONDITION_FAILED - channel is not transactional";
        let connection = env.connect().await;
        for confirms in [false, true] {
            let open = async || match confirms {
                true => confirm_channel(&connection).await,
                false => connection.create_channel().await.unwrap(),
            };
            assert_refused(with_timeout(open().await.tx_commit()).await, 406, text);
            assert_refused(with_timeout(open().await.tx_rollback()).await, 406, text);
        }
    })
    .await;
}

#[tokio::test]
async fn a_refused_publish_closes_the_channel_at_once() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let queue = queue_with(&env, &connection, &[]).await;
        let mut peer = tx_peer(&env).await;
        publish_mandatory(&mut peer, "", &queue).await;
        publish_mandatory(&mut peer, "it-none", "k").await;
        let missing = "NOT_FOUND - no exchange 'it-none' in vhost '/'".to_owned();
        assert_eq!(peer.closed_with().await, Some((404, missing)));
        let check = connection.create_channel().await.unwrap();
        assert_eq!(check.ready_count(&queue).await, 0);
    })
    .await;
}

#[tokio::test]
async fn bindings_are_applied_when_a_message_is_published() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = tx_channel(&connection).await;
        let exchange = env.exchange("x");
        channel
            .declare_exchange(&exchange, ExchangeKind::Topic)
            .await;
        let (early, late) = (env.queue("early"), env.queue("late"));
        channel.declare(&early).await;
        channel.declare(&late).await;
        channel.bind(&early, &exchange, "k").await;
        channel.send(&exchange, "k", "m").await;
        let unbound = channel.queue_unbind(
            early.as_str().into(),
            exchange.as_str().into(),
            "k".into(),
            FieldTable::default(),
        );
        with_timeout(unbound).await.unwrap();
        channel.bind(&late, &exchange, "k").await;
        commit(&channel).await;
        assert_eq!(channel.drain(&early).await, ["m"]);
        assert_eq!(channel.ready_count(&late).await, 0);
    })
    .await;
}

#[tokio::test]
async fn queues_are_looked_up_by_name_at_the_commit() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = tx_channel(&connection).await;
        let (new, replaced, deleted) = (env.queue("new"), env.queue("replaced"), env.queue("gone"));
        let exchange = env.exchange("x");
        channel
            .declare_exchange(&exchange, ExchangeKind::Fanout)
            .await;
        for queue in [&replaced, &deleted] {
            channel.declare(queue).await;
            channel.bind(queue, &exchange, "").await;
        }
        channel.send("", &new, "default").await;
        channel.send(&exchange, "", "fanout").await;
        for queue in [&replaced, &deleted] {
            let options = QueueDeleteOptions::default();
            with_timeout(channel.queue_delete(queue.as_str().into(), options))
                .await
                .unwrap();
        }
        channel.declare(&new).await;
        channel.declare(&replaced).await;
        commit(&channel).await;
        assert_eq!(channel.drain(&new).await, ["default"]);
        assert_eq!(channel.drain(&replaced).await, ["fanout"]);
    })
    .await;
}

#[tokio::test]
async fn alternate_exchanges_and_additional_keys_route_within_a_transaction() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let channel = tx_channel(&connection).await;
        let (main, alternate) = (env.exchange("main"), env.exchange("alternate"));
        let (unrouted, copy) = (env.queue("unrouted"), env.queue("copy"));
        channel
            .declare_exchange(&alternate, ExchangeKind::Fanout)
            .await;
        let declared = channel.exchange_declare(
            main.as_str().into(),
            ExchangeKind::Direct,
            ExchangeDeclareOptions::default(),
            table([("alternate-exchange", text(&alternate))]),
        );
        with_timeout(declared).await.unwrap();
        for queue in [&unrouted, &copy] {
            channel.declare(queue).await;
        }
        channel.bind(&unrouted, &alternate, "").await;
        channel.bind(&copy, &main, "copy").await;
        channel.send(&main, "nobody", "1").await;
        let keys = lapin::types::FieldArray::from(vec![text("copy"), text("copy")]);
        let headers = table([("BCC", lapin::types::AMQPValue::FieldArray(keys))]);
        let properties = BasicProperties::default().with_headers(headers);
        channel.send_with(&main, "nobody", "2", properties).await;
        commit(&channel).await;
        assert_eq!(channel.drain(&unrouted).await, ["1"]);
        assert_eq!(channel.drain(&copy).await, ["2"]);
    })
    .await;
}

#[tokio::test]
async fn a_commit_fails_if_a_full_queue_rejects_a_message() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let (limited, other) = (env.queue("limited"), env.queue("other"));
        let channel = tx_channel(&connection).await;
        let arguments = table([
            ("x-max-length", int(1)),
            ("x-overflow", text("reject-publish")),
        ]);
        channel.declare_with(&limited, arguments).await;
        let source = queue_with(&env, &connection, &["acked"]).await;
        channel.declare(&other).await;
        for (queue, body) in [(&limited, "1"), (&limited, "2"), (&other, "3")] {
            channel.send("", queue, body).await;
        }
        ack(&channel.get(&source).await.unwrap()).await;
        assert_refused(
            with_timeout(channel.tx_commit()).await,
            406,
            "PRECONDITION_FAILED - partial tx completion",
        );
        // The rest of the transaction is applied.
        let check = connection.create_channel().await.unwrap();
        assert_eq!(check.drain(&limited).await, ["1"]);
        assert_eq!(check.drain(&other).await, ["3"]);
        assert_eq!(check.drain(&source).await, [""; 0]);
    })
    .await;
}

#[tokio::test]
async fn direct_replies_do_not_wait_for_the_commit() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let queue = queue_with(&env, &connection, &[]).await;
        let requester = confirm_channel(&connection).await;
        let no_ack = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let mut replies = with_timeout(requester.basic_consume(
            "amq.rabbitmq.reply-to".into(),
            "r".into(),
            no_ack,
            FieldTable::default(),
        ))
        .await
        .unwrap();
        let properties = BasicProperties::default().with_reply_to("amq.rabbitmq.reply-to".into());
        requester.send_with("", &queue, "ask", properties).await;
        let channel = tx_channel(&connection).await;
        let request = channel.get(&queue).await.unwrap();
        let address = request.properties.reply_to().clone().unwrap();
        channel.send("", address.as_str(), "answer").await;
        assert_eq!(body(&next(&mut replies).await), "answer");
        rollback(&channel).await;
    })
    .await;
}

#[tokio::test]
async fn unroutable_mandatory_messages_are_returned_before_the_commit_is_confirmed() {
    on_each_broker(|env| async move {
        let connection = env.connect().await;
        let queue = queue_with(&env, &connection, &[]).await;
        let mut peer = tx_peer(&env).await;
        let transaction = |method| AMQPClass::Tx(method);
        let commit = transaction(tx::AMQPMethod::Commit(tx::Commit {}));
        let rollback = transaction(tx::AMQPMethod::Rollback(tx::Rollback {}));
        let expect = async |peer: &mut Peer, expected: AMQPClass| {
            let frame = peer.frame().await.unwrap();
            assert_eq!(frame, AMQPFrame::Method(1, expected));
        };
        // A message to a queue that is deleted before the commit is returned, too.
        for key in ["it-nobody", &queue] {
            publish_mandatory(&mut peer, "", key).await;
        }
        peer.method(1, rollback).await;
        let rolled_back = tx::AMQPMethod::RollbackOk(tx::RollbackOk {});
        expect(&mut peer, transaction(rolled_back)).await;
        for key in ["it-nobody", &queue] {
            publish_mandatory(&mut peer, "", key).await;
        }
        let delete = QueueDeleteOptions::default();
        let channel = connection.create_channel().await.unwrap();
        with_timeout(channel.queue_delete(queue.as_str().into(), delete))
            .await
            .unwrap();
        peer.method(1, commit).await;
        for key in ["it-nobody", &queue] {
            let returned = basic::Return {
                reply_code: 312,
                reply_text: "NO_ROUTE".into(),
                exchange: "".into(),
                routing_key: key.into(),
            };
            expect(&mut peer, AMQPClass::Basic(Return(returned))).await;
            assert!(matches!(peer.frame().await, Some(AMQPFrame::Header(..))));
            assert_eq!(peer.frame().await, Some(AMQPFrame::Body(1, b"m".to_vec())));
        }
        let committed = tx::AMQPMethod::CommitOk(tx::CommitOk {});
        expect(&mut peer, transaction(committed)).await;
    })
    .await;
}

/// Opens a transactional channel with a raw client.
async fn tx_peer(env: &TestEnv) -> Peer {
    let mut peer = Peer::with_channel(env.addr()).await;
    let select = tx::AMQPMethod::Select(tx::Select {});
    peer.method(1, AMQPClass::Tx(select)).await;
    let selected = tx::AMQPMethod::SelectOk(tx::SelectOk {});
    let expected = AMQPFrame::Method(1, AMQPClass::Tx(selected));
    assert_eq!(peer.frame().await, Some(expected));
    peer
}

async fn publish_mandatory(peer: &mut Peer, exchange: &str, key: &str) {
    let publish = basic::Publish {
        exchange: exchange.into(),
        routing_key: key.into(),
        mandatory: true,
        immediate: false,
    };
    let method = AMQPClass::Basic(basic::AMQPMethod::Publish(publish));
    let header = raw(2, 1, &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]);
    let frames = [
        encoded(&AMQPFrame::Method(1, method)),
        header,
        encoded(&AMQPFrame::Body(1, b"m".to_vec())),
    ];
    peer.write(&frames.concat()).await;
}
