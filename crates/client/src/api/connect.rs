//! Opening a connection: TCP, TLS or a unix socket, then HTTP/1.1, all within one time limit.

use super::body::RequestBody;
use super::endpoint::Endpoint;
use super::error::ClientError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

/// Longest time for name look-up, TCP and TLS together.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// What a connection to an endpoint needs besides its address.
#[derive(Clone)]
pub(super) struct Connector {
    endpoint: Endpoint,
    tls: Option<TlsConnector>,
}

impl Connector {
    /// `ca` is PEM: the certificates that the server's certificate must lead to; needed for `https://`.
    pub(super) fn new(endpoint: Endpoint, ca: Option<&[u8]>) -> Result<Connector, ClientError> {
        let tls = match (&endpoint, ca) {
            (Endpoint::Tls { .. }, Some(pem)) => {
                Some(trusting(pem).map_err(|source| ClientError::Unreachable {
                    server: endpoint.to_string(),
                    reason: format!("bad CA certificates: {source}"),
                    hint: "give a PEM file with the certificate of the server's CA",
                    source: Some(source),
                })?)
            }
            (Endpoint::Tls { .. }, None) => {
                return Err(ClientError::Unreachable {
                    server: endpoint.to_string(),
                    reason: "https needs the certificate of the server's CA".to_owned(),
                    hint: "give its PEM file with --ca or TOCI_CA",
                    source: None,
                });
            }
            (Endpoint::Tcp { .. } | Endpoint::Unix(_), _) => None,
        };
        Ok(Connector { endpoint, tls })
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// A new connection; its task ends when the last use of it does.
    pub(super) async fn connect(&self) -> Result<SendRequest<RequestBody>, ClientError> {
        match tokio::time::timeout(CONNECT_LIMIT, self.open()).await {
            Ok(result) => result,
            Err(_) => Err(self.unreachable(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no connection within {} s", CONNECT_LIMIT.as_secs()),
            ))),
        }
    }

    async fn open(&self) -> Result<SendRequest<RequestBody>, ClientError> {
        match &self.endpoint {
            Endpoint::Tcp { host, port } => self.speak(self.tcp(host, *port).await?).await,
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|e| self.unreachable(e))?;
                self.speak(stream).await
            }
            Endpoint::Tls { host, port } => {
                let connector = self.tls.as_ref().ok_or_else(|| {
                    self.unreachable(io::Error::other("https without CA certificates"))
                })?;
                let name = ServerName::try_from(host.clone())
                    .map_err(|e| self.unreachable(io::Error::other(e)))?;
                let tcp = self.tcp(host, *port).await?;
                let stream = connector.connect(name, tcp).await.map_err(|e| self.unreachable(e))?;
                self.speak(stream).await
            }
        }
    }

    async fn tcp(&self, host: &str, port: u16) -> Result<TcpStream, ClientError> {
        let stream = TcpStream::connect((host, port)).await.map_err(|e| self.unreachable(e))?;
        // Requests are small and wait for their answer: never hold one back for more bytes.
        stream.set_nodelay(true).map_err(|e| self.unreachable(e))?;
        Ok(stream)
    }

    async fn speak<S>(&self, stream: S) -> Result<SendRequest<RequestBody>, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| self.unreachable(io::Error::other(e)))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "API connection ended");
            }
        });
        Ok(sender)
    }

    fn unreachable(&self, source: io::Error) -> ClientError {
        let hint = match (&self.endpoint, source.kind()) {
            (Endpoint::Unix(_), io::ErrorKind::NotFound) => {
                "is `toci server` running, and is this its --socket?"
            }
            (Endpoint::Unix(_), io::ErrorKind::PermissionDenied) => {
                "the socket belongs to the user that runs `toci server`"
            }
            (_, io::ErrorKind::ConnectionRefused) => {
                "is `toci server` running there? check --server or TOCI_SERVER"
            }
            (Endpoint::Tls { .. }, io::ErrorKind::InvalidData) => {
                "does the server speak TLS, and does `ca` hold its CA's certificate?"
            }
            (_, _) => "check the address (--server or TOCI_SERVER) and the network",
        };
        ClientError::Unreachable {
            server: self.endpoint.to_string(),
            reason: source.to_string(),
            hint,
            source: Some(source),
        }
    }
}

fn trusting(pem: &[u8]) -> Result<TlsConnector, io::Error> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(io::Error::other)?;
        roots.add(certificate).map_err(io::Error::other)?;
    }
    if roots.is_empty() {
        return Err(io::Error::other("no certificate in it"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
