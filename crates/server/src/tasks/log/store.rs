//! What the executor and the API hold of the archive.

use super::page::{self, Facts};
use super::retention::keep_swept;
use crate::clock::wall;
use crate::config::{LogsConfig, LogsStore, S3Config};
use flate2::bufread::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;
use toci_core::log::{Finder, FirstError, LogPath};
use toci_core::pipeline::{RunResult, RunWish};
use toci_edge::archive::{
    Archive, ArchiveError, FolderArchive, Found, Pack, S3Archive, S3Place, Stage, pack,
};
use toci_edge::http::{Http, Trust, Url, secret_in};
use toci_edge::node::console::{LINE_MAX_BYTES, Mask};
use toci_store::{Store, StoreError};
use tokio::sync::Semaphore;

/// Runs that are packed at the same time: it is work for the processor.
const PACKING_MAX: usize = 2;
/// Longest line of a console that is looked at as one, in bytes: the runner's longest and its time.
const CONSOLE_LINE_MAX_BYTES: u64 = LINE_MAX_BYTES as u64 + 64;

/// Logs could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The archive cannot be opened.
    #[error("open the log archive")]
    Open(#[source] ArchiveError),
    /// A setting of the archive cannot be used.
    #[error("use logs.{what}")]
    Settings {
        /// Which.
        what: &'static str,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The logs of a run cannot be kept.
    #[error("keep the logs of run {run}")]
    Keep {
        /// Which run.
        run: String,
        /// Why not.
        #[source]
        source: ArchiveError,
    },
    /// What is in the archive cannot be remembered or looked up.
    #[error("remember the logs of runs")]
    Remember(#[from] StoreError),
    /// Expired logs cannot be removed.
    #[error("remove logs at {at}")]
    Remove {
        /// Where.
        at: String,
        /// Why not.
        #[source]
        source: ArchiveError,
    },
    /// Logs cannot be read.
    #[error("read logs at {at}")]
    Read {
        /// Where.
        at: String,
        /// Why not.
        #[source]
        source: ArchiveError,
    },
}

impl LogError {
    /// Whether there is no room for more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            LogError::Open(source)
            | LogError::Keep { source, .. }
            | LogError::Remove { source, .. }
            | LogError::Read { source, .. } => source.is_full(),
            LogError::Settings { .. } => false,
            LogError::Remember(error) => matches!(error, StoreError::DiskFull { .. }),
        }
    }
}

/// A run that is over.
#[derive(Debug)]
pub struct Finished<'a> {
    /// Which.
    pub wish: &'a RunWish,
    /// What it came to.
    pub result: RunResult,
    /// Everything that is known of it: `console.txt`, `zuul-info/`, `logs/` (the job's own), `node/`, `te/`.
    pub folder: &'a Path,
    /// The secrets that the job had: masked in every text.
    pub mask: &'a Mask,
}

/// Logs that are in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archived {
    /// Where people find them.
    pub url: String,
    /// The most telling line of a failed run; empty when there is none.
    pub first_error: String,
}

/// The archive of logs; clones share it.
#[derive(Clone, Debug)]
pub struct LogStore {
    inner: Arc<Inner>,
}

/// The archive for as long as others hold it.
pub(super) struct WeakLogStore(Weak<Inner>);

impl WeakLogStore {
    pub(super) fn upgrade(&self) -> Option<LogStore> {
        self.0.upgrade().map(|inner| LogStore { inner })
    }
}

#[derive(Debug)]
struct Inner {
    archive: Archive,
    url: String,
    public: bool,
    keep: Option<Duration>,
    store: Store,
    packing: Semaphore,
}

impl LogStore {
    /// Opens the archive; what has expired in it is removed from now on.
    pub async fn open(config: &LogsConfig, store: Store) -> Result<LogStore, LogError> {
        let archive = match &config.store {
            LogsStore::Folder(root) => {
                Archive::Folder(FolderArchive::open(root).map_err(LogError::Open)?)
            }
            LogsStore::S3(config) => Archive::S3(Box::new(s3(config)?)),
        };
        let (url, public, keep) = (config.url.clone(), config.public, config.keep);
        let packing = Semaphore::new(PACKING_MAX);
        let inner = Arc::new(Inner { archive, url, public, keep, store, packing });
        tokio::spawn(keep_swept(WeakLogStore(Arc::downgrade(&inner))));
        Ok(LogStore { inner })
    }

    /// Whether everybody may read them.
    #[must_use]
    pub fn is_public(&self) -> bool {
        self.inner.public
    }

    /// Keeps the logs of a run. The same run may be archived again: the newer archive replaces the older one.
    pub async fn archive(&self, finished: Finished<'_>) -> Result<Archived, LogError> {
        let wish = finished.wish;
        let keep = |source| LogError::Keep { run: wish.run.to_string(), source };
        let at = self.place(wish).await?;
        // Closed never; an error would only mean that nothing limits it.
        let _permit = self.inner.packing.acquire().await;
        let stage = self.inner.archive.stage(&wish.run.to_string()).map_err(keep)?;
        let work = Work {
            facts: Facts::of(wish, finished.result),
            folder: finished.folder.to_owned(),
            mask: finished.mask.clone(),
            at: at.clone(),
        };
        let (stage, first_error) = packed(stage, work).await.map_err(keep)?;
        self.inner.archive.commit(stage, &at).await.map_err(keep)?;
        self.inner.store.show_log(wish.run).await?;
        let first_error = first_error.map(|found| found.text).unwrap_or_default();
        let url = format!("{}/{}/", self.inner.url, at.encoded());
        Ok(Archived { url, first_error })
    }

