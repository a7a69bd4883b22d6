//! Pipelines: queues of changes, their jobs, orders by hand.
//!
//! ```text
//! GET  /pipelines                     -> [Pipeline]           read-only
//! GET  /pipelines/{pipeline}          -> Pipeline             read-only
//! POST /pipelines/{pipeline}/enqueue  PipelineOrder -> 204    operator
//! POST /pipelines/{pipeline}/dequeue  PipelineOrder -> 204    operator
//! POST /pipelines/{pipeline}/promote  Promote -> 204          operator
//! GET  /items/{id}                    -> PipelineItem         read-only
//! GET  /ended-items?pipeline&project&change&result&before&limit
//!                                     -> [EndedItem]          read-only, the newest first, page by page
//! POST /reconfigure                   -> 204                  operator: reads the layout anew
//! GET  /sources                       -> [ChangeSource]       read-only: whether each is heard, and since when
//! POST /sources/{source}/poke         -> 204                  client: there is news, look at once
//! ```

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pipeline {
    /// Its name.
    pub name: String,
    /// For people.
    pub description: String,
    /// Whether its items are tested on each other and merged in order.
    pub dependent: bool,
    /// Failures in a row.
    pub failures: u32,
    /// After too many of them only its `disabled` reporters are told.
    pub disabled: bool,
    /// Its change queues.
    pub queues: Vec<PipelineQueue>,
    /// Changes that wait for one in another queue; they enter by themselves when that is merged.
    pub waiting: Vec<WaitingChange>,
}

/// A change that may be merged, but needs one that is gated in another queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WaitingChange {
    /// `SOURCE:NUMBER,PATCHSET`.
    pub subject: String,
    /// Its project.
    pub project: String,
    /// The change's title.
    pub title: String,
    /// For people; may be empty.
    pub url: String,
    /// The change that has to merge first: `SOURCE:NUMBER,PATCHSET`.
    pub needs: String,
    /// Since when it waits.
    pub since_us: i64,
    /// Why it waits.
    pub waits_for: String,
}

/// A change queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PipelineQueue {
    /// Its name; empty in independent pipelines.
    pub name: String,
    /// How many items are worked on; 0: all.
    pub window: u32,
    /// Items from the head on.
    pub items: Vec<PipelineItem>,
}

/// Something that goes through a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PipelineItem {
    /// 32 hex digits.
    pub id: String,
    /// Of which pipeline.
    pub pipeline: String,
    /// Its project.
    pub project: String,
    /// `SOURCE:NUMBER,PATCHSET` of a change, `REF COMMIT` of a ref update, the branch for timers.
    pub subject: String,
    /// The change's title; empty for refs and timers.
    pub title: String,
    /// For people; may be empty.
    pub url: String,
    /// Only there to be tested on.
    pub live: bool,
    /// Within the active window.
    pub active: bool,
    /// 1 for the first of its queue.
    pub position: u32,
    /// The item that it is built on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead: Option<String>,
    /// Why it will not succeed as it stands.
    pub failing: Vec<String>,
    /// When it entered.
    pub enqueued_us: i64,
    /// What it waits for; may be empty.
    pub waits_for: String,
    /// Its jobs.
    pub jobs: Vec<PipelineJob>,
}

/// A job of an item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PipelineJob {
    /// Its name.
    pub name: String,
    /// Whether its result counts.
    pub voting: bool,
    /// Its run, if there is or was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// 1 for the first; 0 before.
    pub attempt: u32,
    /// When its scripts began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_us: Option<i64>,
    /// When it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_us: Option<i64>,
    /// SUCCESS, FAILURE, TIMED_OUT, ...; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// Console or logs; may be empty.
    pub url: String,
    /// One line on the result; may be empty.
    pub note: String,
    /// What it waits for; empty when it runs or is over.
    pub waits_for: String,
}

/// What to put in or to throw out: one of `change` and `reference`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PipelineOrder {
    /// `[SOURCE:]NUMBER[,PATCHSET]`; the current patchset when none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<String>,
    /// A ref of a project (Zuul's enqueue-ref).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<ReferenceOrder>,
}

/// A ref of a project, as if it had moved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReferenceOrder {
    /// `[SOURCE:]PROJECT`.
    pub project: String,
    /// The full ref, e.g. `refs/heads/master` or `refs/tags/1.0`.
    pub name: String,
    /// Its commit before; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    /// Its commit now; absent: none (it was deleted).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
}

/// What goes to the heads of its queues.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Promote {
    /// `[SOURCE:]NUMBER[,PATCHSET]`, the first one first.
    pub changes: Vec<String>,
}

/// An item that left its pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndedItem {
    /// 32 hex digits.
    pub id: String,
    /// Of which pipeline.
    pub pipeline: String,
    /// Its project.
    pub project: String,
    /// As of a [`PipelineItem`].
    pub subject: String,
    /// The change's title; empty for refs and timers.
    pub title: String,
    /// For people; may be empty.
    pub url: String,
    /// When it entered.
    pub enqueued_us: i64,
    /// Its jobs, as they were when it left.
    pub jobs: Vec<PipelineJob>,
    /// `succeeded`, `failed`, `not_merged`, `needed_change_failed`, `no_jobs`, `superseded`, `abandoned`, `dequeued`,
    /// `unconfigured`, `not_needed`.
    pub end: String,
    /// When.
    pub ended_us: i64,
    /// What was told; empty when nothing was.
    pub message: String,
}

/// A source of changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangeSource {
    /// What layouts call it.
    pub name: String,
    /// `gerrit`, `git` or `github`.
    pub kind: String,
    /// `up`: it is heard. `down`: it is not, and tried again. `unknown`: not known yet.
    pub state: String,
    /// Since when.
    pub since_us: i64,
    /// Why it is down; else empty.
    pub why: String,
    /// When it last told an event.
    pub event_us: Option<i64>,
    /// What came since the server started that was no event, and was passed over.
    pub malformed: u64,
    /// The last of it; empty when there was none.
    pub last_malformed: String,
}

/// Which items that left are listed; empty: all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndedQuery {
    /// Of this pipeline.
    pub pipeline: Option<String>,
    /// Of this project.
    pub project: Option<String>,
    /// Of this change: `[SOURCE:]NUMBER[,PATCHSET]`.
    pub change: Option<String>,
    /// That ended so, as [`EndedItem::end`] says it.
    pub result: Option<String>,
    /// That left before this one: the next page.
    pub before: Option<String>,
    /// So many at most.
    pub limit: Option<usize>,
}

/// A report that was delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Report {
    /// Of which item; 32 hex digits.
    pub item: String,
    /// Of which pipeline.
    pub pipeline: String,
    /// As of a [`PipelineItem`].
    pub subject: String,
    /// `start`, `success`, `failure`, `merge-failure`, `disabled`.
    pub action: String,
    /// What was told.
    pub message: String,
}
