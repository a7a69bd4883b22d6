//! Pipelines: which changes are tested on top of which, which jobs run, what is told.
//!
//! `Gate` is the whole of it as one pure value. The server's pipeline task owns one, feeds it [`Input`]s with the time and
//! fresh ids, writes what changed in one transaction, and publishes [`Wanted`]: what the world should do now. Merges, runs
//! and reports are wanted until their outcome comes in; nothing is lost when whoever carries them out dies.

mod input;
mod wanted;

pub use input::{Input, MergeOutcome, ReportOutcome, RunResult, RunUpdate, Subject};
pub use wanted::{
    MergeItem, MergeSubject, MergeWish, ReportAction, ReportWish, RunContext, RunWish, Wanted,
};
