//! The gate as one value.

use super::answer::{Answer, Changes, End, Left, Note};
use super::input::{Input, Subject};
use super::item::{Item, Phase};
use super::jobs::{self, Frozen};
use super::lane::Lane;
use super::report::Report;
use super::waiting::{Waiting, WaitingId};
use super::wanted::{MergeItem, MergeSubject};
use crate::event::{Change, ChangeKey, ChangeState, ProjectKey, TriggerEvent};
use crate::id::{BuildSetId, ItemId, ReportId, RunId};
use crate::layout::{Layout, Manager, Pipeline};
use crate::refused::Refused;
use crate::time::Time;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Views of changes beyond those that items need, before the others are forgotten.
const SPARE_VIEWS: usize = 1_000;

/// Reads a project's own configuration, from the files of the change under test, on top of the layout. An error is
/// a text for the change's owner: it names file, line and column.
///
/// A pure function; the wire crate has it.
pub type ReadProject = fn(&Layout, &ProjectKey, &[(String, String)]) -> Result<Layout, String>;

/// How results are told, and who reads the projects' own configuration.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Job names in reports (`job_name_in_report`).
    pub job_names: bool,
    /// Durations in reports (`report_times`).
    pub times: bool,
    /// URL of a run in reports when its job has no pattern (`url_pattern`).
    pub url_pattern: Option<String>,
    /// The status page, in the report of an item's start.
    pub status_url: Option<String>,
    /// The files of a project's own configuration.
    pub files: Vec<String>,
    /// How they are read.
    pub read: ReadProject,
}

impl Default for Policy {
    /// Zuul's defaults; projects' own files are not read.
    fn default() -> Policy {
        Policy {
            job_names: false,
            times: true,
            url_pattern: None,
            status_url: None,
            files: Vec::new(),
            read: |layout, _, _| Ok(layout.clone()),
        }
    }
}

/// Pipelines with their queues, items and runs.
#[derive(Clone, Debug)]
pub struct Gate {
    pub(super) layout: Arc<Layout>,
    pub(super) policy: Policy,
    /// One for each pipeline of the layout, in its order.
    pub(super) lanes: Vec<Lane>,
    pub(super) items: BTreeMap<ItemId, Item>,
    pub(super) sets: BTreeMap<BuildSetId, ItemId>,
    pub(super) runs: BTreeMap<RunId, ItemId>,
    pub(super) reports: BTreeMap<ReportId, Report>,
    /// Changes as last seen: those of items, those that they need, and some more.
    pub(super) views: BTreeMap<ChangeKey, Arc<Change>>,
    /// Runs that hold a place of a semaphore; also such as are not wanted any more, until they are certainly over.
    pub(super) holders: BTreeMap<RunId, String>,
    /// Changes that another queue keeps out.
    pub(super) waiting: BTreeMap<WaitingId, Waiting>,
    /// Those of them that are to be looked at anew.
    pub(super) woken: BTreeSet<WaitingId>,
    pub(super) next_order: u64,
    pub(super) changes: Changes,
    /// Queues to walk through.
    pub(super) dirty: BTreeSet<(usize, u64)>,
    views_limit: usize,
    /// What followed from the views that came with something refused: part of the next answer.
    pub(super) unsaid: Answer,
}

/// What every step of one input needs.
pub(super) struct Turn<'a> {
    pub(super) now: Time,
    pub(super) ids: &'a mut dyn FnMut() -> u128,
    pub(super) answer: Answer,
    /// Zuul's own events that this input led to.
    pub(super) events: VecDeque<TriggerEvent>,
}

impl Turn<'_> {
    pub(super) fn note(
        &mut self,
        code: &'static str,
        pipeline: Option<&Pipeline>,
        subject: Option<&Subject>,
        text: impl Into<String>,
    ) {
        self.answer.notes.push(Note {
            code,
            pipeline: pipeline.map(|p| p.name.clone()),
            subject: subject.cloned(),
            text: text.into(),
        });
    }
}