    /// Where the logs of a run go: to its LOG_PATH, which has the first digits of its id only. Where another run's lie
    /// there, under the whole id.
    async fn place(&self, wish: &RunWish) -> Result<LogPath, LogError> {
        let usual = LogPath::of(wish);
        if self.inner.store.keep_log(wish.run, usual.as_str(), wall()).await? {
            return Ok(usual);
        }
        let parent = usual.parent().unwrap_or_default();
        let whole = parent.join(&wish.run.to_string()).unwrap_or(usual);
        self.inner.store.keep_log(wish.run, whole.as_str(), wall()).await?;
        Ok(whole)
    }

    pub(super) fn keep(&self) -> Option<Duration> {
        self.inner.keep
    }

    pub(super) fn store(&self) -> &Store {
        &self.inner.store
    }

    pub(super) async fn remove(&self, at: &LogPath) -> Result<(), LogError> {
        let removed = self.inner.archive.remove(at).await;
        removed.map_err(|source| LogError::Remove { at: at.to_string(), source })
    }

    /// What lies at a place of the archive; none: nothing, or logs that are not whole.
    pub async fn find(&self, at: &LogPath) -> Result<Option<Found>, LogError> {
        let read = |source| LogError::Read { at: at.to_string(), source };
        if self.inner.archive.comes_whole() {
            return self.inner.archive.find(at).await.map_err(read);
        }
        let hidden = self.inner.store.hidden_logs().await?;
        let is_hidden = |at: &LogPath| hidden.iter().any(|run| at.is_within(run));
        if is_hidden(at) {
            return Ok(None);
        }
        let mut found = self.inner.archive.find(at).await.map_err(read)?;
        if let Some(Found::Folder(entries, _)) = &mut found {
            entries.retain(|entry| !at.join(&entry.name).is_ok_and(|at| is_hidden(&at)));
        }
        Ok(found)
    }
}

fn s3(config: &S3Config) -> Result<S3Archive, LogError> {
    fn wrong<E: std::error::Error + Send + Sync + 'static>(
        what: &'static str,
    ) -> impl FnOnce(E) -> LogError {
        move |error| LogError::Settings { what, source: Box::new(error) }
    }
    let trust = config.ca_file.clone().map_or(Trust::System, Trust::File);
    let access = secret_in(&config.access_key_file).map_err(wrong("access_key_file"))?;
    let place = S3Place {
        endpoint: Url::parse(&config.endpoint).map_err(wrong("endpoint"))?,
        region: config.region.clone(),
        bucket: config.bucket.clone(),
        prefix: config.prefix.clone(),
        access_key: access.reveal().to_owned(),
        secret_key: secret_in(&config.secret_key_file).map_err(wrong("secret_key_file"))?,
        part_bytes: config.part_bytes,
    };
    let http = Http::new(&trust).map_err(wrong("ca_file"))?;
    S3Archive::open(http, place, &config.staging).map_err(LogError::Open)
}

/// What packing needs, on its way to a thread that may block.
struct Work {
    facts: Facts,
    folder: PathBuf,
    mask: Mask,
    at: LogPath,
}

async fn packed(stage: Stage, work: Work) -> Result<(Stage, Option<FirstError>), ArchiveError> {
    let failed = |source| ArchiveError::Io { what: "pack", path: PathBuf::new(), source };
    let packing = tokio::task::spawn_blocking(move || {
        let pack = pack(&work.folder, stage.path(), &work.mask)?;
        let first_error = first_error(&stage.path().join("console.txt.gz"), work.facts.result)?;
        write_index(stage.path(), &work, &pack, first_error.as_ref())?;
        Ok((stage, first_error))
    });
    packing.await.map_err(|error| failed(io::Error::other(error)))?
}

fn write_index(
    stage: &Path,
    work: &Work,
    pack: &Pack,
    first_error: Option<&FirstError>,
) -> Result<(), ArchiveError> {
    let page = page::run_page(&work.facts, &work.at, pack, first_error);
    let path = stage.join("index.html");
    std::fs::write(&path, page).map_err(|source| match source.kind() {
        io::ErrorKind::StorageFull => ArchiveError::Full { what: "write", path },
        _ => ArchiveError::Io { what: "write", path, source },
    })
}

/// Looks through a console as it is kept, which may be missing when a run never began.
fn first_error(console: &Path, result: RunResult) -> Result<Option<FirstError>, ArchiveError> {
    let failed = |source| ArchiveError::Io { what: "read", path: console.to_owned(), source };
    let file = match File::open(console) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut reader = BufReader::new(MultiGzDecoder::new(BufReader::new(file)));
    let (mut finder, mut line) = (Finder::default(), Vec::new());
    loop {
        line.clear();
        let mut bounded = reader.by_ref().take(CONSOLE_LINE_MAX_BYTES);
        if bounded.read_until(b'\n', &mut line).map_err(failed)? == 0 {
            return Ok(finder.finish(result));
        }
        finder.feed(&String::from_utf8_lossy(&line));
    }
}
