//! What people see of the gate: everything of Zuul's status.json (origin.md 7.8), and why each thing waits.

use super::answer::End;
use super::build::reference;
use super::gate::Gate;
use super::input::{RunResult, Subject};
use super::item::{Item, JobState, MergeState, Phase};
use super::jobs::FrozenJob;
use super::needs::Needs;
use super::waiting::{Waiting, WaitingId};
use crate::event::{Change, ChangeKey};
use crate::id::{ItemId, RunId};
use crate::layout::{JobName, Manager, PipelineName};
use crate::time::Time;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A pipeline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PipelineView {
    /// Its name.
    pub name: PipelineName,
    /// For people.
    pub description: String,
    /// Whether its items are merged in order.
    pub dependent: bool,
    /// Failures in a row.
    pub failures: u32,
    /// Too many of them: told to the `disabled` reporters only.
    pub disabled: bool,
    /// Its queues; empty ones of dependent pipelines too.
    pub queues: Vec<QueueView>,
    /// Changes that another queue keeps out; they enter by themselves. Those first that wait longest.
    pub waiting: Vec<WaitingView>,
}

/// A change that may be merged, but needs one that is gated in another queue.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WaitingView {
    /// Which.
    pub key: ChangeKey,
    /// As last seen.
    pub change: Option<Change>,
    /// What has to merge first.
    pub needs: ChangeKey,
    /// Since when it waits.
    pub since: Time,
    /// Why, for people.
    pub waits_for: String,
}

/// A change queue.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct QueueView {
    /// Its name; empty in independent pipelines.
    pub name: String,
    /// How many items are worked on; 0: all.
    pub window: u32,
    /// Items that are built on each other, each list from its head. As in Zuul, an item that is built on nothing begins
    /// a new one.
    pub heads: Vec<Vec<ItemView>>,
}

/// An item.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ItemView {
    /// Which.
    pub id: ItemId,
    /// Of which pipeline.
    pub pipeline: PipelineName,
    /// What it is about.
    pub subject: Subject,
    /// Its change as last seen.
    pub change: Option<Change>,
    /// Its project, as its source calls it.
    pub project: String,
    /// Only there to be tested on.
    pub live: bool,
    /// Within the active window.
    pub active: bool,
    /// 1 for the first of its queue.
    pub position: usize,
    /// The nearest non-failing item ahead: what it is built on.
    pub ahead: Option<ItemId>,
    /// Items that are built on it directly.
    pub behind: Vec<ItemId>,
    /// Changes that are gated with it as one.
    pub bundle: Vec<ItemId>,
    /// Why it will not succeed as it stands, in words.
    pub failing: Vec<&'static str>,
    /// Last part of its refs; none before its merge was wanted.
    pub reference: Option<String>,
    /// When it entered.
    pub enqueued: Time,
    /// What it waits for, for people.
    pub waits_for: String,
    /// Its jobs.
    pub jobs: Vec<JobView>,
}

/// A job of an item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobView {
    /// Its name.
    pub name: JobName,
    /// Whether its result counts.
    pub voting: bool,
    /// Its run, if there is or was one.
    pub run: Option<RunId>,
    /// 1 for the first; 0 before.
    pub attempt: u32,
    /// When the run was first wanted, while it waits for its node.
    pub wanted: Option<Time>,
    /// When its scripts began.
    pub started: Option<Time>,
    /// When it was over.
    pub ended: Option<Time>,
    /// How it went.
    pub result: Option<RunResult>,
    /// Console or logs; may be empty.
    pub url: String,
    /// One line on the result; may be empty.
    pub note: String,
    /// What it waits for, for people; empty when it runs or is over.
    pub waits_for: String,
}

#[derive(Default)]
struct Links {
    ahead: BTreeMap<ItemId, ItemId>,
    behind: BTreeMap<ItemId, Vec<ItemId>>,
}

impl Gate {
    /// All of it.
    #[must_use]
    pub fn status(&self) -> Vec<PipelineView> {
        let pipelines = self.layout.pipelines.iter().zip(&self.lanes).enumerate();
        pipelines
            .map(|(lane, (pipeline, place))| PipelineView {
                name: pipeline.name.clone(),
                description: pipeline.description.clone(),
                dependent: pipeline.manager == Manager::Dependent,
                failures: place.failures,
                disabled: place.disabled,
                queues: self
                    .queues_in_order(lane)
                    .into_iter()
                    .map(|number| self.queue_view(lane, number))
                    .collect(),
                waiting: self.waiting_views(&pipeline.name),
            })
            .collect()
    }

