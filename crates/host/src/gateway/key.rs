//! The public keys that open doors, and the gateway's own key.

use crate::state::{self, StateError};
use russh::keys::PrivateKey;
use russh::keys::ssh_key::LineEnding;
use std::path::{Path, PathBuf};

/// Why a key could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not a key in OpenSSH's form.
    #[error("read or write a key in OpenSSH's form")]
    Encoding(#[from] russh::keys::ssh_key::Error),
    /// The host key file is damaged.
    #[error("{path} is not an OpenSSH private key; move it away to begin anew")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: russh::keys::ssh_key::Error,
    },
    /// The state folder.
    #[error(transparent)]
    State(#[from] StateError),
}

/// A public key that opens a TE.
#[derive(Clone, Debug)]
pub struct PublicKey(russh::keys::PublicKey);

impl PublicKey {
    /// From a line as in `authorized_keys`.
    pub fn from_line(line: &str) -> Result<PublicKey, KeyError> {
        Ok(PublicKey(russh::keys::PublicKey::from_openssh(line)?))
    }

    /// Whether it is this key; comments do not count.
    pub(super) fn is(&self, other: &russh::keys::PublicKey) -> bool {
        self.0.key_data() == other.key_data()
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &PublicKey) -> bool {
        self.is(&other.0)
    }
}

impl Eq for PublicKey {}

/// The gateway's own key, kept so that clients see the same host after a restart.
pub(super) fn host_key(path: &Path) -> Result<PrivateKey, KeyError> {
    if let Some(pem) = state::read(path)? {
        return PrivateKey::from_openssh(&pem)
            .map_err(|source| KeyError::Damaged { path: path.to_owned(), source });
    }
    let key = crate::te::generate_key()?;
    state::write_private(path, key.to_openssh(LineEnding::LF)?.as_bytes())?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_whatever_its_comment() {
        let key = crate::te::LeaseKey::new(1).unwrap().public.clone();
        let first = PublicKey::from_line(&key).unwrap();
        assert_eq!(PublicKey::from_line(&format!("{key} comment")).unwrap(), first);
        let other = crate::te::LeaseKey::new(1).unwrap().public.clone();
        assert_ne!(PublicKey::from_line(&other).unwrap(), first);
        PublicKey::from_line("ssh-ed25519 rubbish").unwrap_err();
    }

    #[test]
    fn the_host_key_stays_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ssh_host_ed25519_key");
        let first = host_key(&path).unwrap();
        assert_eq!(host_key(&path).unwrap().public_key(), first.public_key());
        std::fs::write(&path, "rubbish").unwrap();
        assert!(host_key(&path).unwrap_err().to_string().contains("move it away"));
    }
}
