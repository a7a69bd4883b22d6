//! An S3-compatible store as an archive.
//!
//! ```text
//! archive: where a run's files go ──▶ put: files on their way ──▶ call: signed requests, tried again ──▶ sign, listing
//! ```

mod archive;
mod call;
mod listing;
mod put;
mod sign;

pub use archive::{ATTEMPTS_MAX, PART_BYTES, S3Archive, S3Place};
