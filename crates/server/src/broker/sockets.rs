//! Making listeners and preparing accepted connections.

use super::options::{BrokerError, Keepalive};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::net::{IpAddr, SocketAddr};

/// Connections that wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
const LISTEN_BACKLOG: i32 = 4096;

/// A listener that does not block. An IPv6 address of all zeros listens for IPv4 as well.
pub(super) fn listen(address: SocketAddr) -> Result<mio::net::TcpListener, BrokerError> {
    bind(address).map_err(|source| BrokerError::Listen { address, source })
}

fn bind(address: SocketAddr) -> std::io::Result<mio::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(mio::net::TcpListener::from_std(socket.into()))
}

/// No Nagle, as a Gearman packet is small and somebody waits for it; probes when wanted. A
/// socket that refuses is used as it is.
pub(super) fn prepare(stream: &mio::net::TcpStream, keepalive: Option<Keepalive>) {
    let socket = SockRef::from(stream);
    let nodelay = socket.set_tcp_nodelay(true);
    let probes = keepalive.map_or(Ok(()), |k| {
        let probes =
            TcpKeepalive::new().with_time(k.idle).with_interval(k.interval).with_retries(k.count);
        socket.set_tcp_keepalive(&probes)
    });
    if let Err(error) = nodelay.and(probes) {
        tracing::debug!(%error, "setting options of a Gearman connection failed");
    }
}

/// The address as geard shows it: IPv4 as IPv4 even when it came through an IPv6 socket.
pub(super) fn address_text(address: IpAddr) -> String {
    address.to_canonical().to_string()
}

/// Use as many descriptors as the system allows at all; 10,000 workers are not unusual.
pub(super) fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "raising the limit of open files failed");
    }
}
