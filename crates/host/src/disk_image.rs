//! Disk images from strangers: what they are, and whether they may become a seed's disk.
//!
//! QEMU runs outside the test environment, so an image that names other files (backing file, external
//! data file) would let a job read the host. Such an image is refused, as is one that is not whole: an
//! upload whose sender died looks like a short one. Shared by `copyseed` and the push-image operation.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// Bytes at the start of an image that [`check_head`] wants, if the image has so many.
pub const HEAD_BYTES: usize = 1024;
/// Longest conversion of a raw image.
pub const CONVERT_MAX: Duration = Duration::from_secs(600);
/// Largest table of level 1 that QEMU opens, bytes.
const L1_MAX_BYTES: u64 = 32 << 20;
/// Free bytes that a file system must keep while images come in.
pub const DISK_RESERVE_BYTES: u64 = 256 << 20;
/// How often the free space is looked at, bytes received.
pub const DISK_LOOK_EVERY_BYTES: u64 = 64 << 20;
/// libc's text for a full disk, which is all that qemu-img says.
const NO_SPACE: &str = "No space left on device";
const QCOW2_MAGIC: &[u8] = b"QFI\xfb";
const SECTOR: u64 = 512;
/// Bits of an entry of a qcow2 table that are a host offset.
const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
/// Incompatible features that change no bounds: dirty, compression type, extended L2 entries.
const FEATURES_KNOWN: u64 = 1 | FEATURE_CORRUPT | FEATURE_EXTERNAL | 1 << 3 | FEATURE_EXTENDED_L2;
const FEATURE_CORRUPT: u64 = 1 << 1;
const FEATURE_EXTERNAL: u64 = 1 << 2;
const FEATURE_EXTENDED_L2: u64 = 1 << 4;

/// What an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFormat {
    /// qcow2, version 2 or 3.
    Qcow2,
    /// The bytes of a disk with a partition table.
    Raw,
}

impl ImageFormat {
    /// qemu-img's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ImageFormat::Qcow2 => "qcow2",
            ImageFormat::Raw => "raw",
        }
    }
}

/// An image that was found good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// What it is.
    pub format: ImageFormat,
    /// Size of the disk that a machine sees, bytes.
    pub virtual_bytes: u64,
}

/// Why an image cannot be a seed's disk.
#[derive(Debug, thiserror::Error)]
pub enum BadImage {
    /// Neither of the two formats.
    #[error(
        "this is no disk image: neither qcow2 nor a raw disk with a boot signature at byte 510"
    )]
    NotAnImage,
    /// It ends before its own tables or data do.
    #[error("the image is not whole: {what} lies behind its end at byte {end}; send it again")]
    Truncated {
        /// What is missing.
        what: &'static str,
        /// Length of the file.
        end: u64,
    },
    /// The header contradicts itself.
    #[error("the qcow2 header is wrong: {0}")]
    Header(&'static str),
    /// It builds on another file.
    #[error("the image has a backing file; flatten it with: qemu-img convert -O qcow2 OLD NEW")]
    BackingFile,
    /// Its data are in another file.
    #[error(
        "the image keeps its data in another file; make it one with: qemu-img convert -O qcow2 OLD NEW"
    )]
    ExternalData,
    /// Nobody here has the key.
    #[error("the image is encrypted; decrypt it with qemu-img convert")]
    Encrypted,
    /// QEMU marked it as damaged.
    #[error("the image is marked corrupt; repair it with: qemu-img check -r all FILE")]
    Corrupt,
    /// A disk larger than the shape's.
    #[error("the image is a disk of {virtual_bytes} bytes, the seed's disk has {disk_bytes}")]
    TooLarge {
        /// The image's.
        virtual_bytes: u64,
        /// The shape's.
        disk_bytes: u64,
    },
    /// The file could not be read.
    #[error("read the image")]
    Io(#[source] io::Error),
}

