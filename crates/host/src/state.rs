//! The state folder: what the host keeps across restarts.
//!
//! ```text
//! host-key        random; MAC addresses and UUIDs derive from it
//! credential      0600, the bearer token for the server
//! carving.json    which TEs there are, for the configuration they were carved from
//! probe.json      answer of the KVM boot probe and what it holds for
//! te/N.json       0600, the fence's mark and, while serving, the lease's keys
//! te/N.guests.json   who may speak with the seed of the lease
//! images/         disks                consoles/teN/   captured serial consoles
//! run/            dnsmasq              log/            daemons of the sandbox
//! ```

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use toci_core::hex::hex;
use zeroize::Zeroizing;

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system said no.
    #[error("{doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what we wrote.
    #[error("{path} is damaged: {problem}; move it away to begin anew")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// The state folder.
#[derive(Clone, Debug)]
pub struct StateDir {
    root: PathBuf,
}

impl StateDir {
    /// Opens it, making what is missing.
    pub fn open(root: &Path) -> Result<StateDir, StateError> {
        let s = StateDir { root: root.to_owned() };
        for folder in [
            s.root.clone(),
            s.images(),
            s.consoles(),
            s.run(),
            s.log(),
            s.root.join("te"),
            s.root.join("libvirt-cache"),
        ] {
            std::fs::create_dir_all(&folder).map_err(|source| StateError::Io {
                doing: "make folder",
                path: folder,
                source,
            })?;
        }
        Ok(s)
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// Disks.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }
    /// Captured consoles.
    #[must_use]
    pub fn consoles(&self) -> PathBuf {
        self.root.join("consoles")
    }
    /// Captured consoles of one TE.
    #[must_use]
    pub fn consoles_of(&self, te: u32) -> PathBuf {
        self.consoles().join(format!("te{te}"))
    }
    /// Files of running daemons.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }
    /// Logs.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.root.join("log")
    }
    /// The record of one TE.
    #[must_use]
    pub fn te(&self, te: u32) -> PathBuf {
        self.root.join("te").join(format!("{te}.json"))
    }

    /// Who may speak with the seed of one TE.
    #[must_use]
    pub fn guests(&self, te: u32) -> PathBuf {
        self.root.join("te").join(format!("{te}.guests.json"))
    }

    /// The random key of this host, made at its first use.
    pub fn host_key(&self) -> Result<String, StateError> {
        let path = self.root.join("host-key");
        if let Some(key) = read(&path)? {
            return Ok(key.trim().to_owned());
        }
        let key = random_hex(16)?;
        write_private(&path, key.as_bytes())?;
        Ok(key)
    }
}

/// `bytes` random bytes in hex.
pub fn random_hex(bytes: usize) -> Result<String, StateError> {
    let mut buffer = vec![0; bytes];
    getrandom::fill(&mut buffer).map_err(|e| StateError::Io {
        doing: "read random bytes for",
        path: "getrandom".into(),
        source: std::io::Error::other(e.to_string()),
    })?;
    Ok(hex(&buffer))
}

/// A small file's text; `None` when it is not there.
pub fn read(path: &Path) -> Result<Option<String>, StateError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StateError::Io { doing: "read", path: path.to_owned(), source }),
    }
}

/// A small JSON file; `None` when it is not there.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    // Some of these files hold a lease's key.
    let Some(text) = read(path)?.map(Zeroizing::new) else { return Ok(None) };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|e| StateError::Damaged { path: path.to_owned(), problem: e.to_string() })
}

/// Writes a file that only root may read, atomically and durably: it is the old one or the new
/// one, also after a power failure.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    let partial = path.with_extension("partial");
    let io = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| StateError::Io { doing, path, source }
    };
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)
        .map_err(io("open", &partial))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io("write", &partial))?;
    std::fs::rename(&partial, path).map_err(io("rename to", path))?;
    if let Some(folder) = path.parent() {
        std::fs::File::open(folder)
            .and_then(|f| f.sync_all())
            .map_err(io("sync folder", folder))?;
    }
    Ok(())
}

/// Removes a file; one that is not there is no error.
pub fn remove(path: &Path) -> Result<(), StateError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(StateError::Io { doing: "delete", path: path.to_owned(), source })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn private_files_are_private_and_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.json");
        write_private(&path, b"[1]").unwrap();
        write_private(&path, b"[2]").unwrap();
        assert_eq!(read_json::<Vec<u8>>(&path).unwrap(), Some(vec![2]));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "{").unwrap();
        assert!(read_json::<Vec<u8>>(&path).unwrap_err().to_string().contains("is damaged"));
        assert_eq!(read_json::<Vec<u8>>(&folder.path().join("g")).unwrap(), None);
    }

    #[test]
    fn the_host_key_stays() {
        let folder = tempfile::tempdir().unwrap();
        let s = StateDir::open(folder.path()).unwrap();
        assert_eq!(s.host_key().unwrap(), s.host_key().unwrap());
        assert_eq!(s.host_key().unwrap().len(), 32);
    }
}