impl Gate {
    /// An empty one.
    #[must_use]
    pub fn new(layout: Arc<Layout>, policy: Policy) -> Gate {
        let lanes = layout.pipelines.iter().map(|p| super::lane::lane(&layout, p)).collect();
        Gate {
            layout,
            policy,
            lanes,
            items: BTreeMap::new(),
            sets: BTreeMap::new(),
            runs: BTreeMap::new(),
            reports: BTreeMap::new(),
            views: BTreeMap::new(),
            holders: BTreeMap::new(),
            waiting: BTreeMap::new(),
            woken: BTreeSet::new(),
            next_order: 0,
            changes: Changes::default(),
            dirty: BTreeSet::new(),
            views_limit: SPARE_VIEWS,
            unsaid: Answer::default(),
        }
    }

    /// Takes one input. Of what is refused only the views of changes that came with it count; what follows from these is
    /// part of the next answer.
    ///
    /// # Errors
    /// Orders by hand that cannot be carried out. Events and outcomes are never refused: unknown ones change nothing.
    pub fn on(
        &mut self,
        input: Input,
        now: Time,
        ids: &mut dyn FnMut() -> u128,
    ) -> Result<Answer, Refused> {
        let mut turn = Turn { now, ids, answer: Answer::default(), events: VecDeque::new() };
        let taken = self.take(input, &mut turn);
        self.settle(&mut turn);
        self.unsaid.append(turn.answer);
        taken.map(|()| std::mem::take(&mut self.unsaid))
    }

    fn take(&mut self, input: Input, turn: &mut Turn<'_>) -> Result<(), Refused> {
        match input {
            Input::Event { event, changes } => {
                self.see(changes, turn);
                self.happened(&event, turn);
            }
            Input::Changes(changes) => self.see(changes, turn),
            Input::Merge { build_set, outcome } => self.merged(build_set, outcome, turn),
            Input::Run { run, update } => self.run_news(run, update, turn),
            Input::Report { report, outcome } => self.reported(report, outcome, turn),
            Input::Enqueue { pipeline, subject, changes } => {
                self.see(changes, turn);
                self.enqueue_by_hand(&pipeline, subject, turn)?;
            }
            Input::Dequeue { pipeline, subject } => {
                self.dequeue_by_hand(&pipeline, &subject, turn)?;
            }
            Input::Promote { pipeline, changes } => self.promote(&pipeline, &changes)?,
            Input::Layout(layout) => self.reconfigure(layout, turn),
            Input::Tick => {}
        }
        Ok(())
    }

    /// What changed since the last call: rows to write.
    pub fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// Walks and takes its own events until nothing is left to do.
    fn settle(&mut self, turn: &mut Turn<'_>) {
        loop {
            if let Some((lane, queue)) = self.dirty.pop_first() {
                self.walk(lane, queue, turn);
            } else if let Some(event) = turn.events.pop_front() {
                self.happened(&event, turn);
            } else if !self.try_woken(turn) {
                break;
            }
        }
        self.grant_semaphores(turn);
        self.forget_views();
    }

    /// The pipeline of a lane.
    pub(super) fn pipeline(&self, lane: usize) -> &Pipeline {
        &self.layout.pipelines[lane]
    }

    /// The lane of an item's pipeline. Every item's pipeline is in the layout: see `rows`.
    pub(super) fn lane_of(&self, item: &Item) -> Option<usize> {
        self.layout.pipelines.iter().position(|p| p.name == item.pipeline)
    }

    /// The queue that an item stands in.
    pub(super) fn queue_of(&self, lane: usize, item: &Item) -> Option<u64> {
        match self.pipeline(lane).manager {
            Manager::Independent => Some(item.group),
            Manager::Dependent => self.lanes[lane].by_project.get(&item.project).copied(),
        }
    }

    /// The queues of a lane, the one with the oldest or promoted item first.
    pub(super) fn queues_in_order(&self, lane: usize) -> Vec<u64> {
        let queues = &self.lanes[lane].queues;
        let mut numbers: Vec<u64> = queues.keys().copied().collect();
        match self.pipeline(lane).manager {
            Manager::Dependent => {}
            Manager::Independent => numbers.sort_by_cached_key(|number| {
                let first = queues.get(number).and_then(|queue| queue.items.first());
                first.and_then(|id| self.items.get(id)).map(|item| item.order)
            }),
        }
        numbers
    }

