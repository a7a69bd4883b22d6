//! git, by its own program: bare mirrors of projects, speculative merges on them, and serving them to nodes.

mod command;
mod fork;
mod merge;
mod mirror;
mod remote;
mod series;

pub(crate) use command::LOCAL_LIMIT;
pub use command::{Git, GitError};
pub use merge::{Merger, READ_MAX_BYTES};
pub use mirror::{Mirror, Mirrors, Remote, Remotes};
pub(crate) use remote::branches_and_tags;
pub use remote::{Pushed, RemoteRefs};
