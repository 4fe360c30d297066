//! The management API: the part of RabbitMQ's that tests and small tools use, over HTTP.
//!
//! | | |
//! |---|---|
//! | `overview` `whoami` `users[/U]` | what this is, and who asks |
//! | `vhosts[/V]` `vhosts/V/permissions` `vhosts/V/connections` | virtual hosts: list, make, delete |
//! | `permissions[/V/U]` | every user may do everything; asking for less is refused |
//! | `exchanges[/V[/X]]` `exchanges/V/X/publish` | list, declare, delete, publish |
//! | `queues[/V[/Q]]` `queues/V/Q/contents` `queues/V/Q/get` | list, declare, delete, purge, read |
//! | `bindings[/V]` `bindings/V/e/X/q|e/D[/KEY]` `queues/V/Q/bindings` `exchanges/V/X/bindings/source|destination` | list, make, delete |
//! | `connections[/NAME]` `connections/NAME/channels` `channels` `consumers[/V]` | list, close |
//!
//! Answers have RabbitMQ 3.10's fields, status codes and words. Figures are those of the moment they are asked for. What RabbitMQ
//! measures over time (rates, memory, bytes) is left out, and so are its parameters for pages and columns, and policies.
//! `get` also takes the `requeue` of RabbitMQ before 3.7 in the place of `ackmode`.
//!
//! `route` finds out what a request is about, the files exchange_name after nouns do it, `body` and `json` read and write JSON.

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

/// Most connections at a time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 256;
/// The most bytes of a request's line and headers.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// How long a client may take for the head of its request, and do nothing between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection lives, whatever its client does; one that goes on then has to connect again.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(600);
/// How long an answer that is being sent then may take.
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
                    tracing::warn!(%error, "a client of the management API could not be accepted");
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

/// Serves one client.
async fn serve(stream: TcpStream, broker: &BrokerState) {
    // Answers are written whole: waiting for more would only delay them.
    let _ = stream.set_nodelay(true);
    let service = service_fn(async |request| {
        Ok::<_, Infallible>(route::respond(request, broker).await.into_response())
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        // A client that has sent all it has to say may still wait for the answer.
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
        tracing::debug!(%error, "a connection to the management API ended");
    }
}