    fn waiting_views(&self, pipeline: &PipelineName) -> Vec<WaitingView> {
        let own = self.waiting.iter().filter(|(id, _)| id.pipeline == *pipeline);
        let view = |(id, waiting): (&WaitingId, &Waiting)| WaitingView {
            key: id.change.clone(),
            change: self.views.get(&id.change).map(|change| Change::clone(change)),
            needs: waiting.needs.clone(),
            since: waiting.since,
            waits_for: format!("{}, which is gated in another queue, to be merged", waiting.needs),
        };
        let mut views: Vec<WaitingView> = own.map(view).collect();
        views.sort_by_key(|view| view.since);
        views
    }

    /// One item.
    #[must_use]
    pub fn item_view(&self, id: ItemId) -> Option<ItemView> {
        let (lane, number) = self.place(id)?;
        let position = self.lanes[lane].queues.get(&number)?.items.iter().position(|i| *i == id)?;
        let links = self.links(lane, number);
        Some(self.view_of(lane, number, self.items.get(&id)?, position, &links))
    }

    fn queue_view(&self, lane: usize, number: u64) -> QueueView {
        let Some(queue) = self.lanes[lane].queues.get(&number) else {
            return QueueView { name: String::new(), window: 0, heads: Vec::new() };
        };
        let mut heads: Vec<Vec<ItemView>> = Vec::new();
        let links = self.links(lane, number);
        let items = queue.items.iter().filter_map(|id| self.items.get(id)).enumerate();
        for (position, item) in items {
            let view = self.view_of(lane, number, item, position, &links);
            match heads.last_mut() {
                Some(last) if view.ahead.is_some() || !last.iter().any(|v| v.live) => {
                    last.push(view)
                }
                Some(_) | None => heads.push(vec![view]),
            }
        }
        QueueView { name: queue.name.clone(), window: queue.window, heads }
    }

    /// Who is built on whom. An item for which nothing was done yet will be built on the nearest non-failing one.
    fn links(&self, lane: usize, number: u64) -> Links {
        let mut links = Links::default();
        let ids =
            self.lanes[lane].queues.get(&number).map(|q| q.items.as_slice()).unwrap_or_default();
        let mut nearest = None;
        for item in ids.iter().filter_map(|id| self.items.get(id)).filter(|item| item.live) {
            let ahead = if item.set.untouched() {
                nearest
            } else {
                item.base.and_then(|set| self.sets.get(&set)).copied()
            };
            if let Some(ahead) = ahead {
                links.ahead.insert(item.id, ahead);
                links.behind.entry(ahead).or_default().push(item.id);
            }
            if item.failing.is_empty() {
                nearest = Some(item.id);
            }
        }
        links
    }

    fn view_of(
        &self,
        lane: usize,
        number: u64,
        item: &Item,
        position: usize,
        links: &Links,
    ) -> ItemView {
        let mates = if item.bundle.is_some() { self.bundle_of(lane, item) } else { Vec::new() };
        let jobs = item.set.frozen.jobs.iter().enumerate();
        ItemView {
            id: item.id,
            pipeline: item.pipeline.clone(),
            subject: item.subject.clone(),
            change: self.view(&item.subject).map(|change| Change::clone(change)),
            project: item.project.name.to_string(),
            live: item.live,
            active: item.active,
            position: position + 1,
            ahead: links.ahead.get(&item.id).copied(),
            behind: links.behind.get(&item.id).cloned().unwrap_or_default(),
            bundle: mates,
            failing: item.failing.iter().map(|why| why.word()).collect(),
            reference: (item.set.merge != MergeState::New).then(|| reference(item.set.id)),
            enqueued: item.enqueued,
            waits_for: self.item_waits_for(lane, number, item, position),
            jobs: jobs.map(|(at, frozen)| self.job_view(item, at, frozen)).collect(),
        }
    }

