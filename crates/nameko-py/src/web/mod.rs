//! The web server of a container: sockets and HTTP here, WSGI and routing in `nameko.web`.

pub(crate) mod body;
mod environ;
pub(crate) mod request;
mod response;
pub(crate) mod server;
pub(crate) mod socket;
