//! The web server of a container: sockets and HTTP. WSGI and routing are in Python, `nameko.web`.

pub(crate) mod body;
mod count;
mod environ;
pub(crate) mod loop_requests;
pub(crate) mod outbox;
pub(crate) mod request;
mod response;
pub(crate) mod routes;
pub(crate) mod server;
pub(crate) mod socket;
