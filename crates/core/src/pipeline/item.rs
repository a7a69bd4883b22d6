//! What stands in a queue, and how far it is.

use super::input::{RunResult, Subject};
use super::jobs::Frozen;
use super::wanted::{MergeItem, RunContext};
use crate::event::{Branch, ChangeKey, ProjectKey, Revision};
use crate::id::{BuildSetId, ItemId, ReportId, RunId};
use crate::layout::{JobName, PipelineName};
use crate::time::Time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A change, ref or branch in a pipeline.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Item {
    pub(super) id: ItemId,
    pub(super) pipeline: PipelineName,
    /// Place in its queue: smaller is nearer to the head. Unique in the gate; promotion exchanges them.
    pub(super) order: u64,
    /// Independent pipelines: the queue it stands in, an item that is tested and those it needs.
    pub(super) group: u64,
    /// Changes that need each other are one bundle.
    pub(super) bundle: Option<u64>,
    pub(super) subject: Subject,
    pub(super) project: ProjectKey,
    /// Not live: only there to be tested on top of; it runs nothing and tells nothing.
    pub(super) live: bool,
    pub(super) enqueued: Time,
    /// The build set that its own one is built on: that of the nearest non-failing item ahead. None: the branch itself.
    pub(super) base: Option<BuildSetId>,
    pub(super) phase: Phase,
    pub(super) set: BuildSet,
    pub(super) failing: BTreeSet<Failing>,
    /// Within the active window; a value of the last walk.
    #[serde(skip)]
    pub(super) active: bool,
    /// Its jobs may start, as far as the items ahead are concerned; a value of the last walk.
    #[serde(skip)]
    pub(super) launchable: bool,
}

/// Where an item is in its life.
///
/// ```text
///   Testing ──all jobs done, nothing ahead──▶ (told, gone)
///      │                                          ▲
///      └─ dependent, all good, first ─▶ Merging ──┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Phase {
    /// Its jobs wait or run, or it waits for those ahead.
    Testing,
    /// The report that merges it is wanted; it stays the first of its queue until the outcome is in.
    Merging(ReportId),
}

/// Why an item will not succeed as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failing {
    /// A change that it needs is failing.
    NeededChange,
    /// A change of its cycle is failing.
    Cycle,
    /// It cannot be merged with what is ahead.
    MergeConflict,
    /// Its repository's configuration has errors.
    Configuration,
    /// Its merge could not be tried, as often as that is allowed.
    MergeGivenUp,
    /// A voting job has no success.
    Job,
}

impl Failing {
    /// As status.json says it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Failing::NeededChange => "a needed change is failing",
            Failing::Cycle => "a change of its dependency cycle is failing",
            Failing::MergeConflict => "it has a merge conflict",
            Failing::Configuration => "its configuration has errors",
            Failing::MergeGivenUp => "it could not be prepared",
            Failing::Job => "at least one job failed",
        }
    }
}

/// One speculative state of an item with its runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct BuildSet {
    pub(super) id: BuildSetId,
    pub(super) merge: MergeState,
    /// Oldest first; fixed when the merge was first wanted.
    pub(super) series: Vec<MergeItem>,
    /// `project:branch:ref` and `C,P` of the series' changes.
    pub(super) changes: Vec<(String, String)>,
    pub(super) commits: Vec<(ProjectKey, Branch, Revision)>,
    pub(super) files: Vec<(String, String)>,
    /// One for each frozen job, in its order.
    pub(super) jobs: Vec<Slot>,
    /// Its runs were stopped although no other build set took its place.
    pub(super) stopped: bool,
    #[serde(skip)]
    pub(super) frozen: Arc<Frozen>,
    #[serde(skip)]
    pub(super) context: Option<Arc<RunContext>>,
}

/// How far the speculative merge of a build set is.
///
/// ```text
///   New ──in the window──▶ Wanted ──┬─▶ Merged
///                          ▲ │      ├─▶ Conflict
///                  later   └─┘      ├─▶ Unreadable   configuration with errors
///                                   └─▶ GivenUp      could not be tried too often
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum MergeState {
    /// Not asked for yet.
    New,
    /// Asked for.
    Wanted { failures: u32, not_before: Time, why: String },
    /// It is there.
    Merged,
    /// The change's fault.
    Conflict { files: Vec<String>, with: Option<ChangeKey> },
    /// It is there, but its repository's configuration has errors.
    Unreadable { errors: String },
    /// The world's fault, as often as that is borne.
    GivenUp { why: String },
}

/// A frozen job's state, by its name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Slot {
    pub(super) name: JobName,
    pub(super) state: JobState,
}

/// How far a job of a build set is.
///
/// ```text
///   Waiting ──parents good, semaphore free──▶ Wanted ──▶ Running ──▶ Done
///      │                                       ▲           │          ▲ ▲
///      │                                       └─ infrastructure ─────┘ │
///      └─ a parent without success: SKIPPED; `noop`: SUCCESS ───────────┘
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum JobState {
    /// Something else comes first.
    Waiting,
    /// A run of it is wanted and has not begun: it waits for node and test environment.
    Wanted { run: RunId, attempt: u32, since: Time },
    /// Its scripts run.
    Running { run: RunId, attempt: u32, started: Time, url: String },
    /// It is over.
    Done(Done),
}

/// What remains of a job that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Done {
    /// None: it never ran (skipped, `noop`).
    pub(super) run: Option<RunId>,
    pub(super) attempt: u32,
    pub(super) result: RunResult,
    pub(super) started: Option<Time>,
    pub(super) ended: Time,
    pub(super) url: String,
    pub(super) note: String,
}

