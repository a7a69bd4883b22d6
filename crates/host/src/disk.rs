//! Disks: blank qcow2 files, put in place atomically.

use crate::run::{CommandError, run};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Why a disk could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
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
    /// `qemu-img` failed.
    #[error("make a blank disk")]
    QemuImg(#[from] CommandError),
}

fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> DiskError {
    let path = path.to_owned();
    move |source| DiskError::Io { doing, path, source }
}

/// The folder of images, with its templates.
#[derive(Clone, Debug)]
pub struct Images {
    folder: PathBuf,
}

impl Images {
    /// In this folder, which is made if it is missing.
    pub fn open(folder: PathBuf) -> Result<Images, DiskError> {
        for f in [&folder, &folder.join("blank")] {
            std::fs::create_dir_all(f).map_err(io("make folder", f))?;
        }
        Ok(Images { folder })
    }

    /// The disks there are.
    pub fn list(&self) -> Result<BTreeSet<PathBuf>, DiskError> {
        let entries = std::fs::read_dir(&self.folder).map_err(io("list", &self.folder))?;
        let mut found = BTreeSet::new();
        for entry in entries.flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|e| e == "qcow2") {
                found.insert(path);
            }
        }
        Ok(found)
    }

    /// The blank disk of this size, made once and copied ever after: a copy takes a fraction of
    /// the time of `qemu-img`.
    pub async fn template(&self, bytes: u64) -> Result<PathBuf, DiskError> {
        let path = self.folder.join("blank").join(format!("{bytes}.qcow2"));
        if !path.exists() {
            let partial = self.folder.join("blank").join(format!("{bytes}.{}", unique()));
            let partial_text = partial.display().to_string();
            run("qemu-img", &["create", "-q", "-f", "qcow2", &partial_text, &bytes.to_string()])
                .await?;
            std::fs::rename(&partial, &path).map_err(io("rename", &partial))?;
        }
        Ok(path)
    }

    /// Puts a blank disk in place of whatever is at `path`.
    pub async fn blank(&self, path: &Path, bytes: u64) -> Result<(), DiskError> {
        let template = self.template(bytes).await?;
        let partial = path.with_extension(format!("partial{}", unique()));
        let copied = tokio::fs::copy(&template, &partial).await;
        let placed = match copied {
            Ok(_) => tokio::fs::rename(&partial, path).await,
            Err(e) => Err(e),
        };
        if placed.is_err() {
            // On a full disk above all, nothing half-done may stay.
            let _ = tokio::fs::remove_file(&partial).await;
        }
        placed.map_err(io("put a blank disk at", path))
    }

    /// Whether the disk is as blank as the template.
    pub async fn is_blank(&self, path: &Path, bytes: u64) -> Result<bool, DiskError> {
        let template = self.template(bytes).await?;
        let size = tokio::fs::metadata(path).await.map_err(io("look at", path))?.len();
        let blank = tokio::fs::read(&template).await.map_err(io("read", &template))?;
        if size != blank.len() as u64 {
            return Ok(false);
        }
        Ok(tokio::fs::read(path).await.map_err(io("read", path))? == blank)
    }

    /// Removes what is left of uploads to `path` that did not come to an end.
    pub fn drop_partial(&self, path: &Path) -> Result<(), DiskError> {
        let Some(stem) = path.file_stem().map(|s| format!("{}.", s.to_string_lossy())) else {
            return Ok(());
        };
        for entry in std::fs::read_dir(&self.folder).map_err(io("list", &self.folder))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&stem) && entry.path() != path {
                std::fs::remove_file(entry.path()).map_err(io("delete", &entry.path()))?;
            }
        }
        Ok(())
    }

    /// Removes a disk; one that is not there is fine.
    pub async fn delete(&self, path: &Path) -> Result<(), DiskError> {
        match tokio::fs::remove_file(path).await {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io("delete", path)(e)),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn unique() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
