//! Which client certificates are good: those that webpki accepts, and two kinds that `OpenSSL`, and
//! so geard, accepts and webpki refuses for their form. `openssl x509 -req` without extensions
//! makes certificates of version 1; and a certificate that signed itself may stand in the CA file.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use std::sync::Arc;
use webpki::RawPublicKeyEntity;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate, X509Version};

/// Checks client certificates.
#[derive(Debug)]
pub(super) struct ClientCertificates {
    usual: Arc<dyn ClientCertVerifier>,
    roots: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertificates {
    /// Good is what descends from one of `roots`.
    pub(super) fn new(
        roots: Vec<CertificateDer<'static>>,
        store: RootCertStore,
        provider: &Arc<CryptoProvider>,
    ) -> Result<ClientCertificates, VerifierBuilderError> {
        let usual =
            WebPkiClientVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider))
                .build()?;
        let algorithms = provider.signature_verification_algorithms;
        Ok(ClientCertificates { usual, roots, algorithms })
    }

    /// A certificate of version 1 cannot be an intermediate one, so a root must have signed it.
    fn issued_by_a_root(&self, certificate: &X509Certificate<'_>) -> Result<(), Error> {
        let mut why = CertificateError::UnknownIssuer;
        for root in self.roots.iter().filter_map(parse) {
            if root.subject().as_raw() != certificate.issuer().as_raw() {
                continue;
            }
            if self.signed_by(certificate, root.public_key().raw) {
                return Ok(());
            }
            why = CertificateError::BadSignature;
        }
        Err(why.into())
    }

    fn signed_by(&self, certificate: &X509Certificate<'_>, key: &[u8]) -> bool {
        let spki = SubjectPublicKeyInfoDer::from(key);
        let Ok(key) = RawPublicKeyEntity::try_from(&spki) else { return false };
        let algorithm = certificate.signature_algorithm.algorithm.as_bytes();
        let message = certificate.tbs_certificate.as_ref();
        self.algorithms.all.iter().any(|candidate| {
            names(&candidate.signature_alg_id(), algorithm)
                && key
                    .verify_signature(*candidate, message, &certificate.signature_value.data)
                    .is_ok()
        })
    }
}

/// Whether the DER of an algorithm begins with this object identifier.
fn names(algorithm_der: &[u8], identifier: &[u8]) -> bool {
    const OBJECT_IDENTIFIER: u8 = 6;
    match algorithm_der {
        [OBJECT_IDENTIFIER, length, rest @ ..] => {
            usize::from(*length) == identifier.len() && rest.starts_with(identifier)
        }
        _ => false,
    }
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(certificate).ok().map(|(_, parsed)| parsed)
}

fn in_time(certificate: &X509Certificate<'_>, now: UnixTime) -> Result<(), Error> {
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let now = ASN1Time::from_timestamp(seconds).map_err(|_| Error::FailedToGetCurrentTime)?;
    let validity = certificate.validity();
    if now < validity.not_before {
        Err(CertificateError::NotValidYet.into())
    } else if now > validity.not_after {
        Err(CertificateError::Expired.into())
    } else {
        Ok(())
    }
}

/// The public key of a certificate, when it is one of version 1.
fn version_1_key<'a>(certificate: &'a CertificateDer<'_>) -> Option<SubjectPublicKeyInfoDer<'a>> {
    let parsed = parse(certificate)?;
    (parsed.version() == X509Version::V1).then(|| parsed.tbs_certificate.subject_pki.raw.into())
}

impl ClientCertVerifier for ClientCertificates {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.usual.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match parse(end_entity) {
            Some(parsed) if self.roots.contains(end_entity) => in_time(&parsed, now)?,
            Some(parsed) if parsed.version() == X509Version::V1 => {
                in_time(&parsed, now)?;
                self.issued_by_a_root(&parsed)?;
            }
            Some(_) | None => {
                return self.usual.verify_client_cert(end_entity, intermediates, now);
            }
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let Some(spki) = version_1_key(certificate) else {
            return self.usual.verify_tls12_signature(message, certificate, signed);
        };
        let bad = |_| Error::from(CertificateError::BadSignature);
        let key = RawPublicKeyEntity::try_from(&spki).map_err(bad)?;
        let candidates =
            self.algorithms.mapping.iter().filter(|(scheme, _)| *scheme == signed.scheme);
        let good = candidates
            .flat_map(|(_, algorithms)| algorithms.iter())
            .any(|algorithm| key.verify_signature(*algorithm, message, signed.signature()).is_ok());
        if good {
            Ok(HandshakeSignatureValid::assertion())
        } else {
            Err(CertificateError::BadSignature.into())
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match version_1_key(certificate) {
            Some(key) => {
                verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms)
            }
            None => self.usual.verify_tls13_signature(message, certificate, signed),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}
