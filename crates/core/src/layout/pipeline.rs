//! Pipelines: which events enter, what is required, how the queue moves, what is reported.

use super::pattern::Pattern;
use crate::event::{EventKind, SourceName};
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// A pipeline's name, e.g. `gate`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PipelineName(pub String);

impl core::fmt::Display for PipelineName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(&self.0)
    }
}

/// How items of a pipeline relate to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manager {
    /// Each item stands for itself (`check`).
    Independent,
    /// Items are tested on top of those ahead and merged in order (`gate`).
    Dependent,
}

/// Who goes first when nodes are scarce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precedence {
    /// Last.
    Low,
    /// In between.
    #[default]
    Normal,
    /// First.
    High,
}

/// A wish on votes (`approval`, `require-approval`): some one vote must meet all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApprovalRule {
    /// The voter's login.
    pub username: Option<Pattern>,
    /// The voter's address.
    pub email: Option<Pattern>,
    /// The vote is at least so old.
    pub older_than: Option<Duration>,
    /// The vote is at most so old.
    pub newer_than: Option<Duration>,
    /// Normalised label and the values that will do.
    pub labels: Vec<(String, Vec<i32>)>,
}

/// What must hold of a change (`require`) or must not (`reject`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requirements {
    /// Each must be met by some vote.
    pub approvals: Vec<ApprovalRule>,
    /// The change is (not) open.
    pub open: Option<bool>,
    /// The patchset is (not) the current one.
    pub current_patchset: Option<bool>,
    /// Gerrit's status word, any of.
    pub status: Vec<String>,
    /// Ours: the topic, any of; matched from its start.
    pub topics: Vec<Pattern>,
    /// Ours: hashtags (labels of GitHub), matched from their start. Required: each by some tag. Rejected: any by any.
    pub hashtags: Vec<Pattern>,
}

/// Where a trigger listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Events of the pipeline's source.
    Source,
    /// A clock.
    Timer,
    /// Zuul's own events.
    Zuul,
}

/// One trigger with its filters. Lists: any of; empty: no filter (origin.md 7.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriggerFilter {
    /// Where it listens.
    pub trigger: Trigger,
    /// Kinds of events.
    pub events: Vec<EventKind>,
    /// Branch, matched from its start.
    pub branches: Vec<Pattern>,
    /// Ref, matched from its start.
    pub refs: Vec<Pattern>,
    /// Comment, searched.
    pub comments: Vec<Pattern>,
    /// Address, searched.
    pub emails: Vec<Pattern>,
    /// Login, searched.
    pub usernames: Vec<Pattern>,
    /// Votes given with the event: all of these label-value pairs.
    pub approvals: Vec<(String, Vec<i32>)>,
    /// Votes that stand: all of these.
    pub require_approvals: Vec<ApprovalRule>,
    /// Votes that must not stand.
    pub reject_approvals: Vec<ApprovalRule>,
    /// Timer: cron text of 5 or 6 fields.
    pub timespecs: Vec<String>,
    /// Zuul trigger: of which pipelines.
    pub pipelines: Vec<Pattern>,
}

/// Votes and flags of a Gerrit review, e.g. `verified: 2`, `submit: true`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GerritVote {
    /// A label (normalised) and its value.
    Label(String, i32),
    /// A bare flag such as `submit`.
    Flag(String),
}

/// One way to tell a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reporter {
    /// To a source: votes, comment, merge. The name is the source's.
    Source {
        /// Which source.
        source: SourceName,
        /// Votes and flags; empty means a comment only.
        votes: Vec<GerritVote>,
        /// Merge the change (Gerrit's `submit`, git's push, GitHub's merge).
        merge: bool,
    },
    /// Mail.
    Smtp {
        /// Sender; default of the configuration when absent.
        from: Option<String>,
        /// Receiver; default of the configuration when absent.
        to: Option<String>,
        /// Subject with `{change.…}` places.
        subject: Option<String>,
    },
    /// HTTP POST of the item as JSON.
    Webhook {
        /// Where to.
        url: String,
    },
}

/// What is told when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actions {
    /// An item entered.
    pub start: Vec<Reporter>,
    /// All voting jobs succeeded.
    pub success: Vec<Reporter>,
    /// Some voting job failed.
    pub failure: Vec<Reporter>,
    /// It could not be merged with what is ahead; the failure reporters when it is not given.
    pub merge_failure: Option<Vec<Reporter>>,
    /// Instead of all others while the pipeline is disabled after consecutive failures.
    pub disabled: Vec<Reporter>,
}

/// First lines of reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Messages {
    /// Default "Starting {pipeline} jobs."
    pub start: Option<String>,
    /// Default "Build succeeded."
    pub success: String,
    /// Default "Build failed."
    pub failure: String,
    /// Default of origin.md 7.2.
    pub merge_failure: String,
    /// After everything else; may be empty.
    pub footer: String,
}

/// How a window grows or shrinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// By this many.
    Linear(u32),
    /// By this factor.
    Exponential(u32),
}

/// How many items of a dependent queue are worked on at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// At the start; 0 means no limit.
    pub start: u32,
    /// Never less than this.
    pub floor: u32,
    /// After a success.
    pub increase: Growth,
    /// After a failure.
    pub decrease: Growth,
}

impl Default for Window {
    /// Zuul's: 20, floor 3, +1, /2.
    fn default() -> Window {
        Window {
            start: 20,
            floor: 3,
            increase: Growth::Linear(1),
            decrease: Growth::Exponential(2),
        }
    }
}

/// A pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pipeline {
    /// Its name.
    pub name: PipelineName,
    /// For people.
    pub description: String,
    /// How items relate.
    pub manager: Manager,
    /// Whose changes.
    pub source: SourceName,
    /// Who goes first.
    pub precedence: Precedence,
    /// What makes items enter.
    pub triggers: Vec<TriggerFilter>,
    /// What must hold of a change that enters.
    pub require: Requirements,
    /// What must not hold: any of these votes keeps it out.
    pub reject: Requirements,
    /// What is told when.
    pub actions: Actions,
    /// First lines of what is told.
    pub messages: Messages,
    /// Active window of each queue.
    pub window: Window,
    /// A new patchset throws out the older one's item.
    pub dequeue_on_new_patchset: bool,
    /// Independent only: needed changes are not enqueued nor waited for.
    pub ignore_dependencies: bool,
    /// After so many failures in a row only `disabled` is told.
    pub disable_after: Option<u32>,
    /// Ours: cancel what still runs as soon as the verdict is certain.
    pub abandon_on_failure: bool,
    /// Ours: changes that need each other are gated as one; otherwise refused with a message.
    pub allow_cycles: bool,
    /// As in later Zuuls: it takes only what was reviewed, so that its runs may have secrets whatever they run.
    pub post_review: bool,
}
