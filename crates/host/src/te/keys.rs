//! Keys of a lease: made at the grant, dead at its end.

use crate::state::StateError;
use russh::keys::PrivateKey;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::Ed25519Keypair;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, ZeroizeOnDrop, Zeroizing};

/// The private key of one generation, in OpenSSH's form. Never printed, and wiped from memory.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseKey {
    /// The generation it is good for.
    pub generation: u64,
    /// Private key text.
    pub private: String,
    /// Public key in OpenSSH's form.
    pub public: String,
}

impl Drop for LeaseKey {
    fn drop(&mut self) {
        self.private.zeroize();
    }
}

impl ZeroizeOnDrop for LeaseKey {}

impl std::fmt::Debug for LeaseKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaseKey").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// A new Ed25519 key.
pub(crate) fn generate() -> Result<PrivateKey, StateError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut_slice()).map_err(|e| StateError::Io {
        doing: "read random bytes for",
        path: "a key".into(),
        source: std::io::Error::other(e.to_string()),
    })?;
    Ok(PrivateKey::from(Ed25519Keypair::from_seed(&seed)))
}

impl LeaseKey {
    /// A new one.
    pub fn new(generation: u64) -> Result<LeaseKey, StateError> {
        let failed = |e: russh::keys::ssh_key::Error| StateError::Damaged {
            path: "a new key".into(),
            problem: e.to_string(),
        };
        let key = generate()?;
        let private = key.to_openssh(LineEnding::LF).map_err(failed)?.to_string();
        let public = key.public_key().to_openssh().map_err(failed)?;
        Ok(LeaseKey { generation, private, public })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_openssh_s_and_differ() {
        let a = LeaseKey::new(3).unwrap();
        assert!(a.private.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n"));
        assert!(a.public.starts_with("ssh-ed25519 "));
        assert_ne!(a.private, LeaseKey::new(3).unwrap().private);
        assert!(!format!("{a:?}").contains("OPENSSH"));
        let wiped = |_: &dyn ZeroizeOnDrop| ();
        wiped(&a);
        let again = PrivateKey::from_openssh(&a.private).unwrap();
        assert_eq!(again.public_key().to_openssh().unwrap(), a.public);
    }
}
