//! What is built for an item: the merge of everything ahead with it, and its jobs' runs.

use super::gate::{Gate, Turn};
use super::input::{MergeOutcome, RunResult, RunUpdate, Subject};
use super::item::{Done, Item, JobState, MergeState};
use super::jobs::{Frozen, NOOP};
use super::wanted::{MergeItem, MergeSubject, RunContext};
use crate::event::{Branch, Change, ChangeState, ProjectKey};
use crate::id::{BuildSetId, ItemId, RunId};
use crate::layout::{Layout, Manager, MergeMode};
use crate::time::Time;
use core::time::Duration;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Pause after the first merge that could not be tried; doubled each time.
const MERGE_PAUSE_FIRST: Duration = Duration::from_secs(2);
/// Longest pause between tries of a merge.
const MERGE_PAUSE_MAX: Duration = Duration::from_secs(5 * 60);
/// Tries of a merge, over some six hours; then the change's owner is told.
const MERGE_TRIES_MAX: u32 = 80;

/// Tries of a merge whose ref or branch its source does not have, over half a minute; then the change's owner is told.
const GONE_TRIES_MAX: u32 = 5;

/// `first`, doubled with each failure, at most `most`.
pub(super) fn pause(failures: u32, first: Duration, most: Duration) -> Duration {
    let factor = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    first.saturating_mul(factor.max(1)).min(most)
}

impl Gate {
    /// Asks for the merge, when that was not done yet.
    pub(super) fn prepare(&mut self, id: ItemId, lane: usize, base: Option<BuildSetId>, now: Time) {
        let Some(item) = self.items.get(&id) else { return };
        if item.set.merge != MergeState::New {
            return;
        }
        let chain = self.chain(lane, item, base);
        let series: Vec<MergeItem> = chain.iter().filter_map(|id| self.link(*id)).collect();
        let changes = chain.iter().filter_map(|id| self.change_words(*id)).collect();
        let Some(item) = self.items.get_mut(&id) else { return };
        item.base = base;
        item.set.series = series;
        item.set.changes = changes;
        item.set.merge = MergeState::Wanted { failures: 0, not_before: now, why: String::new() };
        self.changes.items.insert(id);
    }

    /// The items that it is built on, oldest first, then itself. Merged ones are part of the branch.
    fn chain(&self, lane: usize, item: &Item, base: Option<BuildSetId>) -> Vec<ItemId> {
        match self.pipeline(lane).manager {
            Manager::Independent => {
                let queue = self.lanes[lane].queues.get(&item.group);
                let ids = queue.map(|q| q.items.as_slice()).unwrap_or_default();
                ids.iter().copied().filter(|id| *id == item.id || !self.is_merged(*id)).collect()
            }
            Manager::Dependent => {
                let mut mates = self.bundle_of(lane, item);
                mates.retain(|mate| *mate != item.id);
                let mut newest_first = vec![item.id];
                newest_first.extend(mates.into_iter().rev());
                let mut at = base;
                while let Some(ahead) =
                    at.and_then(|set| self.sets.get(&set)).and_then(|id| self.items.get(id))
                {
                    newest_first.extend(self.bundle_of(lane, ahead).into_iter().rev());
                    at = ahead.base;
                }
                newest_first.reverse();
                newest_first.retain(|id| *id == item.id || !self.is_merged(*id));
                newest_first
            }
        }
    }

    fn is_merged(&self, id: ItemId) -> bool {
        let view = self.items.get(&id).and_then(|item| self.view(&item.subject));
        view.is_some_and(|change| change.state == ChangeState::Merged)
    }

    fn link(&self, id: ItemId) -> Option<MergeItem> {
        let item = self.items.get(&id)?;
        let mode = |change: &Change| {
            let project = self.layout.projects.get(&change.project);
            project.map_or(MergeMode::default(), |p| p.merge_mode)
        };
        Some(match &item.subject {
            Subject::Change(key) => {
                let change = self.views.get(key)?;
                MergeItem {
                    project: change.project.clone(),
                    branch: change.branch.clone(),
                    subject: MergeSubject::Change {
                        key: key.clone(),
                        reference: change.reference.clone(),
                        revision: change.revision.clone(),
                        mode: mode(change),
                    },
                }
            }
            Subject::Ref(update) => MergeItem {
                project: update.project.clone(),
                // A tag has no branch; its full name is unique all the same.
                branch: Branch::new(update.zuul_name()).ok()?,
                subject: MergeSubject::Ref(update.clone()),
            },
            Subject::Branch { project, branch } => MergeItem {
                project: project.clone(),
                branch: branch.clone(),
                subject: MergeSubject::Tip,
            },
        })
    }

    /// As ZUUL_CHANGES and ZUUL_CHANGE_IDS have it.
    fn change_words(&self, id: ItemId) -> Option<(String, String)> {
        let item = self.items.get(&id)?;
        let Subject::Change(key) = &item.subject else { return None };
        let change = self.views.get(key)?;
        let words = format!("{}:{}:{}", change.project.name, change.branch, change.reference);
        Some((words, key.short()))
    }

