//! How items end, and what is told of it.
//!
//! Only the report that merges a change keeps its item in the queue until its outcome is in. All others are told from the
//! outbox, however long that takes, and hold up nothing.

use super::answer::End;
use super::build::pause;
use super::enter::name;
use super::gate::{Gate, Turn};
use super::input::{ReportOutcome, RunResult, Subject};
use super::item::{Failing, JobState, Phase};
use super::lane::{grown, shrunk};
use super::message;
use super::wanted::ReportAction;
use crate::event::{Change, ChangeKey, ChangeState, EventKind, Revision};
use crate::id::{ItemId, ReportId};
use crate::layout::{Manager, Pipeline, PipelineName, Reporter};
use crate::time::Time;
use core::time::Duration;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Pause after the first report that did not get through; doubled each time.
const REPORT_PAUSE_FIRST: Duration = Duration::from_secs(2);
/// Longest pause between tries of a report.
const REPORT_PAUSE_MAX: Duration = Duration::from_secs(2 * 60);
/// Tries of a report, over some six hours; then it is given up, and that is noted.
const REPORT_TRIES_MAX: u32 = 200;

/// Something to tell, until it is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) id: ReportId,
    pub(super) item: ItemId,
    /// Those of one item are told in this order.
    pub(super) number: u64,
    pub(super) pipeline: PipelineName,
    pub(super) action: ReportAction,
    pub(super) reporters: Vec<Reporter>,
    pub(super) subject: Subject,
    pub(super) change: Option<Change>,
    pub(super) message: String,
    pub(super) commit: Option<Revision>,
    pub(super) failures: u32,
    pub(super) not_before: Time,
    /// Why it did not get through.
    pub(super) why: String,
}

/// A report that has no id yet.
struct Draft {
    item: ItemId,
    pipeline: PipelineName,
    action: ReportAction,
    reporters: Vec<Reporter>,
    subject: Subject,
    message: String,
    commit: Option<Revision>,
}

impl Gate {
    /// Puts a report of an item into the outbox.
    pub(super) fn tell(
        &mut self,
        id: ItemId,
        action: ReportAction,
        reporters: Vec<Reporter>,
        turn: &mut Turn<'_>,
    ) -> Option<ReportId> {
        let item = self.items.get(&id)?;
        let lane = self.lane_of(item)?;
        let view = self.view(&item.subject);
        let draft = Draft {
            item: id,
            pipeline: item.pipeline.clone(),
            action,
            reporters,
            subject: item.subject.clone(),
            message: message::of(&self.policy, self.pipeline(lane), item, view, action),
            commit: item.set.series.last().and_then(|own| item.set.commit_of(own)).cloned(),
        };
        Some(self.post(draft, turn))
    }

    fn post(&mut self, draft: Draft, turn: &mut Turn<'_>) -> ReportId {
        let id = ReportId((turn.ids)());
        let number = self.next_order;
        self.next_order += 1;
        self.changes.state = true;
        self.drop_stuck_start(draft.item);
        let report = Report {
            id,
            item: draft.item,
            number,
            pipeline: draft.pipeline,
            action: draft.action,
            reporters: draft.reporters,
            change: self.view(&draft.subject).map(|change| Change::clone(change)),
            subject: draft.subject,
            message: draft.message,
            commit: draft.commit,
            failures: 0,
            not_before: turn.now,
            why: String::new(),
        };
        self.reports.insert(id, report);
        self.changes.reports.insert(id);
        id
    }

    /// That an item entered is no news once it ended: a report of it that does not get through holds nothing up.
    fn drop_stuck_start(&mut self, item: ItemId) {
        let stuck =
            |r: &&Report| r.item == item && r.action == ReportAction::Start && r.failures > 0;
        let ids: Vec<ReportId> = self.reports.values().filter(stuck).map(|r| r.id).collect();
        ids.into_iter().for_each(|id| self.drop_report(id));
    }

    pub(super) fn drop_report(&mut self, id: ReportId) {
        if self.reports.remove(&id).is_some() {
            self.changes.reports.remove(&id);
            self.changes.removed_reports.insert(id);
        }
    }

    /// What keeps a change out for good is told as a failure.
    pub(super) fn tell_refusal(
        &mut self,
        lane: usize,
        subject: &Subject,
        why: String,
        turn: &mut Turn<'_>,
    ) {
        let layout = Arc::clone(&self.layout);
        let pipeline = &layout.pipelines[lane];
        let reporters = pipeline.actions.failure.clone();
        if reporters.is_empty() {
            return;
        }
        let draft = Draft {
            item: ItemId((turn.ids)()),
            pipeline: pipeline.name.clone(),
            action: ReportAction::Failure,
            reporters,
            subject: subject.clone(),
            message: message::refusal(pipeline, &format!("This change cannot be tested: {why}.")),
            commit: None,
        };
        self.post(draft, turn);
    }

