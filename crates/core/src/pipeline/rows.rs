//! The gate on disk: a row for each item and report, and one for the rest.

use super::answer::{Changes, End, Left};
use super::gate::{Gate, Policy, Turn};
use super::input::Subject;
use super::item::{Item, MergeState, Phase};
use super::report::Report;
use super::waiting::WaitingRow;
use crate::event::{Change, ChangeKey};
use crate::id::{ItemId, ReportId, RunId};
use crate::layout::{Layout, Manager, PipelineName};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An item with everything that is needed to go on with it, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ItemRow {
    item: Item,
    /// Its change, and those that this one needs.
    views: Vec<Change>,
}

impl ItemRow {
    /// Whose.
    #[must_use]
    pub fn id(&self) -> ItemId {
        self.item.id
    }
}

/// A report that is not delivered yet, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReportRow {
    report: Report,
}

impl ReportRow {
    /// Which.
    #[must_use]
    pub fn id(&self) -> ReportId {
        self.report.id
    }
}

/// The rest, as JSON.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StateRow {
    next_order: u64,
    lanes: Vec<LaneRow>,
    /// Semaphores by the runs that hold them.
    holders: Vec<(RunId, String)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct LaneRow {
    pipeline: PipelineName,
    failures: u32,
    disabled: bool,
    /// Window by queue name.
    windows: Vec<(String, u32)>,
}

/// Everything on disk.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Rows {
    /// In any order.
    pub items: Vec<ItemRow>,
    /// In any order.
    pub reports: Vec<ReportRow>,
    /// In any order.
    #[serde(default)]
    pub waiting: Vec<WaitingRow>,
    /// None before the first was written.
    pub state: Option<StateRow>,
}

impl Gate {
    /// A gate as its rows describe it. The layout may be another one than before: items of pipelines or projects that it
    /// does not have leave; jobs that it does not have lose their runs; everything else goes on.
    ///
    /// The next input, if only [`super::Input::Tick`], walks through all queues.
    #[must_use]
    pub fn load(layout: Arc<Layout>, policy: Policy, rows: Rows) -> Gate {
        Gate::load_and_tell(layout, policy, rows).0
    }

    fn load_and_tell(layout: Arc<Layout>, policy: Policy, rows: Rows) -> (Gate, Vec<Left>) {
        let mut gate = Gate::new(layout, policy);
        let mut left = Vec::new();
        let mut items = Vec::new();
        for row in rows.items {
            for view in row.views {
                gate.views.insert(view.key.clone(), Arc::new(view));
            }
            items.push(row.item);
        }
        items.sort_by_key(|item| item.order);
        let state = rows.state.unwrap_or_default();
        gate.next_order = state.next_order;
        gate.take_lanes(&state.lanes);
        for row in rows.reports {
            let report = row.report;
            gate.next_order = gate.next_order.max(report.number + 1);
            gate.reports.insert(report.id, report);
        }
        for item in items {
            gate.next_order = gate.next_order.max(item.order + 1);
            gate.take_item(item, &mut left);
        }
        gate.holders = state.holders.into_iter().collect();
        for row in rows.waiting {
            gate.take_waiting(row);
        }
        (gate, left)
    }

    fn take_lanes(&mut self, rows: &[LaneRow]) {
        for row in rows {
            let place = self.layout.pipelines.iter().position(|p| p.name == row.pipeline);
            let Some(lane) = place.and_then(|place| self.lanes.get_mut(place)) else { continue };
            lane.failures = row.failures;
            lane.disabled = row.disabled;
            let known: BTreeMap<&str, u32> =
                row.windows.iter().map(|(n, w)| (n.as_str(), *w)).collect();
            for queue in lane.queues.values_mut() {
                queue.window = known.get(queue.name.as_str()).copied().unwrap_or(queue.window);
            }
        }
    }

