//! One walk through a queue, from its head: who stands on whom, who may start, who is done.
//!
//! Each item is built on the nearest non-failing item ahead of it. When that is no longer the one it was built on, because
//! something ahead failed or left, its runs are stopped and it starts anew on the right one: a walk of 1,000 items is 1,000
//! short steps, as an item names its base by build set and so notices by itself when that was replaced.

use super::gate::{Gate, Turn};
use super::item::{BuildSet, Failing, Item, MergeState, Phase};
use super::lane::WINDOW_MAX;
use super::needs::Needs;
use crate::event::ChangeState;
use crate::id::{BuildSetId, ItemId};
use crate::layout::Manager;
use std::collections::BTreeSet;

/// What the items so far mean for the next one.
struct Walk {
    lane: usize,
    queue: u64,
    /// The build set of the nearest non-failing item.
    base: Option<BuildSetId>,
    /// Every non-failing item so far is merged, so that a conflict among them cannot come up any more.
    ready: bool,
    /// Some item so far has a job that keeps others from starting theirs.
    holding: bool,
    /// How many items stand before.
    index: usize,
    /// The bundle that the last item belongs to.
    bundle: Option<Bundle>,
    /// Something changed that items before may have to know.
    again: bool,
}

/// What holds for all items of a bundle, because it holds for the first.
#[derive(Clone, Copy)]
struct Bundle {
    number: u64,
    /// What they are built on.
    base: Option<BuildSetId>,
    /// They are worked on: a window that ends among them would never see them done.
    active: bool,
}

impl Gate {
    /// Walks through one queue. It stays dirty when another walk is needed.
    pub(super) fn walk(&mut self, lane: usize, number: u64, turn: &mut Turn<'_>) {
        let Some(queue) = self.lanes.get(lane).and_then(|lane| lane.queues.get(&number)) else {
            return;
        };
        let order = queue.items.clone();
        let mut walk = Walk {
            lane,
            queue: number,
            base: None,
            ready: true,
            holding: false,
            index: 0,
            bundle: None,
            again: false,
        };
        let left = turn.answer.left.len();
        for id in order {
            if self.items.get(&id).is_some_and(|item| item.live) {
                self.step(id, &mut walk, turn);
            }
        }
        if walk.again || turn.answer.left.len() > left {
            self.dirty.insert((lane, number));
        } else {
            self.dirty.remove(&(lane, number));
        }
        self.close_empty(lane, number, turn);
    }

    fn step(&mut self, id: ItemId, walk: &mut Walk, turn: &mut Turn<'_>) {
        let Some(item) = self.items.get(&id) else { return };
        if let Phase::Merging(_) = item.phase {
            walk.base = Some(item.set.id);
            walk.index += 1;
            return;
        }
        let window = self.lanes[walk.lane].queues.get(&walk.queue).map_or(0, |q| q.window);
        let window = if window == 0 { WINDOW_MAX } else { window.min(WINDOW_MAX) };
        let inside = walk.index < usize::try_from(window).unwrap_or(usize::MAX);
        if item.bundle != walk.bundle.map(|bundle| bundle.number) {
            let (base, active) = (walk.base, inside);
            walk.bundle = item.bundle.map(|number| Bundle { number, base, active });
        }
        let active = walk.bundle.map_or(inside, |bundle| bundle.active);
        let needed_fails = match self.needs_of(walk.lane, item) {
            Needs::Met => false,
            Needs::Failing(_) => true,
            Needs::Broken(_) => {
                self.end_without_needed(id, turn);
                return;
            }
        };
        self.mark(id, active, false);
        if needed_fails {
            self.stop_whole(id, turn);
        } else {
            self.advance(id, active, walk, turn);
        }
        self.judge(id, needed_fails, walk, turn);
        if walk.index == 0 {
            self.conclude(walk.lane, id, turn);
        }
        let Some(item) = self.items.get(&id) else { return };
        if item.failing.is_empty() {
            walk.base = Some(item.set.id);
            walk.ready &= item.set.ready();
            walk.holding |= item.set.holds_following().is_some();
        }
        walk.index += 1;
    }

    fn mark(&mut self, id: ItemId, active: bool, launchable: bool) {
        if let Some(item) = self.items.get_mut(&id) {
            item.active = active;
            item.launchable = launchable;
        }
    }

    /// Onto the right base; then merge, then jobs.
    fn advance(&mut self, id: ItemId, active: bool, walk: &Walk, turn: &mut Turn<'_>) {
        let base = match walk.bundle {
            Some(bundle) => bundle.base,
            None => walk.base,
        };
        let Some(item) = self.items.get(&id) else { return };
        if !item.set.untouched() && (item.set.stopped || !self.stands_on(item, base)) {
            self.start_anew(id, turn);
        }
        if !active {
            return;
        }
        self.prepare(id, walk.lane, base, turn.now);
        let ready = self.items.get(&id).is_some_and(|item| item.set.ready());
        if ready && walk.ready && !walk.holding {
            self.mark(id, true, true);
            self.launch(id, turn);
        }
    }

