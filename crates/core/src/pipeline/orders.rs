//! Orders by hand.

use super::answer::End;
use super::enter::name;
use super::gate::{Gate, Turn};
use super::input::Subject;
use super::item::Phase;
use crate::event::ChangeKey;
use crate::id::ItemId;
use crate::layout::{Manager, PipelineName};
use crate::refused::Refused;
use std::collections::BTreeSet;

impl Gate {
    /// Out with it, without a report.
    pub(super) fn dequeue_by_hand(
        &mut self,
        pipeline: &PipelineName,
        subject: &Subject,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refused> {
        let lane = self.lane_named(pipeline)?;
        if let Subject::Change(key) = subject
            && self.stop_waiting(&self.waiting_id(lane, key))
        {
            return Ok(());
        }
        let id = self.live_item(lane, subject)?;
        self.remove(id, End::Dequeued, turn);
        Ok(())
    }

    fn live_item(&self, lane: usize, subject: &Subject) -> Result<ItemId, Refused> {
        self.lanes[lane].live.get(subject).copied().ok_or_else(|| {
            Refused::new(
                "not_enqueued",
                format!("{} is not in {}", name(subject), self.pipeline(lane).name),
                "see the pipeline's items; the patchset counts too",
            )
        })
    }

    /// The named changes come first, in this order, each after what it needs; the others of their queues follow as they
    /// were. Runs of items whose base stays the same go on. A change that is being merged stays the first.
    pub(super) fn promote(
        &mut self,
        pipeline: &PipelineName,
        changes: &[ChangeKey],
    ) -> Result<(), Refused> {
        let lane = self.lane_named(pipeline)?;
        let mut named = Vec::new();
        for key in changes {
            named.push(self.live_item(lane, &Subject::Change(key.clone()))?);
        }
        match self.pipeline(lane).manager {
            Manager::Independent => {
                let numbers: Vec<u64> = self.lanes[lane].queues.keys().copied().collect();
                let all: Vec<ItemId> =
                    numbers.iter().flat_map(|n| self.items_of(lane, *n)).collect();
                let groups: BTreeSet<u64> =
                    named.iter().filter_map(|id| self.items.get(id)).map(|i| i.group).collect();
                let mut first: Vec<ItemId> = Vec::new();
                for id in &named {
                    let group = self.items.get(id).map_or(0, |item| item.group);
                    first.extend(
                        self.items_of(lane, group)
                            .iter()
                            .filter(|i| !first.contains(i))
                            .copied()
                            .collect::<Vec<_>>(),
                    );
                }
                let grouped =
                    |id: &ItemId| self.items.get(id).is_some_and(|i| groups.contains(&i.group));
                let rest: Vec<ItemId> = all.into_iter().filter(|id| !grouped(id)).collect();
                self.reorder(lane, first.into_iter().chain(rest).collect());
            }
            Manager::Dependent => {
                let numbers: BTreeSet<u64> = named
                    .iter()
                    .filter_map(|id| self.items.get(id))
                    .filter_map(|item| self.queue_of(lane, item))
                    .collect();
                for number in numbers {
                    self.promote_in(lane, number, &named);
                }
            }
        }
        Ok(())
    }

    fn items_of(&self, lane: usize, number: u64) -> Vec<ItemId> {
        self.lanes[lane].queues.get(&number).map(|q| q.items.clone()).unwrap_or_default()
    }

    fn promote_in(&mut self, lane: usize, number: u64, named: &[ItemId]) {
        let before = self.items_of(lane, number);
        let mut order: Vec<ItemId> = Vec::new();
        let mut placed: BTreeSet<ItemId> = BTreeSet::new();
        let merging = |id: &&ItemId| {
            self.items.get(id).is_some_and(|item| matches!(item.phase, Phase::Merging(_)))
        };
        let first: Vec<ItemId> = before.iter().filter(merging).copied().collect();
        for id in first.iter().chain(named.iter().filter(|id| before.contains(id))).chain(&before) {
            self.place_after_needs(lane, *id, &mut placed, &mut order);
        }
        self.reorder(lane, order);
    }

    /// What it needs and its bundle go with it.
    fn place_after_needs(
        &self,
        lane: usize,
        id: ItemId,
        placed: &mut BTreeSet<ItemId>,
        order: &mut Vec<ItemId>,
    ) {
        // The way is taken back: what is needed most deeply comes first.
        let mut stack = vec![(id, false)];
        while let Some((id, needs_placed)) = stack.pop() {
            if needs_placed {
                order.push(id);
                continue;
            }
            if !placed.insert(id) {
                continue;
            }
            let Some(item) = self.items.get(&id) else { continue };
            let mates = self.bundle_of(lane, item);
            placed.extend(&mates);
            stack.extend(mates.iter().rev().map(|mate| (*mate, true)));
            let views = mates
                .iter()
                .filter_map(|m| self.items.get(m))
                .filter_map(|m| self.view(&m.subject));
            let needs = views.flat_map(|change| change.needs.iter());
            let needed =
                needs.filter_map(|key| self.lanes[lane].live.get(&Subject::Change(key.clone())));
            stack.extend(needed.map(|needed| (*needed, false)));
        }
    }

    /// The same places in another sequence.
    fn reorder(&mut self, lane: usize, ids: Vec<ItemId>) {
        let mut places: Vec<u64> =
            ids.iter().filter_map(|id| self.items.get(id)).map(|item| item.order).collect();
        places.sort_unstable();
        for (id, order) in ids.iter().zip(places) {
            if let Some(item) = self.items.get_mut(id)
                && item.order != order
            {
                item.order = order;
            }
            self.touch(*id);
        }
        let items = &self.items;
        for queue in self.lanes[lane].queues.values_mut() {
            queue.items.sort_by_key(|id| items.get(id).map_or(0, |item| item.order));
        }
    }
}
