//! Plain git as a source of changes (design 0003, decision 11): patchsets, votes and merges are refs of bare
//! repositories; no review system is needed. Looks at them now and then, and at once when it is poked (by a hook).

mod refs;
mod report;
mod source;
mod view;

pub use source::{GitConfig, GitSource, Place};
