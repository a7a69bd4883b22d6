//! The node task: the one owner of the pool, and whatever it wants done at providers and on nodes.
//!
//! ```text
//!   handles (runs, API) ──bounded channel──▶ events ─▶ core::node::Pool ─▶ one transaction ─▶ answers, jobs
//!                                              ▲                                              │
//!                                              └──────────── how each job ended ──────────────┘
//! ```
//!
//! A job is one piece of work on one node: make it, test it, write its guard, delete it. Which jobs there are follows
//! from what the pool wants; one that is not wanted any more is aborted, and the next one for the same node begins when
//! it has ended. Nothing is begun or told before it is on disk; while the disk refuses, nothing happens.
//!
//! **Guard.** A node is ready when a command runs on it and the file [`GUARD`] is not there. It is written, exactly
//! once, when the node is handed to a run: whatever else goes wrong, no node is used twice (OpenStack bug 1370275).

mod error;
mod handle;
mod job;
mod run;
mod view;

#[cfg(test)]
mod tests;

pub use error::NodeError;
pub use handle::{NodeHandle, NodeNews, NodePool, NodeRequest, PoolParts};

/// Where a node notes that it was used.
pub const GUARD: &str = "/var/tmp/toci/already-used";
/// Most commands waiting for the task; more wait in their callers.
pub const COMMANDS_MAX: usize = 1_024;
/// Most commands in one transaction.
pub const BATCH_MAX: usize = 256;
/// Jobs of one kind (build, test, hand over, delete) at one provider at the same time; more wait.
pub const PROVIDER_JOBS_MAX: usize = 16;
