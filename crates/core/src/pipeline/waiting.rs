//! Changes that may be merged but for one that they need and that is gated in another queue.
//!
//! Queues are merged independently of each other, so such a change cannot stand in a queue. It is remembered outside of
//! them, on disk too, and looked at anew whenever the gate sees a fresh view of it or of a change that it needs: it enters
//! when the needed ones have merged, and is forgotten when it may not enter any more for another reason.

use super::answer::Note;
use super::gate::{Gate, Turn};
use super::input::Subject;
use super::needs::Because;
use crate::event::{Change, ChangeKey, SourceName};
use crate::layout::{Manager, PipelineName};
use crate::time::Time;
use core::fmt;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Changes that wait outside of the queues at most; beyond that the oldest is forgotten, and that is noted.
const WAITING_MAX: usize = 1_000;

/// Which change waits before which pipeline.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WaitingId {
    /// The pipeline.
    pub pipeline: PipelineName,
    /// The change.
    pub change: ChangeKey,
}

impl fmt::Display for WaitingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pipeline, self.change)
    }
}

/// What it waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Waiting {
    /// The change that has to merge first.
    pub(super) needs: ChangeKey,
    pub(super) since: Time,
}

/// A change that waits, with everything that is needed to look at it anew, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WaitingRow {
    id: WaitingId,
    waiting: Waiting,
    /// Its change, and those that this one needs.
    views: Vec<Change>,
}

impl WaitingRow {
    /// Which.
    #[must_use]
    pub fn id(&self) -> &WaitingId {
        &self.id
    }
}

impl Gate {
    /// A change could not enter: it is remembered when only another queue keeps it out, and forgotten otherwise.
    pub(super) fn kept_out(
        &mut self,
        lane: usize,
        change: &ChangeKey,
        why: &Because,
        turn: &mut Turn<'_>,
    ) {
        let id = self.waiting_id(lane, change);
        let Because::OtherQueue(needs) = why else {
            self.stop_waiting(&id);
            return;
        };
        let known = self.waiting.get(&id);
        if known.is_some_and(|waiting| waiting.needs == *needs) {
            return;
        }
        let since = known.map_or(turn.now, |waiting| waiting.since);
        turn.answer.notes.push(Note {
            code: why.code(),
            pipeline: Some(id.pipeline.clone()),
            subject: Some(Subject::Change(change.clone())),
            text: format!("{why}: it waits until that is merged"),
        });
        self.changes.waiting.insert(id.clone());
        self.changes.removed_waiting.remove(&id);
        self.waiting.insert(id, Waiting { needs: needs.clone(), since });
        self.bound_waiting(turn);
    }

    fn bound_waiting(&mut self, turn: &mut Turn<'_>) {
        while self.waiting.len() > WAITING_MAX {
            let oldest = self.waiting.iter().min_by_key(|(_, waiting)| waiting.since);
            let Some(oldest) = oldest.map(|(id, _)| id.clone()) else { return };
            turn.answer.notes.push(Note {
                code: "waiting_forgotten",
                pipeline: Some(oldest.pipeline.clone()),
                subject: Some(Subject::Change(oldest.change.clone())),
                text: format!(
                    "more than {WAITING_MAX} changes wait for other queues: the oldest is forgotten, and has to be \
                     approved again"
                ),
            });
            self.stop_waiting(&oldest);
        }
    }

    pub(super) fn waiting_id(&self, lane: usize, change: &ChangeKey) -> WaitingId {
        WaitingId { pipeline: self.pipeline(lane).name.clone(), change: change.clone() }
    }

    /// It has entered, or may not any more. Says whether it waited.
    pub(super) fn stop_waiting(&mut self, id: &WaitingId) -> bool {
        self.woken.remove(id);
        let waited = self.waiting.remove(id).is_some();
        if waited {
            self.changes.waiting.remove(id);
            self.changes.removed_waiting.insert(id.clone());
        }
        waited
    }

    /// No patchset of this change waits any more, but this one.
    pub(super) fn forget_patchsets(
        &mut self,
        source: &SourceName,
        number: u64,
        but: Option<&ChangeKey>,
    ) {
        let same = |id: &&WaitingId| {
            id.change.source == *source && id.change.number == number && Some(&id.change) != but
        };
        let gone: Vec<WaitingId> = self.waiting.keys().filter(same).cloned().collect();
        for id in gone {
            self.stop_waiting(&id);
        }
    }

    /// Those that are about one of these changes or need one are looked at anew.
    pub(super) fn wake_waiting(&mut self, fresh: &BTreeSet<ChangeKey>) {
        let reads = |(id, waiting): &(&WaitingId, &Waiting)| {
            let needs = self.views.get(&id.change).map(|c| c.needs.as_slice()).unwrap_or_default();
            fresh.contains(&id.change)
                || fresh.contains(&waiting.needs)
                || needs.iter().any(|need| fresh.contains(need))
        };
        let woken: Vec<WaitingId> =
            self.waiting.iter().filter(reads).map(|(id, _)| id.clone()).collect();
        self.changes.waiting.extend(woken.iter().cloned());
        self.woken.extend(woken);
    }

    /// Looks at one that was woken. Says whether there was one.
    pub(super) fn try_woken(&mut self, turn: &mut Turn<'_>) -> bool {
        let Some(id) = self.woken.pop_first() else { return false };
        let lane = self.layout.pipelines.iter().position(|p| p.name == id.pipeline);
        match lane {
            Some(lane) => {
                // What stands in the way is noted, and decides whether it goes on waiting.
                let _ = self.enter(lane, &Subject::Change(id.change), false, turn);
            }
            None => {
                self.stop_waiting(&id);
            }
        }
        true
    }

    /// One that was read from disk. What the layout has no place for is forgotten.
    pub(super) fn take_waiting(&mut self, row: WaitingRow) {
        let WaitingRow { id, waiting, views } = row;
        let lane = self.layout.pipelines.iter().position(|p| p.name == id.pipeline);
        let belongs = lane.is_some_and(|lane| self.pipeline(lane).manager == Manager::Dependent);
        if !belongs {
            self.changes.removed_waiting.insert(id);
            return;
        }
        for view in views {
            self.views.entry(view.key.clone()).or_insert_with(|| view.into());
        }
        self.woken.insert(id.clone());
        self.waiting.insert(id, waiting);
    }

    /// The row of a change that waits.
    #[must_use]
    pub fn waiting_row(&self, id: &WaitingId) -> Option<WaitingRow> {
        let waiting = self.waiting.get(id)?.clone();
        let mut keys: BTreeSet<&ChangeKey> = BTreeSet::from([&id.change, &waiting.needs]);
        keys.extend(self.views.get(&id.change).into_iter().flat_map(|change| &change.needs));
        let views = keys.into_iter().filter_map(|key| self.views.get(key));
        let views = views.map(|view| Change::clone(view)).collect();
        Some(WaitingRow { id: id.clone(), waiting, views })
    }

    /// Changes that wait before any pipeline, those first that wait longest.
    #[must_use]
    pub fn waiting_changes(&self) -> Vec<ChangeKey> {
        let mut all: Vec<(Time, &ChangeKey)> =
            self.waiting.iter().map(|(id, waiting)| (waiting.since, &id.change)).collect();
        all.sort();
        let mut seen = BTreeSet::new();
        all.into_iter().map(|(_, key)| key).filter(|key| seen.insert(*key)).cloned().collect()
    }
}
