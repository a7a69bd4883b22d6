//! The file that TE_DATAFILE names. It holds the lease's private key: mode 0600, never an existing file, gone afterwards.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// How many names are tried before giving up; a clash is already an accident.
const NAMES_TRIED_MAX: u32 = 16;

/// A file with a secret in it that is removed when this value goes.
#[derive(Debug)]
pub struct DataFile {
    path: PathBuf,
}

/// The file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("write the TE data to {}", path.display())]
pub struct WriteDataFile {
    /// Which file.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

impl DataFile {
    /// Writes `content` to a new file `<stem>-<random>.json` in [`private_folder`].
    ///
    /// # Errors
    /// The folder does not take a new file, or the disk is full.
    pub fn create(stem: &str, content: &[u8]) -> Result<DataFile, WriteDataFile> {
        DataFile::create_in(&private_folder(), stem, content)
    }

    /// As [`DataFile::create`], in a folder of the caller's choice.
    ///
    /// # Errors
    /// As [`DataFile::create`].
    pub fn create_in(folder: &Path, stem: &str, content: &[u8]) -> Result<DataFile, WriteDataFile> {
        let mut last = None;
        for attempt in 0..NAMES_TRIED_MAX {
            let path = folder.join(format!("{stem}-{:016x}.json", random(attempt)));
            let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
            match opened {
                Ok(mut file) => {
                    // From here on the value removes the file, also when writing fails.
                    let data_file = DataFile { path: path.clone() };
                    file.write_all(content)
                        .and_then(|()| file.flush())
                        .map_err(|source| WriteDataFile { path, source })?;
                    return Ok(data_file);
                }
                Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
                    last = Some(WriteDataFile { path, source });
                }
                Err(source) => return Err(WriteDataFile { path, source }),
            }
        }
        Err(last.unwrap_or_else(|| WriteDataFile {
            path: folder.to_owned(),
            source: io::Error::from(io::ErrorKind::AlreadyExists),
        }))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path for a system call that must not allocate.
    pub(super) fn c_path(&self) -> Option<CString> {
        CString::new(self.path.as_os_str().as_bytes()).ok()
    }
}

impl Drop for DataFile {
    fn drop(&mut self) {
        match fs::remove_file(&self.path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => tracing::warn!(path = %self.path.display(), error = %e, "cannot remove"),
        }
    }
}

/// `XDG_RUNTIME_DIR` when it is a folder of ours (memory, private), otherwise the folder for temporary files.
fn private_folder() -> PathBuf {
    std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|folder| {
            fs::metadata(folder)
                .is_ok_and(|m| m.is_dir() && m.uid() == nix::unistd::geteuid().as_raw())
        })
        .unwrap_or_else(std::env::temp_dir)
}

/// Spreads names; the file's mode and `create_new` are what protects it.
fn random(attempt: u32) -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one((attempt, std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_private_new_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let file = DataFile::create_in(folder.path(), "toci-L1", b"{}").unwrap();
        let path = file.path().to_owned();
        assert_eq!(fs::read(&path).unwrap(), b"{}");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        let other = DataFile::create_in(folder.path(), "toci-L1", b"{}").unwrap();
        assert_ne!(other.path(), path);
        drop(file);
        assert!(!path.exists());
        assert!(other.path().exists());
    }

    #[test]
    fn a_folder_that_takes_no_file_is_named() {
        let error = DataFile::create_in(Path::new("/proc/nowhere"), "x", b"").unwrap_err();
        assert!(error.to_string().contains("/proc/nowhere/x-"), "{error}");
    }
}