    /// Lane and queue of an item.
    pub(super) fn place(&self, id: ItemId) -> Option<(usize, u64)> {
        let item = self.items.get(&id)?;
        let lane = self.lane_of(item)?;
        Some((lane, self.queue_of(lane, item)?))
    }

    /// The change of a subject as last seen.
    pub(super) fn view(&self, subject: &Subject) -> Option<&Arc<Change>> {
        match subject {
            Subject::Change(key) => self.views.get(key),
            Subject::Ref(_) | Subject::Branch { .. } => None,
        }
    }

    /// The item's row must be written, its queue walked.
    pub(super) fn touch(&mut self, id: ItemId) {
        self.changes.items.insert(id);
        if let Some(place) = self.place(id) {
            self.dirty.insert(place);
        }
    }

    /// The jobs of a subject by this layout.
    pub(super) fn freeze(&self, layout: &Layout, item: &Item) -> Arc<Frozen> {
        let change = self.view(&item.subject).map(AsRef::as_ref);
        jobs::freeze(layout, &item.pipeline, &item.project, &item.subject, change)
    }

    /// Runs that are not wanted any more. Their places of semaphores stay taken until they are certainly over.
    pub(super) fn forget_runs(&mut self, runs: impl IntoIterator<Item = RunId>) {
        for run in runs {
            self.runs.remove(&run);
        }
    }

    /// Takes the item out. Its runs are no longer wanted, nor is the report that would merge it.
    pub(super) fn remove(&mut self, id: ItemId, end: End, turn: &mut Turn<'_>) {
        let place = self.place(id);
        let Some(item) = self.items.remove(&id) else { return };
        let left = self.left(&item, end);
        self.forget_runs(item.set.runs());
        self.sets.remove(&item.set.id);
        if let Phase::Merging(report) = item.phase {
            self.drop_report(report);
        }
        if let Some((lane, number)) = place {
            self.rewire(lane, number, &item);
            let lanes = &mut self.lanes[lane];
            if lanes.live.get(&item.subject) == Some(&id) {
                lanes.live.remove(&item.subject);
            }
            if let Some(queue) = lanes.queues.get_mut(&number) {
                queue.items.retain(|other| *other != id);
            }
            self.dirty.insert((lane, number));
        }
        self.changes.items.remove(&id);
        self.changes.removed_items.insert(id);
        turn.answer.left.push(left);
    }

    /// What is said of an item that leaves. Asked before the report that merges it is dropped.
    pub(super) fn left(&self, item: &Item, end: End) -> Left {
        let told = self.reports.values().filter(|report| report.item == item.id);
        let last = told.max_by_key(|report| report.number);
        let change = self.view(&item.subject);
        let jobs = item.set.frozen.jobs.iter().enumerate();
        Left {
            item: item.id,
            pipeline: item.pipeline.clone(),
            subject: item.subject.clone(),
            project: item.project.clone(),
            title: change.map(|c| c.title.clone()).unwrap_or_default(),
            url: change.map(|c| c.url.clone()).unwrap_or_default(),
            live: item.live,
            enqueued: item.enqueued,
            end,
            jobs: jobs.map(|(at, frozen)| self.job_view(item, at, frozen)).collect(),
            message: last.map(|report| report.message.clone()).unwrap_or_default(),
        }
    }

    /// What was built on a merged item stands on the branch now, as that item did. What was built on an item that left
    /// otherwise keeps the name of a build set that is no more, so that the next walk starts it anew.
    fn rewire(&mut self, lane: usize, number: u64, gone: &Item) {
        if self.view(&gone.subject).is_none_or(|change| change.state != ChangeState::Merged) {
            return;
        }
        let Some(queue) = self.lanes[lane].queues.get(&number) else { return };
        for id in &queue.items {
            if let Some(item) = self.items.get_mut(id)
                && item.base == Some(gone.set.id)
            {
                item.base = gone.base;
                self.changes.items.insert(*id);
            }
        }
    }

