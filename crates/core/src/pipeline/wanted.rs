//! What the world should do now.

use super::input::Subject;
use crate::event::{Branch, Change, ChangeKey, ProjectKey, RefName, RefUpdate, Revision};
use crate::id::{BuildSetId, ItemId, ReportId, RunId};
use crate::layout::{Job, MergeMode, PipelineName, Precedence, Reporter};
use crate::time::Time;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Everything that is wanted at a moment. What is no longer in it is to be stopped.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// Speculative merges, the most urgent first.
    pub merges: Vec<MergeWish>,
    /// Runs, the most urgent first; those that run already are in it too.
    pub runs: Vec<RunWish>,
    /// Reports.
    pub reports: Vec<ReportWish>,
    /// Runs that are not wanted any more but still hold a semaphore: each is answered by `Finished` once it is
    /// certain that nothing of it runs, also when it never began.
    pub stopping: Vec<RunId>,
}

/// One link of a series to be merged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeItem {
    /// Of which project.
    pub project: ProjectKey,
    /// For which branch.
    pub branch: Branch,
    /// What.
    pub subject: MergeSubject,
}

/// What is put on top of the branch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MergeSubject {
    /// A change.
    Change {
        /// Which.
        key: ChangeKey,
        /// Where to fetch it.
        reference: RefName,
        /// What must be found there.
        revision: Revision,
        /// How.
        mode: MergeMode,
    },
    /// Nothing: the commit of a ref update as it is.
    Ref(RefUpdate),
    /// Nothing: the branch's tip.
    Tip,
}

/// A speculative merge: the items ahead, oldest first, then the item itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeWish {
    /// Whose.
    pub build_set: BuildSetId,
    /// Last part of the refs to make: `refs/zuul/<branch>/<reference>`, `Z` and 32 hex digits.
    pub reference: String,
    /// Oldest first; the last one is the item itself.
    pub series: Vec<MergeItem>,
    /// Files to read at the item's own commit, e.g. `.toci.yaml`.
    pub files: Vec<String>,
    /// How urgent.
    pub precedence: Precedence,
    /// Not before this, after a failure.
    pub not_before: Time,
}

/// What all runs of a build set share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunContext {
    /// Which pipeline.
    pub pipeline: PipelineName,
    /// It takes only what was reviewed: its runs may have secrets.
    pub post_review: bool,
    /// What the item is about.
    pub subject: Subject,
    /// Its change as last seen.
    pub change: Option<Change>,
    /// Oldest first; the last one is the item itself.
    pub series: Vec<MergeItem>,
    /// Titles and ids of the series' changes: `project:branch:ref` and `C,P`, as ZUUL_CHANGES and ZUUL_CHANGE_IDS have them.
    pub changes: Vec<(String, String)>,
    /// `Z` and 32 hex digits; empty when nothing was merged (ref updates, timers).
    pub reference: String,
    /// The newest commit of each project and branch of the series.
    pub commits: Vec<(ProjectKey, Branch, Revision)>,
}

/// A run that should be.
#[derive(Clone, Debug, PartialEq)]
pub struct RunWish {
    /// Its id, ZUUL_UUID. A new attempt has a new one.
    pub run: RunId,
    /// Of which item.
    pub item: ItemId,
    /// The job as frozen for this build set: metajobs applied.
    pub job: Arc<Job>,
    /// 1 for the first.
    pub attempt: u32,
    /// What it is about.
    pub context: Arc<RunContext>,
    /// How urgent.
    pub precedence: Precedence,
    /// Items of the same project queue before it: among equals, the smaller number goes first.
    pub relative_priority: u32,
    /// When its item entered.
    pub enqueued: Time,
}

/// What a report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReportAction {
    /// It entered.
    Start,
    /// All voting jobs succeeded.
    Success,
    /// Some voting job failed.
    Failure,
    /// It cannot be merged with what is ahead.
    MergeFailure,
    /// As success or failure, while the pipeline is disabled.
    Disabled,
}

impl ReportAction {
    /// For people and programs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            ReportAction::Start => "start",
            ReportAction::Success => "success",
            ReportAction::Failure => "failure",
            ReportAction::MergeFailure => "merge-failure",
            ReportAction::Disabled => "disabled",
        }
    }
}

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportWish {
    /// Which.
    pub report: ReportId,
    /// Of which item.
    pub item: ItemId,
    /// Of which pipeline.
    pub pipeline: PipelineName,
    /// What kind.
    pub action: ReportAction,
    /// Whom.
    pub reporters: Vec<Reporter>,
    /// What the item is about.
    pub subject: Subject,
    /// Its change as last seen.
    pub change: Option<Change>,
    /// The whole text (origin.md 7.3, "Reporting text").
    pub message: String,
    /// The tested commit of the item's own project and branch: what a plain git source pushes.
    pub commit: Option<Revision>,
    /// Not before this, after a failure.
    pub not_before: Time,
}