/// Largest file that can be an image of a disk of this size, bytes: qcow2's tables come on top.
#[must_use]
pub fn upload_max_bytes(disk_bytes: u64) -> u64 {
    disk_bytes.saturating_add(disk_bytes / 100).saturating_add(16 << 20)
}

/// A first look at the first [`HEAD_BYTES`] (or all, when there are fewer).
pub fn check_head(head: &[u8], disk_bytes: u64) -> Result<ImageFormat, BadImage> {
    if head.starts_with(QCOW2_MAGIC) {
        Header::read(head)?.check(disk_bytes)?;
        Ok(ImageFormat::Qcow2)
    } else if head.get(510..512) == Some(&[0x55, 0xaa]) {
        Ok(ImageFormat::Raw)
    } else {
        Err(BadImage::NotAnImage)
    }
}

/// Looks at a whole image; reads its tables, so call it where blocking is fine.
pub fn check_file(file: &File, disk_bytes: u64) -> Result<ImageInfo, BadImage> {
    let end = file.metadata().map_err(BadImage::Io)?.len();
    let mut head = vec![0; HEAD_BYTES.min(usize::try_from(end).unwrap_or(HEAD_BYTES))];
    file.read_exact_at(&mut head, 0).map_err(BadImage::Io)?;
    match check_head(&head, disk_bytes)? {
        ImageFormat::Qcow2 => {
            let header = Header::read(&head)?;
            header.check_whole(file, end)?;
            Ok(ImageInfo { format: ImageFormat::Qcow2, virtual_bytes: header.virtual_bytes })
        }
        ImageFormat::Raw => {
            check_partitions(&head, end)?;
            if end > disk_bytes {
                return Err(BadImage::TooLarge { virtual_bytes: end, disk_bytes });
            }
            Ok(ImageInfo { format: ImageFormat::Raw, virtual_bytes: end })
        }
    }
}

/// Why a good image could not be put in place.
#[derive(Debug, thiserror::Error)]
#[error("put the image in place at {path}")]
pub struct InstallError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Puts a checked qcow2 file in place of `target`, atomically: at any moment `target` is the old image
/// or the new one.
pub async fn install(ready: &Path, target: &Path) -> Result<(), InstallError> {
    let io = |source| InstallError { path: target.to_owned(), source };
    tokio::fs::rename(ready, target).await.map_err(io)?;
    if let Some(folder) = target.parent() {
        let folder = tokio::fs::File::open(folder).await.map_err(io)?;
        folder.sync_all().await.map_err(io)?;
    }
    Ok(())
}

/// There is no room for images any more.
#[derive(Debug, thiserror::Error)]
pub enum NoRoom {
    /// What images must leave free is reached.
    #[error("the test environment host has less than {} MiB of disk left", DISK_RESERVE_BYTES >> 20)]
    Reserve,
    /// Nothing is left at all: somebody else took it meanwhile.
    #[error("the test environment host's disk is full")]
    Full,
    /// The file system does not say.
    #[error("look how much disk is left")]
    Look(#[source] io::Error),
}

/// Whether there is room for more of an upload on the file system of this file.
pub fn look_for_room(path: &Path) -> Result<(), NoRoom> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let fs = nix::sys::statvfs::statvfs(folder).map_err(|e| NoRoom::Look(e.into()))?;
    let free = fs.blocks_available().saturating_mul(fs.fragment_size());
    if free < DISK_RESERVE_BYTES { Err(NoRoom::Reserve) } else { Ok(()) }
}

/// Whether writing failed because the disk is full.
#[must_use]
pub fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Why a raw image could not be made a qcow2 one.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// It could not be run.
    #[error("run qemu-img (Debian package qemu-utils)")]
    Start(#[source] io::Error),
    /// It took too long and was ended.
    #[error("qemu-img did not convert the raw image within {} s; send it as qcow2", CONVERT_MAX.as_secs())]
    TooSlow,
    /// There is not enough disk for both.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// It said no.
    #[error("qemu-img could not convert the raw image: {0}")]
    Failed(String),
}

