//! What an archive is to everybody else, wherever it keeps things.

use super::folder::{FolderArchive, Stage};
use super::s3::S3Archive;
use crate::http::HttpError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use toci_core::log::LogPath;
use tokio::io::AsyncRead;

/// Entries of a folder that are listed at most.
pub const LISTED_MAX: usize = 10_000;

/// The archive did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// There is no room.
    #[error("{what} {path}: the disk is full")]
    Full {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// A file or folder.
    #[error("{what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A request to an S3-compatible store.
    #[error("{what} {key}")]
    Remote {
        /// What was tried.
        what: &'static str,
        /// The key, or what keys begin with.
        key: String,
        /// Why not.
        #[source]
        source: Box<HttpError>,
    },
    /// An S3-compatible store answered what cannot be understood.
    #[error("{what} {key}: {why}")]
    Unclear {
        /// What was tried.
        what: &'static str,
        /// The key, or what keys begin with.
        key: String,
        /// What is wrong with the answer.
        why: String,
    },
}

impl ArchiveError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ArchiveError {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                ArchiveError::Full { what, path }
            }
            _ => ArchiveError::Io { what, path, source },
        }
    }

    /// Whether there is no room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, ArchiveError::Full { .. })
    }
}

/// What lies at a place.
#[derive(Debug)]
pub enum Found {
    /// A folder: its entries, folders first, then by name; and whether there are more.
    Folder(Vec<Entry>, bool),
    /// A file.
    File(Object),
}

/// An entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Whether it is a file.
    pub is_file: bool,
    /// Its name as people see it.
    pub name: String,
    /// Its size as it is stored; 0 for a folder.
    pub bytes: u64,
}

/// A stored file, opened.
pub struct Object {
    /// Whether it is compressed text that was asked for by its own name.
    pub is_text: bool,
    /// Its size as it is stored.
    pub bytes: u64,
    /// Its bytes as they are stored.
    pub body: Pin<Box<dyn AsyncRead + Send>>,
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({} bytes, text: {})", self.bytes, self.is_text)
    }
}

/// Where logs are kept.
#[derive(Clone, Debug)]
pub enum Archive {
    /// In a folder of this machine.
    Folder(FolderArchive),
    /// In an S3-compatible store.
    S3(Box<S3Archive>),
}

impl Archive {
    /// An empty folder to pack into, on the archive's own file system where it has one.
    pub fn stage(&self, name: &str) -> Result<Stage, ArchiveError> {
        match self {
            Archive::Folder(folder) => folder.stage(name),
            Archive::S3(store) => store.stage(name),
        }
    }

    /// Whether readers see a run's files all at once, or none: true of a folder, which is renamed. In a store of single
    /// files they come one by one, the index page last.
    #[must_use]
    pub fn comes_whole(&self) -> bool {
        match self {
            Archive::Folder(_) => true,
            Archive::S3(_) => false,
        }
    }

    /// Puts what was packed at its place; what was there before is gone then. What fails is not whole: see
    /// [`Archive::comes_whole`].
    pub async fn commit(&self, stage: Stage, at: &LogPath) -> Result<(), ArchiveError> {
        match self {
            Archive::Folder(folder) => {
                let (folder, at) = (folder.clone(), at.clone());
                blocking(move || folder.commit(stage, &at)).await
            }
            Archive::S3(store) => store.commit(stage, at).await,
        }
    }

    /// What lies there; none: nothing.
    pub async fn find(&self, at: &LogPath) -> Result<Option<Found>, ArchiveError> {
        match self {
            Archive::Folder(folder) => {
                let (folder, at) = (folder.clone(), at.clone());
                blocking(move || folder.find(&at)).await
            }
            Archive::S3(store) => store.find(at).await,
        }
    }

    /// Removes what lies there. It may be gone already.
    pub async fn remove(&self, at: &LogPath) -> Result<(), ArchiveError> {
        match self {
            Archive::Folder(folder) => {
                let (folder, at) = (folder.clone(), at.clone());
                blocking(move || folder.remove(&at)).await
            }
            Archive::S3(store) => store.remove(at).await,
        }
    }
}

/// Runs file operations where they may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArchiveError> + Send + 'static,
) -> Result<T, ArchiveError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(ArchiveError::Io {
            what: "use",
            path: PathBuf::from("the archive"),
            source: io::Error::other(error),
        }),
    }
}