    /// The first item of its queue: it ends when everything of it is done, its bundle with it.
    pub(super) fn conclude(&mut self, lane: usize, id: ItemId, turn: &mut Turn<'_>) {
        let Some(item) = self.items.get(&id) else { return };
        let members = self.bundle_of(lane, item);
        let all = || members.iter().filter_map(|id| self.items.get(id));
        if !all().all(|item| item.set.complete()) {
            return;
        }
        if all().all(|item| item.failing.is_empty() && item.set.succeeded()) {
            self.succeed(lane, id, turn);
        } else {
            for member in members {
                self.fail(lane, member, turn);
            }
        }
    }

    fn succeed(&mut self, lane: usize, id: ItemId, turn: &mut Turn<'_>) {
        let Some(item) = self.items.get(&id) else { return };
        if item.set.jobs.is_empty() {
            let subject = item.subject.clone();
            let layout = Arc::clone(&self.layout);
            turn.note("no_jobs", Some(&layout.pipelines[lane]), Some(&subject), "no job is for it");
            self.remove(id, End::NoJobs, turn);
            return;
        }
        self.changes.state |= self.lanes[lane].failures != 0;
        self.lanes[lane].failures = 0;
        let (action, reporters) = self.voice(lane, ReportAction::Success);
        let report =
            if reporters.is_empty() { None } else { self.tell(id, action, reporters, turn) };
        match (self.pipeline(lane).manager, report) {
            (Manager::Independent, _) => self.remove(id, End::Succeeded, turn),
            (Manager::Dependent, None) => self.not_merged(lane, id, turn),
            (Manager::Dependent, Some(report)) => {
                if let Some(item) = self.items.get_mut(&id) {
                    item.phase = Phase::Merging(report);
                }
                self.changes.items.insert(id);
            }
        }
    }

    fn fail(&mut self, lane: usize, id: ItemId, turn: &mut Turn<'_>) {
        let Some(item) = self.items.get(&id) else { return };
        let conflict = item.failing.contains(&Failing::MergeConflict);
        let action = if conflict { ReportAction::MergeFailure } else { ReportAction::Failure };
        if !conflict {
            self.lanes[lane].failures = self.lanes[lane].failures.saturating_add(1);
            self.changes.state = true;
        }
        let (action, reporters) = self.voice(lane, action);
        if !reporters.is_empty() {
            self.tell(id, action, reporters, turn);
        }
        self.shrink(lane, id);
        self.remove(id, End::Failed, turn);
    }

    /// Whom to tell. The failure that makes a pipeline disabled is still told as usual.
    fn voice(&mut self, lane: usize, action: ReportAction) -> (ReportAction, Vec<Reporter>) {
        let layout = Arc::clone(&self.layout);
        let pipeline: &Pipeline = &layout.pipelines[lane];
        let actions = &pipeline.actions;
        let lane = &mut self.lanes[lane];
        if lane.disabled {
            return (ReportAction::Disabled, actions.disabled.clone());
        }
        if pipeline.disable_after.is_some_and(|most| most > 0 && lane.failures >= most) {
            lane.disabled = true;
            self.changes.state = true;
        }
        let reporters = match action {
            ReportAction::Start => &actions.start,
            ReportAction::Success => &actions.success,
            ReportAction::Failure => &actions.failure,
            ReportAction::MergeFailure => {
                actions.merge_failure.as_ref().unwrap_or(&actions.failure)
            }
            ReportAction::Disabled => &actions.disabled,
        };
        (action, reporters.clone())
    }

    /// A change that it needs will not be merged before it.
    pub(super) fn end_without_needed(&mut self, id: ItemId, turn: &mut Turn<'_>) {
        let Some(lane) = self.items.get(&id).and_then(|item| self.lane_of(item)) else { return };
        let Some(item) = self.items.get_mut(&id) else { return };
        let runs: Vec<_> = item.set.runs().collect();
        for slot in &mut item.set.jobs {
            if slot.state.result().is_none() {
                slot.state = JobState::settled(RunResult::Skipped, turn.now);
            }
        }
        item.failing = BTreeSet::from([Failing::NeededChange]);
        self.forget_runs(runs);
        self.changes.state = true;
        self.lanes[lane].failures = self.lanes[lane].failures.saturating_add(1);
        let (action, reporters) = self.voice(lane, ReportAction::Failure);
        if !reporters.is_empty() {
            self.tell(id, action, reporters, turn);
        }
        self.shrink(lane, id);
        self.remove(id, End::NeededChangeFailed, turn);
    }

