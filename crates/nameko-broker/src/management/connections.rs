//! Connections, channels and consumers: list, close.

use std::{collections::HashMap, time::Duration};

use serde_json::{Value, json};
use tokio::time::timeout;

use super::{
    json::table_to_json,
    overview::NODE,
    request::Request,
    response::{ApiResponse, Result},
};
use crate::{
    broker_state::BrokerState,
    channel_consumers::ChannelConsumers,
    connection_info::ConnectionInfo,
    ids::{ChannelId, ConnectionId, ConsumerId},
    vhost::VHostState,
};

/// Time that a request waits for a connection to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Open connections by id.
#[derive(Debug)]
pub(super) struct ConnectionIndex(HashMap<ConnectionId, ConnectionInfo>);

/// Handles `GET connections` and `GET vhosts/V/connections`.
pub(super) fn list(request: &Request<'_>, only: Option<&str>) -> Result {
    if only.is_some_and(|name| request.broker.vhost(name).is_none()) {
        return Err(ApiResponse::not_found());
    }
    let clients = request.broker.open_connections().into_iter();
    let list: Vec<Value> = clients
        .filter(|client| {
            let vhost = client.session.as_ref().map(|session| &*session.vhost);
            only.is_none() || vhost == only
        })
        .map(|client| describe(&client, request.broker))
        .collect();
    Ok(ApiResponse::json(list.into()))
}

/// `GET connections/NAME`.
pub(super) fn get(request: &Request<'_>, name: &str) -> Result {
    let client = find(request.broker, name)?;
    Ok(ApiResponse::json(describe(&client, request.broker)))
}

/// `DELETE connections/NAME`: closes the connection with 320 CONNECTION_FORCED.
pub(super) async fn delete(request: &Request<'_>, name: &str) -> Result {
    let client = find(request.broker, name)?;
    let reason = request
        .header("x-reason")
        .unwrap_or("Closed via management plugin");
    client.send_buffer.force_close(reason);
    // Waits until its resources are released.
    let gone = async {
        loop {
            let ended = request.broker.connection_ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if !request.broker.is_open(client.send_buffer.connection) {
                return;
            }
            ended.await;
        }
    };
    if timeout(CLOSE_TIMEOUT, gone).await.is_err() {
        tracing::debug!(name, "connection did not close in time");
    }
    Ok(ApiResponse::no_content())
}

/// Handles `GET channels` and `GET connections/NAME/channels`.
pub(super) fn channels(request: &Request<'_>, of: Option<&str>) -> Result {
    let only = of.map(|name| find(request.broker, name)).transpose()?;
    let names = ConnectionIndex::new(request.broker);
    let mut list = Vec::new();
    for (_, vhost) in request.broker.vhosts() {
        let state = vhost.lock();
        let mut channels: Vec<(&ChannelId, &ChannelConsumers)> = state
            .channels
            .iter()
            .filter(|(_, channel)| {
                let connection = channel.send_buffer.connection;
                only.as_ref()
                    .is_none_or(|only| only.send_buffer.connection == connection)
            })
            .collect();
        channels.sort_unstable_by_key(|(id, _)| id.0);
        let channels = channels.into_iter();
        list.extend(channels.map(|(_, channel)| names.channel(channel, &state)));
    }
    Ok(ApiResponse::json(list.into()))
}

/// Handles `GET consumers` and `GET consumers/V`.
pub(super) fn consumers(request: &Request<'_>, only: Option<&str>) -> Result {
    let names = ConnectionIndex::new(request.broker);
    let mut list: Vec<Value> = Vec::new();
    let mut found = only.is_none();
    for (name, vhost) in request.broker.vhosts() {
        if only.is_none_or(|only| only == name) {
            found = true;
            let state = vhost.lock();
            let mut ids: Vec<ConsumerId> = state.consumers.keys().copied().collect();
            ids.sort_unstable_by_key(|id| id.0);
            let ids = ids.into_iter();
            list.extend(ids.filter_map(|id| names.consumer(id, &state)));
        }
    }
    match found {
        true => Ok(ApiResponse::json(list.into())),
        false => Err(ApiResponse::not_found()),
    }
}

impl ConnectionIndex {
    pub(super) fn new(broker: &BrokerState) -> Self {
        let clients = broker.open_connections().into_iter();
        Self(
            clients
                .map(|info| (info.send_buffer.connection, info))
                .collect(),
        )
    }

