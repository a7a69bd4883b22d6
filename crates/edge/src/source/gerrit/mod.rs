//! Gerrit: its stream of events, its queries, votes and merges over SSH; or all but the stream over HTTP (REST), where
//! changes are looked at now and then.
//!
//! The stream may break at any time, and Gerrit keeps nothing for those who are away: after each break the changes that
//! were touched meanwhile are queried, and what happened to them is told as if it had been heard ([`listen`]). Branches
//! and tags are compared with what was told of them ([`tips`]).

mod branches;
mod config;
mod event;
mod footer;
mod json;
mod listen;
mod missed;
mod query;
mod report;
mod rest;
mod source;
#[cfg(test)]
mod tests;
mod tips;

pub use branches::BRANCHES_EVERY;
pub use config::{CALL_LIMIT, GerritConfig, GerritHttp, GerritSsh, Transport};
pub use event::EVENT_MAX_BYTES;
pub use listen::{OVERLAP, RETRY_MAX, SETTLE};
pub use missed::MISSED_MAX;
pub use report::MESSAGE_MAX_CHARS;
pub use source::GerritSource;
pub use tips::{MOVES_MAX, TIPS_MAX};
