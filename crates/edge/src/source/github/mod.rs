//! GitHub: events by webhook and by looking, changes by REST, reports as comments, statuses or check runs, and merges.
//!
//! A pull request is a change, its head commit the patchset. docs/github.md says how GitHub's terms become Gerrit's.

mod api;
mod auth;
mod config;
mod hook;
mod json;
mod listen;
mod name;
mod report;
mod source;
#[cfg(test)]
mod tests;
mod view;

pub use api::{FILES_MAX, PAGES_MAX};
pub use config::{Auth, GithubConfig, MergeMethod};
pub use hook::HookError;
pub use listen::{DELIVERIES_MAX, HOOKS_MAX};
pub use source::GithubSource;