/// Where [`as_qcow2`] writes a converted image.
#[must_use]
pub fn converted_path(upload: &Path) -> PathBuf {
    upload.with_added_extension("converted")
}

/// The checked upload as a qcow2 file, which is what the domain's definition says: itself, or converted
/// beside it at [`converted_path`], and itself removed. Dropping the future ends the conversion.
pub async fn as_qcow2(upload: &Path, format: ImageFormat) -> Result<PathBuf, ConvertError> {
    match format {
        ImageFormat::Qcow2 => Ok(upload.to_owned()),
        ImageFormat::Raw => {
            let ready = converted_path(upload);
            if let Err(e) = convert(upload, &ready).await {
                let _ = tokio::fs::remove_file(&ready).await;
                return Err(e);
            }
            let _ = tokio::fs::remove_file(upload).await;
            Ok(ready)
        }
    }
}

async fn convert(from: &Path, to: &Path) -> Result<(), ConvertError> {
    let mut command = Command::new("qemu-img");
    command.env("LC_ALL", "C");
    command.args(["convert", "-f", "raw", "-O", "qcow2"]).args([from, to]).kill_on_drop(true);
    let out = timeout(CONVERT_MAX, command.output()).await;
    let out = out.map_err(|_| ConvertError::TooSlow)?.map_err(ConvertError::Start)?;
    let said = String::from_utf8_lossy(&out.stderr);
    if out.status.success() {
        Ok(())
    } else if said.contains(NO_SPACE) {
        Err(NoRoom::Full.into())
    } else {
        Err(ConvertError::Failed(said.trim().to_owned()))
    }
}

/// The fields of a qcow2 header that matter here.
struct Header {
    version: u32,
    backing_offset: u64,
    cluster_bits: u32,
    virtual_bytes: u64,
    crypt_method: u32,
    l1_entries: u64,
    l1_offset: u64,
    refcount_offset: u64,
    refcount_clusters: u64,
    incompatible: u64,
}