    fn resize(&mut self, lane: usize, id: ItemId, size: fn(u32, &crate::layout::Window) -> u32) {
        let rule = self.pipeline(lane).window;
        let Some(number) = self.items.get(&id).and_then(|item| self.queue_of(lane, item)) else {
            return;
        };
        if self.pipeline(lane).manager == Manager::Dependent
            && let Some(queue) = self.lanes[lane].queues.get_mut(&number)
        {
            queue.window = size(queue.window, &rule);
            self.changes.state = true;
        }
    }

    fn shrink(&mut self, lane: usize, id: ItemId) {
        self.resize(lane, id, shrunk);
    }

    /// Its source did not merge it: everything behind was built on something that is not there.
    fn not_merged(&mut self, lane: usize, id: ItemId, turn: &mut Turn<'_>) {
        self.shrink(lane, id);
        self.remove(id, End::NotMerged, turn);
    }

    fn is_in(&mut self, lane: usize, id: ItemId, key: &ChangeKey, turn: &mut Turn<'_>) {
        if let Some(view) = self.views.get_mut(key) {
            Arc::make_mut(view).state = ChangeState::Merged;
        }
        if self.somebody_hears(EventKind::ProjectChangeMerged)
            && let Some(item) = self.items.get(&id)
        {
            turn.answer.merged_in.push((item.pipeline.clone(), item.project.clone()));
        }
        self.resize(lane, id, grown);
        self.remove(id, End::Succeeded, turn);
        self.touch_readers(&BTreeSet::from([key.clone()]));
    }

    /// How a wanted report went.
    pub(super) fn reported(&mut self, id: ReportId, outcome: ReportOutcome, turn: &mut Turn<'_>) {
        let Some(report) = self.reports.get(&id) else { return };
        let (item, subject) = (report.item, report.subject.clone());
        let merging = self.items.get(&item).filter(|item| item.phase == Phase::Merging(id));
        let merging = merging.and_then(|item| self.lane_of(item));
        match outcome {
            ReportOutcome::Done { merged } => {
                match (merging, &subject) {
                    (Some(lane), Subject::Change(key)) if merged => {
                        self.is_in(lane, item, key, turn)
                    }
                    (Some(lane), _) => self.not_merged(lane, item, turn),
                    (None, _) => {}
                }
                self.drop_report(id);
            }
            ReportOutcome::Later { why } => {
                if self.again_later(id, why, turn.now) {
                    return;
                }
                self.lost_report(id, "report_given_up", turn);
                if let Some(lane) = merging {
                    self.not_merged(lane, item, turn);
                }
            }
            ReportOutcome::Refused { why } => {
                if let Some(report) = self.reports.get_mut(&id) {
                    report.why.clone_from(&why);
                }
                self.lost_report(id, "report_refused", turn);
                if let Some(lane) = merging {
                    let text =
                        format!("This change passed its tests, but could not be merged: {why}");
                    self.tell_not_merged(lane, item, text, turn);
                    self.not_merged(lane, item, turn);
                }
            }
        }
    }

    /// Whether it will be tried again.
    fn again_later(&mut self, id: ReportId, why: String, now: Time) -> bool {
        let Some(report) = self.reports.get(&id) else { return false };
        let (item, action, number) = (report.item, report.action, report.number);
        let younger = |r: &Report| r.item == item && r.number > number;
        if action == ReportAction::Start && self.reports.values().any(younger) {
            self.drop_report(id);
            return true;
        }
        let Some(report) = self.reports.get_mut(&id) else { return false };
        report.failures += 1;
        report.why = why;
        if report.failures >= REPORT_TRIES_MAX {
            return false;
        }
        report.not_before = now.after(pause(report.failures, REPORT_PAUSE_FIRST, REPORT_PAUSE_MAX));
        self.changes.reports.insert(id);
        true
    }

    fn lost_report(&mut self, id: ReportId, code: &'static str, turn: &mut Turn<'_>) {
        let Some(report) = self.reports.get(&id) else { return };
        let text =
            format!("the report of {} was not delivered: {}", name(&report.subject), report.why);
        turn.answer.notes.push(super::answer::Note {
            code,
            pipeline: Some(report.pipeline.clone()),
            subject: Some(report.subject.clone()),
            text,
        });
        self.drop_report(id);
    }

    fn tell_not_merged(&mut self, lane: usize, id: ItemId, text: String, turn: &mut Turn<'_>) {
        let layout = Arc::clone(&self.layout);
        let pipeline = &layout.pipelines[lane];
        let reporters = pipeline.actions.failure.clone();
        let Some(item) = self.items.get(&id).filter(|_| !reporters.is_empty()) else { return };
        let draft = Draft {
            item: id,
            pipeline: pipeline.name.clone(),
            action: ReportAction::Failure,
            reporters,
            subject: item.subject.clone(),
            message: message::refusal(pipeline, &text),
            commit: None,
        };
        self.post(draft, turn);
    }
}
