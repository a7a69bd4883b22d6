//! A proposed change as its source showed it at a moment.

use super::name::{Branch, ProjectKey, RefName, Revision};
use crate::id::SourceName;
use crate::time::Time;
use core::fmt;
use serde::{Deserialize, Serialize};

/// One patchset of one change of one source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChangeKey {
    /// Its source.
    pub source: SourceName,
    /// The change's number there.
    pub number: u64,
    /// Gerrit and plain git: the patchset's number; GitHub: the head commit.
    pub patchset: String,
}

impl ChangeKey {
    /// Zuul's way to name it: `123,4`.
    #[must_use]
    pub fn short(&self) -> String {
        format!("{},{}", self.number, self.patchset)
    }

    /// Whether both are patchsets of one change.
    #[must_use]
    pub fn same_change(&self, other: &ChangeKey) -> bool {
        self.source == other.source && self.number == other.number
    }
}

impl fmt::Display for ChangeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{},{}", self.source, self.number, self.patchset)
    }
}

/// Somebody, as a source names them; any part may be missing (empty).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Person {
    /// Login name.
    pub username: String,
    /// E-mail address.
    pub email: String,
    /// Name for people.
    pub name: String,
}

/// Where a change is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeState {
    /// It can still be changed, voted on and merged.
    Open,
    /// It is part of its branch.
    Merged,
    /// Given up; it may be restored.
    Abandoned,
}

/// A vote that stands on the change's current patchset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The label, normalised: see [`normal_label`].
    pub label: String,
    /// E.g. -2 to +2.
    pub value: i32,
    /// Whose vote.
    pub by: Person,
    /// Since when.
    pub at: Time,
}

/// Lower case, blanks as dashes: `Code Review` and `code-review` are one label (origin.md 7.2).
#[must_use]
pub fn normal_label(label: &str) -> String {
    label.trim().to_lowercase().replace(' ', "-")
}

/// What a source says of one submit rule (Gerrit's submitRecords; origin.md 10).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmitRecord {
    /// Of the whole rule.
    pub status: RecordStatus,
    /// Of each label, normalised.
    pub labels: Vec<(String, LabelStatus)>,
}

/// Gerrit's words for a submit rule's outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RecordStatus {
    /// It may be submitted.
    Ok,
    /// Some label is missing or refuses.
    NotReady,
    /// The change is merged or abandoned.
    Closed,
    /// The rule itself is broken.
    RuleError,
}

/// Gerrit's words for a label's part in a submit rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LabelStatus {
    /// It is as it must be.
    Ok,
    /// A vote is missing.
    Need,
    /// A vote forbids it.
    Reject,
    /// It does not matter.
    May,
    /// Nobody can give the vote that is missing.
    Impossible,
}

/// One patchset of a change, as its source showed it at a moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which.
    pub key: ChangeKey,
    /// Of which project.
    pub project: ProjectKey,
    /// For which branch.
    pub branch: Branch,
    /// Where its commit can be fetched, e.g. `refs/changes/34/1234/5`.
    pub reference: RefName,
    /// Its commit.
    pub revision: Revision,
    /// Gerrit's Change-Id; empty where there is none.
    pub change_id: String,
    /// Where it is in its life.
    pub state: ChangeState,
    /// Whether no newer patchset exists.
    pub current: bool,
    /// Draft or work in progress: not for merging.
    pub wip: bool,
    /// The first line of its message.
    pub title: String,
    /// The whole commit message.
    pub message: String,
    /// Whose change it is.
    pub owner: Person,
    /// For people.
    pub url: String,
    /// Topic; empty when it has none.
    pub topic: String,
    /// Hash tags.
    pub hashtags: Vec<String>,
    /// Paths it touches. `None`: the source does not say (then file filters match).
    pub files: Option<Vec<String>>,
    /// Votes on it.
    pub approvals: Vec<Approval>,
    /// What the source's own submit rules say. Empty: the source has none, so they do not stand in the way.
    pub submit: Vec<SubmitRecord>,
    /// Changes it needs: the source's own parents, then `Depends-On:` footers; resolved, without itself.
    pub needs: Vec<ChangeKey>,
    /// Open changes of the source that are known to need it.
    pub needed_by: Vec<ChangeKey>,
}

/// A ref moved.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RefUpdate {
    /// Of which project.
    pub project: ProjectKey,
    /// Branches are full refs here as well: `refs/heads/master`, `refs/tags/1.0`.
    pub reference: RefName,
    /// [`Revision::none`] for a new ref.
    pub old: Revision,
    /// [`Revision::none`] for a deleted one.
    pub new: Revision,
}

impl RefUpdate {
    /// The branch, when it is one.
    #[must_use]
    pub fn branch(&self) -> Option<&str> {
        self.reference.as_str().strip_prefix("refs/heads/")
    }

    /// The ref as Zuul and Gerrit's ref-updated events name it: branches bare, everything else in full.
    #[must_use]
    pub fn zuul_name(&self) -> &str {
        self.branch().unwrap_or(self.reference.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_one_spelling() {
        assert_eq!(normal_label(" Code Review"), "code-review");
        assert_eq!(normal_label("Verified"), "verified");
    }

    #[test]
    fn a_change_is_named_as_zuul_does() {
        let key = ChangeKey {
            source: SourceName::new("gerrit").unwrap(),
            number: 123,
            patchset: "4".into(),
        };
        assert_eq!(key.short(), "123,4");
        assert_eq!(key.to_string(), "gerrit:123,4");
        assert!(key.same_change(&ChangeKey { patchset: "5".into(), ..key.clone() }));
    }
}
