//! Accepting connections to the API: TCP with or without TLS, and a unix socket.
//!
//! A connection costs one task. One that says nothing, reads nothing or sends its request byte by byte loses its
//! place after a time limit and never delays another.

use crate::api::Shared;
use crate::config::{ApiConfig, TlsPair};
use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;

/// How long a request's head may take, and how long a kept connection may be idle.
pub(crate) const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// How long a TLS handshake may take.
pub(crate) const TLS_LIMIT: Duration = Duration::from_secs(10);
/// How long a peer may take no byte while some wait for it.
pub(crate) const WRITE_STALL_LIMIT: Duration = Duration::from_secs(60);
/// Connections to the unix socket at most.
pub(crate) const UNIX_CONNECTIONS_MAX: usize = 256;
/// Longest head of a request, in bytes.
const HEAD_MAX_BYTES: usize = 64 * 1024;
/// Pause after the system could not accept (it is out of descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listener that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// TCP.
    #[error("listen at {address}")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Unix socket.
    #[error("listen at {path}")]
    Unix {
        /// The socket.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another server listens there.
    #[error("another server listens at {path}")]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// TLS.
    #[error("use the certificate {certificate}: {reason}")]
    Tls {
        /// The certificate file.
        certificate: PathBuf,
        /// What is wrong with it, or with the key.
        reason: String,
    },
}

/// All listeners of the API, bound.
pub(crate) struct Listeners {
    tcp: Vec<TcpListener>,
    unix: UnixListener,
    tls: Option<TlsAcceptor>,
    tcp_max: usize,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) socket: PathBuf,
}

impl Listeners {
    pub(crate) async fn bind(config: &ApiConfig) -> Result<Listeners, ListenError> {
        let tls = config.tls.as_ref().map(acceptor).transpose()?;
        let mut tcp = Vec::new();
        let mut addresses = Vec::new();
        for address in &config.listen {
            let failed = |source| ListenError::Tcp { address: *address, source };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            addresses.push(listener.local_addr().map_err(failed)?);
            tcp.push(listener);
        }
        let unix = bind_unix(&config.socket)?;
        let socket = config.socket.clone();
        Ok(Listeners { tcp, unix, tls, tcp_max: config.connections_max, addresses, socket })
    }

    /// Accepts until `stopping`; then lets what runs end within `grace`.
    pub(crate) async fn serve(
        self,
        api: Shared,
        router: Router,
        stopping: watch::Receiver<bool>,
        grace: Duration,
    ) {
        let tcp_places = Arc::new(Semaphore::new(self.tcp_max));
        let mut loops = JoinSet::new();
        for listener in self.tcp {
            let door = Door {
                api: api.clone(),
                router: router.clone(),
                stopping: stopping.clone(),
                places: tcp_places.clone(),
                grace,
            };
            loops.spawn(door.tcp(listener, self.tls.clone()));
        }
        let places = Arc::new(Semaphore::new(UNIX_CONNECTIONS_MAX));
        loops.spawn(Door { api, router, stopping, places, grace }.unix(self.unix));
        while loops.join_next().await.is_some() {}
        // It may be gone already; a stale one is removed at the next start anyway.
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn bind_unix(path: &Path) -> Result<UnixListener, ListenError> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |source| ListenError::Unix { path: path.to_owned(), source };
    // A socket that nobody answers is left over from a server that was killed.
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => return Err(ListenError::InUse { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)?;
        }
        Err(_) => {}
    }
    // Bound in a private folder first, so that the socket is never open to others, not even for a moment.
    let nest = nest_beside(path).map_err(failed)?;
    let hidden = nest.join("s");
    let bound = UnixListener::bind(&hidden).and_then(|listener| {
        std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&hidden, path)?;
        Ok(listener)
    });
    let removed = std::fs::remove_dir_all(&nest);
    let listener = bound.map_err(failed)?;
    removed.map_err(failed)?;
    Ok(listener)
}

fn nest_beside(path: &Path) -> io::Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    let mut nest = path.as_os_str().to_owned();
    nest.push(format!(".{}", std::process::id()));
    let nest = PathBuf::from(nest);
    match std::fs::remove_dir_all(&nest) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    std::fs::DirBuilder::new().mode(0o700).create(&nest)?;
    Ok(nest)
}

