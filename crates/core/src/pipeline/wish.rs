//! What the world should do now.

use super::build::reference;
use super::gate::Gate;
use super::item::{Item, JobState, MergeState};
use super::report::Report;
use super::wanted::{MergeWish, ReportWish, RunWish, Wanted};
use crate::event::ProjectKey;
use crate::id::ItemId;
use crate::layout::{Manager, Precedence};
use crate::time::Time;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Who shares the nodes fairly with others.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Share<'a> {
    /// A change queue: an item of it is worth nothing before those ahead.
    Queue(u64),
    /// All changes of a project.
    Project(&'a ProjectKey),
}

impl Gate {
    /// Everything that is wanted. Wishes that have to pause say until when.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        let mut merges: Vec<(Reverse<Precedence>, u64, MergeWish)> = Vec::new();
        let mut runs: Vec<(Reverse<Precedence>, u32, u64, RunWish)> = Vec::new();
        for (lane, place) in self.lanes.iter().enumerate() {
            let precedence = self.pipeline(lane).precedence;
            // How many live items stand before: of the same queue where these are merged in order, else of the same
            // project.
            let mut before: BTreeMap<Share<'_>, u32> = BTreeMap::new();
            let numbers = self.queues_in_order(lane);
            let queues =
                numbers.iter().filter_map(|number| Some((*number, place.queues.get(number)?)));
            let ids =
                queues.flat_map(|(number, queue)| queue.items.iter().map(move |id| (number, id)));
            let items = ids.filter_map(|(number, id)| Some((number, self.items.get(id)?)));
            for (number, item) in items.filter(|(_, item)| item.live) {
                let share = match self.pipeline(lane).manager {
                    Manager::Dependent => Share::Queue(number),
                    Manager::Independent => Share::Project(&item.project),
                };
                let count = before.entry(share).or_default();
                let relative = *count;
                *count += 1;
                if let Some(wish) = self.merge_wish(item, precedence) {
                    merges.push((Reverse(precedence), item.order, wish));
                }
                for wish in run_wishes(item, precedence, relative) {
                    runs.push((Reverse(precedence), relative, item.order, wish));
                }
            }
        }
        merges.sort_by_key(|(precedence, order, _)| (*precedence, *order));
        runs.sort_by_key(|(precedence, relative, order, _)| (*precedence, *relative, *order));
        Wanted {
            merges: merges.into_iter().map(|(_, _, wish)| wish).collect(),
            runs: runs.into_iter().map(|(_, _, _, wish)| wish).collect(),
            reports: self.report_wishes(),
            stopping: self
                .holders
                .keys()
                .filter(|run| !self.runs.contains_key(run))
                .copied()
                .collect(),
        }
    }

    /// The next moment after `now` at which a wish ends its pause.
    #[must_use]
    pub fn next_due(&self, now: Time) -> Option<Time> {
        let merges = self.items.values().filter_map(|item| match item.set.merge {
            MergeState::Wanted { not_before, .. } => Some(not_before),
            MergeState::New
            | MergeState::Merged
            | MergeState::Conflict { .. }
            | MergeState::Unreadable { .. }
            | MergeState::GivenUp { .. } => None,
        });
        let reports = self.reports.values().map(|report| report.not_before);
        merges.chain(reports).filter(|due| *due > now).min()
    }

    fn merge_wish(&self, item: &Item, precedence: Precedence) -> Option<MergeWish> {
        let MergeState::Wanted { not_before, .. } = item.set.merge else { return None };
        if item.set.stopped {
            return None;
        }
        let own = self.layout.projects.get(&item.project).is_some_and(|p| p.in_repository);
        Some(MergeWish {
            build_set: item.set.id,
            reference: reference(item.set.id),
            series: item.set.series.clone(),
            files: if own { self.policy.files.clone() } else { Vec::new() },
            precedence,
            not_before,
        })
    }

    /// Of each item only the oldest, so that nobody reads of an end before the start.
    fn report_wishes(&self) -> Vec<ReportWish> {
        let mut first: BTreeMap<ItemId, &Report> = BTreeMap::new();
        for report in self.reports.values() {
            let known = first.entry(report.item).or_insert(report);
            if report.number < known.number {
                *known = report;
            }
        }
        let mut reports: Vec<&Report> = first.into_values().collect();
        reports.sort_by_key(|report| report.number);
        reports.into_iter().map(report_wish).collect()
    }
}

fn report_wish(report: &Report) -> ReportWish {
    ReportWish {
        report: report.id,
        item: report.item,
        pipeline: report.pipeline.clone(),
        action: report.action,
        reporters: report.reporters.clone(),
        subject: report.subject.clone(),
        change: report.change.clone(),
        message: report.message.clone(),
        commit: report.commit.clone(),
        not_before: report.not_before,
    }
}

fn run_wishes(item: &Item, precedence: Precedence, relative: u32) -> Vec<RunWish> {
    let Some(context) = &item.set.context else { return Vec::new() };
    let jobs = item.set.frozen.jobs.iter().zip(&item.set.jobs);
    let wish = |run, attempt, job: &Arc<crate::layout::Job>| RunWish {
        run,
        item: item.id,
        job: Arc::clone(job),
        attempt,
        context: Arc::clone(context),
        precedence,
        relative_priority: relative,
        enqueued: item.enqueued,
    };
    jobs.filter_map(|(frozen, slot)| match slot.state {
        JobState::Wanted { run, attempt, .. } | JobState::Running { run, attempt, .. } => {
            Some(wish(run, attempt, &frozen.job))
        }
        JobState::Waiting | JobState::Done(_) => None,
    })
    .collect()
}
