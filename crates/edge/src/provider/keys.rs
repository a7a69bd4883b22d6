//! SSH keys of machines, and random names. Keys are made by ssh-keygen.

use crate::program::Call;
use crate::provider::ProviderError;
use ring::rand::{SecureRandom, SystemRandom};
use std::path::{Path, PathBuf};
use std::time::Duration;
use toci_core::hex::hex;

/// Longest time for one of the small programs here.
const SMALL_LIMIT: Duration = Duration::from_secs(60);

/// A key pair of SSH, as text.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// In OpenSSH's form.
    pub private: String,
    /// Algorithm and key, without a comment.
    pub public: String,
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyPair").field("public", &self.public).finish_non_exhaustive()
    }
}

/// Makes a key pair.
pub(in crate::provider) async fn key_pair(folder: &Path) -> Result<KeyPair, ProviderError> {
    let file = folder.join("new_key");
    let public = file.with_extension("pub");
    for old in [&file, &public] {
        // Mostly there is none.
        let _ = std::fs::remove_file(old);
    }
    let name = file.display().to_string();
    small("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", &name]).await?;
    let read = |path: &Path| {
        std::fs::read_to_string(path)
            .map_err(|e| ProviderError::new(format!("read {}", path.display()), &e))
    };
    let pair = KeyPair { private: read(&file)?, public: read(&public)?.trim().to_owned() };
    for done in [&file, &public] {
        std::fs::remove_file(done).map_err(|e| ProviderError::new("remove a key", &e))?;
    }
    Ok(pair)
}

/// Makes a key pair that is kept nowhere.
pub async fn new_key_pair() -> Result<KeyPair, ProviderError> {
    let folder = std::env::temp_dir().join(format!("toci-key-{}", random_hex()?));
    private_folder(&folder).map_err(|e| ProviderError::new("make a folder for a key", &e))?;
    let pair = key_pair(&folder).await;
    std::fs::remove_dir_all(&folder).map_err(|e| ProviderError::new("remove a key", &e))?;
    pair
}

/// The public key of a private one.
pub(in crate::provider) async fn public_of(key: &Path) -> Result<String, ProviderError> {
    let name = key.display().to_string();
    let said = small("ssh-keygen", &["-y", "-f", &name]).await?;
    Ok(said.trim().to_owned())
}

/// Runs a small program to its end; what it said.
pub(in crate::provider) async fn small(
    program: &str,
    arguments: &[&str],
) -> Result<String, ProviderError> {
    let ended = Call::new(program, SMALL_LIMIT)
        .args(arguments)
        .env("MTOOLS_SKIP_CHECK", "1")
        .env("MTOOLSRC", "/dev/null")
        .run(b"")
        .await
        .map_err(|e| ProviderError::new(format!("run {program}"), &e))?;
    if ended.is_well() {
        return Ok(ended.text());
    }
    Err(ProviderError::said(format!("{program} {}", arguments.join(" ")), ended.complaint))
}

/// The configured key, or one that is made and kept in the folder.
pub(in crate::provider) async fn user_key(
    configured: Option<&Path>,
    state: &Path,
) -> Result<PathBuf, ProviderError> {
    if let Some(key) = configured {
        return Ok(key.to_owned());
    }
    let key = state.join("key");
    if !key.exists() {
        let here = |e: std::io::Error| ProviderError::new("make a key", &e);
        // The first nodes are made at the same time: each maker has a folder of its own.
        let new = state.join(format!("new-key-{}", random_hex()?));
        private_folder(&new).map_err(here)?;
        let pair = key_pair(&new).await?;
        let file = new.join("key");
        write_private(&file, &pair.private).map_err(here)?;
        // Of two who make one, the first one's is everybody's.
        match std::fs::hard_link(&file, &key) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(here(e)),
            Ok(()) | Err(_) => {}
        }
        std::fs::remove_dir_all(&new).map_err(here)?;
    }
    Ok(key)
}

/// Makes a folder that only we can look into.
pub(in crate::provider) fn private_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Writes a file that only we can read, and that was not there.
pub(in crate::provider) fn write_private(file: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file =
        std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(file)?;
    file.write_all(text.as_bytes())
}

/// 32 digits that nobody guesses.
pub(in crate::provider) fn random_hex() -> Result<String, ProviderError> {
    let mut bytes = [0; 16];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => Ok(hex(&bytes)),
        Err(_) => Err(ProviderError::said("make a random number", "the kernel gives none")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_several_who_make_the_key_all_get_the_same_one() {
        let folder = tempfile::tempdir().unwrap();
        let makers = (0..4).map(|_| async {
            let key = user_key(None, folder.path()).await.unwrap();
            public_of(&key).await.unwrap()
        });
        let keys = futures_util::future::join_all(makers).await;
        assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
}