fn acceptor(pair: &TlsPair) -> Result<TlsAcceptor, ListenError> {
    let bad = |reason: String| ListenError::Tls { certificate: pair.certificate.clone(), reason };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&pair.certificate)
        .map_err(|e| bad(e.to_string()))?
        .collect::<Result<_, _>>()
        .map_err(|e| bad(e.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(&pair.key)
        .map_err(|e| bad(format!("key {}: {e}", pair.key.display())))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| bad(e.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| bad(e.to_string()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// One accept loop.
struct Door {
    api: Shared,
    router: Router,
    stopping: watch::Receiver<bool>,
    places: Arc<Semaphore>,
    grace: Duration,
}

impl Door {
    async fn tcp(mut self, listener: TcpListener, tls: Option<TlsAcceptor>) {
        let mut guests = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = told_to_stop(&mut self.stopping) => break,
                Some(_) = guests.join_next() => continue,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    pause(&error).await;
                    continue;
                }
            };
            let Ok(place) = self.places.clone().try_acquire_owned() else {
                self.api.metrics.connections_refused.add(1);
                guests.spawn(turn_away(stream, tls.is_some()));
                continue;
            };
            if let Err(error) = tuned(&stream) {
                tracing::debug!(%error, "a connection was gone before it began");
                continue;
            }
            let guest = self.guest(place);
            match tls.clone() {
                None => guests.spawn(guest.speak(stream)),
                Some(tls) => guests.spawn(async move {
                    match tokio::time::timeout(TLS_LIMIT, tls.accept(stream)).await {
                        Ok(Ok(stream)) => guest.speak(stream).await,
                        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                        Err(_) => tracing::debug!("TLS handshake took too long"),
                    }
                }),
            };
        }
        drop(listener);
        farewell(guests, self.grace).await;
    }

    async fn unix(mut self, listener: UnixListener) {
        let mut guests = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = told_to_stop(&mut self.stopping) => break,
                Some(_) = guests.join_next() => continue,
            };
            match (accepted, self.places.clone().try_acquire_owned()) {
                (Ok((stream, _)), Ok(place)) => {
                    guests.spawn(self.guest(place).speak(stream));
                }
                (Ok(_), Err(_)) => self.api.metrics.connections_refused.add(1),
                (Err(error), _) => pause(&error).await,
            }
        }
        drop(listener);
        farewell(guests, self.grace).await;
    }

    fn guest(&self, place: OwnedSemaphorePermit) -> Guest {
        Guest {
            api: self.api.clone(),
            router: self.router.clone(),
            stopping: self.stopping.clone(),
            _place: place,
        }
    }
}

fn tuned(stream: &TcpStream) -> io::Result<()> {
    // Answers and events are small and awaited: never hold one back for more bytes.
    stream.set_nodelay(true)?;
    // A stream's signs of life go unanswered when its reader vanished without a word.
    socket2::SockRef::from(stream).set_tcp_user_timeout(Some(WRITE_STALL_LIMIT))
}

/// An error means that the sender is gone, and with it the server.
async fn told_to_stop(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

async fn pause(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// What runs may end by itself for a while; then it is cut off.
async fn farewell(mut guests: JoinSet<()>, grace: Duration) {
    let all_gone = async { while guests.join_next().await.is_some() {} };
    if tokio::time::timeout(grace, all_gone).await.is_err() {
        tracing::info!(left = guests.len(), "cutting off connections that did not end");
        guests.shutdown().await;
    }
}

/// Says why before hanging up, as far as that goes without a handshake.
async fn turn_away(mut stream: TcpStream, tls: bool) {
    const BODY: &str = "{\"error\":{\"kind\":\"failed\",\"code\":\"too_many_connections\",\"message\":\"the server has all the connections it takes\",\"hint\":\"try again later\"}}";
    let head =
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close";
    let text = format!("{head}\r\ncontent-length: {}\r\n\r\n{BODY}", BODY.len());
    if !tls {
        // A peer that does not take even this gets nothing.
        let said = async {
            stream.write_all(text.as_bytes()).await?;
            stream.shutdown().await
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), said).await;
    }
}

/// One connection.
struct Guest {
    api: Shared,
    router: Router,
    stopping: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
}

impl Guest {
    async fn speak<S>(mut self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.api.metrics.connections_open.add(1);
        self.api.metrics.connections_total.add(1);
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_LIMIT)
            .max_buf_size(HEAD_MAX_BYTES)
            .serve_connection(
                TokioIo::new(Patience::new(stream)),
                TowerToHyperService::new(self.router.clone()),
            );
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = told_to_stop(&mut self.stopping) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "an API connection broke");
        }
        self.api.metrics.connections_open.sub(1);
    }
}

/// A stream that gives up when its peer takes nothing for [`WRITE_STALL_LIMIT`].
struct Patience<S> {
    stream: S,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Patience<S> {
    fn new(stream: S) -> Patience<S> {
        Patience { stream, waiting: None }
    }

    fn judge<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.waiting = None;
            return polled;
        }
        let until = Instant::now() + WRITE_STALL_LIMIT;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        match waiting.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patience<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patience<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.judge(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.judge(cx, polled)
    }
}
