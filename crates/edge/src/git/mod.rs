//! git, by its own program: bare mirrors of projects, speculative merges on them, and serving them to nodes.

mod command;
mod merge;
mod mirror;
mod series;

pub use command::{Git, GitError};
pub use merge::{Merger, READ_MAX_BYTES};
pub use mirror::{Mirror, Mirrors, Remote, Remotes};