    /// How a wanted merge went.
    pub(super) fn merged(&mut self, set: BuildSetId, outcome: MergeOutcome, turn: &mut Turn<'_>) {
        let Some(id) = self.sets.get(&set).copied() else { return };
        let Some(item) = self.items.get_mut(&id) else { return };
        let MergeState::Wanted { failures, .. } = item.set.merge else { return };
        match outcome {
            MergeOutcome::Merged { commits, files } => {
                item.set.commits = commits;
                item.set.files = files;
                item.set.merge = MergeState::Merged;
                self.read_own(id);
            }
            MergeOutcome::Conflict { files, with } => {
                item.set.merge = MergeState::Conflict { files, with };
            }
            MergeOutcome::Gone { why } if failures + 1 >= GONE_TRIES_MAX => {
                item.set.merge = MergeState::GivenUp { why };
            }
            MergeOutcome::Failed { why } if failures + 1 >= MERGE_TRIES_MAX => {
                item.set.merge = MergeState::GivenUp { why };
            }
            MergeOutcome::Gone { why } | MergeOutcome::Failed { why } => {
                let failures = failures + 1;
                let wait = pause(failures, MERGE_PAUSE_FIRST, MERGE_PAUSE_MAX);
                let not_before = turn.now.after(wait);
                item.set.merge = MergeState::Wanted { failures, not_before, why };
            }
        }
        self.touch(id);
    }

    /// Takes the jobs by the project's own configuration, where it has one, and the context of its runs. Runs of jobs
    /// that it does not have any more are no longer wanted.
    pub(super) fn read_own(&mut self, id: ItemId) {
        let Some(item) = self.items.get(&id) else { return };
        let own = self.own_jobs(item);
        let context = Arc::new(self.context(item));
        let Some(item) = self.items.get_mut(&id) else { return };
        item.set.context = Some(context);
        let gone = match own {
            Ok(frozen) => item.set.freeze(frozen),
            Err(errors) => {
                item.set.merge = MergeState::Unreadable { errors };
                item.set.runs().collect()
            }
        };
        self.forget_runs(gone);
    }

    /// The jobs of a merged build set: by the files of its own project, where these are read.
    pub(super) fn own_jobs(&self, item: &Item) -> Result<Arc<Frozen>, String> {
        let layout = self.layout_of(&item.project, &item.set.files)?;
        Ok(self.freeze(&layout, item))
    }

