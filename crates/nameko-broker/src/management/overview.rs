//! Overview of the broker.

use serde_json::json;

use super::{
    request::Request,
    response::{ApiResponse, Result},
};

/// Version of RabbitMQ that the API is compatible with.
const RABBITMQ_VERSION: &str = "4.0.5";
/// Name of the broker as a cluster node.
pub(super) const NODE: &str = concat!(env!("CARGO_PKG_NAME"), "@localhost");

/// `GET overview`.
pub(super) fn overview(request: &Request<'_>) -> Result {
    let connections = request.broker.open_connections().len();
    let (mut channels, mut consumers, mut exchanges, mut queues) = (0, 0, 0, 0);
    let (mut ready, mut unacked) = (0, 0);
    for (_, vhost) in request.broker.vhosts() {
        let state = vhost.lock();
        channels += state.channels.len();
        consumers += state.consumers.len();
        exchanges += state.exchanges.len();
        queues += state.queues.len();
        ready += state
            .queues
            .values()
            .map(|queue| queue.len())
            .sum::<usize>();
        unacked += state
            .channels
            .values()
            .map(|channel| channel.unsettled().count())
            .sum::<usize>();
    }
    let types = ["direct", "fanout", "headers", "topic"];
    let types = types.map(|name| {
        let description = format!("AMQP {name} exchange, as per the AMQP specification");
        json!({"name": name, "description": description, "enabled": true})
    });
    Ok(ApiResponse::json(json!({
        "management_version": RABBITMQ_VERSION,
        "rabbitmq_version": RABBITMQ_VERSION,
        "product_name": env!("CARGO_PKG_NAME"),
        "product_version": env!("CARGO_PKG_VERSION"),
        "cluster_name": NODE,
        "node": NODE,
        "rates_mode": "none",
        "exchange_types": types,
        "object_totals": {
            "channels": channels,
            "connections": connections,
            "consumers": consumers,
            "exchanges": exchanges,
            "queues": queues,
        },
        "queue_totals": {
            "messages": ready + unacked,
            "messages_ready": ready,
            "messages_unacknowledged": unacked,
        },
    })))
}