    /// Takes in fresh views of changes.
    pub(super) fn see(&mut self, changes: Vec<Change>, turn: &mut Turn<'_>) {
        let mut fresh: BTreeSet<ChangeKey> = BTreeSet::new();
        let mut moved: BTreeSet<ChangeKey> = BTreeSet::new();
        for mut change in changes {
            // What is merged stays merged: a view that was fetched before may come after.
            if self.views.get(&change.key).is_some_and(|c| c.state == ChangeState::Merged) {
                change.state = ChangeState::Merged;
            }
            if change.current {
                self.outdate(&change.key, &mut fresh);
            }
            let (key, revision) = (change.key.clone(), change.revision.clone());
            fresh.insert(key.clone());
            let before = self.views.insert(key.clone(), Arc::new(change));
            if before.is_some_and(|before| before.revision != revision) {
                moved.insert(key);
            }
        }
        self.touch_readers(&fresh);
        self.leave_moved(&moved, turn);
        for key in &fresh {
            self.leave_if_abandoned(key, turn);
        }
    }

    /// The same patchset was pushed anew, as a plain git source allows: what was built with its old commit starts anew.
    /// What is just being merged is merged as it was tested, or refused by its source.
    fn leave_moved(&mut self, moved: &BTreeSet<ChangeKey>, turn: &mut Turn<'_>) {
        let holds = |link: &MergeItem| match &link.subject {
            MergeSubject::Change { key, .. } => moved.contains(key),
            MergeSubject::Ref(_) | MergeSubject::Tip => false,
        };
        let stale =
            |item: &&Item| item.phase == Phase::Testing && item.set.series.iter().any(holds);
        let stale: Vec<ItemId> = self.items.values().filter(stale).map(|item| item.id).collect();
        for id in stale {
            self.start_anew(id, turn);
            self.touch(id);
        }
    }

    /// Older patchsets are not current any more.
    fn outdate(&mut self, current: &ChangeKey, changed: &mut BTreeSet<ChangeKey>) {
        let first = ChangeKey { patchset: String::new(), ..current.clone() };
        let same = self.views.range_mut(first..).take_while(|(key, _)| key.same_change(current));
        for (key, view) in same.filter(|(key, view)| *key != current && view.current) {
            Arc::make_mut(view).current = false;
            changed.insert(key.clone());
        }
    }

    /// Items that are about one of these changes or need one: their rows hold the views.
    pub(super) fn touch_readers(&mut self, fresh: &BTreeSet<ChangeKey>) {
        if fresh.is_empty() {
            return;
        }
        let reads = |item: &Item| {
            let Subject::Change(key) = &item.subject else { return false };
            let needs =
                || self.views.get(key).is_some_and(|c| c.needs.iter().any(|n| fresh.contains(n)));
            fresh.contains(key) || needs()
        };
        let readers: Vec<ItemId> =
            self.items.values().filter(|item| reads(item)).map(|item| item.id).collect();
        for id in readers {
            self.touch(id);
            self.refresh_context(id);
        }
        self.wake_waiting(fresh);
    }

    /// Forgets views that no item reads, now and then.
    fn forget_views(&mut self) {
        if self.views.len() <= self.views_limit {
            return;
        }
        let mut read: BTreeSet<ChangeKey> = BTreeSet::new();
        for item in self.items.values() {
            let Subject::Change(key) = &item.subject else { continue };
            read.insert(key.clone());
            read.extend(self.views.get(key).into_iter().flat_map(|c| c.needs.iter().cloned()));
        }
        for (id, waiting) in &self.waiting {
            read.extend([id.change.clone(), waiting.needs.clone()]);
            read.extend(self.views.get(&id.change).into_iter().flat_map(|c| c.needs.clone()));
        }
        self.views.retain(|key, _| read.contains(key));
        self.views_limit = self.views.len() * 2 + SPARE_VIEWS;
    }
}
