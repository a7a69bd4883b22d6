//! TLS with client certificates: the configuration, and the name in a client's certificate.

use super::options::TlsFiles;
use super::tls_clients::ClientCertificates;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, InconsistentKeys, RootCertStore, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is wrong with a certificate or key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read, or is not PEM.
    #[error("reading {path} failed")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The file holds no certificate.
    #[error("{path} holds no certificate; it must be a PEM file")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The CA cannot be used to check client certificates.
    #[error("the CA in {path} cannot be used: {reason}")]
    Ca {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Certificate and key do not fit, or are of an unknown kind.
    #[error("the server certificate cannot be used")]
    Server(#[source] rustls::Error),
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = |source| TlsError::Read { path: path.to_owned(), source };
    let all: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(read)?
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::Read { path: path.to_owned(), source })?;
    if all.is_empty() { Err(TlsError::Empty { path: path.to_owned() }) } else { Ok(all) }
}

/// TLS 1.2 and 1.3; a client must show a certificate that descends from the CA.
pub(super) fn server_config(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let ca = |reason: String| TlsError::Ca { path: files.ca.clone(), reason };
    let mut roots = RootCertStore::empty();
    let cas = certificates(&files.ca)?;
    for certificate in &cas {
        roots.add(certificate.clone()).map_err(|e| ca(e.to_string()))?;
    }
    let verifier = ClientCertificates::new(cas, roots, &provider).map_err(|e| ca(e.to_string()))?;
    let own = own_certificate(files, &provider)?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Server)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    Ok(Arc::new(config))
}

/// Whether a certificate is good is for its readers to say; here only its key must fit, also when it
/// is one of version 1, whose key rustls does not look at.
fn own_certificate(files: &TlsFiles, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|source| TlsError::Read { path: files.key.clone(), source })?;
    let key = provider.key_provider.load_private_key(key).map_err(TlsError::Server)?;
    let own = CertifiedKey::new(chain, key);
    let not_x509 = || rustls::Error::from(CertificateError::BadEncoding);
    let (_, parsed) = own
        .cert
        .first()
        .and_then(|certificate| x509_parser::parse_x509_certificate(certificate).ok())
        .ok_or_else(|| TlsError::Server(not_x509()))?;
    match own.key.public_key() {
        Some(public) if public.as_ref() != parsed.public_key().raw => {
            Err(TlsError::Server(InconsistentKeys::KeyMismatch.into()))
        }
        Some(_) | None => Ok(own),
    }
}

/// The first common name in a certificate's subject: who the peer is, for the ACL.
pub(super) fn common_name(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
}
