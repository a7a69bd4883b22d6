//! Logs of runs: packed, put into the archive, shown to people, removed when they are old enough.
//!
//! ```text
//! run is over ──LogStore::archive──▶ pack ──▶ first error, index page ──▶ archive ──/logs/…──▶ people
//! ```
//!
//! A run's verdict never depends on its logs: when they cannot be kept, that is an error of its own.

mod page;
mod reader;
mod retention;
mod store;
mod testenv;

pub(crate) use page::{Listing, PAGE_LINES, folder_page, lines_page};
pub(crate) use reader::Unzipped;
pub use store::{Archived, Finished, LogError, LogStore};
pub use testenv::{CONSOLE_HEAD_MAX_BYTES, CONSOLE_TAIL_MAX_BYTES, TestenvLogs};
