//! Which brokers to talk to, and how.

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// The port of the protocol.
pub const GEARMAN_PORT: u16 = 4730;

/// A broker: `HOST`, `HOST:PORT`, `[V6]:PORT`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BrokerAddress {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// The text is no `HOST[:PORT]`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no broker: use HOST or HOST:PORT, e.g. 127.0.0.1:4730")]
pub struct BadBrokerAddress(String);

impl FromStr for BrokerAddress {
    type Err = BadBrokerAddress;
    fn from_str(text: &str) -> Result<Self, BadBrokerAddress> {
        let bad = || BadBrokerAddress(text.to_owned());
        let (host, port) = match text.strip_prefix('[').and_then(|t| t.split_once(']')) {
            Some((host, rest)) => (host, rest.strip_prefix(':').or(rest.is_empty().then_some(""))),
            None => match text.rsplit_once(':') {
                Some((host, port)) if !host.contains(':') => (host, Some(port)),
                Some(_) | None => (text, Some("")),
            },
        };
        let port = match port.ok_or_else(bad)? {
            "" if text.ends_with(':') => return Err(bad()),
            "" => GEARMAN_PORT,
            port => port.parse().map_err(|_| bad())?,
        };
        let host = host.trim();
        if host.is_empty() { Err(bad()) } else { Ok(BrokerAddress { host: host.to_owned(), port }) }
    }
}

impl std::fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A comma-separated list, as `--geard` takes it.
pub fn parse_brokers(text: &str) -> Result<Vec<BrokerAddress>, BadBrokerAddress> {
    text.split(',').map(|part| part.trim().parse()).collect()
}

/// How to talk to the brokers.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// The brokers; at least one.
    pub brokers: Vec<BrokerAddress>,
    /// What the broker's `workers` shows; may be empty.
    pub client_id: String,
    /// TLS with a client certificate: see [`tls_config`].
    pub tls: Option<Arc<ClientConfig>>,
}

impl LinkOptions {
    /// Plain TCP.
    #[must_use]
    pub fn new(brokers: Vec<BrokerAddress>, client_id: impl Into<String>) -> LinkOptions {
        LinkOptions { brokers, client_id: client_id.into(), tls: None }
    }
}

/// Why TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsConfigError {
    /// A file cannot be read or is not PEM.
    #[error("reading {path} failed")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// CA, certificate or key cannot be used.
    #[error("the certificates cannot be used: {0}")]
    Unusable(String),
}

/// A configuration with a client certificate. The broker's certificate must descend from `ca`; its
/// name is not checked, as geard's peers never did.
pub fn tls_config(
    ca: &Path,
    certificate: &Path,
    key: &Path,
) -> Result<Arc<ClientConfig>, TlsConfigError> {
    let read = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsConfigError::Read { path, source }
    };
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
        let all = CertificateDer::pem_file_iter(path).map_err(read(path))?;
        all.collect::<Result<_, _>>().map_err(read(path))
    };
    let unusable = |e: &dyn std::fmt::Display| TlsConfigError::Unusable(e.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for root in certificates(ca)? {
        roots.add(root).map_err(|e| unusable(&e))?;
    }
    let checks =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|e| unusable(&e))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(read(key))?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| unusable(&e))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyName(checks)))
        .with_client_auth_cert(certificates(certificate)?, key)
        .map_err(|e| unusable(&e))?;
    Ok(Arc::new(config))
}

/// Checks everything but the name.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.0.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            // The name is the last thing that is checked.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_default_port() {
        let parsed = |text: &str| text.parse::<BrokerAddress>().map(|a| a.to_string());
        assert_eq!(parsed("geard").unwrap(), "geard:4730");
        assert_eq!(parsed("127.0.0.1:4731").unwrap(), "127.0.0.1:4731");
        assert_eq!(parsed("[::1]:1").unwrap(), "[::1]:1");
        assert_eq!(parsed("[::1]").unwrap(), "[::1]:4730");
        assert_eq!(parsed("::1").unwrap(), "[::1]:4730");
        for bad in ["", ":4730", "h:", "h:x", "h:70000", "[::1]x"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
        let two = parse_brokers("a:1, b").unwrap();
        assert_eq!(two.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a:1", "b:4730"]);
        assert!(parse_brokers("a,,b").is_err());
    }
}
