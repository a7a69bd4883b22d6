//! REMEMBERS. All state of the control plane, in SQLite (a file, the default) or PostgreSQL, from
//! one SQL text. One file a stage. The only crate that knows sqlx.
//!
//! Rules of the one text: ids TEXT, numbers and times (microseconds) BIGINT, JSON as TEXT, `$1`
//! binds, `ON CONFLICT` and `RETURNING`; a test prepares every statement on both databases.
//!
//! A commit is on disk when it returns: SQLite runs with `synchronous = FULL` in WAL mode,
//! PostgreSQL with its own default. One writer: [`Store::claim_book`] raises an epoch that every
//! commit of the book checks, so a server that was replaced can no longer write.
#![forbid(unsafe_code)]

mod db;
mod ended;
mod error;
mod history;
mod lease;
mod log;
mod node;
mod pause;
mod pipeline;
mod row;
mod run;
mod token;

pub use db::Store;
pub use ended::{ENDED_READ_MAX, EndedFilter, EndedItem};
pub use error::StoreError;
pub use history::LeaseFilter;
pub use lease::{Batch, ClockMark, Credential};
pub use log::LogRow;
pub use node::NodeBatch;
pub use pause::JobPause;
pub use pipeline::{GateBatch, Heard};
pub use token::{Enrolment, TokenRow};

/// Every statement with a fixed text as this database is given it, for the test that prepares them on both.
#[must_use]
pub fn statements(store: &Store) -> Vec<String> {
    let fixed = lease::STATEMENTS
        .iter()
        .chain(token::STATEMENTS)
        .chain(history::STATEMENTS)
        .chain(ended::STATEMENTS)
        .chain(pause::STATEMENTS)
        .chain(node::STATEMENTS)
        .chain(pipeline::STATEMENTS)
        .chain(log::STATEMENTS)
        .chain(run::STATEMENTS)
        .chain(&[row::STILL_WRITER]);
    fixed.map(|s| (*s).to_owned()).chain(row::statements(store.marks())).collect()
}
