//! What comes in.

use crate::event::{Branch, Change, ChangeKey, ProjectKey, RefUpdate, Revision, TriggerEvent};
use crate::id::{BuildSetId, ReportId, RunId};
use crate::layout::{Layout, PipelineName};
use crate::time::Time;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What an item of a pipeline is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// A proposed change.
    Change(ChangeKey),
    /// A ref that moved (post, tag, release pipelines).
    Ref(RefUpdate),
    /// A branch at a time (timer pipelines).
    Branch {
        /// Of which project.
        project: ProjectKey,
        /// Which.
        branch: Branch,
    },
}

/// Something that the gate has to know.
#[derive(Clone, Debug)]
pub enum Input {
    /// Something happened in a source, with every change that it is about, that this one needs (transitively), and
    /// that needs it, as the source shows them now.
    Event {
        /// What.
        event: Box<TriggerEvent>,
        /// Fresh views of the changes.
        changes: Vec<Change>,
    },
    /// Fresh views of changes, without an event.
    Changes(Vec<Change>),
    /// How a wanted merge went.
    Merge {
        /// Whose.
        build_set: BuildSetId,
        /// How.
        outcome: MergeOutcome,
    },
    /// News of a wanted run.
    Run {
        /// Which.
        run: RunId,
        /// What.
        update: RunUpdate,
    },
    /// How a wanted report went.
    Report {
        /// Which.
        report: ReportId,
        /// How.
        outcome: ReportOutcome,
    },
    /// By hand: put it into a pipeline, whatever its triggers and requirements say.
    Enqueue {
        /// Which.
        pipeline: PipelineName,
        /// What.
        subject: Subject,
        /// Fresh views of the changes.
        changes: Vec<Change>,
    },
    /// By hand: throw it out without a report.
    Dequeue {
        /// Which.
        pipeline: PipelineName,
        /// What.
        subject: Subject,
    },
    /// By hand: these first, in this order; the rest of their queue after them.
    Promote {
        /// Which.
        pipeline: PipelineName,
        /// What, first one first.
        changes: Vec<ChangeKey>,
    },
    /// A new configuration; items stay where they still belong.
    Layout(Arc<Layout>),
    /// Time passed.
    Tick,
}

/// How a speculative merge went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MergeOutcome {
    /// It is there under the build set's ref in every project and branch of the series.
    Merged {
        /// The newest commit of each project and branch of the series.
        commits: Vec<(ProjectKey, Branch, Revision)>,
        /// Texts of the files that were asked for, of the item's own project at its own commit; missing ones are left out.
        files: Vec<(String, String)>,
    },
    /// It cannot be merged on what is ahead. The change's fault.
    Conflict {
        /// Paths in conflict.
        files: Vec<String>,
        /// The change ahead whose work it contradicts, when that is known; else it is the branch itself.
        with: Option<ChangeKey>,
    },
    /// What was to be merged is not where its source said: the ref or branch is gone, or was pushed anew. Tried again a
    /// few times, as some sources tell of a ref before it can be fetched.
    Gone {
        /// What is missing.
        why: String,
    },
    /// It could not be tried (fetch failed, disk full). The world's fault: wanted again later.
    Failed {
        /// What happened.
        why: String,
    },
}

/// How a run ended (design 0003, decision 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RunResult {
    /// Every script ended with 0.
    Success,
    /// A script of pre or run ended with something else.
    Failure,
    /// The time limit of pre and run was reached.
    TimedOut,
    /// Somebody stopped it.
    Aborted,
    /// Its item does not need it any more.
    Canceled,
    /// A job before it failed, so it did not run.
    Skipped,
    /// Scripts of post failed or took too long, after a success.
    PostFailure,
    /// No node, or the node was lost. Infrastructure: tried again.
    NodeFailure,
    /// No test environment, or it was lost. Infrastructure: tried again.
    TeFailure,
    /// Nobody knows what became of it. Infrastructure: tried again.
    Lost,
    /// The infrastructure failed as often as attempts are allowed.
    RetryLimit,
    /// The job cannot run as it is configured.
    ConfigError,
}

impl RunResult {
    /// Whether the infrastructure and not the job failed.
    #[must_use]
    pub fn is_infrastructure(self) -> bool {
        match self {
            RunResult::NodeFailure | RunResult::TeFailure | RunResult::Lost => true,
            RunResult::Success
            | RunResult::Failure
            | RunResult::TimedOut
            | RunResult::Aborted
            | RunResult::Canceled
            | RunResult::Skipped
            | RunResult::PostFailure
            | RunResult::RetryLimit
            | RunResult::ConfigError => false,
        }
    }

    /// Whether nothing is known from it of the job and of the infrastructure: somebody stopped the run, or it did not begin.
    #[must_use]
    pub fn says_nothing(self) -> bool {
        match self {
            RunResult::Aborted
            | RunResult::Canceled
            | RunResult::Skipped
            | RunResult::ConfigError
            | RunResult::RetryLimit => true,
            RunResult::Success
            | RunResult::Failure
            | RunResult::TimedOut
            | RunResult::PostFailure
            | RunResult::NodeFailure
            | RunResult::TeFailure
            | RunResult::Lost => false,
        }
    }

    /// Its word in reports, as Zuul's.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            RunResult::Success => "SUCCESS",
            RunResult::Failure => "FAILURE",
            RunResult::TimedOut => "TIMED_OUT",
            RunResult::Aborted => "ABORTED",
            RunResult::Canceled => "CANCELED",
            RunResult::Skipped => "SKIPPED",
            RunResult::PostFailure => "POST_FAILURE",
            RunResult::NodeFailure => "NODE_FAILURE",
            RunResult::TeFailure => "TE_FAILURE",
            RunResult::Lost => "LOST",
            RunResult::RetryLimit => "RETRY_LIMIT",
            RunResult::ConfigError => "CONFIG_ERROR",
        }
    }
}

/// News of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunUpdate {
    /// Its scripts begin: node and test environment are there.
    Started {
        /// When.
        at: Time,
        /// Where its console can be followed.
        url: String,
    },
    /// It is over.
    Finished {
        /// When.
        at: Time,
        /// How.
        result: RunResult,
        /// Where its logs lie.
        url: String,
        /// One line for people: the first error, or why the infrastructure failed. May be empty.
        note: String,
    },
}

/// How a report went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReportOutcome {
    /// Everybody was told.
    Done {
        /// Whether the source says that the change is merged now.
        merged: bool,
    },
    /// A source could not be reached; wanted again later.
    Later {
        /// What happened.
        why: String,
    },
    /// A source refused it for good (e.g. it cannot be submitted): told, and not tried again.
    Refused {
        /// What it said.
        why: String,
    },
}
