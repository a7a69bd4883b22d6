//! Where logs are kept: a folder, or an S3-compatible store.
//!
//! ```text
//! run's folder ──pack──▶ Stage (compressed, without secrets) ──Archive::commit──▶ its place
//! ```
//!
//! [`pack`] carries out what `toci_core::log` decides: which file goes where, and what is taken out of it.

mod folder;
pub mod pack;
mod port;
mod s3;

pub use folder::{FolderArchive, Stage};
pub use pack::{Pack, Packed, pack};
pub use port::{Archive, ArchiveError, Entry, Found, LISTED_MAX, Object};
pub use s3::{ATTEMPTS_MAX, PART_BYTES, S3Archive, S3Place};
