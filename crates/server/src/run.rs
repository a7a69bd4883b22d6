//! The whole server: store, lease book, broker, API; from start to stop.

use crate::api::{Api, router};
use crate::auth::{Auth, TokenError};
use crate::broker::{self, AclFileError, BrokerError, BrokerHandle, BrokerServer};
use crate::config::{GateConfig, GearmanConfig, NodeConfig, Origin, ServerConfig};
use crate::gate::{GateParts, GateStartError, Neighbours};
use crate::listen::{ListenError, Listeners};
use crate::lockenv::Lockenv;
use crate::metrics::Metrics;
use crate::relay::Relay;
use crate::tasks::lease::{BookError, LeaseBook};
use crate::tasks::log::{LogError, LogStore};
use crate::tasks::node::NodePool;
use crate::tasks::run::Collection;
use crate::testnet::{self, TestnetError};
use futures_util::future::BoxFuture;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use toci_store::{Store, StoreError};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// How long calls may take to end when the server stops.
pub const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// How often the broker is asked whether it lives.
const BROKER_LOOK_EVERY: Duration = Duration::from_secs(2);

/// Why the server did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The state folder.
    #[error("make the state folder {path}")]
    State {
        /// The folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The database.
    #[error("open the store")]
    Store(#[from] StoreError),
    /// The lease book.
    #[error("read the lease book")]
    Book(#[from] BookError),
    /// The operator's token.
    #[error("make the operator's token")]
    Token(#[from] TokenError),
    /// The log archive.
    #[error("start the log archive")]
    Logs(#[from] LogError),
    /// The API's listeners.
    #[error("open the API")]
    Listen(#[from] ListenError),
    /// The ACL of the broker.
    #[error("read the Gearman ACL")]
    Acl(#[from] AclFileError),
    /// The broker.
    #[error("run the Gearman broker")]
    Broker(#[from] BrokerError),
    /// The gate.
    #[error("start the gate")]
    Gate(#[from] GateStartError),
    /// The test network.
    #[error("look after the test network")]
    Testnet(#[from] TestnetError),
    /// Signals.
    #[error("listen to signals")]
    Signal(#[source] io::Error),
    /// Another server has taken the lease book over.
    #[error("another server has taken the lease book over; this one may no longer decide")]
    TakenOver,
    /// A part of the server ended by itself: a bug.
    #[error("{0} ended unexpectedly")]
    Died(&'static str),
}

impl ServerError {
    /// What to do next, for people.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = next {
            let store = error.downcast_ref::<Arc<StoreError>>().map(AsRef::as_ref);
            let store = store.or_else(|| error.downcast_ref());
            let full = matches!(store, Some(StoreError::DiskFull { .. }))
                || error.downcast_ref().map(io::Error::kind) == Some(io::ErrorKind::StorageFull);
            if full {
                return "free space there and start it again: nothing granted is lost";
            }
            next = error.source();
        }
        "is the address free, and the state folder writable?"
    }
}

/// A server that serves.
#[derive(Debug)]
pub struct Running {
    /// Where the API listens.
    pub api: Vec<SocketAddr>,
    /// The API's unix socket.
    pub socket: PathBuf,
    /// Where the broker listens.
    pub gearman: Vec<SocketAddr>,
    /// The operator's token, written at the first start.
    pub admin_token_file: PathBuf,
    book: LeaseBook,
    store: Store,
    gate: Option<Arc<GateParts>>,
    /// Notified when somebody wants it to exit gracefully.
    exit: Arc<Notify>,
    stopping: watch::Sender<bool>,
    http: JoinHandle<()>,
    lockenv: Option<JoinHandle<()>>,
    broker: Option<BrokerServer>,
}

/// Runs the server until SIGTERM or SIGINT, which end it at once, or SIGUSR1 or an operator's word over the API, which
/// end it when what runs is over. In each case queues and what waits stay in the store, and the next server goes on with
/// them. SIGHUP reads settings and layout anew.
pub async fn run(config: ServerConfig) -> Result<(), ServerError> {
    let on = |kind| signal(kind).map_err(ServerError::Signal);
    let mut terminate = on(SignalKind::terminate())?;
    let mut interrupt = on(SignalKind::interrupt())?;
    let mut graceful = on(SignalKind::user_defined1())?;
    let mut hangup = on(SignalKind::hangup())?;
    let tls = config.api.tls.is_some();
    let origin = config.origin.clone();
    let mut running = start(config).await?;
    running.announce(tls);
    let exit = Arc::clone(&running.exit);
    let mut drained: Option<BoxFuture<'static, ()>> = None;
    let ended = loop {
        tokio::select! {
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            _ = graceful.recv(), if drained.is_none() => drained = Some(running.drain()),
            () = exit.notified(), if drained.is_none() => drained = Some(running.drain()),
            () = all_over(&mut drained) => break Ok(()),
            _ = hangup.recv() => running.read_again(&origin).await,
            error = running.ended() => break Err(error),
        }
    };
    tracing::info!("stopping");
    let stopped = running.stop().await;
    ended.and(stopped)
}

/// Starts the server; when this returns, it serves. One that does not start leaves its database to others.
pub async fn start(config: ServerConfig) -> Result<Running, ServerError> {
    make_state(&config.state)?;
    let store = Store::open(&config.database).await?;
    let started = start_on(store.clone(), config).await;
    if started.is_err() {
        store.close().await;
    }
    started
}

async fn start_on(store: Store, mut config: ServerConfig) -> Result<Running, ServerError> {
    let auth = Auth::new(store.clone());
    let admin_token_file = config.state.join("admin.token");
    auth.ensure_admin(&admin_token_file).await?;
    let book = LeaseBook::start(store.clone(), config.lease.clone()).await?;
    // Whoever comes before it serves waits a moment.
    let listeners = listen(&mut config).await?;
    let (relay, metrics): (Arc<Relay>, Arc<Metrics>) = Default::default();
    let logs = LogStore::open(&config.logs, store.clone()).await?;
    let nodes = start_nodes(config.nodes, &store).await?;
    let (stopping, watched) = watch::channel(false);
    let testnet = testnet::start(config.testnet, &book, &watched)?;
    let broker = start_broker(config.gearman)?;
    let neighbours = Neighbours {
        book: book.clone(),
        lease_max: config.lease.lease_max,
        hold_max: config.lease.hold_max,
        nodes: nodes.clone(),
        logs: logs.clone(),
        collection: Collection::of(config.logs.collect, &book, &relay),
        run: config.run,
        smtp: config.smtp,
        webhook: config.webhook,
    };
    let (gate, broker) = open(config.gate, neighbours, &store, broker).await?;
    let exit = Arc::<Notify>::default();
    let api = Arc::new(Api {
        book: book.clone(),
        store: store.clone(),
        auth,
        relay,
        metrics: metrics.clone(),
        broker: broker.handle(),
        gate: gate.clone(),
        logs,
        nodes,
        testnet,
        exit: exit.clone(),
        stopping: watched.clone(),
    });
    let (api_addresses, socket) = (listeners.addresses.clone(), listeners.socket.clone());
    let lockenv = config.lockenv.map(|options| {
        let lockenv = Lockenv {
            book: book.clone(),
            broker: broker.handle(),
            metrics,
            options,
            lease_max: config.lease.lease_max,
            stopping: watched.clone(),
        };
        tokio::spawn(lockenv.run())
    });
    let http = tokio::spawn(listeners.serve(api.clone(), router(api), watched, SHUTDOWN_LIMIT));
    Ok(Running {
        api: api_addresses,
        socket,
        gearman: broker.addresses().to_vec(),
        admin_token_file,
        book,
        store,
        gate,
        exit,
        stopping,
        http,
        lockenv,
        broker: Some(broker),
    })
}

async fn start_nodes(
    config: Option<NodeConfig>,
    store: &Store,
) -> Result<Option<NodePool>, StoreError> {
    match config {
        Some(config) => Ok(Some(NodePool::start(store.clone(), config.parts()).await?)),
        None => Ok(None),
    }
}

fn start_broker(config: GearmanConfig) -> Result<BrokerServer, ServerError> {
    let mut options = config.options;
    options.acl = config.acl.as_deref().map(broker::read_acl_file).transpose()?;
    options.settings.pid = std::process::id();
    options.settings.first_job = broker::first_job(SystemTime::now());
    Ok(broker::start(options)?)
}

/// The gate, if there is one. When it does not start, the broker is stopped.
async fn open(
    gate: Option<GateConfig>,
    neighbours: Neighbours,
    store: &Store,
    broker: BrokerServer,
) -> Result<(Option<Arc<GateParts>>, BrokerServer), ServerError> {
    let Some(gate) = gate else { return Ok((None, broker)) };
    match GateParts::start(store.clone(), gate, neighbours).await {
        Ok(parts) => Ok((Some(Arc::new(parts)), broker)),
        Err(error) => {
            stop_broker(broker).await?;
            Err(error.into())
        }
    }
}

/// Where any free port was asked for, people are led to the one that it became.
async fn listen(config: &mut ServerConfig) -> Result<Listeners, ListenError> {
    let listeners = Listeners::bind(&config.api).await?;
    if let (Some(asked), Some(bound)) = (config.api.listen.first(), listeners.addresses.first())
        && asked.port() == 0
    {
        let (asked, bound) = (format!("://{asked}"), format!("://{bound}"));
        for url in [&mut config.logs.url, &mut config.run.url] {
            *url = url.replacen(&asked, &bound, 1);
        }
    }
    Ok(listeners)
}

impl Running {
    /// Begins no more runs; the answer is done when those that have begun are over. Says on stderr how many are left.
    fn drain(&self) -> BoxFuture<'static, ()> {
        use std::io::Write;
        let gate = self.gate.clone();
        Box::pin(async move {
            let Some(gate) = gate else { return };
            let tell = |left| {
                let line = match left {
                    0 => "toci server: no run is left; exiting".to_owned(),
                    left => format!("toci server: exiting when {left} runs are over"),
                };
                tracing::info!(left, "exiting when what runs is over");
                // A closed stderr is no reason not to go on.
                let _ = writeln!(io::stderr(), "{line}");
            };
            gate.runs.drain(tell).await;
        })
    }

    /// Settings and layout anew. What is wrong changes nothing, and is told.
    async fn read_again(&self, origin: &Origin) {
        match origin.read_again() {
            Ok((_, changed)) if changed.is_empty() => {}
            Ok((_, changed)) => tracing::warn!(
                sections = changed.join(", "),
                "these settings have changed; they take effect at the next start"
            ),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(
                    error,
                    "the settings are wrong; those that were read at the start stay"
                );
            }
        }
        let Some(gate) = &self.gate else { return };
        if let Err(error) = gate.reconfigure().await {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "the layout is not read anew; the old one stays in use");
        }
    }

    /// Says on stderr, for whoever waits for it, that the server serves and where.
    fn announce(&self, tls: bool) {
        use std::io::Write;
        let scheme = if tls { "https" } else { "http" };
        let mut line = "toci server: serving".to_owned();
        for address in &self.api {
            line.push_str(&format!(" {scheme}://{address}"));
        }
        line.push_str(&format!(" unix:{}", self.socket.display()));
        for address in &self.gearman {
            line.push_str(&format!(" gearman://{address}"));
        }
        // A closed stderr is no reason not to serve.
        let _ = writeln!(io::stderr(), "{line}");
    }

    /// Returns when a part of the server has ended by itself.
    async fn ended(&mut self) -> ServerError {
        let broker = self.broker.as_ref().map(BrokerServer::handle);
        tokio::select! {
            () = self.book.stopped() => ServerError::TakenOver,
            _ = &mut self.http => ServerError::Died("the API"),
            () = broker_gone(broker) => ServerError::Died("the Gearman broker"),
        }
    }

    /// Ends it: streams are closed, calls may end within [`SHUTDOWN_LIMIT`].
    pub async fn stop(mut self) -> Result<(), ServerError> {
        self.stopping.send_replace(true);
        if !self.http.is_finished()
            && let Err(error) = (&mut self.http).await
        {
            tracing::error!(%error, "the API ended badly");
        }
        if let Some(lockenv) = self.lockenv.take()
            && let Err(error) = lockenv.await
        {
            tracing::error!(%error, "lockenv ended badly");
        }
        let stopped = match self.broker.take() {
            Some(broker) => stop_broker(broker).await,
            None => Ok(()),
        };
        self.store.close().await;
        stopped
    }
}

/// Never, unless it is waited for.
async fn all_over(drained: &mut Option<BoxFuture<'static, ()>>) {
    match drained {
        Some(drained) => drained.await,
        None => std::future::pending().await,
    }
}

/// Its thread has no other way to tell that it panicked.
async fn broker_gone(broker: Option<BrokerHandle>) {
    let Some(broker) = broker else { return std::future::pending().await };
    while broker.figures().await.is_ok() {
        tokio::time::sleep(BROKER_LOOK_EVERY).await;
    }
}

async fn stop_broker(broker: BrokerServer) -> Result<(), ServerError> {
    match tokio::task::spawn_blocking(move || broker.stop()).await {
        Ok(stopped) => Ok(stopped?),
        Err(_) => Err(ServerError::Died("stopping the broker")),
    }
}

fn make_state(path: &Path) -> Result<(), ServerError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| ServerError::State { path: path.to_owned(), source })
}
