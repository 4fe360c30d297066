mod amplification;
mod malformed;
mod slow;

use nameko_broker::Broker;

use crate::support::*;

pub(super) fn addr(broker: &Broker) -> String {
    broker.addr().to_string()
}

/// Asserts that the broker still serves other clients.
pub(super) async fn assert_serves(broker: &Broker) {
    let env = TestEnv::new(broker.uri());
    let connection = env.connect().await;
    let channel = confirm_channel(&connection).await;
    channel.declare("still").await;
    channel.send("", "still", "well").await;
    assert_eq!(channel.drain("still").await, ["well"]);
    connection.close(200, "".into()).await.unwrap();
}