impl JobState {
    /// Over without having run.
    pub(super) fn settled(result: RunResult, now: Time) -> JobState {
        JobState::Done(Done {
            run: None,
            attempt: 0,
            result,
            started: None,
            ended: now,
            url: String::new(),
            note: String::new(),
        })
    }

    /// The run that is wanted.
    pub(super) fn run(&self) -> Option<RunId> {
        match self {
            JobState::Wanted { run, .. } | JobState::Running { run, .. } => Some(*run),
            JobState::Waiting | JobState::Done(_) => None,
        }
    }

    pub(super) fn result(&self) -> Option<RunResult> {
        match self {
            JobState::Done(done) => Some(done.result),
            JobState::Waiting | JobState::Wanted { .. } | JobState::Running { .. } => None,
        }
    }
}

impl BuildSet {
    /// A fresh one for these jobs.
    pub(super) fn new(id: BuildSetId, frozen: Arc<Frozen>) -> BuildSet {
        let mut set = BuildSet {
            id,
            merge: MergeState::New,
            series: Vec::new(),
            changes: Vec::new(),
            commits: Vec::new(),
            files: Vec::new(),
            jobs: Vec::new(),
            stopped: false,
            frozen: Arc::default(),
            context: None,
        };
        set.freeze(frozen);
        set
    }

    /// Takes these jobs; those it had already keep their state. Returns runs that no job has any more.
    pub(super) fn freeze(&mut self, frozen: Arc<Frozen>) -> Vec<RunId> {
        let mut before = std::mem::take(&mut self.jobs);
        for job in &frozen.jobs {
            let known = before.iter().position(|slot| slot.name == job.job.name);
            self.jobs.push(match known {
                Some(at) => before.swap_remove(at),
                None => Slot { name: job.job.name.clone(), state: JobState::Waiting },
            });
        }
        self.frozen = frozen;
        before.iter().filter_map(|slot| slot.state.run()).collect()
    }

    /// Nothing was done for it yet, so that it may be put on another base as it is.
    pub(super) fn untouched(&self) -> bool {
        self.merge == MergeState::New && !self.stopped
    }

    /// Its merge is there and its jobs are known.
    pub(super) fn ready(&self) -> bool {
        self.merge == MergeState::Merged
    }

    /// Nothing more will happen in it.
    pub(super) fn complete(&self) -> bool {
        match self.merge {
            MergeState::Conflict { .. }
            | MergeState::Unreadable { .. }
            | MergeState::GivenUp { .. } => true,
            MergeState::New | MergeState::Wanted { .. } => false,
            MergeState::Merged => self.jobs.iter().all(|s| s.state.result().is_some()),
        }
    }

    /// Its own reason to fail, whatever is ahead.
    pub(super) fn own_failure(&self) -> Option<Failing> {
        match self.merge {
            MergeState::Conflict { .. } => Some(Failing::MergeConflict),
            MergeState::Unreadable { .. } => Some(Failing::Configuration),
            MergeState::GivenUp { .. } => Some(Failing::MergeGivenUp),
            MergeState::New | MergeState::Wanted { .. } | MergeState::Merged => {
                self.job_failed().then_some(Failing::Job)
            }
        }
    }

    fn job_failed(&self) -> bool {
        let mut jobs = self.frozen.jobs.iter().zip(&self.jobs);
        jobs.any(|(job, slot)| {
            job.job.voting && slot.state.result().is_some_and(|r| r != RunResult::Success)
        })
    }

    /// Every voting job has succeeded.
    pub(super) fn succeeded(&self) -> bool {
        self.ready() && self.complete() && !self.job_failed()
    }

    /// Some job keeps the items behind from starting theirs.
    pub(super) fn holds_following(&self) -> Option<&JobName> {
        let mut jobs = self.frozen.jobs.iter().zip(&self.jobs);
        jobs.find(|(job, slot)| {
            job.job.hold_following && slot.state.result() != Some(RunResult::Success)
        })
        .map(|(_, slot)| &slot.name)
    }

    /// Stops everything that is not over. Returns the runs that are not wanted any more.
    pub(super) fn stop(&mut self, now: Time) -> Vec<RunId> {
        let mut runs = Vec::new();
        for slot in &mut self.jobs {
            runs.extend(slot.state.run());
            slot.state = match &slot.state {
                JobState::Waiting => JobState::settled(RunResult::Canceled, now),
                JobState::Wanted { run, attempt, .. } => JobState::Done(Done {
                    run: Some(*run),
                    attempt: *attempt,
                    result: RunResult::Canceled,
                    started: None,
                    ended: now,
                    url: String::new(),
                    note: String::new(),
                }),
                JobState::Running { run, attempt, started, url } => JobState::Done(Done {
                    run: Some(*run),
                    attempt: *attempt,
                    result: RunResult::Canceled,
                    started: Some(*started),
                    ended: now,
                    url: url.clone(),
                    note: String::new(),
                }),
                JobState::Done(done) => JobState::Done(done.clone()),
            };
        }
        runs
    }

    /// The runs that are wanted.
    pub(super) fn runs(&self) -> impl Iterator<Item = RunId> + '_ {
        self.jobs.iter().filter_map(|slot| slot.state.run())
    }

    /// The newest commit of one project and branch.
    pub(super) fn commit_of(&self, own: &MergeItem) -> Option<&Revision> {
        let mut commits = self.commits.iter();
        commits.find(|(p, b, _)| *p == own.project && *b == own.branch).map(|(_, _, c)| c)
    }
}
