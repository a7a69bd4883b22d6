//! Becoming a daemon, with a pid file.

use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long another geard may take to give the pid file up.
const LOCK_LIMIT: Duration = Duration::from_secs(10);
/// How often the lock is tried.
const LOCK_RETRY: Duration = Duration::from_millis(100);

/// Why it did not become a daemon.
#[derive(Debug, thiserror::Error)]
pub(super) enum DaemonError {
    /// The pid file cannot be made.
    #[error("opening the pid file {path} failed")]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
    /// Another one holds it.
    #[error("the pid file {path} is held by a running geard")]
    Held {
        /// The file.
        path: PathBuf,
    },
    /// Forking failed.
    #[error("becoming a daemon failed")]
    Fork(#[source] nix::Error),
}

/// A locked pid file. The lock, not the file's existence, says that somebody runs: a file left by
/// a killed geard hinders nobody.
pub(super) struct PidFile {
    path: PathBuf,
    file: File,
}

impl PidFile {
    /// Lock the file, waiting at most [`LOCK_LIMIT`].
    pub(super) fn lock(path: &Path) -> Result<PidFile, DaemonError> {
        let open = |source| DaemonError::Open { path: path.to_owned(), source };
        let path = std::path::absolute(path).map_err(open)?;
        let mut options = File::options();
        let options = options.create(true).truncate(false).read(true).write(true);
        let file = options.open(&path).map_err(open)?;
        let end = Instant::now() + LOCK_LIMIT;
        while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            if Instant::now() >= end {
                return Err(DaemonError::Held { path });
            }
            std::thread::sleep(LOCK_RETRY);
        }
        Ok(PidFile { path, file })
    }

    /// Write the pid of this process, which may be a child of the one that locked.
    pub(super) fn write_pid(&self) -> Result<(), DaemonError> {
        let write = || {
            self.file.set_len(0)?;
            writeln!(&self.file, "{}", std::process::id())
        };
        write().map_err(|source| DaemonError::Open { path: self.path.clone(), source })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "removing the pid file failed");
        }
    }
}

/// Go on in a child in its own session, in `/`, without terminal.
pub(super) fn daemonise() -> Result<(), DaemonError> {
    nix::unistd::daemon(false, false).map_err(DaemonError::Fork)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_pid_file_hinders_nobody_and_is_removed_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("geard.pid");
        std::fs::write(&path, "999999999\nrubbish").unwrap();
        let pid_file = PidFile::lock(&path).unwrap();
        pid_file.write_pid().unwrap();
        let expected = format!("{}\n", std::process::id());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
        let other = File::open(&path).unwrap();
        assert!(flock(&other, FlockOperation::NonBlockingLockExclusive).is_err());
        drop(pid_file);
        assert!(!path.exists());
    }
}