    /// Whether what it was built on is still what it should be built on. That an item ahead was merged changes nothing.
    fn stands_on(&self, item: &Item, base: Option<BuildSetId>) -> bool {
        let merged = |set: BuildSetId| {
            let ahead = self.sets.get(&set).and_then(|id| self.items.get(id));
            let view = ahead.and_then(|ahead| self.view(&ahead.subject));
            view.is_some_and(|change| change.state == ChangeState::Merged)
        };
        item.base == base || item.base.is_some_and(merged)
    }

    /// A new build set; what ran for the old one is no longer wanted.
    pub(super) fn start_anew(&mut self, id: ItemId, turn: &mut Turn<'_>) {
        let layout = std::sync::Arc::clone(&self.layout);
        let Some(item) = self.items.get(&id) else { return };
        // Its own configuration is read anew with the new merge.
        let same = item.set.files.is_empty();
        let frozen = if same { item.set.frozen.clone() } else { self.freeze(&layout, item) };
        let set = BuildSet::new(BuildSetId((turn.ids)()), frozen);
        self.sets.insert(set.id, id);
        let Some(item) = self.items.get_mut(&id) else { return };
        let old = std::mem::replace(&mut item.set, set);
        item.failing.clear();
        self.sets.remove(&old.id);
        self.forget_runs(old.runs());
        self.changes.items.insert(id);
    }

    /// What it needs is failing: nothing of it has to run.
    fn stop_whole(&mut self, id: ItemId, turn: &mut Turn<'_>) {
        let Some(item) = self.items.get_mut(&id) else { return };
        if item.set.stopped {
            return;
        }
        item.set.stopped = true;
        let runs = item.set.stop(turn.now);
        self.forget_runs(runs);
        self.changes.items.insert(id);
    }

    /// Why it will not succeed as it stands.
    fn judge(&mut self, id: ItemId, needed_fails: bool, walk: &mut Walk, turn: &mut Turn<'_>) {
        let Some(item) = self.items.get(&id) else { return };
        let mut failing = BTreeSet::new();
        if !item.set.stopped {
            failing.extend(item.set.own_failure());
        }
        if needed_fails {
            failing.insert(Failing::NeededChange);
        }
        if item.bundle.is_some() {
            let mut mates = self.bundle_of(walk.lane, item).into_iter().filter(|mate| *mate != id);
            let fails = |mate: &Item| {
                mate.set.own_failure().is_some() || mate.failing.contains(&Failing::NeededChange)
            };
            if mates.any(|mate| self.items.get(&mate).is_some_and(fails)) {
                failing.insert(Failing::Cycle);
            }
        }
        let abandons = self.pipeline(walk.lane).abandon_on_failure && !failing.is_empty();
        let Some(item) = self.items.get_mut(&id) else { return };
        if item.failing != failing {
            walk.again |= item.bundle.is_some();
            item.failing = failing;
            self.changes.items.insert(id);
        }
        if abandons && item.set.merge == MergeState::Merged && !item.set.complete() {
            let runs = item.set.stop(turn.now);
            self.changes.items.insert(id);
            self.forget_runs(runs);
        }
    }

    /// The items of its bundle that are still there, in order; itself alone when it has none.
    pub(super) fn bundle_of(&self, lane: usize, item: &Item) -> Vec<ItemId> {
        if item.bundle.is_none() {
            return vec![item.id];
        }
        let queue = self.queue_of(lane, item).and_then(|n| self.lanes[lane].queues.get(&n));
        let ids = queue.map(|q| q.items.as_slice()).unwrap_or_default();
        let same =
            |id: &&ItemId| self.items.get(id).is_some_and(|other| other.bundle == item.bundle);
        ids.iter().filter(same).copied().collect()
    }

    /// An independent queue without a live item has served its time.
    fn close_empty(&mut self, lane: usize, number: u64, turn: &mut Turn<'_>) {
        match self.pipeline(lane).manager {
            Manager::Dependent => return,
            Manager::Independent => {}
        }
        let Some(queue) = self.lanes[lane].queues.get(&number) else { return };
        if queue.items.iter().any(|id| self.items.get(id).is_some_and(|item| item.live)) {
            return;
        }
        for id in queue.items.clone() {
            self.remove(id, super::answer::End::NotNeeded, turn);
        }
        self.lanes[lane].queues.remove(&number);
        self.dirty.remove(&(lane, number));
    }
}
