//! The run stage: every wanted run is a task of its own that goes through the states of [`toci_core::run::steps`].
//!
//! ```text
//!   Wanted ─▶ desk ─▶ drive (one a run) ─▶ node ─▶ TE ─▶ workspace ─▶ scripts ─▶ collect ─▶ archive ─▶ news
//!                       │ console.txt ─▶ whoever follows it
//! ```
//!
//! **Nothing runs twice at once.** A run is in the store before anything of it runs on a node. A server that was killed
//! finds it there, ends what runs (sandboxes ended with the server; over SSH everything with the run's id in its
//! environment is killed), gives the TE back, whose generation dies with that, and the node, and only then says LOST. The
//! gate then asks for a new run.
//!
//! **The workspace** is sent through the session, as a thin pack of the server's own mirror. That is the one way that
//! needs no network on the node (sandboxes have none), no name and no open port of the server, works through whatever
//! leads to the node, and can tell "no such ref" (asked of the mirror) from "could not ask". What the node has in its
//! git cache (`/opt/git/<project>`) is not sent.

mod collect;
mod console;
mod desk;
mod drive;
mod environment;
mod nodes;
mod pause;
mod recover;
mod script;
mod secret;
mod stops;
mod table;
mod testenv;
mod workspace;

#[cfg(test)]
mod tests;

pub use collect::Collection;
pub use console::{CONSOLE_FILE, ConsoleReader, HEAD_MAX_BYTES, Mark, TAIL_MAX_BYTES};
pub use desk::{Alert, Archive, News, Parts, RunDesk};
pub use nodes::Nodes;
pub use pause::{PAUSED_MAX, PauseError};

/// Runs that are over and remembered at most.
pub const HISTORY_MAX: usize = 10_000;
/// Whose leases the runs' are.
pub const LEASE_OWNER: &str = "toci/run";
