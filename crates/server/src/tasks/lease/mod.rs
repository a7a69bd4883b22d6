//! The lease task: the one writer of the lease book.
//!
//! ```text
//!   handles (API, lockenv) ──bounded channel──▶ batch ─▶ core::lease::Book ─▶ one transaction ─▶ answers, pushes
//! ```
//!
//! It takes what has arrived (at most [`BATCH_MAX`] commands), applies each to the book, writes
//! every changed row in one transaction, and only when that is on disk answers and tells: so a
//! grant is durable before anybody hears of it, and many clients share one fsync. When a commit
//! fails, every command of the batch is told so, nothing is pushed, and the book is read again
//! from the store. When a newer server has taken the book over, the task ends.
//!
//! **Clocks.** The book's time never goes back and does not follow the wall clock while the
//! server runs: it is the moment of the start plus a monotonic clock, so setting the clock
//! neither ends leases nor keeps them for ever. Every commit notes the machine's boot, the time
//! since that boot and the book's time; a restart on the same boot goes on by the time since the
//! boot, whatever the wall clock says; after a reboot it goes on at the wall clock, but not
//! before the last commit. While nobody has a lease it moves forward to the wall clock.
//! Heartbeats are not kept: after a restart every holder has a fresh grace.

mod clock;
mod convert;
mod error;
mod handle;
mod publish;
mod run;

#[cfg(test)]
mod tests;

pub use error::BookError;
pub(crate) use error::{is_holder, store_failure};
pub use handle::LeaseBook;
pub use publish::Change;
pub use toci_core::lease::Policy;
pub use toci_store::LeaseFilter;

/// Most commands waiting for the task; more wait in their callers.
pub const COMMANDS_MAX: usize = 4_096;
/// Most commands in one transaction.
pub const BATCH_MAX: usize = 512;
/// Most changes a slow reader of all events may lag behind before it must read the lists again.
pub const EVENTS_MAX: usize = 4_096;
/// Ended leases kept in the store.
pub const HISTORY_MAX: usize = 100_000;
/// Ended leases listed when the caller does not say how many.
pub const LIST_DEFAULT: usize = 1_000;