impl Header {
    fn read(head: &[u8]) -> Result<Header, BadImage> {
        let end = head.len() as u64;
        let short = || BadImage::Truncated { what: "its header", end };
        let bytes = |at: usize, n: usize| head.get(at..at + n).ok_or_else(short);
        let u32_at = |at| bytes(at, 4).map(|b| b.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)));
        let u64_at = |at| bytes(at, 8).map(|b| b.iter().fold(0u64, |n, b| n << 8 | u64::from(*b)));
        let version = u32_at(4)?;
        Ok(Header {
            version,
            backing_offset: u64_at(8)?,
            cluster_bits: u32_at(20)?,
            virtual_bytes: u64_at(24)?,
            crypt_method: u32_at(32)?,
            l1_entries: u64::from(u32_at(36)?),
            l1_offset: u64_at(40)?,
            refcount_offset: u64_at(48)?,
            refcount_clusters: u64::from(u32_at(56)?),
            incompatible: if version >= 3 { u64_at(72)? } else { 0 },
        })
    }

    fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    fn l2_entry_bytes(&self) -> u64 {
        if self.incompatible & FEATURE_EXTENDED_L2 == 0 { 8 } else { 16 }
    }

    /// Entries of the first table that cover the disk.
    fn l1_wanted(&self) -> u64 {
        let l2_covers = self.cluster() / self.l2_entry_bytes() * self.cluster();
        self.virtual_bytes.div_ceil(l2_covers)
    }

    fn check(&self, disk_bytes: u64) -> Result<(), BadImage> {
        if !(2..=3).contains(&self.version) {
            return Err(BadImage::Header("its version is neither 2 nor 3"));
        }
        if self.backing_offset != 0 {
            return Err(BadImage::BackingFile);
        }
        if self.incompatible & FEATURE_EXTERNAL != 0 {
            return Err(BadImage::ExternalData);
        }
        if self.crypt_method != 0 {
            return Err(BadImage::Encrypted);
        }
        if self.incompatible & FEATURE_CORRUPT != 0 {
            return Err(BadImage::Corrupt);
        }
        if self.incompatible & !FEATURES_KNOWN != 0 {
            return Err(BadImage::Header("it has features that are not known here"));
        }
        if !(9..=21).contains(&self.cluster_bits) {
            return Err(BadImage::Header("the cluster size is out of bounds"));
        }
        if self.virtual_bytes == 0 {
            return Err(BadImage::Header("the disk has no bytes"));
        }
        if self.virtual_bytes > disk_bytes {
            return Err(BadImage::TooLarge { virtual_bytes: self.virtual_bytes, disk_bytes });
        }
        let aligned = |offset: u64| offset != 0 && offset.is_multiple_of(self.cluster());
        if !aligned(self.l1_offset) || !aligned(self.refcount_offset) || self.refcount_clusters == 0
        {
            return Err(BadImage::Header("a table is out of place"));
        }
        if self.l1_entries < self.l1_wanted() || self.l1_entries * 8 > L1_MAX_BYTES {
            return Err(BadImage::Header("the first table does not fit the disk"));
        }
        Ok(())
    }

    /// Follows the tables: whatever they point at must be in the file.
    fn check_whole(&self, file: &File, end: u64) -> Result<(), BadImage> {
        let inside = |what, offset: u64, bytes: u64| match offset.checked_add(bytes) {
            Some(last) if last <= end => Ok(()),
            Some(_) | None => Err(BadImage::Truncated { what, end }),
        };
        inside("a refcount table", self.refcount_offset, self.cluster())?;
        inside("the first table", self.l1_offset, self.l1_entries * 8)?;
        // Entries behind the disk's end are never used, and following them could take for ever.
        for entry in table(file, self.l1_offset, self.l1_wanted() * 8)?.chunks_exact(8) {
            let l2 = be64(entry) & OFFSET_MASK;
            if l2 == 0 {
                continue;
            }
            inside("a second table", l2, self.cluster())?;
            let step = usize::try_from(self.l2_entry_bytes()).unwrap_or(8);
            for entry in table(file, l2, self.cluster())?.chunks_exact(step) {
                let entry = be64(&entry[..8]);
                if entry & COMPRESSED != 0 {
                    // Only the start is exact; the length is counted in whole sectors.
                    let bits = 62 - (self.cluster_bits - 8);
                    inside("a compressed cluster", entry & ((1 << bits) - 1), 1)?;
                } else if entry & OFFSET_MASK != 0 {
                    // The last cluster of a file may be shorter than a cluster.
                    inside("a cluster", entry & OFFSET_MASK, SECTOR)?;
                }
            }
        }
        Ok(())
    }
}

fn table(file: &File, offset: u64, bytes: u64) -> Result<Vec<u8>, BadImage> {
    let mut t = vec![0; usize::try_from(bytes).unwrap_or(0)];
    file.read_exact_at(&mut t, offset).map_err(BadImage::Io)?;
    Ok(t)
}

fn be64(b: &[u8]) -> u64 {
    b.iter().fold(0, |n, b| n << 8 | u64::from(*b))
}

/// The partitions of a raw disk must be on it. `head` has at least 512 bytes.
fn check_partitions(head: &[u8], end: u64) -> Result<(), BadImage> {
    let le32 = |b: &[u8]| b.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
    for entry in head[446..510].chunks_exact(16) {
        let (kind, start, sectors) = (entry[4], le32(&entry[8..12]), le32(&entry[12..16]));
        match kind {
            0 => {}
            // A protective entry: the GPT behind it knows where its copy at the end lies.
            0xee if head.get(512..520) == Some(b"EFI PART") && head.len() >= 552 => {
                let copy = le32(&head[544..552]);
                if copy.checked_add(1).and_then(|s| s.checked_mul(SECTOR)).is_none_or(|e| e > end) {
                    return Err(BadImage::Truncated { what: "the copy of the GPT", end });
                }
            }
            _ if (start + sectors) * SECTOR > end => {
                return Err(BadImage::Truncated { what: "a partition", end });
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "disk_image_tests.rs"]
mod tests;
