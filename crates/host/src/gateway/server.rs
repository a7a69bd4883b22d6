//! The listener: accepts, counts, and gives each connection a task of its own.

use super::cut_stream::CutStream;
use super::doors::{Doors, Open, OpenRefused, TeGrant};
use super::key::{self, KeyError};
use super::limits::{
    AUTH_ATTEMPTS_MAX, CONNECTIONS_MAX, HANDSHAKE_MAX, IDLE_MAX, KEEPALIVE, KEEPALIVES_MAX,
    PACKET_BYTES, PACKETS_QUEUED_MAX, STRANGERS_MAX, WINDOW_BYTES,
};
use super::session::{Session, Stand};
use russh::keys::PrivateKey;
use russh::{MethodKind, MethodSet, Preferred, SshId, cipher, server};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use toci_core::id::{Generation, TeId};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// File of the gateway's own key in the state folder.
const HOST_KEY_FILE: &str = "ssh_host_ed25519_key";
/// Rejections take at least so long, so that they say nothing by their time.
const REJECTION: Duration = Duration::from_millis(100);
/// Pause after an `accept` that failed: there may be no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The address is taken or not there.
    #[error("listen on {address} for the gateway")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The host key.
    #[error("the gateway's host key")]
    HostKey(#[from] KeyError),
    /// The host key cannot be shown.
    #[error("encode the gateway's host key")]
    Encode(#[source] russh::keys::ssh_key::Error),
}

/// How the gateway is set up.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Where it listens: the TE host's address on `br-ctlplane`, port 22. Port 0 picks one.
    pub address: SocketAddr,
    /// The host's state folder; the gateway keeps its host key there, mode 0600.
    pub state: PathBuf,
    /// User names that are let in with a lease's key; the key alone decides the TE. `ssh-user` of the
    /// TE JSON must be one of them.
    pub users: Vec<String>,
}

impl GatewayConfig {
    /// With the origin's user, `root`, and the seed documents' `stack`.
    #[must_use]
    pub fn new(address: SocketAddr, state: &Path) -> GatewayConfig {
        let users = vec!["root".to_owned(), "stack".to_owned()];
        GatewayConfig { address, state: state.to_owned(), users }
    }
}

/// What every session sees.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) doors: Doors,
    pub(super) users: Vec<String>,
    strangers: Mutex<VecDeque<(u64, CancellationToken)>>,
    /// Connections of holders with channels.
    busy: watch::Sender<usize>,
}