    fn item_waits_for(&self, lane: usize, number: u64, item: &Item, position: usize) -> String {
        if !item.live {
            return "nothing: it is only there to be tested on".to_owned();
        }
        if let Phase::Merging(report) = item.phase {
            return match self.reports.get(&report) {
                Some(report) if report.failures > 0 => {
                    format!(
                        "its source to merge it; try {} failed: {}",
                        report.failures, report.why
                    )
                }
                Some(_) | None => "its source to merge it".to_owned(),
            };
        }
        if let Needs::Failing(needed) = self.needs_of(lane, item) {
            return format!("{}, which it needs and which is failing", self.short(needed));
        }
        match &item.set.merge {
            MergeState::New => {
                let window = self.lanes[lane].queues.get(&number).map_or(0, |q| q.window);
                format!("the window: it is number {}, and {window} are worked on", position + 1)
            }
            MergeState::Wanted { failures: 0, .. } => "its merge with what is ahead".to_owned(),
            MergeState::Wanted { failures, why, .. } => {
                format!("its merge with what is ahead; try {failures} failed: {why}")
            }
            MergeState::Merged if !item.set.complete() => self.jobs_wait_for(lane, number, item),
            MergeState::Merged
            | MergeState::Conflict { .. }
            | MergeState::Unreadable { .. }
            | MergeState::GivenUp { .. } => "the items ahead of it".to_owned(),
        }
    }

    fn jobs_wait_for(&self, lane: usize, number: u64, item: &Item) -> String {
        if !item.launchable && item.active {
            let ids = self.lanes[lane]
                .queues
                .get(&number)
                .map(|q| q.items.as_slice())
                .unwrap_or_default();
            let before =
                ids.iter().take_while(|id| **id != item.id).filter_map(|id| self.items.get(id));
            for other in before.filter(|other| other.failing.is_empty()) {
                if let Some(job) = other.set.holds_following() {
                    return format!("{job} of {}, which holds what follows", self.short(other.id));
                }
                if !other.set.ready() {
                    return format!("the merge of {}", self.short(other.id));
                }
            }
        }
        "its jobs".to_owned()
    }

    pub(super) fn job_view(&self, item: &Item, at: usize, frozen: &FrozenJob) -> JobView {
        let mut view = JobView {
            name: frozen.job.name.clone(),
            voting: frozen.job.voting,
            run: None,
            attempt: 0,
            wanted: None,
            started: None,
            ended: None,
            result: None,
            url: String::new(),
            note: String::new(),
            waits_for: String::new(),
        };
        match item.set.jobs.get(at).map(|slot| &slot.state) {
            None | Some(JobState::Waiting) => view.waits_for = self.job_waits_for(item, frozen),
            Some(JobState::Wanted { run, attempt, since }) => {
                (view.run, view.attempt, view.wanted) = (Some(*run), *attempt, Some(*since));
                view.waits_for = "a node and what else it needs to run".to_owned();
            }
            Some(JobState::Running { run, attempt, started, url }) => {
                (view.run, view.attempt, view.started) = (Some(*run), *attempt, Some(*started));
                view.url.clone_from(url);
            }
            Some(JobState::Done(done)) => {
                (view.run, view.attempt, view.started) = (done.run, done.attempt, done.started);
                (view.ended, view.result) = (Some(done.ended), Some(done.result));
                view.url.clone_from(&done.url);
                view.note.clone_from(&done.note);
            }
        }
        view
    }

    fn job_waits_for(&self, item: &Item, frozen: &FrozenJob) -> String {
        if !item.launchable {
            return "its item".to_owned();
        }
        let open = |need: &&usize| {
            item.set.jobs.get(**need).is_some_and(|slot| slot.state.result().is_none())
        };
        if let Some(slot) = frozen.needs.iter().find(open).and_then(|need| item.set.jobs.get(*need))
        {
            return format!("{}", slot.name);
        }
        match &frozen.job.semaphore {
            Some(held) => {
                let names: BTreeSet<String> = self
                    .holders
                    .iter()
                    .filter(|(_, name)| **name == held.name)
                    .map(|(run, _)| {
                        self.runs
                            .get(run)
                            .map_or("a run that is being stopped".to_owned(), |id| self.short(*id))
                    })
                    .collect();
                let names: Vec<String> = names.into_iter().collect();
                format!("the semaphore {}, held by {}", held.name, names.join(", "))
            }
            None => String::new(),
        }
    }

    /// An item in a few letters.
    fn short(&self, id: ItemId) -> String {
        self.items.get(&id).map_or_else(String::new, |item| match &item.subject {
            Subject::Change(key) => key.short(),
            Subject::Ref(_) | Subject::Branch { .. } => super::enter::name(&item.subject),
        })
    }
}

impl End {
    /// For people and figures.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            End::Succeeded => "succeeded",
            End::Failed => "failed",
            End::NotMerged => "not-merged",
            End::NeededChangeFailed => "needed-change-failed",
            End::NoJobs => "no-jobs",
            End::Superseded => "superseded",
            End::Abandoned => "abandoned",
            End::Dequeued => "dequeued",
            End::Unconfigured => "unconfigured",
            End::NotNeeded => "not-needed",
        }
    }
}