    fn take_item(&mut self, mut item: Item, left: &mut Vec<Left>) {
        let id = item.id;
        let lane = self.lane_of(&item);
        let belongs = |lane: &usize| !item.live || self.takes_part(*lane, &item.project);
        let Some(lane) = lane.filter(belongs) else {
            self.leave_out(item, left);
            return;
        };
        match self.pipeline(lane).manager {
            Manager::Independent => {}
            // It was independent: what was only there to be tested on has no place any more.
            Manager::Dependent if !item.live || !matches!(item.subject, Subject::Change(_)) => {
                self.leave_out(item, left);
                return;
            }
            Manager::Dependent => {}
        }
        let merged = item.set.merge == MergeState::Merged;
        if !merged {
            item.set.freeze(self.freeze(&self.layout, &item));
        }
        self.sets.insert(item.set.id, id);
        let Some(number) = self.queue_of(lane, &item) else { return };
        let (subject, live) = (item.subject.clone(), item.live);
        self.items.insert(id, item);
        if merged {
            self.read_own(id);
        }
        if let Some(item) = self.items.get(&id) {
            self.runs.extend(item.set.runs().map(|run| (run, id)));
        }
        let place = &mut self.lanes[lane];
        place.queues.entry(number).or_default().items.push(id);
        if live {
            place.live.insert(subject, id);
        }
        self.dirty.insert((lane, number));
    }

    fn leave_out(&mut self, item: Item, left: &mut Vec<Left>) {
        self.changes.removed_items.insert(item.id);
        left.push(self.left(&item, End::Unconfigured));
        if let Phase::Merging(report) = item.phase {
            self.drop_report(report);
        }
    }

    /// A new configuration: as if everything were read from disk under it. Pipelines that were disabled are not any more.
    pub(super) fn reconfigure(&mut self, layout: Arc<Layout>, turn: &mut Turn<'_>) {
        let mut rows = self.rows();
        for lane in rows.state.iter_mut().flat_map(|state| &mut state.lanes) {
            lane.failures = 0;
            lane.disabled = false;
        }
        let before = self.take_changes();
        let (mut gate, left) = Gate::load_and_tell(layout, self.policy.clone(), rows);
        let all = gate.items.keys().copied().collect();
        let removed = std::mem::take(&mut gate.changes);
        gate.changes = Changes {
            items: all,
            removed_items: before.removed_items.into_iter().chain(removed.removed_items).collect(),
            reports: &before.reports - &removed.removed_reports,
            removed_reports: before
                .removed_reports
                .into_iter()
                .chain(removed.removed_reports)
                .collect(),
            waiting: gate.waiting.keys().cloned().collect(),
            removed_waiting: before
                .removed_waiting
                .into_iter()
                .chain(removed.removed_waiting)
                .collect(),
            state: true,
        };
        gate.unsaid = std::mem::take(&mut self.unsaid);
        *self = gate;
        turn.answer.left.extend(left);
    }

    /// All rows.
    #[must_use]
    pub fn rows(&self) -> Rows {
        Rows {
            items: self.items.keys().filter_map(|id| self.item_row(*id)).collect(),
            reports: self.reports.keys().filter_map(|id| self.report_row(*id)).collect(),
            waiting: self.waiting.keys().filter_map(|id| self.waiting_row(id)).collect(),
            state: Some(self.state_row()),
        }
    }

    /// The row of an item.
    #[must_use]
    pub fn item_row(&self, id: ItemId) -> Option<ItemRow> {
        let item = self.items.get(&id)?.clone();
        let mut keys: BTreeSet<ChangeKey> = BTreeSet::new();
        if let Subject::Change(key) = &item.subject {
            keys.insert(key.clone());
            keys.extend(self.views.get(key).into_iter().flat_map(|c| c.needs.iter().cloned()));
        }
        let views = keys.iter().filter_map(|key| self.views.get(key));
        Some(ItemRow { item, views: views.map(|view| Change::clone(view)).collect() })
    }

    /// The row of a report.
    #[must_use]
    pub fn report_row(&self, id: ReportId) -> Option<ReportRow> {
        self.reports.get(&id).map(|report| ReportRow { report: report.clone() })
    }

    /// The gate's own row.
    #[must_use]
    pub fn state_row(&self) -> StateRow {
        let lanes = self.layout.pipelines.iter().zip(&self.lanes).map(|(pipeline, lane)| LaneRow {
            pipeline: pipeline.name.clone(),
            failures: lane.failures,
            disabled: lane.disabled,
            windows: match pipeline.manager {
                Manager::Independent => Vec::new(),
                Manager::Dependent => {
                    lane.queues.values().map(|q| (q.name.clone(), q.window)).collect()
                }
            },
        });
        StateRow {
            next_order: self.next_order,
            lanes: lanes.collect(),
            holders: self.holders.iter().map(|(run, name)| (*run, name.clone())).collect(),
        }
    }
}