    /// Describes a connection as a nested object.
    pub(super) fn connection(&self, id: ConnectionId) -> Value {
        let client = self.0.get(&id);
        let peer = client.and_then(|info| info.addrs).map(|(peer, _)| peer);
        json!({
            "name": client.map(ConnectionInfo::name),
            "peer_host": peer.map(|addr| addr.ip().to_string()),
            "peer_port": peer.map(|addr| addr.port()),
        })
    }

    /// Describes a consumer; `None` if it no longer exists.
    pub(super) fn consumer(&self, id: ConsumerId, state: &VHostState) -> Option<Value> {
        let consumer = state.consumers.get(&id)?;
        let queue = state.queues.get(&consumer.queue)?;
        let channel = state.channels.get(&consumer.channel)?;
        let client = self.0.get(&channel.send_buffer.connection);
        let name = client.map(ConnectionInfo::name);
        let peer = client.and_then(|info| info.addrs).map(|(peer, _)| peer);
        let active = !queue.arguments.single_active || queue.active_consumer == Some(id);
        Some(json!({
            "consumer_tag": &*consumer.tag,
            "queue": {"name": &*queue.name, "vhost": &*state.name},
            "ack_required": !consumer.no_ack,
            "exclusive": queue.exclusive_consumer == Some(id),
            "prefetch_count": consumer.prefetch,
            "active": active,
            "activity_status": if active { "up" } else { "waiting" },
            "channel_details": {
                "name": channel_name(name.as_deref(), channel),
                "number": channel.number,
                "connection_name": name,
                "peer_host": peer.map(|addr| addr.ip().to_string()),
                "peer_port": peer.map(|addr| addr.port()),
                "user": client.and_then(ConnectionInfo::user),
                "node": NODE,
            },
        }))
    }

    fn channel(&self, channel: &ChannelConsumers, state: &VHostState) -> Value {
        let connection = channel.send_buffer.connection;
        let client = self.0.get(&connection);
        let name = client.map(ConnectionInfo::name);
        let transaction = channel.transaction.as_ref();
        json!({
            "name": channel_name(name.as_deref(), channel),
            "number": channel.number,
            "vhost": &*state.name,
            "user": client.and_then(ConnectionInfo::user),
            "node": NODE,
            "state": "running",
            "connection_details": self.connection(connection),
            "consumer_count": channel.consumers.len(),
            "prefetch_count": channel.consumer_prefetch,
            "global_prefetch_count": channel.global_prefetch,
            "messages_unacknowledged": channel.unacked.len(),
            "transactional": transaction.is_some(),
            "messages_uncommitted": transaction.map_or(0, |open| open.publishes.len()),
            "acks_uncommitted": transaction.map_or(0, |open| open.settled().count()),
        })
    }
}

fn channel_name(connection: Option<&str>, channel: &ChannelConsumers) -> String {
    format!("{} ({})", connection.unwrap_or_default(), channel.number)
}

fn find(broker: &BrokerState, name: &str) -> Result<ConnectionInfo> {
    let mut clients = broker.open_connections().into_iter();
    clients
        .find(|client| client.name() == name)
        .ok_or_else(ApiResponse::not_found)
}

fn describe(client: &ConnectionInfo, broker: &BrokerState) -> Value {
    let Some(session) = &client.session else {
        return Value::Null;
    };
    let (peer, local) = client.addrs.unzip();
    let channels = broker.vhost(&session.vhost).map_or(0, |vhost| {
        let state = vhost.lock();
        let own = state.channels.values();
        own.filter(|channel| channel.send_buffer.connection == client.send_buffer.connection)
            .count()
    });
    let at = session.opened_at.duration_since(std::time::UNIX_EPOCH);
    let properties = table_to_json(&session.properties);
    json!({
        "name": client.name(),
        "user_provided_name": properties.get("connection_name"),
        "vhost": session.vhost,
        "user": session.user,
        "user_who_performed_action": session.user,
        "auth_mechanism": session.mechanism,
        "client_properties": properties,
        "connected_at": at.map_or(0, |since| since.as_millis() as u64),
        "channels": channels,
        "channel_max": session.channel_max,
        "frame_max": session.frame_max,
        "timeout": session.heartbeat,
        "host": local.map(|addr| addr.ip().to_string()),
        "port": local.map(|addr| addr.port()),
        "peer_host": peer.map(|addr| addr.ip().to_string()),
        "peer_port": peer.map(|addr| addr.port()),
        "protocol": "AMQP 0-9-1",
        "type": "network",
        "ssl": client.tls,
        "state": "running",
        "node": NODE,
    })
}
