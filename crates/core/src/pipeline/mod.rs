//! Pipelines: which changes are tested on top of which, which jobs run, what is told.
//!
//! [`Gate`] is the whole of it as one pure value. The server's pipeline task owns one, feeds it [`Input`]s with the time and
//! fresh ids, writes what changed in one transaction, and publishes [`Wanted`]: what the world should do now. Merges, runs
//! and reports are wanted until their outcome comes in; nothing is lost when whoever carries them out dies.
//!
//! What holds after every input:
//! * An item of a dependent pipeline is built on the nearest non-failing item ahead of it. It is merged only as the first
//!   of its queue, when what it was built on is merged.
//! * Every wanted run belongs to an item that is in a pipeline. A run has one outcome; later ones change nothing.
//! * An item ends once, and that is told at most once.
//! * A semaphore's place is free again when its run is certainly over, not when it is no longer wanted.
//!
//! `enter` and `needs` put items in, `waiting` remembers what another queue keeps out, `walk` moves them, `build` has their merges and runs, `report` their ends.

mod answer;
mod build;
mod enter;
mod explain;
mod gate;
mod input;
mod item;
mod jobs;
mod lane;
mod matching;
mod message;
mod needs;
mod orders;
mod report;
mod rows;
mod subject;
mod view;
mod waiting;
mod walk;
mod wanted;
mod wish;

#[cfg(test)]
mod tests;

pub use answer::{Answer, Changes, End, Left, Note};
pub use explain::{Entry, JobExplained, PipelineExplained};
pub use gate::{Gate, Policy, ReadProject};
pub use input::{Input, MergeOutcome, ReportOutcome, RunResult, RunUpdate, Subject};
pub use item::Failing;
pub use rows::{ItemRow, ReportRow, Rows, StateRow};
pub use subject::mail_subject;
pub use view::{ItemView, JobView, PipelineView, QueueView, WaitingView};
pub use waiting::{WaitingId, WaitingRow};
pub use wanted::{
    MergeItem, MergeSubject, MergeWish, ReportAction, ReportWish, RunContext, RunWish, Wanted,
};
