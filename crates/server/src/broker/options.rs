//! What the broker's listener is told at its start, and what may go wrong then.

use super::tls::TlsError;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use toci_core::broker::{Acl, Settings};

/// The port of the protocol.
pub const GEARMAN_PORT: u16 = 4730;
/// Connections at most, unless configured otherwise.
pub const CONNECTIONS_MAX: usize = 50_000;
/// Bytes that may wait for a slow reader beside the message that is being added. More, and the
/// connection is cut.
pub const OUTPUT_MAX_BYTES: usize = 16 << 20;
/// Bytes of half received packets over all connections. More, and the connection that holds the
/// most of them is cut.
pub const INPUT_TOTAL_MAX_BYTES: usize = 2 << 30;
/// Bytes that wait for slow readers over all connections, and again over those that are being
/// closed. More, and the connection that holds the most of them is cut.
pub const OUTPUT_TOTAL_MAX_BYTES: usize = 2 << 30;
/// How long a TLS handshake may take.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// How long a connection that is being closed may take to fetch its last bytes.
pub const LINGER_LIMIT: Duration = Duration::from_secs(5);

/// TCP keepalive, in geard's terms and with its defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Unanswered probes after which the connection is lost.
    pub count: u32,
}

impl Default for Keepalive {
    fn default() -> Self {
        Keepalive { idle: Duration::from_secs(7200), interval: Duration::from_secs(75), count: 9 }
    }
}

/// Where certificates lie. All three are needed, and clients must show one of the CA's.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Certificates that client certificates must descend from, PEM.
    pub ca: PathBuf,
    /// The server's certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

/// Where figures go, in geard's terms (origin.md 1.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsdTarget {
    /// Host and port, e.g. `127.0.0.1:8125`.
    pub address: String,
    /// Put before each name, with a dot; may be empty.
    pub prefix: String,
}

/// All of it.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    /// Where to listen; several are possible, none is for tests of the inside.
    pub listen: Vec<SocketAddr>,
    /// Behaviour and limits of the broker itself.
    pub settings: Settings,
    /// Rights by certificate name; without a list everybody may everything.
    pub acl: Option<Acl>,
    /// TLS with client certificates on all listening addresses.
    pub tls: Option<TlsFiles>,
    /// Probe silent connections. On by default, as dead workers count as live otherwise.
    pub keepalive: Option<Keepalive>,
    /// Where figures go.
    pub statsd: Option<StatsdTarget>,
    /// Connections at most.
    pub connections_max: usize,
    /// Largest packet that a peer may send, in bytes.
    pub packet_max_bytes: usize,
    /// See [`OUTPUT_MAX_BYTES`].
    pub output_max_bytes: usize,
    /// See [`INPUT_TOTAL_MAX_BYTES`].
    pub input_total_max_bytes: usize,
    /// See [`OUTPUT_TOTAL_MAX_BYTES`].
    pub output_total_max_bytes: usize,
}

impl BrokerOptions {
    /// Listen at `listen` with all defaults: geard's behaviour, no TLS, no ACL.
    #[must_use]
    pub fn new(listen: SocketAddr) -> BrokerOptions {
        BrokerOptions {
            listen: vec![listen],
            settings: Settings::geard(),
            acl: None,
            tls: None,
            keepalive: Some(Keepalive::default()),
            statsd: None,
            connections_max: CONNECTIONS_MAX,
            packet_max_bytes: toci_wire::gearman::PACKET_MAX_BYTES,
            output_max_bytes: OUTPUT_MAX_BYTES,
            input_total_max_bytes: INPUT_TOTAL_MAX_BYTES,
            output_total_max_bytes: OUTPUT_TOTAL_MAX_BYTES,
        }
    }
}

/// Why the broker did not start or has stopped.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The address is taken, not ours, or below 1024 without the right.
    #[error("listening for Gearman at {address} failed")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
    /// A certificate or key cannot be used.
    #[error("setting up TLS for Gearman failed")]
    Tls(#[from] TlsError),
    /// The statsd address does not resolve.
    #[error("statsd target {address} cannot be reached")]
    Statsd {
        /// The address.
        address: String,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
    /// epoll or the thread failed.
    #[error("running the Gearman broker failed: {operation}")]
    System {
        /// What was done.
        operation: &'static str,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
    /// The broker's thread panicked: a bug.
    #[error("the Gearman broker's thread panicked")]
    Panicked,
}
