//! Opening a connection: name, TCP, TLS and HTTP/1.1, all within one time limit.

use super::client::RequestBody;
use super::error::HttpError;
use super::url::Url;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Longest time for name look-up, TCP and TLS together.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Where Debian and its kin keep the certificate authorities that the system trusts (package ca-certificates).
pub const SYSTEM_CA_FILE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Whose certificates are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Those of [`SYSTEM_CA_FILE`], read at the first `https://`.
    System,
    /// Only those of this PEM file, read at once.
    File(PathBuf),
}

pub(super) struct Connector {
    tls: OnceLock<TlsConnector>,
}

impl Trust {
    /// Where its certificates are.
    fn file(&self) -> &Path {
        match self {
            Trust::System => Path::new(SYSTEM_CA_FILE),
            Trust::File(path) => path,
        }
    }

    /// The certificates that this library can use; at least one. Others are of no harm to them and left out.
    pub(crate) fn authorities(&self) -> Result<Vec<CertificateDer<'static>>, HttpError> {
        let path = self.file();
        let bad = |source| HttpError::Trust { path: path.display().to_string(), source };
        let pem = std::fs::read(path).map_err(bad)?;
        let mut usable = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|e| bad(io::Error::other(e)))?;
            if RootCertStore::empty().add(certificate.clone()).is_ok() {
                usable.push(certificate);
            }
        }
        if usable.is_empty() {
            return Err(bad(io::Error::other("no usable certificate in it")));
        }
        Ok(usable)
    }
}

impl Connector {
    pub(super) fn new(trust: &Trust) -> Result<Connector, HttpError> {
        let tls = OnceLock::new();
        if let Trust::File(_) = trust {
            tls.get_or_init({
                let connector = trusting(trust)?;
                || connector
            });
        }
        Ok(Connector { tls })
    }

    /// One that believes everybody.
    pub(super) fn unchecked() -> Result<Connector, HttpError> {
        let connector = credulous()?;
        let tls = OnceLock::new();
        tls.get_or_init(|| connector);
        Ok(Connector { tls })
    }

    /// A new connection; its task ends when the last use of it does.
    pub(super) async fn connect(&self, url: &Url) -> Result<SendRequest<RequestBody>, HttpError> {
        let tls = match url.is_tls() {
            true => Some(self.tls()?),
            false => None,
        };
        let unreachable = |source| HttpError::Unreachable { server: url.server(), source };
        let text = format!("no connection within {} s", CONNECT_LIMIT.as_secs());
        match tokio::time::timeout(CONNECT_LIMIT, open(url, tls)).await {
            Ok(result) => result.map_err(unreachable),
            Err(_) => Err(unreachable(io::Error::new(io::ErrorKind::TimedOut, text))),
        }
    }

    fn tls(&self) -> Result<TlsConnector, HttpError> {
        if let Some(connector) = self.tls.get() {
            return Ok(connector.clone());
        }
        let connector = trusting(&Trust::System)?;
        Ok(self.tls.get_or_init(|| connector).clone())
    }
}

async fn open(url: &Url, tls: Option<TlsConnector>) -> io::Result<SendRequest<RequestBody>> {
    let tcp = TcpStream::connect((url.host(), url.port())).await?;
    // Requests are small and wait for their answer: never hold one back for more bytes.
    tcp.set_nodelay(true)?;
    let Some(tls) = tls else { return speak(tcp).await };
    let name = ServerName::try_from(url.host().to_owned()).map_err(io::Error::other)?;
    speak(tls.connect(name, tcp).await?).await
}

async fn speak<S>(stream: S) -> io::Result<SendRequest<RequestBody>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "HTTP connection ended");
        }
    });
    Ok(sender)
}

fn trusting(trust: &Trust) -> Result<TlsConnector, HttpError> {
    let path = trust.file().display().to_string();
    let bad = |e| HttpError::Trust { path: path.clone(), source: io::Error::other(e) };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(trust.authorities()?);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(bad)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Takes every certificate. Who sits between can read and change everything.
fn credulous() -> Result<TlsConnector, HttpError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(Credulous(Arc::clone(&provider)));
    let bad = |e| HttpError::Trust { path: "nowhere".to_owned(), source: io::Error::other(e) };
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(bad)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Only that the other side has the key of the certificate that it shows is checked.
#[derive(Debug)]
struct Credulous(Arc<CryptoProvider>);

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
