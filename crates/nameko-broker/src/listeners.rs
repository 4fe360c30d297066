//! The sockets that a broker listens on.

use std::{
    io::{self, ErrorKind},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::net::{TcpListener, ToSocketAddrs, lookup_host};

/// Attempts to find a port that is free at all addresses.
const MAX_PORT_ATTEMPTS: u32 = 10;

/// Returns the addresses of a host name, for [`Broker::start`](crate::Broker::start). `localhost`
/// is both `127.0.0.1` and `::1`, even if the system's resolver knows only one of them.
///
/// # Errors
///
/// If the name cannot be resolved.
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(vec![
            (Ipv4Addr::LOCALHOST, port).into(),
            (Ipv6Addr::LOCALHOST, port).into(),
        ]);
    }
    Ok(lookup_host((host, port)).await?.collect())
}

/// Listens on all addresses of `addr`, IPv4 first. Port 0 selects one port that is free at all.
///
/// # Errors
///
/// If an address is in use or not permitted, or none exists on this machine.
pub(crate) async fn bind(
    addr: impl ToSocketAddrs,
) -> io::Result<(Vec<TcpListener>, Vec<SocketAddr>)> {
    let mut addrs: Vec<SocketAddr> = lookup_host(addr).await?.collect();
    addrs.sort_by_key(SocketAddr::is_ipv6);
    addrs.dedup();
    let selects_port = addrs.first().is_some_and(|addr| addr.port() == 0);
    let mut attempts = 1;
    loop {
        match bind_each(&addrs).await {
            Err(error)
                if selects_port
                    && error.kind() == ErrorKind::AddrInUse
                    && attempts < MAX_PORT_ATTEMPTS =>
            {
                attempts += 1;
            }
            result => return result,
        }
    }
}

async fn bind_each(addrs: &[SocketAddr]) -> io::Result<(Vec<TcpListener>, Vec<SocketAddr>)> {
    let mut listeners = Vec::new();
    let mut bound: Vec<SocketAddr> = Vec::new();
    let mut missing = None;
    for addr in addrs {
        let mut addr = *addr;
        if addr.port() == 0
            && let Some(first) = bound.first()
        {
            addr.set_port(first.port());
        }
        // On Unix this sets SO_REUSEADDR, so the port of a stopped broker can be reused at once.
        match TcpListener::bind(addr).await {
            Ok(listener) => {
                bound.push(listener.local_addr()?);
                listeners.push(listener);
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::AddrInUse | ErrorKind::PermissionDenied
                ) =>
            {
                return Err(error);
            }
            // A name may have an address of a family that this machine does without.
            Err(error) => missing = Some(error),
        }
    }
    match missing {
        Some(error) if listeners.is_empty() => Err(error),
        _ if listeners.is_empty() => Err(io::Error::new(
            ErrorKind::InvalidInput,
            "the host has no address",
        )),
        _ => Ok((listeners, bound)),
    }
}
