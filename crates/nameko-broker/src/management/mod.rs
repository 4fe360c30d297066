//! The management API: the subset of RabbitMQ's HTTP API that tests and small tools use.
//!
//! | routes | operations |
//! |---|---|
//! | `overview`, `whoami`, `users[/U]` | broker, current user, users |
//! | `vhosts[/V]`, `vhosts/V/permissions`, `vhosts/V/connections` | list, create, delete |
//! | `permissions[/V/U]` | all users have all permissions; less is refused |
//! | `exchanges[/V[/X]]`, `exchanges/V/X/publish` | list, declare, delete, publish |
//! | `queues[/V[/Q]]` | list, declare, delete |
//! | `queues/V/Q/contents`, `queues/V/Q/get` | purge, get |
//! | `bindings[/V]`, `bindings/V/e/X/q\|e/D[/KEY]` | list, create, delete |
//! | `queues/V/Q/bindings`, `exchanges/V/X/bindings/source\|destination` | list |
//! | `connections[/NAME]`, `connections/NAME/channels`, `channels`, `consumers[/V]` | list, close |
//!
//! Responses have the fields, status codes and texts of RabbitMQ 4.0. Numbers are current values.
//! Not supported: statistics over time (rates, memory, bytes), parameters for pages and columns,
//! policies. `get` also accepts `requeue` of RabbitMQ before 3.7 instead of `ackmode`.
//!
//! `route` dispatches requests to the files named after nouns; `body` and `json` convert JSON.

mod bindings;
mod body;
mod connections;
mod exchanges;
mod json;
mod messages;
mod overview;
mod queues;
mod request;
mod response;
mod route;
mod vhosts;

use std::{convert::Infallible, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{broker_state::BrokerState, sync::stopped};

/// Maximum number of concurrent connections; others wait to be accepted.
const MAX_CONNECTIONS: usize = 256;
/// Maximum size of a request's head.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Time limit of a request's head, and idle timeout between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Lifetime of a connection; after it, a client has to reconnect.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(600);
/// Time limit of the response in progress at the end of the lifetime.
const FINAL_RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves the API until the broker stops.
pub(crate) async fn run(
    listener: TcpListener,
    broker: Arc<BrokerState>,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            let place = places.clone().acquire_owned().await;
            (listener.accept().await, place)
        };
        tokio::select! {
            (accepted, place) = accepted => match accepted {
                Ok((stream, _)) => {
                    let broker = broker.clone();
                    connections.spawn(async move {
                        serve(stream, &broker).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection to the management API");
                    sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = stopped(&mut stop) => break,
        }
    }
    drop(listener);
    connections.shutdown().await;
}

/// Serves one connection.
async fn serve(stream: TcpStream, broker: &BrokerState) {
    // Responses are written as a whole and must not be delayed.
    let _ = stream.set_nodelay(true);
    let service = service_fn(async |request| {
        Ok::<_, Infallible>(route::respond(request, broker).await.into_response())
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        // A client may shut down its writing side and still wait for the response.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = match timeout(CONNECTION_LIFETIME, connection.as_mut()).await {
        Ok(ended) => ended,
        Err(_) => {
            connection.as_mut().graceful_shutdown();
            timeout(FINAL_RESPONSE_TIMEOUT, connection)
                .await
                .unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "management API connection failed");
    }
}