/// The gateway of a TE host. Dropping it stops it without waiting; see [`Gateway::shut_down`].
#[derive(Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
    address: SocketAddr,
    host_key: String,
    stop: CancellationToken,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Gateway {
    /// Listens. No key opens anything yet.
    pub async fn start(config: GatewayConfig) -> Result<Gateway, GatewayError> {
        let key = key::host_key(&config.state.join(HOST_KEY_FILE))?;
        let host_key = key.public_key().to_openssh().map_err(GatewayError::Encode)?;
        let listen = |source| GatewayError::Listen { address: config.address, source };
        let listener = TcpListener::bind(config.address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let shared = Arc::new(Shared {
            doors: Doors::default(),
            users: config.users,
            strangers: Mutex::new(VecDeque::new()),
            busy: watch::Sender::new(0),
        });
        let stop = CancellationToken::new();
        let accepting =
            accept(listener, Arc::new(ssh_config(key)), Arc::clone(&shared), stop.clone());
        tokio::spawn(accepting);
        tracing::info!(%address, "gateway listens");
        Ok(Gateway { shared, address, host_key, stop })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The public host key, as in `known_hosts` without the name: `gateway.host_key` of the TE JSON.
    #[must_use]
    pub fn host_key(&self) -> &str {
        &self.host_key
    }

    /// Opens a TE to its lease's key. Again with the same generation and key: moves the expiry. With a
    /// newer generation: cuts the older one first. An older one is refused.
    pub async fn open(&self, grant: TeGrant) -> Result<(), OpenRefused> {
        if let Some(open) = self.shared.doors.open(grant).await? {
            tracing::info!(te = %open.grant.te, generation = %open.grant.generation,
                lease = %open.grant.lease, "gateway opened");
            tokio::spawn(expire(Arc::clone(&self.shared), open));
        }
        Ok(())
    }

    /// Shuts a TE for this generation and everything older, for good: sessions are cut, TCP is dropped,
    /// and nothing that they began is still under way when this returns. Safe to call again.
    pub async fn close(&self, te: &TeId, generation: Generation) {
        self.shared.doors.close(te, generation).await;
        tracing::info!(%te, %generation, "gateway shut");
    }

    /// Waits for a moment in which no holder runs a command.
    pub async fn quiet(&self) {
        // The sender lives as long as this gateway.
        let _ = self.shared.busy.subscribe().wait_for(|connections| *connections == 0).await;
    }

    /// Stops listening and shuts every TE.
    pub async fn shut_down(self) {
        self.stop.cancel();
        self.shared.doors.close_all().await;
    }
}

/// Shuts a door when its time is over.
async fn expire(shared: Arc<Shared>, open: Arc<Open>) {
    let mut expires = open.expires.subscribe();
    loop {
        let at = *expires.borrow_and_update();
        tokio::select! {
            () = open.shut.cancelled() => return,
            () = tokio::time::sleep_until(at) => {
                // It may have been moved in this very moment.
                if !open.is_open() {
                    break;
                }
            }
            moved = expires.changed() => {
                if moved.is_err() {
                    return;
                }
            }
        }
    }
    tracing::warn!(te = %open.grant.te, generation = %open.grant.generation, "lease expired");
    shared.doors.close(&open.grant.te, open.grant.generation).await;
}

fn ssh_config(key: PrivateKey) -> server::Config {
    server::Config {
        server_id: SshId::Standard(Cow::Borrowed("SSH-2.0-toci")),
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        auth_rejection_time: REJECTION,
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![key],
        window_size: WINDOW_BYTES,
        maximum_packet_size: PACKET_BYTES,
        channel_buffer_size: PACKETS_QUEUED_MAX,
        preferred: Preferred { cipher: Cow::Borrowed(CIPHERS), ..Preferred::DEFAULT },
        max_auth_attempts: AUTH_ATTEMPTS_MAX,
        // Idleness is judged by `supervise`, which knows whether a command runs.
        inactivity_timeout: None,
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: KEEPALIVES_MAX,
        nodelay: true,
        ..server::Config::default()
    }
}

/// The client's order decides. CTR is for Paramiko as Nova and Ironic used it.
const CIPHERS: &[cipher::Name] = &[
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_128_CTR,
    cipher::AES_192_CTR,
    cipher::AES_256_CTR,
];

async fn accept(
    listener: TcpListener,
    config: Arc<server::Config>,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut number = 0u64;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            a = listener.accept() => a,
        };
        let (stream, peer) = match accepted {
            Ok(a) => a,
            Err(error) => {
                tracing::warn!(%error, "gateway cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            tracing::warn!(%peer, limit = CONNECTIONS_MAX, "gateway is full; connection dropped");
            continue;
        };
        number += 1;
        let cut = stop.child_token();
        shared.stranger_came(number, cut.clone());
        let (config, shared) = (Arc::clone(&config), Arc::clone(&shared));
        tokio::spawn(async move {
            supervise(stream, peer, config, &shared, number, cut).await;
            shared.stranger_left(number);
            drop(slot);
        });
    }
}

impl Shared {
    fn stranger_came(&self, number: u64, cut: CancellationToken) {
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        strangers.push_back((number, cut));
        if strangers.len() > STRANGERS_MAX
            && let Some((oldest, cut)) = strangers.pop_front()
        {
            tracing::warn!(connection = oldest, limit = STRANGERS_MAX, "too many strangers");
            cut.cancel();
        }
    }

    /// It has proved a key, or is gone.
    fn stranger_left(&self, number: u64) {
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        strangers.retain(|(n, _)| *n != number);
    }
}

/// Whether a connection counts among the busy ones.
struct Busy<'a> {
    counter: &'a watch::Sender<usize>,
    is_counted: bool,
}

impl Busy<'_> {
    fn set(&mut self, is_busy: bool) {
        if self.is_counted != is_busy {
            self.is_counted = is_busy;
            self.counter.send_modify(|n| *n = if is_busy { *n + 1 } else { n.saturating_sub(1) });
        }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.set(false);
    }
}

/// Runs one connection and cuts it when it must end. A panic in its task ends only this connection.
async fn supervise(
    stream: TcpStream,
    peer: SocketAddr,
    config: Arc<server::Config>,
    shared: &Arc<Shared>,
    number: u64,
    cut: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let deadline = Instant::now() + HANDSHAKE_MAX;
    let (tell, mut stand) = watch::channel(Stand::Stranger);
    let session = Session::new(Arc::clone(shared), peer, tell);
    let stream = CutStream::new(stream, cut.clone());
    let greeted = tokio::time::timeout_at(deadline, server::run_stream(config, stream, session));
    let Ok(Ok(mut running)) = greeted.await else { return };
    let mut busy = Busy { counter: &shared.busy, is_counted: false };
    loop {
        let now = stand.borrow_and_update().clone();
        busy.set(matches!(now, Stand::Busy { .. }));
        let (until, shut) = match &now {
            Stand::Stranger => (Some(deadline), None),
            Stand::Idle { since, open } => (Some(*since + IDLE_MAX), Some(open.shut.clone())),
            Stand::Busy { open, .. } => (None, Some(open.shut.clone())),
        };
        if !matches!(now, Stand::Stranger) {
            shared.stranger_left(number);
        }
        let over = async {
            match until {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let shut = async {
            match shut {
                Some(token) => token.cancelled_owned().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = &mut running => {
                tracing::debug!(%peer, error = ?ended.err(), "connection ended");
                return;
            }
            () = over => break,
            () = shut => break,
            changed = stand.changed() => if changed.is_err() { break },
        }
    }
    cut.cancel();
    let _ = running.await;
}