    /// The layout with what the project itself says, where that is read.
    pub(super) fn layout_of(
        &self,
        project: &ProjectKey,
        files: &[(String, String)],
    ) -> Result<Cow<'_, Layout>, String> {
        let own = self.layout.projects.get(project).is_some_and(|p| p.in_repository);
        if own && !files.is_empty() {
            return (self.policy.read)(&self.layout, project, files).map(Cow::Owned);
        }
        Ok(Cow::Borrowed(&self.layout))
    }

    /// Runs see their change as it is now.
    pub(super) fn refresh_context(&mut self, id: ItemId) {
        let Some(item) = self.items.get(&id).filter(|item| item.set.context.is_some()) else {
            return;
        };
        let context = Arc::new(self.context(item));
        if let Some(item) = self.items.get_mut(&id) {
            item.set.context = Some(context);
        }
    }

    fn context(&self, item: &Item) -> RunContext {
        let merged = matches!(item.subject, Subject::Change(_));
        let mut pipelines = self.layout.pipelines.iter();
        let reviewed = pipelines.any(|p| p.name == item.pipeline && p.post_review);
        RunContext {
            pipeline: item.pipeline.clone(),
            post_review: reviewed,
            subject: item.subject.clone(),
            change: self.view(&item.subject).map(|change| Change::clone(change)),
            series: item.set.series.clone(),
            changes: item.set.changes.clone(),
            reference: if merged { reference(item.set.id) } else { String::new() },
            commits: item.set.commits.clone(),
        }
    }

    /// Starts what may start. Jobs with a semaphore are left to [`Gate::grant_semaphores`].
    pub(super) fn launch(&mut self, id: ItemId, turn: &mut Turn<'_>) {
        // A job that is over at once may be another one's condition.
        loop {
            let Some(item) = self.items.get_mut(&id) else { return };
            let mut runs = Vec::new();
            let mut settled = false;
            for at in 0..item.set.jobs.len() {
                let next = match startable(item, at) {
                    Start::No | Start::WithSemaphore => continue,
                    Start::Skip => JobState::settled(RunResult::Skipped, turn.now),
                    Start::Noop => JobState::settled(RunResult::Success, turn.now),
                    Start::Now => {
                        let run = RunId((turn.ids)());
                        runs.push(run);
                        JobState::Wanted { run, attempt: 1, since: turn.now }
                    }
                };
                settled |= next.result().is_some();
                item.set.jobs[at].state = next;
            }
            if settled || !runs.is_empty() {
                self.changes.items.insert(id);
            }
            self.runs.extend(runs.into_iter().map(|run| (run, id)));
            if !settled {
                return;
            }
        }
    }

    /// Free places go to the oldest items that wait for one.
    pub(super) fn grant_semaphores(&mut self, turn: &mut Turn<'_>) {
        // A project's own jobs may take those of the layout.
        let known = || self.layout.jobs.iter().any(|job| job.semaphore.is_some());
        if self.layout.semaphores.is_empty() && !known() {
            return;
        }
        let mut waiting: Vec<(u64, ItemId, usize, String)> = Vec::new();
        for item in self.items.values().filter(|item| item.launchable) {
            for at in 0..item.set.jobs.len() {
                if let Start::WithSemaphore = startable(item, at)
                    && let Some(held) = &item.set.frozen.jobs[at].job.semaphore
                {
                    waiting.push((item.order, item.id, at, held.name.clone()));
                }
            }
        }
        waiting.sort();
        let mut taken: BTreeMap<String, u32> = BTreeMap::new();
        for name in self.holders.values() {
            *taken.entry(name.clone()).or_default() += 1;
        }
        for (_, id, at, name) in waiting {
            let places = self.layout.semaphores.get(&name).copied().unwrap_or(1).max(1);
            let used = taken.entry(name.clone()).or_default();
            let Some(item) = self.items.get_mut(&id).filter(|_| *used < places) else { continue };
            *used += 1;
            let run = RunId((turn.ids)());
            item.set.jobs[at].state = JobState::Wanted { run, attempt: 1, since: turn.now };
            self.runs.insert(run, id);
            self.holders.insert(run, name);
            self.changes.items.insert(id);
            self.changes.state = true;
        }
    }

    /// News of a run; of one that is not wanted any more only its end counts, as it frees a semaphore.
    pub(super) fn run_news(&mut self, run: RunId, update: RunUpdate, turn: &mut Turn<'_>) {
        let Some(id) = self.runs.get(&run).copied() else {
            match update {
                RunUpdate::Started { .. } => {}
                RunUpdate::Finished { .. } => {
                    self.changes.state |= self.holders.remove(&run).is_some();
                }
            }
            return;
        };
        let Some(item) = self.items.get_mut(&id) else { return };
        let Some(at) = item.set.jobs.iter().position(|slot| slot.state.run() == Some(run)) else {
            return;
        };
        let attempts = item.set.frozen.jobs[at].job.run.attempts.max(1);
        let next = after(&item.set.jobs[at].state, update, attempts, turn);
        item.set.jobs[at].state = next;
        let now_wanted = item.set.jobs[at].state.run();
        if now_wanted != Some(run) {
            self.runs.remove(&run);
            let held = self.holders.remove(&run);
            self.changes.state |= held.is_some();
            if let Some(again) = now_wanted {
                self.runs.insert(again, id);
                // The next attempt keeps the place.
                self.holders.extend(held.map(|name| (again, name)));
            }
        }
        self.touch(id);
    }
}

/// What may happen to a job now.
enum Start {
    No,
    Skip,
    Noop,
    Now,
    WithSemaphore,
}

fn startable(item: &Item, at: usize) -> Start {
    let frozen = &item.set.frozen.jobs[at];
    match &item.set.jobs[at].state {
        JobState::Waiting => {}
        JobState::Wanted { .. } | JobState::Running { .. } | JobState::Done(_) => return Start::No,
    }
    let results = || frozen.needs.iter().map(|need| item.set.jobs[*need].state.result());
    if results().flatten().any(|result| result != RunResult::Success) {
        return Start::Skip;
    }
    if results().any(|result| result.is_none()) {
        return Start::No;
    }
    match &frozen.job.semaphore {
        _ if frozen.job.name.0 == NOOP => Start::Noop,
        Some(_) => Start::WithSemaphore,
        None => Start::Now,
    }
}

/// The state of a job after news of its run.
fn after(state: &JobState, update: RunUpdate, attempts: u32, turn: &mut Turn<'_>) -> JobState {
    let (run, attempt, begun, known_url) = match state {
        JobState::Wanted { run, attempt, .. } => (*run, *attempt, None, String::new()),
        JobState::Running { run, attempt, started, url } => {
            (*run, *attempt, Some(*started), url.clone())
        }
        JobState::Waiting | JobState::Done(_) => return state.clone(),
    };
    match update {
        RunUpdate::Started { at, url } => {
            JobState::Running { run, attempt, started: begun.unwrap_or(at), url }
        }
        RunUpdate::Finished { result, .. } if result.is_infrastructure() && attempt < attempts => {
            JobState::Wanted { run: RunId((turn.ids)()), attempt: attempt + 1, since: turn.now }
        }
        RunUpdate::Finished { at, result, url, note } => {
            let url = if url.is_empty() { known_url } else { url };
            let (result, note) = if result.is_infrastructure() {
                (RunResult::RetryLimit, format!("{}: {note}", result.word()))
            } else {
                (result, note)
            };
            JobState::Done(Done {
                run: Some(run),
                attempt,
                result,
                started: begun,
                ended: at,
                url,
                note,
            })
        }
    }
}

/// The last part of a build set's refs.
pub(super) fn reference(set: BuildSetId) -> String {
    format!("Z{set}")
}
