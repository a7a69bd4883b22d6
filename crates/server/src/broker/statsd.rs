//! Figures for statsd (origin.md 1.9): a timing and a counter a packet, and four gauges.

use super::options::{BrokerError, StatsdTarget};
use std::fmt::Write;
use std::net::UdpSocket;
use std::time::Duration;
use toci_core::broker::Figures;

/// Largest datagram, in bytes: fits an Ethernet frame.
const DATAGRAM_MAX_BYTES: usize = 1400;

/// Collects lines and sends them in few datagrams. Nobody waits for statsd: what cannot be sent
/// is lost.
pub(super) struct Statsd {
    socket: UdpSocket,
    prefix: String,
    lines: String,
    last: Option<Figures>,
}

impl Statsd {
    pub(super) fn new(target: &StatsdTarget) -> Result<Statsd, BrokerError> {
        let failed = |source| BrokerError::Statsd { address: target.address.clone(), source };
        let address = std::net::ToSocketAddrs::to_socket_addrs(&target.address)
            .map_err(failed)?
            .next()
            .ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
        let from = if address.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(from).map_err(failed)?;
        socket.connect(address).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        let mut prefix = target.prefix.trim_end_matches('.').to_owned();
        if !prefix.is_empty() {
            prefix.push('.');
        }
        Ok(Statsd { socket, prefix, lines: String::new(), last: None })
    }

    fn line(&mut self, arguments: std::fmt::Arguments<'_>) {
        let before = self.lines.len();
        if before > 0 {
            self.lines.push('\n');
        }
        let written = write!(self.lines, "{}{arguments}", self.prefix);
        debug_assert!(written.is_ok(), "writing to memory does not fail");
        if self.lines.len() > DATAGRAM_MAX_BYTES {
            let line = self.lines.split_off(before);
            self.send();
            self.lines.push_str(line.trim_start_matches('\n'));
        }
    }

    /// A packet was handled in that time.
    pub(super) fn packet(&mut self, name: &str, took: Duration) {
        self.line(format_args!("packet.{name}:{:.3}|ms", took.as_secs_f64() * 1000.0));
        self.line(format_args!("packet.{name}:1|c"));
    }

    /// Send what has been collected, with the gauges when they have changed.
    pub(super) fn flush(&mut self, figures: Figures) {
        if self.last != Some(figures) {
            self.last = Some(figures);
            self.line(format_args!("queue.total:{}|g", figures.total));
            self.line(format_args!("queue.running:{}|g", figures.running));
            self.line(format_args!("queue.waiting:{}|g", figures.waiting));
            self.line(format_args!("workers:{}|g", figures.workers));
        }
        self.send();
    }

    fn send(&mut self) {
        if !self.lines.is_empty() {
            if let Err(error) = self.socket.send(self.lines.as_bytes()) {
                tracing::trace!(%error, "sending figures to statsd failed");
            }
            self.lines.clear();
        }
    }
}
