//! A seed image on its way in: written beside the disk that it will replace, measured, checked,
//! and put in place in one step. Nothing of it is believed before the check.

use crate::machines::{MachineError, TeMachines};
use crate::run::{CommandError, run_with_input};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use tokio::io::AsyncWriteExt;

/// Largest image file above the size of the disk itself: qcow2's own tables, bytes.
pub const IMAGE_SLACK_BYTES: u64 = 64 << 20;
/// How much of the beginning is looked at, bytes.
const HEADER_BYTES: usize = 1024;

/// Why an image was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The caller's fault.
    #[error("{0}")]
    Refused(String),
    /// It could not be written.
    #[error("write the image")]
    Io(#[from] std::io::Error),
    /// `qemu-img` could not be run.
    #[error("check the image")]
    QemuImg(#[from] CommandError),
    /// It could not be put in place.
    #[error(transparent)]
    Machine(#[from] MachineError),
}

/// What kind of image it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// QEMU's own.
    Qcow2,
    /// As on a disk, with a partition table.
    Raw,
}

impl Format {
    /// QEMU's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Qcow2 => "qcow2",
            Format::Raw => "raw",
        }
    }
}

/// Looks at the beginning of an image of `length` bytes for a disk of `disk_bytes`. Refuses what
/// would make QEMU open other files of the host, and what is no disk image at all.
pub fn check_header(header: &[u8], length: u64, disk_bytes: u64) -> Result<Format, String> {
    let field = |at: usize, n: usize| -> Option<u64> {
        Some(header.get(at..at + n)?.iter().fold(0, |v, b| (v << 8) | u64::from(*b)))
    };
    let too_large =
        |size: u64| format!("the image's disk has {size} bytes, the seed's disk only {disk_bytes}");
    if header.starts_with(b"QFI\xfb") {
        let cut = || "the qcow2 header is cut off".to_owned();
        let version = field(4, 4).ok_or_else(cut)?;
        if !(2..=3).contains(&version) {
            return Err(format!("qcow2 version {version} is unknown; use 2 or 3"));
        }
        if field(8, 8).ok_or_else(cut)? != 0 {
            return Err("the image has a backing file; flatten it with `qemu-img convert`".into());
        }
        // Bit 2 of the incompatible features: the data lies in another file.
        if version == 3 && field(72, 8).ok_or_else(cut)? & 4 != 0 {
            return Err("the image's data lies in another file; use `qemu-img convert`".into());
        }
        let size = field(24, 8).ok_or_else(cut)?;
        return if size > disk_bytes { Err(too_large(size)) } else { Ok(Format::Qcow2) };
    }
    if header.get(510..512) == Some(&[0x55, 0xaa]) {
        return if length > disk_bytes { Err(too_large(length)) } else { Ok(Format::Raw) };
    }
    Err("this is no disk image: neither qcow2 nor a raw disk with a boot sector".into())
}

/// An image that is coming in.
#[derive(Debug)]
pub struct ImageInstall {
    partial: PathBuf,
    file: tokio::fs::File,
    header: Vec<u8>,
    hash: Sha256,
    bytes: u64,
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
        let file = tokio::fs::File::create(&partial).await?;
        let (header, hash) = (Vec::with_capacity(HEADER_BYTES), Sha256::new());
        Ok(ImageInstall { partial, file, header, hash, bytes: 0, disk_bytes, done: false })
    }

    /// The next bytes.
    pub async fn write(&mut self, chunk: &[u8]) -> Result<(), ImageError> {
        let most = self.disk_bytes + IMAGE_SLACK_BYTES;
        self.bytes += chunk.len() as u64;
        if self.bytes > most {
            return Err(ImageError::Refused(format!("the image is larger than {most} bytes")));
        }
        let missing = HEADER_BYTES.saturating_sub(self.header.len()).min(chunk.len());
        self.header.extend_from_slice(&chunk[..missing]);
        self.hash.update(chunk);
        Ok(self.file.write_all(chunk).await?)
    }

    /// Checks it and puts it in place. The seed must be off.
    pub async fn finish(mut self, machines: &TeMachines) -> Result<Installed, ImageError> {
        self.file.flush().await?;
        let format =
            check_header(&self.header, self.bytes, self.disk_bytes).map_err(ImageError::Refused)?;
        let ready = match format {
            Format::Qcow2 => {
                check_tables(&self.partial).await?;
                self.partial.clone()
            }
            Format::Raw => {
                let converted = self.partial.with_extension("converted");
                to_qcow2(&self.partial, &converted).await?;
                converted
            }
        };
        let seed = &machines.te().seed().name;
        let on = machines.list().await?.iter().any(|m| m.name == *seed && m.on);
        if on {
            let _ = tokio::fs::remove_file(&ready).await;
            return Err(ImageError::Refused(format!("{seed} is running; power it off first")));
        }
        machines.install_seed_image(&ready).await?;
        self.done = format == Format::Qcow2;
        let sha256 = self.hash.clone().finalize().iter().map(|b| format!("{b:02x}")).collect();
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

/// Lets `qemu-img` look at the tables; leaked clusters (3) do no harm.
async fn check_tables(path: &Path) -> Result<(), ImageError> {
    let text = path.display().to_string();
    match run_with_input("qemu-img", &["check", "-q", "-f", "qcow2", &text], b"", &[0, 3]).await {
        Ok(_) => Ok(()),
        Err(CommandError::Failed { said, .. }) => {
            Err(ImageError::Refused(format!("the image is damaged: {said}")))
        }
        Err(e) => Err(e.into()),
    }
}

async fn to_qcow2(from: &Path, to: &Path) -> Result<(), ImageError> {
    let (from, to) = (from.display().to_string(), to.display().to_string());
    let arguments = ["convert", "-q", "-f", "raw", "-O", "qcow2", &from, &to];
    run_with_input("qemu-img", &arguments, b"", &[0]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn qcow2(version: u32, backing: u64, features: u64, size: u64) -> Vec<u8> {
        let mut h = vec![0; 112];
        h[..4].copy_from_slice(b"QFI\xfb");
        h[4..8].copy_from_slice(&version.to_be_bytes());
        h[8..16].copy_from_slice(&backing.to_be_bytes());
        h[24..32].copy_from_slice(&size.to_be_bytes());
        h[72..80].copy_from_slice(&features.to_be_bytes());
        h
    }

    #[test]
    fn only_self_contained_disk_images_are_taken() {
        let ok = |h: &[u8], len| check_header(h, len, 1000);
        assert_eq!(ok(&qcow2(3, 0, 0, 1000), 5), Ok(Format::Qcow2));
        assert_eq!(ok(&qcow2(2, 0, 4, 1000), 5), Ok(Format::Qcow2));
        for (bad, why) in [
            (qcow2(3, 9, 0, 1), "backing file"),
            (qcow2(3, 0, 4, 1), "another file"),
            (qcow2(3, 0, 0, 1001), "only 1000"),
            (qcow2(4, 0, 0, 1), "version 4"),
            (qcow2(3, 0, 0, 1)[..60].to_vec(), "cut off"),
            (b"hello".to_vec(), "no disk image"),
            (Vec::new(), "no disk image"),
        ] {
            let e = ok(&bad, 5).unwrap_err();
            assert!(e.contains(why), "{why}: {e}");
        }
        let mut mbr = vec![0; 512];
        mbr[510..].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(ok(&mbr, 1000), Ok(Format::Raw));
        assert!(ok(&mbr, 1001).is_err());
    }
}
