//! What happened.

use super::change::{ChangeKey, Person};
use super::name::{Branch, ProjectKey, RefName, Revision};
use crate::time::Time;
use serde::{Deserialize, Serialize};

/// Kinds of events, by Zuul's and Gerrit's names. Sources other than Gerrit map theirs onto these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// A new change, or a new patchset of one.
    PatchsetCreated,
    /// A draft was published, or a change is no longer work in progress.
    DraftPublished,
    /// A change was given up.
    ChangeAbandoned,
    /// A change was taken up again.
    ChangeRestored,
    /// A change is part of its branch now.
    ChangeMerged,
    /// A comment, with or without votes.
    CommentAdded,
    /// A branch or tag moved, came or went.
    RefUpdated,
    /// A time of a timer trigger has come.
    Timer,
    /// Zuul's own: a change that this one needs was enqueued.
    ParentChangeEnqueued,
    /// Zuul's own: a change of the same project merged.
    ProjectChangeMerged,
}

impl EventKind {
    /// All of them.
    pub const ALL: [EventKind; 10] = [
        EventKind::PatchsetCreated,
        EventKind::DraftPublished,
        EventKind::ChangeAbandoned,
        EventKind::ChangeRestored,
        EventKind::ChangeMerged,
        EventKind::CommentAdded,
        EventKind::RefUpdated,
        EventKind::Timer,
        EventKind::ParentChangeEnqueued,
        EventKind::ProjectChangeMerged,
    ];

    /// Its name in layouts and logs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            EventKind::PatchsetCreated => "patchset-created",
            EventKind::DraftPublished => "draft-published",
            EventKind::ChangeAbandoned => "change-abandoned",
            EventKind::ChangeRestored => "change-restored",
            EventKind::ChangeMerged => "change-merged",
            EventKind::CommentAdded => "comment-added",
            EventKind::RefUpdated => "ref-updated",
            EventKind::Timer => "timer",
            EventKind::ParentChangeEnqueued => "parent-change-enqueued",
            EventKind::ProjectChangeMerged => "project-change-merged",
        }
    }
}

/// Something happened to a project of a source. What it is about beyond that stands in the other fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggerEvent {
    /// What.
    pub kind: EventKind,
    /// To which project.
    pub project: ProjectKey,
    /// The branch of the change, or of the timer.
    pub branch: Option<Branch>,
    /// The change, for events about one.
    pub change: Option<ChangeKey>,
    /// The ref, for ref updates.
    pub reference: Option<RefName>,
    /// The ref's commit before.
    pub old: Option<Revision>,
    /// The ref's commit now.
    pub new: Option<Revision>,
    /// Who did it.
    pub by: Person,
    /// The comment's text.
    pub comment: String,
    /// The votes given with the comment: normalised label and value.
    pub approvals: Vec<(String, i32)>,
    /// Timer events: the trigger's `time`. Zuul's own events: the pipeline.
    pub origin: String,
    /// When, by the source's clock.
    pub at: Time,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_distinct() {
        let words: std::collections::BTreeSet<_> =
            EventKind::ALL.map(EventKind::word).into_iter().collect();
        assert_eq!(words.len(), EventKind::ALL.len());
    }
}
