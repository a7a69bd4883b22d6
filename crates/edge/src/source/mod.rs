//! Sources of changes ("connections" in Zuul's words): Gerrit, plain git, GitHub, all behind one port.
//!
//! A source tells what happens, shows changes as they are now, and takes votes, comments and merges. It decides nothing.

mod footer;
pub mod gerrit;
pub mod git;
pub mod github;
mod port;

pub use footer::depends_on;
pub use port::{CHANGES_MAX, Cursors, Heard, Source, SourceError, SourceReport, Work};
