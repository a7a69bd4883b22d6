//! A seed image on its way in: written beside the disk that it will replace, measured, checked,
//! and put in place in one step. Nothing of it is believed before the check.

use crate::disk_image::{self, BadImage, ConvertError, NoRoom};
use crate::machines::{MachineError, TeMachines};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use toci_core::hex::hex;
use tokio::io::AsyncWriteExt;
use tokio::task::spawn_blocking;

/// Why an image was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The caller's fault.
    #[error("{0}")]
    Refused(String),
    /// It could not be written.
    #[error("write the image")]
    Io(#[source] std::io::Error),
    /// There is no room for it.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// `qemu-img` could not be run.
    #[error("convert the image")]
    Convert(#[from] ConvertError),
    /// It could not be put in place.
    #[error(transparent)]
    Machine(#[from] MachineError),
}

impl From<std::io::Error> for ImageError {
    fn from(e: std::io::Error) -> ImageError {
        if disk_image::is_full(&e) { NoRoom::Full.into() } else { ImageError::Io(e) }
    }
}

/// An image that is coming in.
#[derive(Debug)]
pub struct ImageInstall {
    partial: PathBuf,
    file: tokio::fs::File,
    header: Vec<u8>,
    hash: Sha256,
    bytes: u64,
    /// When the free space is looked at next.
    next_look: u64,
    disk_bytes: u64,
    /// Whether the file has been given to its place.
    done: bool,
}

/// What came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Bytes received.
    pub bytes: u64,
    /// Hex SHA-256 of them.
    pub sha256: String,
    /// `qcow2` or `raw`.
    pub format: String,
}

impl ImageInstall {
    /// For the seed of these machines.
    pub async fn begin(machines: &TeMachines) -> Result<ImageInstall, ImageError> {
        ImageInstall::beside(&machines.seed_disk(), machines.seed_disk_max_bytes()).await
    }

    async fn beside(disk: &Path, disk_bytes: u64) -> Result<ImageInstall, ImageError> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let partial = disk.with_extension(format!("push{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let file = tokio::fs::File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&partial)
            .await?;
        let (header, hash) = (Vec::with_capacity(disk_image::HEAD_BYTES), Sha256::new());
        Ok(ImageInstall {
            partial,
            file,
            header,
            hash,
            bytes: 0,
            next_look: 0,
            disk_bytes,
            done: false,
        })
    }

    /// The next bytes.
    pub async fn write(&mut self, chunk: &[u8]) -> Result<(), ImageError> {
        let most = disk_image::upload_max_bytes(self.disk_bytes);
        if self.bytes >= self.next_look {
            disk_image::look_for_room(&self.partial)?;
            self.next_look = self.bytes + disk_image::DISK_LOOK_EVERY_BYTES;
        }
        self.bytes += chunk.len() as u64;
        if self.bytes > most {
            return Err(ImageError::Refused(format!("the image is larger than {most} bytes")));
        }
        let missing = disk_image::HEAD_BYTES.saturating_sub(self.header.len()).min(chunk.len());
        self.header.extend_from_slice(&chunk[..missing]);
        if missing > 0 && self.header.len() == disk_image::HEAD_BYTES {
            // What is no image is refused at once, not after gigabytes.
            disk_image::check_head(&self.header, self.disk_bytes).map_err(bad)?;
        }
        self.hash.update(chunk);
        Ok(self.file.write_all(chunk).await?)
    }

    /// Checks it and puts it in place. The seed must be off.
    pub async fn finish(mut self, machines: &TeMachines) -> Result<Installed, ImageError> {
        self.file.flush().await?;
        let (file, disk_bytes) = (self.file.try_clone().await?.into_std().await, self.disk_bytes);
        let looked = spawn_blocking(move || disk_image::check_file(&file, disk_bytes)).await;
        let format = looked.map_err(std::io::Error::other)?.map_err(bad)?.format;
        let ready = disk_image::as_qcow2(&self.partial, format).await?;
        if let Err(e) = machines.exchange_seed(&ready).await {
            let _ = tokio::fs::remove_file(&ready).await;
            return Err(e.into());
        }
        self.done = true;
        let sha256 = hex(&self.hash.clone().finalize());
        Ok(Installed { bytes: self.bytes, sha256, format: format.as_str().into() })
    }
}

impl Drop for ImageInstall {
    fn drop(&mut self) {
        if !self.done {
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

fn bad(e: BadImage) -> ImageError {
    match e {
        BadImage::Io(e) => e.into(),
        BadImage::NotAnImage
        | BadImage::Truncated { .. }
        | BadImage::Header(_)
        | BadImage::BackingFile
        | BadImage::ExternalData
        | BadImage::Encrypted
        | BadImage::Corrupt
        | BadImage::TooLarge { .. } => ImageError::Refused(e.to_string()),
    }
}
