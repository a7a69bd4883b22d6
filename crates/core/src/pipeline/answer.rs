//! What an input led to, beside the new state.

use super::input::Subject;
use super::view::JobView;
use super::waiting::WaitingId;
use crate::event::ProjectKey;
use crate::id::{ItemId, ReportId};
use crate::layout::PipelineName;
use crate::time::Time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What one input led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Items that entered.
    pub entered: Vec<ItemId>,
    /// Items that left.
    pub left: Vec<Left>,
    /// What people may want to know.
    pub notes: Vec<Note>,
    /// Changes of these projects merged in these pipelines, and some pipeline listens to that: the open changes of the
    /// project are to be fetched, and one `project-change-merged` event for each is to come back.
    pub merged_in: Vec<(PipelineName, ProjectKey)>,
}

impl Answer {
    pub(super) fn append(&mut self, mut other: Answer) {
        self.entered.append(&mut other.entered);
        self.left.append(&mut other.left);
        self.notes.append(&mut other.notes);
        self.merged_in.append(&mut other.merged_in);
    }
}

/// An item that left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Which.
    pub item: ItemId,
    /// Which pipeline.
    pub pipeline: PipelineName,
    /// What it was about.
    pub subject: Subject,
    /// Its project.
    pub project: ProjectKey,
    /// The change's title; empty for refs and branches.
    pub title: String,
    /// The change's page; may be empty.
    pub url: String,
    /// Not only there to be tested on.
    pub live: bool,
    /// When it entered.
    pub enqueued: Time,
    /// Why.
    pub end: End,
    /// Its jobs, as they were when it left.
    pub jobs: Vec<JobView>,
    /// The text of its last report; empty when nothing is told.
    pub message: String,
}

/// Why an item left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// All voting jobs succeeded; in a dependent pipeline it is merged too.
    Succeeded,
    /// It failed, and that is told.
    Failed,
    /// All voting jobs succeeded, but its source did not merge it.
    NotMerged,
    /// A change that it needs will not merge, and that is told.
    NeededChangeFailed,
    /// No job is for it.
    NoJobs,
    /// A newer patchset came.
    Superseded,
    /// It was given up.
    Abandoned,
    /// By hand.
    Dequeued,
    /// The new layout has no place for it.
    Unconfigured,
    /// It was only there for an item that left.
    NotNeeded,
}

/// Something that people may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// A stable word for programs, e.g. `not-enqueued`.
    pub code: &'static str,
    /// Which pipeline, if it is about one.
    pub pipeline: Option<PipelineName>,
    /// What it is about.
    pub subject: Option<Subject>,
    /// For people: a sentence without a full stop.
    pub text: String,
}

/// What changed since the last [`super::Gate::take_changes`]: rows to write in one transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Items whose row must be written.
    pub items: BTreeSet<ItemId>,
    /// Items whose row must be removed.
    pub removed_items: BTreeSet<ItemId>,
    /// Reports whose row must be written.
    pub reports: BTreeSet<ReportId>,
    /// Reports whose row must be removed.
    pub removed_reports: BTreeSet<ReportId>,
    /// Waiting changes whose row must be written.
    pub waiting: BTreeSet<WaitingId>,
    /// Waiting changes whose row must be removed.
    pub removed_waiting: BTreeSet<WaitingId>,
    /// The gate's own row must be written.
    pub state: bool,
}

impl Changes {
    /// Nothing happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Changes::default()
    }
}
